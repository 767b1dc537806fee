#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_check
short_description: Check whether a GateControl server is what the collection expects
version_added: 1.0.0
description:
  - Asks a server, point by point, for what enrolling hosts needs of it, and judges each answer. At most 25 requests and one login.
  - Without O(write) nothing is changed there. With it the whole life of one peer is played, and the peer and its token are taken away again, also where
    the check fails in the middle or the play is interrupted.
  - Runs on the controller alone, in a process of its own, and opens no connection to the task's host.
  - It does not fail where a point failed; RV(ok) tells.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.server
  - callmetechie.gatecontrol.server.token
  - callmetechie.gatecontrol.server.peers_token
  - callmetechie.gatecontrol.server.admin
  - callmetechie.gatecontrol.attributes
attributes:
  check_mode:
    support: full
    description: O(write) is taken as V(false).
  diff_mode:
    support: N/A
    description: What it changes is taken back before it ends.
options:
  token_user:
    description: Name of the user whose tokens are minted, the administrator who logs in without it.
    type: str
  peer_id:
    description: The peer that O(token) is bound to.
    type: int
  write:
    description:
      - Whether a peer is made, tagged C(ephemeral) and with an expiry of ten minutes, used as a host would use it, and deleted. Needs the administrator's
        login or O(peers_token).
      - The server writes a few lines into its activity log for it, and what it sends on such events, such as webhooks, is sent.
    type: bool
    default: false
  settings:
    description: What the lookup P(callmetechie.gatecontrol.gatecontrol_agent#lookup) gives for V(settings). The policy in it is what a config is held against,
      the intervals are what the rate limit is held against.
    type: dict
  width:
    description: How many characters a line of RV(lines) may have.
    type: int
    default: 80
seealso:
  - module: callmetechie.gatecontrol.gatecontrol_host_check
  - module: callmetechie.gatecontrol.gatecontrol_info
"""

EXAMPLES = r"""
- name: Check the server
  callmetechie.gatecontrol.gatecontrol_check:
    url: https://gate.example.com
    admin_user: admin
    admin_password: "{{ gatecontrol_admin_password }}"
    write: true
  register: checked

- name: Stop where a point failed
  ansible.builtin.assert:
    that: checked.ok
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
  sample: [licence]
points:
  description: The points in their order. What each means is in the collection's C(docs/check.md).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: What was looked at.
      type: str
      sample: licence
    outcome:
      description: V(pass), V(fail), or V(n/a) where it cannot be asked here.
      type: str
      sample: pass
    text:
      description: What was seen, or what to do.
      type: str
      sample: room for 2 more of 3 peers
lines:
  description: The same for a terminal.
  returned: success
  type: list
  elements: str
  sample: ["pass server  https://gate.example.com answers"]
url:
  description: The server's address in one spelling.
  returned: success
  type: str
  sample: https://gate.example.com
version:
  description: Its release, null where no secret that was given is told.
  returned: success
  type: str
  sample: 1.118.2
time:
  description: When the check ended, UTC.
  returned: success
  type: str
  sample: "2026-12-01T06:00:00Z"
requests:
  description: How many requests were sent, the login aside.
  returned: success
  type: int
  sample: 17
logins:
  description: How many logins were made.
  returned: success
  type: int
  sample: 1
tunnel:
  description: With O(write), what the config of a host would hold under the policy, C(endpoint), C(allowed_ips), C(dns) and C(full) (whether all traffic
    goes through it). Empty where none was read.
  returned: success
  type: dict
  sample: {endpoint: "gate.example.com:51820", allowed_ips: [10.8.0.0/24], dns: [], full: false}
"""
