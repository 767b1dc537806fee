# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands and other work that end, whatever they wait for.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

LIMIT = 120  # seconds for a command that nobody has set a shorter limit
LEAST = 5  # seconds that even a command which comes late gets, since the way back is one too


class Runner:
    """Runs commands: (argv, stdin=None) -> (exit status, output, errors); 127 where there is no such program, 124 where it took too long.

    path: PATH of the commands, None for the caller's own. until: moment of time.monotonic() at which commands are ended, None without one.
    """

    def __init__(self, path: str | None = None):
        self.until: float | None = None
        self.environment = {"LC_ALL": "C", "LANGUAGE": "C", **({"PATH": path} if path else {})}

    def __call__(self, argv: list[str], stdin: str | None = None) -> tuple[int, str, str]:
        limit = LIMIT if self.until is None else min(LIMIT, max(LEAST, self.until - time.monotonic()))
        try:
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function  # the agent is no module
                argv, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=dict(os.environ, **self.environment), errors="surrogateescape", start_new_session=True)
        except OSError as err:
            return 127, "", "%s: %s" % (argv[0], err.strerror)
        try:
            out, err = process.communicate(stdin, timeout=limit)
        except subprocess.TimeoutExpired:
            # Its children too: one that lives on would keep the pipes open.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe:
                    pipe.close()
            return 124, "", "%s takes longer than %d s" % (argv[0], limit)
        return process.returncode, out, err


def bound(run, until: float | None) -> None:
    """Have the commands of a Runner end at `until`, None: at their own limit; what a test runs commands with may know no limits."""
    if hasattr(run, "until"):
        run.until = until


def within(limit: float, work):
    """(True, what work() returns), or (False, None) where that takes more than `limit` seconds.

    It runs in a thread, which is left behind then and ends with the process. What it raises is raised here.
    """
    box = []

    def worker():
        try:
            box.append((work(), None))
        except BaseException as error:  # whatever it was, it belongs to whoever waits for it
            box.append((None, error))

    thread = threading.Thread(target=worker, daemon=True)
    thread.start()
    thread.join(limit)
    if not box:
        return False, None
    result, error = box[0]
    if error:
        raise error
    return True, result
