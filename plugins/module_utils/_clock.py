# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's clock against its own record: whether it went back, how that is told, and how it is set forward at boot.

A clock in the past stops a tunnel: certificates are not valid yet, the server refuses handshakes older than the last
one it saw, and time servers may lie behind the tunnel. The record is the last time at which the server answered, so it is a
time that has passed.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import calendar
import email.utils
import time

STEP = 60    # seconds by which a clock may be put back without a word, as time servers do
DAY = 86400  # seconds by which host and server may differ and the host's time still counts as right


def age(then: float, now: float) -> int | None:
    """Seconds since a Unix time; None where that lies in the future, so that nobody can tell."""
    return None if then - now > STEP else max(0, int(now - then))


def recorded(state: dict) -> float:
    """The latest time that the agent's memory knows to have passed, 0 for none."""
    return state.get("clock") or state.get("last_beat") or 0


def behind(state: dict, now: float) -> int:
    """Seconds by which the clock is behind the host's own record; 0 where it is not."""
    back = recorded(state) - now
    return int(back) if back > STEP else 0


def told(state: dict, now: float) -> str | None:
    """The sentence for a clock that is behind, None for one that is not."""
    seconds = behind(state, now)
    return sentence(seconds) if seconds else None


def sentence(seconds: float) -> str:
    """How a clock is told that is so many seconds behind."""
    return "the clock is %s behind this host's own last record" % span(seconds)


def span(seconds: float) -> str:
    """Seconds in the unit a person would take, such as "217 days"."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return "%d %s" % (seconds // size, unit)
    return "%d s" % seconds


def server_time(header: str | None) -> float | None:
    """The Unix time of a Date header; None where it is missing or has another form."""
    try:
        parts = email.utils.parsedate((header or "")[:64])
        return float(calendar.timegm(parts)) if parts else None
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def noted(state: dict, now: float, server: float | None) -> float:
    """The new record once the server has answered at `now`; server: what it says the time is, None where it does not.

    It only grows, but for a record that the server's time shows to be wrong, as after a clock that was in the future. A
    clock that the server contradicts by more than a day is not recorded.
    """
    known, truth = recorded(state), now if server is None else server
    if server is not None and known > server + DAY:
        known = server
    return max(known, now) if abs(truth - now) <= DAY else known


def set_forward(state: dict, now: float | None = None, set_time=None) -> str | None:
    """Set a clock that is behind the record to the record, never back; what was done, None where nothing was to do or
    it is not allowed here.

    set_time: as time.clock_settime with CLOCK_REALTIME, which needs CAP_SYS_TIME; a container has it not.
    """
    words, record = told(state, time.time() if now is None else now), recorded(state)
    if words is None:
        return None
    try:
        (set_time or (lambda seconds: time.clock_settime(time.CLOCK_REALTIME, seconds)))(record)
    except (OSError, OverflowError, AttributeError):
        return None
    return "%s, and was set forward to it" % words
