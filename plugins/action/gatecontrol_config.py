# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module on the host; for a host that runs no Python (files) its work is done in the controller's own process."""
from __future__ import annotations

from ansible_collections.callmetechie.gatecontrol.plugins.plugin_utils._gated import Thin


class ActionModule(Thin):
    """The module's result, and nothing that is not in its schema."""

    def run(self, tmp=None, task_vars=None):
        if self._task.args.get("files") is None:
            return super().run(tmp, task_vars)
        from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _batch, _inside, _play
        from ansible_collections.callmetechie.gatecontrol.plugins.modules import gatecontrol_config

        try:
            _batch.check(self, task_vars, alone=True)
        except _play.PlayError as err:
            return {"failed": True, "msg": str(err), "failure": err.failure}
        return _inside.run(self, gatecontrol_config)
