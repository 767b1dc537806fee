#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_windows
short_description: A module runs on a Windows host, and only what is expected of it comes back
version_added: 1.0.0
description:
  - Runs one of the modules of C(ansible.windows) that the role needs on Windows hosts, and drops from its result what the host has no
    business to say, such as facts, which would be variables of the play.
  - It is an action. The modules come from their own collections.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.attributes
attributes:
  check_mode:
    support: full
    description: As the module does.
  diff_mode:
    support: partial
    description: As the module does, texts for before and after only.
  idempotent:
    support: partial
    description: As the module does.
options:
  module:
    description: The module.
    type: str
    required: true
    choices: [ansible.windows.win_powershell, ansible.windows.win_copy, ansible.windows.win_package]
  arguments:
    description: Its options.
    type: dict
    required: true
seealso:
  - module: ansible.windows.win_powershell
"""

EXAMPLES = r"""
- name: Ask Windows for its own name
  callmetechie.gatecontrol.gatecontrol_windows:
    module: ansible.windows.win_powershell
    arguments:
      script: $Ansible.Result = @{ name = $env:COMPUTERNAME }
  register: asked
"""

RETURN = r"""
result:
  description: What a script gave, with keys that are plain words.
  returned: success of win_powershell
  type: dict
error:
  description: What went wrong in a script.
  returned: where something did
  type: list
  elements: dict
  contains:
    exception:
      description: Its C(message).
      type: dict
failure:
  description: What a playbook can decide on where an answer was not of the form it must have. C(kind) is V(answer).
  returned: failure
  type: dict
  sample: {kind: answer, status: null}
"""
# There is no module: the action of the same name does it with the modules of the Windows collections.
