# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A transport that counts its requests and keeps what their answers tell beside their bodies.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import time
from collections.abc import Callable

from . import _clock, _http
from ._points import NotApplicable

MOST = 25  # requests of one check, beside its one login


class Tally:
    """What all requests of a check have in common: number, the slowest, the last answer's time, certificate."""

    def __init__(
        self, most: int = MOST, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ):
        self.most, self.clock, self.now = most, clock, now
        self.requests, self.answers, self.slowest = 0, 0, (0.0, "")
        self.date = self.certificate = None

    @property
    def left(self) -> int:
        """Requests that may still be sent."""
        return self.most - self.requests


class Counted(_http.HttpTransport):
    """The transport, with its requests counted in a Tally; raises NotApplicable where no more may be sent."""

    def __init__(self, options: dict, tally: Tally):
        super().__init__(_http.complete(options))
        self.tally = tally

    def _connect(self, deadline: float) -> None:
        super()._connect(deadline)
        if self.connection.tls:
            self.tally.certificate = self.connection.tls.getpeercert() or {}

    def exchange(self, method: str, path: str, headers: dict, body=None, deadline: float | None = None):
        """As HttpTransport's."""
        tally = self.tally
        if tally.left <= 0:
            raise NotApplicable(f"not asked: the {tally.most} requests that a check may send are used up")
        tally.requests += 1
        begun = tally.clock()
        try:
            response = super().exchange(method, path, headers, body, deadline)
        except BaseException:
            self.close()  # what is still to come must not be taken for the next answer
            raise
        took = tally.clock() - begun
        tally.answers += 1
        tally.slowest = max(tally.slowest, (took, path.split("?")[0]))
        date = _clock.server_time(response.headers.get("date"))
        tally.date = tally.date if date is None else date - tally.now() + took / 2
        return response
