#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_host_check
short_description: Check what would stop an enrollment on a host
version_added: 1.0.0
description:
  - Looks, point by point, at what a host needs to be enrolled, without a secret. It changes nothing, and sends one request to the server.
  - For a moment it makes an interface of the type WireGuard, where the kernel can, and a unit of systemd that does nothing.
  - It does not fail where a point failed, or where the host cannot be asked; RV(ok) tells.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.server
  - callmetechie.gatecontrol.attributes.info
options:
  interface:
    description: The tunnel's interface.
    type: str
    default: wg0
  allowed_ips:
    description: Networks that are to go into the tunnel. What O(tunnel) says, where it is not given.
    type: list
    elements: str
  tunnel:
    description: RV(callmetechie.gatecontrol.gatecontrol_check#module:tunnel) of a check of the server.
    type: dict
  packages:
    description: Which package brings a tool, by the names of distributions.
    type: dict
  own_packages:
    description: Which package brings a tool on this host, before O(packages).
    type: dict
  install:
    description: Whether packages will be installed.
    type: bool
    default: true
  width:
    description: How many characters a line of RV(lines) may have.
    type: int
    default: 80
seealso:
  - module: callmetechie.gatecontrol.gatecontrol_check
"""

EXAMPLES = r"""
- name: See what would stop an enrollment
  callmetechie.gatecontrol.gatecontrol_host_check:
    url: https://gate.example.com
    allowed_ips: [10.8.0.0/24]
  become: true
  register: checked
"""

RETURN = r"""
ok:
  description: Whether no point failed.
  returned: success
  type: bool
failing:
  description: The names of the points that failed.
  returned: success
  type: list
  elements: str
points:
  description: The points in their order, C(name), C(outcome) (V(pass), V(fail) or V(n/a)) and C(text). What each means is in the collection's C(docs/check.md).
  returned: success
  type: list
  elements: dict
  sample: [{name: systemd, outcome: pass, text: systemd runs}]
lines:
  description: The same for a terminal.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _options, _points, _prospect


def work(module):
    params = module.params
    options = _options.reach(params) if params["url"] else {}
    points = _prospect.Prospect(_options.agent(module), options, params).look()
    failing = _points.failing(points)
    return {"changed": False, "ok": not failing, "failing": failing, "points": points, "lines": _points.lines(points, params["width"])}


def main():
    _options.run_module(work, argument_spec=_options.HOST_CHECK)


if __name__ == "__main__":
    main()
