# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module on the host; for a host that runs no Python (files) its work is done in the controller's own process."""
from __future__ import annotations

from ansible_collections.callmetechie.gatecontrol.plugins.plugin_utils._gated import Either


class ActionModule(Either):
    """The module's result, and nothing that is not in its schema."""
