# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arms a change of the tunnel and confirms it over a new connection, in one task, so that no other host stands in between."""
from __future__ import annotations

import json
import time

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _agent, _options, _tunnel

MODULE = "callmetechie.gatecontrol.gatecontrol_tunnel"


class ActionModule(ActionBase):
    """Over SSH: arm on the host, come back, ask for the unit's verdict. Other connections: the module alone, with the server's answer as proof."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _checked, params = self.validate_argument_spec(argument_spec=_options.TUNNEL)
        arguments = {key: value for key, value in params.items() if value is not None}
        over_ssh = self._connection.transport in ("ssh", "paramiko", "paramiko_ssh")
        if params["state"] == "up" and over_ssh:
            if params["ssh_connection"] is None:
                # Asked without become: sudo does not pass it on.
                done = self._low_level_execute_command("echo \"$SSH_CONNECTION\"", sudoable=False)
                arguments["ssh_connection"] = (done.get("stdout_lines") or [""])[-1].strip()
            arguments["arm"] = True
        started = time.monotonic()
        result.update(self._execute_module(MODULE, arguments, task_vars=task_vars))
        change = result.pop("armed", None)
        if change and not result.get("failed"):
            self._confirm(change, started + params["confirm_timeout"] + 60, params["interface"], result)
        return result

    def _confirm(self, change, end, interface, result):
        """Come back over new connections until the unit has given its verdict."""
        verdict, trouble = None, None
        timeout = self._connection.get_option("timeout") if self._connection.has_option("timeout") else None
        try:
            if timeout is not None:
                self._connection.set_option("timeout", 3)
            while verdict is None and time.monotonic() < end:
                try:
                    # An old connection that survived would prove nothing.
                    self._connection.reset()
                    verdict = self._ask(change)
                except (AnsibleConnectionFailure, AnsibleError) as err:
                    trouble = err
                    time.sleep(0.5)
        finally:
            if timeout is not None:
                self._connection.set_option("timeout", timeout)
        if verdict is None:
            result.update(failed=True, rolled_back=None, failure={"kind": "unreachable", "status": None},
                          msg="the host did not come back after the change of %s (%s); it restores its last good config by itself, look at it over another way"
                              % (interface, trouble or "no verdict"))
        elif not verdict["ok"]:
            result.update(failed=True, rolled_back=True, changed=False, failure={"kind": "rolled_back", "status": None}, msg=_tunnel.failed(interface, verdict))

    def _ask(self, change):
        done = self._low_level_execute_command("/%s confirm %s" % (_agent.LAUNCHER, change))
        for line in (done.get("stdout") or "").splitlines():
            if line.startswith(_agent.MARKER):
                return json.loads(line[len(_agent.MARKER):])
        if done.get("rc") == 255:
            raise AnsibleConnectionFailure((done.get("stderr") or "no connection").strip().splitlines()[-1])
        raise AnsibleError((done.get("stderr") or done.get("stdout") or "no answer").strip())
