# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a server from the controller, in a process that outlives an interrupted play until nothing is left behind."""
from __future__ import annotations

from ansible.plugins.action import ActionBase

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _options, _play, _points
from ansible_collections.callmetechie.gatecontrol.plugins.plugin_utils import _apart

# Variables that a secret goes by; no host has a say in them.
NAMES = ("gatecontrol_url", "gatecontrol_ca_path", "gatecontrol_validate_certs", "gatecontrol_proxy", "gatecontrol_no_proxy",
         "gatecontrol_allow_http")


class ActionModule(ActionBase):
    """All of it is done here; there is no module to be sent."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = dict(super().run(tmp, task_vars), changed=False)
        _checked, params = self.validate_argument_spec(argument_spec=_options.CHECK)
        variables = task_vars or {}
        try:
            _play.check_facts(variables.get("inventory_hostname", ""), variables)
            if variables.get("hostvars"):
                _play.check_values(self, variables["inventory_hostname"], variables, NAMES)
            report = _apart.run(self._given(params))
        except (_api.ApiError, _play.PlayError) as err:
            return dict(result, failed=True, msg=str(err), failure=err.failure)
        return dict(result, **report, lines=_points.lines(report["points"], params["width"]))

    def _given(self, params):
        """What _checking.run takes."""
        secrets = {name: _options.secret(params, name) for name in ("token", "peers_token")}
        secrets.update({name: params[name] for name in ("admin_user", "admin_password", "token_user", "peer_id")})
        if not (secrets["token"] or secrets["peers_token"] or secrets["admin_password"]):
            raise _api.ApiError("no secret was given for the server; set gatecontrol_admin_user and gatecontrol_admin_password, "
                                "gatecontrol_peers_token or gatecontrol_token", "options")
        if secrets["admin_password"] and not secrets["admin_user"]:
            raise _api.ApiError("an administrator's password needs a name; set gatecontrol_admin_user", "options")
        _options.keep_secret(params["admin_password"], secrets["token"], secrets["peers_token"], params["proxy"])
        settings = params["settings"] or {}
        return {"options": _options.reach(params), "secrets": secrets, "policy": settings.get("policy") or {},
                "intervals": [settings.get("heartbeat_interval") or 60, settings.get("sync_interval") or 300],
                "write": params["write"] and not self._task.check_mode}
