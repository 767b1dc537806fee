# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of the Windows collections; its result passes the gate, since the host may say anything."""
from __future__ import annotations

import typing as t

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _said
from ansible_collections.callmetechie.gatecontrol.plugins.plugin_utils._gated import Gated


def only_offered(execute: t.Callable[..., dict[str, t.Any]]) -> t.Callable[..., dict[str, t.Any]]:
    """What runs a module for win_copy, which sends whatever files of the controller the host says it lacks: only those that the host was offered are left."""
    def asked(*words: t.Any, **how: t.Any) -> dict[str, t.Any]:
        answer, offered = execute(*words, **how), (how.get("module_args") or {}).get("files") or []
        if "files" in answer:
            lacking = [one.get("src") for one in answer["files"] if isinstance(one, dict)] if isinstance(answer["files"], list) else []
            answer["files"] = [one for one in offered if one["src"] in lacking]
        if "directories" in answer:
            answer["directories"] = []  # of which the role copies none
        return answer
    return asked


class ActionModule(Gated):
    """The module, or the action of its name with what the host says cut before that reads it."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        _checked, params = self.validate_argument_spec(argument_spec={
            "module": {"type": "str", "required": True, "choices": list(_said.WINDOWS)}, "arguments": {"type": "dict", "required": True}})
        name, fields = params["module"], _said.WINDOWS[params["module"]]
        loader = self._shared_loader_obj.action_loader
        if not loader.has_plugin(name):
            result.update(self.passed(name, params["arguments"], task_vars, fields))
            return result
        task = self._task.copy()
        task.args = params["arguments"]
        inner = loader.get(name, task=task, connection=self._connection, play_context=self._play_context, loader=self._loader, templar=self._templar,
                           shared_loader_obj=self._shared_loader_obj)
        self._expected = None  # the action reads more of its modules than it returns
        inner._parse_returned_data = self._parse_returned_data
        inner._execute_module = only_offered(inner._execute_module)
        result.update(_said.result(name.rpartition(".")[2], inner.run(task_vars=task_vars), fields))
        return result
