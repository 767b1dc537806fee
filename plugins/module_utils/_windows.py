# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Windows host as an action sees it: where its agent lies, how that is asked.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import base64
import json

from . import _enrollment, _gate, _said, _verify

AGENT = "%ProgramData%\\GateControl\\gatecontrol_agent.ps1"
# A process of its own: the user's own policy for scripts does not count for it, and cmd, PowerShell and WinRM take the line alike.
COMMAND = "powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -OutputFormat Text -EncodedCommand %s"
SCRIPT = '& "$env:ProgramData\\GateControl\\gatecontrol_agent.ps1" %s; exit $LASTEXITCODE'  # the folder may lie on another drive


def command(*words):
    """The line that has the installed agent do a verb; words: letters, digits and what base64 has, no blanks."""
    return COMMAND % base64.b64encode((SCRIPT % " ".join(words)).encode("utf-16-le")).decode("ascii")


def agent_text():
    """The agent's text as the collection has it."""
    return _verify.role_file("gatecontrol_agent.ps1")


def wanted(question):
    """What the agent of Windows is asked, made of what _verify.wanted gives: its own file in place of those on Linux."""
    return dict(question, files={AGENT: _enrollment.digest(agent_text())} if question["files"] else {})


def ask(action, verb, question, task_vars, read):
    """What the installed agent of this release answers; else what the collection's own does, which is sent in its place.

    action: a Gated; read: what makes an answer of a dictionary that a host gave, it raises _gate.Refused.
    No answer of either is a failure, never "not enrolled": a damaged agent must not lead to a second peer.
    """
    word = base64.b64encode(json.dumps(question).encode("utf-8")).decode("ascii")
    check = ["-WhatIf"] if action._task.check_mode else []
    done = action._low_level_execute_command(command(verb, word, *check))
    try:
        answer = _gate.marked(done.get("stdout") or "", _verify.MARKER)
        if answer and answer.get("version", _verify.VERSION) == _verify.VERSION:
            return dict(read(answer), asked="agent")
    except _gate.Refused:
        pass  # a damaged agent
    quiet = dict(task_vars or {}, ansible_no_target_syslog=True)  # the event log refuses the script's length with a warning
    done = action.passed("ansible.windows.win_powershell", {
        "script": agent_text(), "parameters": {"Command": verb, "Word": word}, "depth": 10}, quiet, _said.WINDOWS["ansible.windows.win_powershell"])
    said = None
    if isinstance(done.get("result"), dict) and not done.get("failed"):
        try:
            return dict(read(done["result"]), asked="module")
        except _gate.Refused as err:
            said = f"its answer is not of the form it must have: {err}"
    said = said or _said.powershell_error(done)
    return {"failed": True, "msg": "the host could not be asked: %s; look into PowerShell on it" % said, "failure": {"kind": "settings", "status": None}}
