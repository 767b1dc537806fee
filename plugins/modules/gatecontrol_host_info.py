#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_host_info
short_description: Tell what a host says of its enrollment, config, tunnel and agent
version_added: 1.0.0
description:
  - Compares a host with what a play wants of it, in one round trip and with one request to the server, and changes nothing.
  - It is an action that runs the agent which is already on the host. Only where there is none, or it is damaged or of another release, the module of the same
    name is sent, which carries the same code.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.installation
  - callmetechie.gatecontrol.attributes.info
options:
  state:
    description: Whether the host is meant to be enrolled.
    type: str
    choices: [present, absent]
    default: present
  url:
    description: The server the host is meant to be enrolled with. Not compared when left out.
    type: str
  interface:
    description: The tunnel's interface.
    type: str
  token:
    description: The client token the host is meant to have. Only its digest is compared; it does not leave the controller.
    type: str
  token_digest:
    description: SHA-256 of the client token the host is meant to have, in place of O(token).
    type: str
  peers_token:
    description:
      - For hosts without a token of their own (RV(reporting=none)) the action asks the server from the controller with this token, at most every
        C(sync_interval) of O(settings).
    type: str
  controller:
    description: O(settings) that differ for the request made from the controller, such as C(ca_path).
    type: dict
  peer_fields:
    description:
      - What the lookup P(callmetechie.gatecontrol.gatecontrol_agent#lookup) gives for V(peer_fields). Compared with what the host's peer was given last, and
        not compared when empty or left out.
    type: str
  check:
    description: Whether the server is asked for a new config.
    type: bool
    default: true
  wanted:
    description: What the other options come to, in digests. Set by the action, which does not send the others.
    type: dict
seealso:
  - module: callmetechie.gatecontrol.gatecontrol_info
"""

EXAMPLES = r"""
- name: Look at a host
  callmetechie.gatecontrol.gatecontrol_host_info:
  become: true
  register: seen

- name: Say what differs
  ansible.builtin.debug:
    var: seen.drift
"""

RETURN = r"""
in_sync:
  description: Whether the host is as the play wants it.
  returned: success
  type: bool
drift:
  description: What differs, in words.
  returned: success
  type: list
  elements: str
  sample: [the server has a new config]
codes:
  description: What kind of difference each sentence of C(drift) tells of, such as V(token_changed), V(config_changed), V(file_missing) or V(tunnel).
  returned: success
  type: list
  elements: str
  sample: [config_new]
enrolled:
  description: Whether the host has an enrollment.
  returned: success
  type: bool
peer_id:
  description: Number of the host's peer.
  returned: success
  type: int
peer_name:
  description: Name of the host's peer.
  returned: success
  type: str
reporting:
  description: V(full) where the host has a token of its own, else V(none).
  returned: success
  type: str
status:
  description: The tunnel's state.
  returned: success
  type: str
  sample: connected
handshake_age:
  description: Seconds since the latest handshake, null where there was none.
  returned: success
  type: int
rx_bytes:
  description: Bytes received through the tunnel.
  returned: success
  type: int
tx_bytes:
  description: Bytes sent through the tunnel.
  returned: success
  type: int
peer_enabled:
  description: Whether the server had the peer enabled at the last beat, null where it does not tell.
  returned: success
  type: bool
url:
  description: The server that the host is enrolled with.
  returned: success
  type: str
interface:
  description: The interface of the tunnel.
  returned: success
  type: str
hash:
  description: SHA-256 of the config as the server issued it.
  returned: success
  type: str
version:
  description: The collection's release that the agent is of.
  returned: success
  type: str
last_beat:
  description: When a beat was last answered, in seconds since 1970, as all times here. Null where it never was.
  returned: success
  type: float
last_try:
  description: When a beat was last tried.
  returned: success
  type: float
last_check:
  description: When the server was last asked for a new config.
  returned: success
  type: float
not_before:
  description: Until when the agent is silent, since the token's rate limit is used up. 0 or null where it is not.
  returned: success
  type: float
now:
  description: The host's own time.
  returned: success
  type: float
error:
  description: What went wrong at the last beat (C(kind), C(text)), null where nothing did.
  returned: success
  type: dict
refused:
  description: The server's config that cannot be used here (C(hash), C(text), and when it is tried C(again)), null where there is none.
  returned: success
  type: dict
verdict:
  description: How the last change of the tunnel ended (C(ok), C(reason)), null where there was none.
  returned: success
  type: dict
failures:
  description: How many beats in a row have failed.
  returned: success
  type: int
clock_behind:
  description: Seconds by which the host's clock is behind its own last record, 0 where it is not.
  returned: success
  type: int
beside_tunnel:
  description: Why traffic that belongs into the tunnel passes beside it.
  returned: success, where it is known
  type: list
  elements: str
left_out:
  description: What the config has and this host cannot have, such as addresses of an IP version that is switched off.
  returned: success
  type: list
  elements: str
pending:
  description: Whether a change of the tunnel is under way.
  returned: success
  type: bool
requests:
  description: How many requests the last beat took.
  returned: success
  type: int
tunnel:
  description: The step the planner would take (C(action)) and why (C(reasons)).
  returned: success
  type: dict
peer_fields:
  description: Whether the peer was given what O(peer_fields) stands for. Null where that is not compared, as on a clone of the host that enrolled, and
    for a peer of the playbook C(ephemeral).
  returned: success
  type: bool
server:
  description: What the server answered. C(asked), C(updated), or C(error).
  returned: success
  type: dict
host:
  description: What a play has to know of the host, such as C(system), C(distribution), C(service_manager), and C(needs), the tools that are missing.
  returned: success
  type: dict
asked:
  description: V(agent) where the installed agent answered, V(module) where the module had to be sent.
  returned: success
  type: str
"""

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _drift, _options, _verify


def work(module):
    return dict(_drift.verify(_options.agent(module), module.params["wanted"] or {}), changed=False, asked="module")


def main():
    _options.run_module(work, argument_spec=dict(_verify.HOST_INFO, wanted={"type": "dict"}))


if __name__ == "__main__":
    main()
