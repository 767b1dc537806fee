# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does the module's work in the controller's own process: the administrator's password reaches no host, whatever a play says of where the task runs."""
from __future__ import annotations

from ansible_collections.callmetechie.gatecontrol.plugins.modules import gatecontrol_token
from ansible_collections.callmetechie.gatecontrol.plugins.plugin_utils._gated import OnController


class ActionModule(OnController):
    """Tokens are between controller and server."""

    MODULE = gatecontrol_token
    _requires_connection = False
