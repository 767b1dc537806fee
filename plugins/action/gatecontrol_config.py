# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module of the same name; its result passes the gate, since the host may say anything."""
from __future__ import annotations

from ansible_collections.callmetechie.gatecontrol.plugins.plugin_utils._gated import Thin


class ActionModule(Thin):
    """The module's result, and nothing that is not in its schema."""
