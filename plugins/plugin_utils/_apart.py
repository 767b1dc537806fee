# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a check of a server in a process of its own (_checking), and waits for its report.

This room is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _checking, _http, _tally

# The collection's own code on the controller, under a name of its own and with the standard library alone.
BEGIN = ("import sys, types; package = types.ModuleType('gatecontrol'); package.__path__ = [sys.argv[1]]; "
         "sys.modules['gatecontrol'] = package; from gatecontrol import _checking; _checking.main()")
ENDING = 60  # seconds for taking away what was made


def run(given: dict) -> dict:
    """Run a check in a process of its own; what _checking.report returns.

    given: {"options", "secrets", "intervals", "policy", "write": bool}.

    Raises ApiError (protocol) where the process did not answer, within the time that all its requests may take.
    """
    most = (_tally.MOST + 5) * (int(given["options"].get("timeout") or _http.DEFAULTS["timeout"]) + 5)
    argv = [sys.executable, "-IS", "-c", BEGIN, os.path.dirname(os.path.abspath(_checking.__file__))]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(argv, text=True, start_new_session=True, **pipes) as process:
        watch = threading.Timer(most, process.terminate)
        watch.daemon = True
        watch.start()
        errors: list = []
        reader = threading.Thread(target=lambda: errors.append(process.stderr.read()), daemon=True)
        reader.start()
        try:
            process.stdin.write(json.dumps(given) + "\n")
            process.stdin.flush()
            answer = process.stdout.read()
        except BrokenPipeError:
            answer = ""
        finally:
            watch.cancel()
            process.stdin.close()  # it cleans up and ends, if it has not yet
        process.wait(ENDING)
        reader.join(ENDING)
    try:
        return json.loads(answer)
    except ValueError as err:
        last = ("".join(errors).strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise _api.ApiError(f"the check did not end: {last}; run it again", "protocol") from err
