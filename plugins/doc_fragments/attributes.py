# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """What every module of the collection does alike."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Can run in check mode and tells what it would change, on a fresh and on an enrolled host.
  diff_mode:
    support: full
    description: Tells what it changes or would change, keys and tokens masked.
  idempotent:
    support: full
    description: A second run changes nothing.
  action_group:
    support: full
    description: Is in the action group C(callmetechie.gatecontrol.gatecontrol) for C(module_defaults).
    membership:
      - callmetechie.gatecontrol.gatecontrol
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Reads only, so check mode makes no difference.
  diff_mode:
    support: N/A
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
  action_group:
    support: full
    description: Is in the action group C(callmetechie.gatecontrol.gatecontrol) for C(module_defaults).
    membership:
      - callmetechie.gatecontrol.gatecontrol
"""
