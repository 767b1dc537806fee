# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the report in the controller's own process."""
from __future__ import annotations

from ansible_collections.callmetechie.gatecontrol.plugins.modules import gatecontrol_report
from ansible_collections.callmetechie.gatecontrol.plugins.plugin_utils._gated import OnController


class ActionModule(OnController):
    """Where it is written is a variable of the play's first host."""

    MODULE = gatecontrol_report
