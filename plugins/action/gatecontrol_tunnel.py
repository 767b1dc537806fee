# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arms a change of the tunnel and confirms it over a new connection, in one task, so that no other host stands in between."""
from __future__ import annotations

import time

from ansible.errors import AnsibleError
from ansible.plugins.connection import ConnectionBase

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _change, _gate, _options, _pace, _said, _verify, _windows
from ansible_collections.callmetechie.gatecontrol.plugins.plugin_utils._gated import Gated

SSH = ("ssh", "paramiko", "paramiko_ssh")
MODULE = "gatecontrol_tunnel"
TIMEOUT, QUICK = 3, 3  # seconds for each of the first so many attempts to connect; a host that is slow to answer has the connection's own time from then on
KEEPALIVE = "-o ServerAliveInterval=1 -o ServerAliveCountMax=15"  # and so often it says something, which has its answers led beside a full tunnel


class ActionModule(Gated):
    """Over SSH and on Windows: arm on the host, come back, ask for the verdict. Other connections: the module alone, with the server's answer as proof."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _checked, params = self.validate_argument_spec(argument_spec=_options.TUNNEL)
        started, self._windows = time.monotonic(), False
        if _verify.is_windows(self, task_vars):
            self._windows = True
            result.update(_windows.ask(self, "change", {"state": params["state"], "interface": params["interface"], "timeout": params["confirm_timeout"]},
                                       task_vars, _said.tunnel))
            change = result.pop("armed", None)
            if change:
                self._confirm(change, started + params["confirm_timeout"] + 60, params["interface"], result)
            return result
        arguments = {key: value for key, value in params.items() if value is not None}
        comes_back = self._comes_back()
        if comes_back and params["ssh_connection"] is None:
            # Asked without become: sudo does not pass it on.
            done = self._low_level_execute_command("echo \"$SSH_CONNECTION\"", sudoable=False)
            arguments["ssh_connection"] = _said.ssh_connection(done.get("stdout") or "")
        if comes_back and (arguments.get("ssh_connection") or self._connection.transport in SSH):
            arguments["arm"] = params["state"] == "up"
        result.update(self.module(MODULE, arguments, task_vars))
        change = result.pop("armed", None)
        if change and not result.get("failed"):
            self._confirm(change, started + params["confirm_timeout"] + 60, params["interface"], result,
                          started + _pace.longest(params["confirm_timeout"]))
        return result

    def _comes_back(self):
        """Whether this connection can be made anew, and so shows that the host is still reached: SSH in any of its plugins, those of other collections too."""
        transport = self._connection.transport
        return transport in SSH or (transport != "local" and getattr(type(self._connection), "reset", None) not in (None, ConnectionBase.reset))

    def _confirm(self, change, end, interface, result, last=0):
        """Come back over new connections until the unit has given its verdict; a host that answers is waited for until `last`."""
        word, verdict, trouble, lost = change, None, None, 0
        kept = {name: self._connection.get_option(name) for name in ("timeout", "ssh_extra_args") if self._connection.has_option(name)}
        try:
            for name, value in kept.items():
                self._connection.set_option(name, TIMEOUT if name == "timeout" else " ".join(filter(None, (value, KEEPALIVE))))
            while verdict is None and time.monotonic() < end:
                try:
                    # An old connection that survived would prove nothing, nor would one made before the step: that one brings only the word to confirm with.
                    self._connection.reset()
                    answer = self._ask(word) or {}
                    end = max(end, last)
                    word = answer.get("confirm", word)
                    verdict = answer if "ok" in answer else None
                except AnsibleError as err:
                    trouble, lost = err, lost + 1
                    if lost == QUICK and "timeout" in kept:
                        self._connection.set_option("timeout", max(TIMEOUT, kept["timeout"]))
                    time.sleep(0.5)
        finally:
            for name, value in kept.items():
                self._connection.set_option(name, value)
        if verdict is None:
            result.update(failed=True, rolled_back=None, failure={"kind": "unreachable", "status": None},
                          msg="the host did not come back after the change of %s (%s); it restores its last good config by itself, look at it over "
                              "another way" % (interface, _gate.clean(trouble or "no verdict", 300)))
        elif verdict.get("unrecorded"):
            result.update(failed=True, rolled_back=False, failure={"kind": "file", "status": None},
                          msg="the new config of %s is in use, but the host could not record that (%s); make room there, and the agent does it by itself"
                              % (interface, verdict["unrecorded"]))
        elif not verdict["ok"]:
            back = verdict.get("back") is not False
            result.update(failed=True, rolled_back=back, changed=not back, failure={"kind": "rolled_back", "status": None},
                          msg=_change.failed(interface, verdict))

    def _ask(self, word):
        """The word to confirm with, the unit's verdict, or None where there is neither yet. Raises AnsibleError where the agent did not answer."""
        done = self._low_level_execute_command(_windows.command("confirm", word) if self._windows else f"/{_verify.LAUNCHER} confirm {word}")
        output = done.get("stdout") or ""
        if _verify.MARKER not in output:
            said = (done.get("stderr") or output).strip()
            raise AnsibleError(_gate.clean(said[-2000:].splitlines()[-1] if said else "no answer", 300) or "no answer")
        try:
            answer = _gate.marked(output, _verify.MARKER)
            return answer and _said.CONFIRM_ANSWER(answer)
        except _gate.Refused as err:
            raise AnsibleError(f"the agent's answer is not of the form it must have: {err}") from None
