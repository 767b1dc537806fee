# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an action runs a module on a host: its output is bounded before it is parsed, and its result passes the gate.

A result that is not filtered makes variables: ansible-core takes `ansible_facts` of any module for facts of the host, which stand above the inventory's.

This room is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import importlib
import json
import re
import typing as t

from ansible.constants import LOCALHOST
from ansible.errors import AnsibleAuthenticationFailure, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _gate, _said

NAMESPACE = "callmetechie.gatecontrol."


def cleaned(err: AnsibleError) -> AnsibleError:
    """An error of a connection, in which a host's SSH server or sudo may have a word, for a person."""
    text = str(err)
    shown = _gate.clean_lines(text, 2000)
    if shown == text:
        return err
    return next(kind for kind in (AnsibleAuthenticationFailure, AnsibleConnectionFailure, AnsibleError) if isinstance(err, kind))(shown)


class Gated(ActionBase):
    """What an action that asks a host has in common with the others."""

    _supports_check_mode = True
    _supports_async = False  # the result of a job that is polled would come past the gate

    _expected: frozenset[str] | None = frozenset(_said.COMMON)  # keys of the result that is waited for; None for all but those that are Ansible's own

    def module(self, name: str, arguments: dict[str, t.Any] | None, task_vars: dict[str, t.Any] | None) -> dict[str, t.Any]:
        """What a module of this collection says on the host, within its schema."""
        return self.passed(NAMESPACE + name, arguments, task_vars, _said.MODULES[name])

    def passed(self, name: str, arguments: dict[str, t.Any] | None, task_vars: dict[str, t.Any] | None, fields: dict[str, _gate.Check]) -> dict[str, t.Any]:
        """Run a module on the host. Its result within a schema, and which Python this action itself found there, so that the next need not look again."""
        self._expected = frozenset({*_said.COMMON, *fields})
        found = _said.result(name.rpartition(".")[2], self._execute_module(name, arguments, task_vars=task_vars), fields)
        key, path = self._discovered_interpreter_key, self._discovered_interpreter
        if key and isinstance(path, str) and re.fullmatch("discovered_interpreter_[a-z]{1,20}", key) and re.fullmatch("/[A-Za-z0-9._/+-]{1,255}", path):
            found["ansible_facts"] = {key: str(path)}
        return found

    def _low_level_execute_command(self, *words: t.Any, **how: t.Any) -> dict[str, t.Any]:
        try:
            return super()._low_level_execute_command(*words, **how)
        except AnsibleError as err:
            raise cleaned(err) from None

    def _transfer_file(self, local_path: t.Any, remote_path: t.Any) -> t.Any:
        try:
            return super()._transfer_file(local_path, remote_path)
        except AnsibleError as err:
            raise cleaned(err) from None

    def _wanted(self, name: str) -> bool:
        return name in self._expected if self._expected is not None else not (name.startswith(("_ansible_", "ansible_")) or name in _said.ANSIBLES_OWN)

    def _parse_returned_data(self, res: dict[str, t.Any], profile: str) -> t.Any:
        """As ansible-core does it, which shows warnings and takes keys for its own before an action sees them: so it is given what is expected, and no more."""
        output, errors = res.get("stdout") or "", res.get("stderr") or ""
        try:
            text = _gate.result_text(output)
            answer = _gate.loads(text, _gate.OUTPUT, _gate.MODULE_DEEP) if text else None
        except _gate.Refused as err:
            answer = {"failed": True, "msg": f"the module's answer was not taken: {err}"}
        if answer is None:  # no result at all, which ansible-core knows to explain
            output = _gate.clean_lines(output, 4000)
        else:
            kept = {name: value for name, value in answer.items() if self._wanted(name)} if isinstance(answer, dict) else {}
            if "warnings" in kept:
                kept["warnings"] = _said.warnings(kept["warnings"])
            output = json.dumps(kept)
        return super()._parse_returned_data(dict(res, stdout=output, stderr=_gate.clean_lines(errors, 4000), stdout_lines=[], stderr_lines=[]), profile)


class Thin(Gated):
    """The module of the action's own name, run on the host, its result within the module's schema."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        why = self._shell_of_a_host(task_vars or {})
        if why:
            return dict(result, failed=True, msg=why, failure={"kind": "play", "status": None})
        name = self._task.action.rpartition(".")[2]
        result.update(self.module(name, None, task_vars))
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _shell_of_a_host(self, task_vars: dict[str, t.Any]) -> str | None:
        """Why a secret of the controller's is not used: the task runs on the controller, and facts of its host choose its shell and folders there.

        They do for connection: local. With delegate_to the variables of the host that it is delegated to do.
        """
        given = self._task.args.get("peers_token") or self._task.args.get("admin_password")
        host = task_vars.get("inventory_hostname")
        if not given or self._connection.transport != "local" or self._task.delegate_to or host in LOCALHOST:
            return None
        from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _play

        if not _play.has_facts(task_vars):
            return None
        return ("facts of %s are known, and they choose shell and folders of a task that runs on the controller by its connection, so no secret was used; "
                "give the task delegate_to: localhost in place of connection: local" % host)


class Either(Thin):
    """The same; for a host that runs no Python (option files) the module's work is done in the controller's own process."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        if self._task.args.get("files") is None:
            return super().run(tmp, task_vars)
        from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _batch, _inside, _play

        try:
            _batch.check(self, task_vars, alone=True)
        except _play.PlayError as err:
            return {"failed": True, "msg": str(err), "failure": err.failure}
        name = self._task.action.rpartition(".")[2]
        found = _inside.run(self, importlib.import_module("ansible_collections.callmetechie.gatecontrol.plugins.modules." + name))
        return _said.result(name, found, _said.MODULES[name])  # the host's own files are read there, and told of


class OnController(ActionBase):
    """The work of a module in the controller's own process, whatever host the task is for; not where facts of that host set what is the collection's."""

    MODULE: t.Any = None  # the module's Python module
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _inside, _play

        result, variables = super().run(tmp, task_vars), task_vars or {}
        try:
            _play.check_facts(variables.get("inventory_hostname", ""), variables)
        except _play.PlayError as err:
            return dict(result, failed=True, msg=str(err), failure=err.failure)
        return dict(result, **_inside.run(self, self.MODULE))
