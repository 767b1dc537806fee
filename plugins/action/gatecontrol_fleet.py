# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module, and says how long a batch will take before it waits for the server's rate limit; a module could only say so afterwards."""
from __future__ import annotations

import time

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

MODULE = "callmetechie.gatecontrol.gatecontrol_fleet"


class ActionModule(ActionBase):
    """The module refuses first, with the numbers; where the play is to wait, they are shown and it is run again."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        arguments = self._task.args
        answer = self._execute_module(MODULE, dict(arguments, pace=False), task_vars=task_vars)
        failure = answer.get("failure") or {}
        if failure.get("kind") == "rate_limited" and "seconds" in failure and boolean(arguments.get("pace") or False):
            end = time.strftime("%H:%M:%S", time.localtime(time.time() + failure["seconds"]))
            Display().warning("The server's rate limit leaves %s of the %s requests that this batch needs, so it goes on until about %s (%d minutes)."
                              % (failure.get("left", 0), failure.get("needed", "few"), end, failure["seconds"] // 60 + 1))
            session = answer.get("session")
            answer = self._execute_module(MODULE, dict(arguments, session=session) if session else arguments, task_vars=task_vars)
            if session:
                answer.setdefault("session", session)
        result.update(answer)
        return result
