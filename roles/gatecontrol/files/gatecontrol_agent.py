# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent of a host enrolled into GateControl.

  gatecontrol-agent show [--json]      the host's state, for a person or a program
  gatecontrol-agent beat [--json]      report to the server, and ask for a new config when that is due (the timer does it)
  gatecontrol-agent sync [--json]      the same, and ask for a new config now
  gatecontrol-agent verify WANTED      compare the host with what a play wants (base64 of JSON); changes nothing
  gatecontrol-agent confirm WORD       the controller came back: hand out the word that confirms the change under way, or take it, or give its verdict
  gatecontrol-agent checked            the controller asked the server for this host: note the time
  gatecontrol-agent apply | restore    the work of the unit that changes the tunnel, and what it does if it is killed
  gatecontrol-agent recover            the work of the unit that restores the last good config at boot
  gatecontrol-agent repair             the work of the unit that puts back what the tunnel has lost: rules, routes, DNS
  gatecontrol-agent tend               the work of the job that keeps the tunnel of a Mac running

Exit status: 0 all is well, 1 something is not, 2 wrong usage.
"""
from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib/gatecontrol"))

from gatecontrol import _cli, _enrollment, _facts, _run  # noqa: E402


def main(arguments):
    as_json = "--json" in arguments
    words = [word for word in arguments if word != "--json"]
    if not words or words[0] in ("-h", "--help") or words[0] not in _cli.COMMANDS or len(words) != 1 + _cli.COMMANDS[words[0]]:
        print(__doc__)
        return 0 if words[:1] in (["-h"], ["--help"]) else 2
    sys.stdout.reconfigure(errors="backslashreplace")  # the server's words may not fit the terminal's character set
    status, text = _cli.command(_enrollment.Store(), _run.Runner(_facts.PATH), words[0], words[1:], as_json)
    if text:
        print(text)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
