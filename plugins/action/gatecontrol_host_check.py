# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has a host looked at; a host that cannot be asked is a point too."""
from __future__ import annotations

import typing as t

from ansible.errors import AnsibleError

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _gate, _options, _points, _verify
from ansible_collections.callmetechie.gatecontrol.plugins.plugin_utils._gated import Gated

SSH = ("ssh", "paramiko", "paramiko_ssh", "libssh")


class ActionModule(Gated):
    """Windows hosts are not asked: what the agent needs there is part of Windows."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = dict(super().run(tmp, task_vars), changed=False)
        _checked, params = self.validate_argument_spec(argument_spec=_options.HOST_CHECK)
        points = self._points(task_vars)
        failing = _points.failing(points)
        lines = _points.lines(points, params["width"])
        return dict(result, ok=not failing, failing=failing, points=points, lines=lines)

    def _points(self, task_vars: dict[str, t.Any] | None) -> list[dict[str, str]]:
        if _verify.is_windows(self, task_vars):
            return [{"name": "connection", "outcome": _points.NOT_APPLICABLE,
                     "text": "Windows hosts are not asked; docs/windows.md says what they need"}]
        try:
            answer = self.module("gatecontrol_host_check", None, task_vars)
        except AnsibleError as err:
            answer = {"failed": True, "msg": str(err)}
        if answer.get("failed") or not answer.get("points"):
            words = filter(None, (answer.get(key) for key in ("msg", "module_stderr", "module_stdout")))
            said = _gate.clean(" ".join(words) or "no answer", 300).rstrip(".")
            return [{"name": "connection", "outcome": _points.FAIL,
                     "text": f"the host could not be asked: {said}; look at its address, its user, sudo and its Python"}]
        return [{"name": "connection", "outcome": _points.PASS, "text": self._way()}, *answer["points"]]

    def _way(self) -> str:
        """What a change of the tunnel can count on."""
        name = self._connection.transport
        if name.rpartition(".")[2] in SSH:
            return f"{name}: a change of the tunnel is confirmed over a new connection"
        return f"{name}: a change of the tunnel is confirmed by the server's answer alone"
