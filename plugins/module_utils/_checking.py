# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A check in a process of its own on the controller.

Where a play is interrupted, Ansible ends the processes of its tasks at once, and a peer that was made for the check
would stay. This one is in a session of its own, notices that whoever began it is gone, takes away what it made, and
ends.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

from . import _check, _points, _trial


class Interrupted(BaseException):
    """Whoever asked for the check is gone."""


def report(given: dict) -> dict:
    """The check itself, of what _apart.run is given.

    Returns {"ok", "failing": [names of points], "url", "version", "time", "requests", "logins", "points",
    "tunnel": what a host's config would hold}.
    """
    check = _check.Check(given["options"], given["secrets"], tuple(given["intervals"]))
    tunnel: dict = {}
    try:
        check.read()
        if given["write"] and check.tally.answers:
            trial = _trial.Trial(check, given["policy"])
            trial.run()
            tunnel = trial.seen
    except Interrupted:
        pass
    finally:
        check.finish()
        check.transport.close()
    points = check.points.listed()
    failing = _points.failing(points)
    return {
        "ok": not failing,
        "failing": failing,
        "url": check.options["url"],
        "version": check.version,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "requests": check.tally.requests,
        "logins": check.logins,
        "points": points,
        "tunnel": tunnel,
    }


def _interrupt(_number, _frame):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what follows is cleaning up
    raise Interrupted


def _watch(stream) -> None:
    """End the check when whoever began it is gone."""
    stream.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """What the process does: a line of JSON comes in, one goes out."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        given = json.loads(sys.stdin.readline())
        threading.Thread(target=_watch, args=(sys.stdin,), daemon=True).start()
        sys.stdout.write(json.dumps(report(given)))
        sys.stdout.flush()
    except (BrokenPipeError, Interrupted):
        pass
    os._exit(0)  # the thread still reads
