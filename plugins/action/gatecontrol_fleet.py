# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the module's work in the controller's own process, and says how long a batch will take before it waits for the server's rate limit."""
from __future__ import annotations

import time

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _batch, _options, _peer, _play


class ActionModule(ActionBase):
    """No host, no shell and no other program has a part in it, so no variable of a host does either."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _checked, params = self.validate_argument_spec(argument_spec=_options.FLEET)
        try:
            if params["part"] != "whole":
                _batch.check(self, task_vars)
            result.update(_batch.ask(params) if params["part"] == "ask" else self._settle(params, task_vars))
        except (_api.ApiError, _peer.PeerError, _play.PlayError) as err:
            result.update(failed=True, msg=str(err), failure=err.failure)
        return result

    def _settle(self, params, task_vars):
        """Refused first, with the numbers, where the rate limit does not suffice; where the play is to wait, they are shown and it is begun again."""
        try:
            return self._once(params, task_vars, False)
        except _api.ApiError as err:
            failure = err.failure
            if failure["kind"] != "rate_limited" or "seconds" not in failure or not params["pace"]:
                raise
        end = time.strftime("%H:%M:%S", time.localtime(time.time() + failure["seconds"]))
        Display().warning("The server's rate limit leaves %s of the %s requests that this batch needs, so it goes on until about %s (%d minutes)."
                          % (failure.get("left", 0), failure.get("needed", "few"), end, failure["seconds"] // 60 + 1))
        return self._once(params, task_vars, True)

    def _once(self, params, task_vars, pace):
        check_mode = self._task.check_mode
        if params["part"] == "batch":
            return _batch.settle_batch(params, task_vars, check_mode, pace)
        notes = _play.remembered()
        before = dict(notes.get("sessions", {}))
        try:
            result = _batch.settle(params, check_mode, notes, pace=pace)
        finally:
            _play.remember(notes)
        return dict(result, **{"session": one for key, one in notes["sessions"].items() if before.get(key) != one})
