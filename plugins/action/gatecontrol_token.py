# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the module's work in the controller's own process: the administrator's password reaches no host, whatever a play says of where the task runs."""
from __future__ import annotations

from ansible.plugins.action import ActionBase

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _inside, _play
from ansible_collections.callmetechie.gatecontrol.plugins.modules import gatecontrol_token


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        try:
            _play.check_facts((task_vars or {}).get("inventory_hostname", ""), task_vars or {})
        except _play.PlayError as err:
            return dict(result, failed=True, msg=str(err), failure=err.failure)
        return dict(result, **_inside.run(self, gatecontrol_token))
