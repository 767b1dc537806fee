# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an action runs a module on a host: its output is bounded before it is parsed, and its result passes the gate.

A result that is not filtered makes variables: ansible-core takes `ansible_facts` of any module for facts of the host, which stand above the inventory's.

This room is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import re
import typing as t

from ansible.plugins.action import ActionBase

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _gate, _said

NAMESPACE = "callmetechie.gatecontrol."


class Gated(ActionBase):
    """What an action that asks a host has in common with the others."""

    _supports_check_mode = True
    _supports_async = False  # the result of a job that is polled would come past the gate

    def module(self, name: str, arguments: dict[str, t.Any] | None, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        """What a module of this collection says on the host, within its schema."""
        return self.passed(name, self._execute_module(NAMESPACE + name, arguments, task_vars=task_vars))

    def passed(self, name: str, answer: t.Any, fields: dict[str, _gate.Check] | None = None) -> dict[str, t.Any]:
        """A result within its schema (_said.result), and which Python this action itself found on the host, so that the next need not look again."""
        found = _said.result(name, answer, fields)
        key, path = self._discovered_interpreter_key, self._discovered_interpreter
        if key and isinstance(path, str) and re.fullmatch("discovered_interpreter_[a-z]{1,20}", key) and re.fullmatch("/[A-Za-z0-9._/+-]{1,255}", path):
            found["ansible_facts"] = {key: str(path)}
        return found

    def _parse_returned_data(self, res: dict[str, t.Any], profile: str) -> t.Any:
        """As ansible-core does it, but of an output within bounds only: what is beyond them is no answer."""
        output = res.get("stdout") or ""
        try:
            _gate.bounded(output, _gate.OUTPUT, _gate.MODULE_DEEP)
        except _gate.Refused as err:
            res = dict(res, stdout="", stderr=f"{err}; it was not read")
        return super()._parse_returned_data(dict(res, stderr=(res.get("stderr") or "")[:_gate.ANSWER]), profile)


class Thin(Gated):
    """The module of the action's own name, run on the host, its result within the module's schema."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        name = self._task.action.rpartition(".")[2]
        result.update(self.module(name, None, task_vars))
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return result
