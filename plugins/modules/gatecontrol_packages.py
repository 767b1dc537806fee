#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_packages
short_description: The tools that a tunnel needs are installed
version_added: 1.0.0
description:
  - Installs packages with what the host has of its package lists. The lists are updated only where a package is not found in them.
  - Waits for another program that holds the package manager's lock, and says which it is.
  - It is an action that runs the modules of ansible-core, and returns nothing of what they gather. P(ansible.builtin.apt#module),
    P(ansible.builtin.dnf#module), P(ansible.builtin.dnf5#module), and for other package managers their own commands.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.attributes
attributes:
  diff_mode:
    support: none
    description: Names what it installs, and no more.
options:
  names:
    description: The packages.
    type: list
    elements: str
    default: []
  manager:
    description: The package manager, V(auto) for the one that is on the host.
    type: str
    choices: [auto, apt, dnf, zypper, pacman, homebrew]
    default: auto
  wait:
    description: Seconds for another program that holds the package manager's lock.
    type: int
    default: 300
  homebrew:
    description: Homebrew's prefix, with O(manager=homebrew). It has to be run as the user that Homebrew belongs to.
    type: str
    choices: [/opt/homebrew, /usr/local]
  resolvectl:
    description: The path of C(resolvectl), where it is to serve C(wg-quick) as C(resolvconf), by a link in C(/usr/local/sbin).
    type: str
seealso:
  - module: ansible.builtin.package
"""

EXAMPLES = r"""
- name: Have WireGuard's tools, and give another program ten minutes
  callmetechie.gatecontrol.gatecontrol_packages:
    names: [wireguard-tools]
    wait: 600
  become: true
"""

RETURN = r"""
failure:
  description: What a playbook can decide on when it fails. C(kind) is V(packages), or V(options) for a name that none can be.
  returned: failure
  type: dict
  sample: {kind: packages, status: null}
"""
# There is no module: the action of the same name does it with the modules of ansible-core.
