#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_fleet
short_description: A batch of hosts has peers on a GateControl server, and tokens for them
version_added: 1.0.0
description:
  - Finds or makes the peers of many hosts in one run on the controller, so that the server's list is read once and nothing races.
  - With an administrator's session each host gets a client token that is bound to its peer and to nothing else. With a peers token each gets its config.
  - Asks the server beforehand how many peers the licence allows (with an administrator's session) and compares the requests it needs with the rate limit.
  - Needs O(admin_user) and O(admin_password), or O(session), or O(peers_token). Use C(no_log), since it returns secrets.
  - As a task it does its work in Ansible's own process on the controller, whatever host the task is for. No connection is used, and a run logs in once.
  - A peer that a machine has used, or whose token was minted for another host and lives, is given to a host, changed or deleted only where the host proves
    that it is that machine (O(hosts[].proof)) or where you say so (O(hosts[].adopt)).
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.server
  - callmetechie.gatecontrol.server.peers_token
  - callmetechie.gatecontrol.server.admin
  - callmetechie.gatecontrol.server.session
  - callmetechie.gatecontrol.attributes
attributes:
  idempotent:
    support: partial
    details: A host whose O(hosts[].token) is true is given a fresh token; the one of the same name before is revoked.
options:
  state:
    description:
      - V(present) and V(absent) say whether the peers exist. V(absent) revokes the tokens bound to them too, where an administrator's session is given. It
        deletes no peer for its name alone, unless a token says that it was made for this host and nobody has used it; O(names) and O(hosts[].adopt) are
        your word.
      - V(kept) brings description, tags and the like to the peers that the hosts are enrolled as, by O(hosts[].peer_id) alone. It makes no peer and no token,
        and touches none that is there, so a token ends when it was to.
      - V(expired) does the same as V(absent) to every peer with the tag C(ephemeral) that the server disabled when its O(hosts[].expires_at) was over.
      - V(rotated) gives each host of O(hosts) a token beside the one it has, V(confirmed) takes away what was before once the host works with
        O(hosts[].token_id). Both need an administrator's session.
      - V(listed) gives RV(peers) and changes nothing.
    type: str
    choices: [present, absent, kept, expired, rotated, confirmed, listed]
    default: present
  part:
    description:
      - V(whole) does it for the hosts of O(hosts). The other two are for the role. V(ask) checks what one host needs and returns it as RV(asked), registered as
        C(__gatecontrol_asked). V(batch), a task with C(run_once), does it for all hosts of the batch that have asked.
      - V(ask) and V(batch) refuse strategies under which hosts go on by themselves, facts of hosts that set variables of this collection, and hosts that differ
        in what says where the server is or how to log in.
    type: str
    choices: [whole, ask, batch]
    default: whole
  client_token:
    description: With O(part=ask), the client token that the host is given by the play. If the server knows it to be bound to O(hosts[].wanted_id), that peer is
      the host's.
    type: str
  keys:
    description: Whether O(state=rotated) makes a second peer, with new keys, which takes over the name. The first one stays under another name until
      O(state=confirmed).
    type: bool
    default: false
  names:
    description: Peers by their names alone, for O(state=absent) of hosts that no longer exist.
    type: list
    elements: str
    default: []
  max_percent:
    description: The share of the server's peers that O(state=absent) may delete in one run; one may always go. More is refused, and nothing is deleted.
    type: int
  others:
    description: How many peers the same play deletes beside these. They count for O(max_percent).
    type: int
    default: 0
  pace:
    description:
      - Whether to wait, 15 minutes at a time, where the server's rate limit leaves fewer requests than the batch needs. How long it will take is shown
        before.
      - Otherwise the module fails before it has changed anything, and says how many requests it needs, how many are left and how long it would take.
    type: bool
    default: false
  adopt:
    description: O(hosts[].adopt) of hosts that do not say.
    type: bool
    default: false
  hosts:
    description: The hosts.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: The host's name in the inventory; the key of its result. A token that is minted is for the host of this name.
        type: str
        required: true
      name:
        description: The peer's name.
        type: str
        required: true
      wanted_id:
        description: Number of the peer that the host is to have, whatever its name. It must be there.
        type: int
      peer_id:
        description: Number of the peer the host says it is enrolled as. By itself it counts for nothing.
        type: int
      enrolled_as:
        description: Name of that peer, as the host says.
        type: str
      proof:
        description: What the host answered to this run's challenge (C(proof) of M(callmetechie.gatecontrol.gatecontrol_host_info)). It proves that the host has
          the private key of its peer.
        type: str
      adopt:
        description: Whether the host is the machine of a peer, though it does not prove it, as after it was rebuilt.
        type: bool
      named:
        description: Whether O(hosts[].name) or O(hosts[].wanted_id) is your word. With V(false) the host alone says which peer it is, and O(hosts[].adopt) is
          not taken for one whose token was minted for another host.
        type: bool
      fingerprint:
        description: What stands for the host's machine id. Two hosts with the same are refused.
        type: str
      token:
        description: Whether the host is to be given a token, or its config with O(peers_token).
        type: bool
        default: true
      token_id:
        description: Number of the token that the host works with, for O(state=confirmed).
        type: int
      description:
        description: The peer's description.
        type: str
      tags:
        description: The peer's tags, all of them.
        type: list
        elements: str
      peer_dns:
        description: The DNS servers the server writes into the peer's config.
        type: list
        elements: str
      peer_keepalive:
        description: Seconds between keepalive packets the server writes into the peer's config.
        type: int
      expires_at:
        description: When the server disables the peer and the minted token ends, as V(2026-12-31T23:59:59Z), or V(never).
        type: str
      group_id:
        description: Number of the peer's group, V(0) for none.
        type: int
seealso:
  - module: callmetechie.gatecontrol.gatecontrol_peer
"""

EXAMPLES = r"""
- name: Have a peer and a token for each host of the play, with one login
  callmetechie.gatecontrol.gatecontrol_fleet:
    url: https://gate.example.com
    admin_user: admin
    admin_password: "{{ gatecontrol_admin_password }}"
    hosts:
      - host: web01
        name: web01
        tags: [web, production]
      - host: db01
        name: db01
  run_once: true
  no_log: true
  register: fleet

- name: Delete the peers and tokens of two hosts that no longer exist
  callmetechie.gatecontrol.gatecontrol_fleet:
    url: https://gate.example.com
    admin_user: admin
    admin_password: "{{ gatecontrol_admin_password }}"
    state: absent
    names: [web07, db02]
    max_percent: 20
  run_once: true
  no_log: true
"""

RETURN = r"""
hosts:
  description:
    - What each host got, by its name in the play or in O(names), and with O(state=expired) by the peer's. C(peer) and C(created), and C(token) with an
      administrator's session, or C(config) and C(hash) with a peers token. C(gone) tells that the server has no peer of the number O(hosts[].peer_id).
    - What is gone as C(deleted) and C(revoked) (names of tokens). C(staying) names the tokens that a peers token cannot revoke.
    - Where it did not come about, C(msg) and C(failure) instead. The module itself does not fail then.
  returned: success
  type: dict
  sample: {web01: {peer: {id: 5, name: web01}, created: true}}
peers:
  description: The server's peers, without keys.
  returned: with O(state=listed)
  type: list
  elements: dict
asked:
  description: What a host needs, for O(part=batch). No secret.
  returned: with O(part=ask)
  type: dict
settled:
  description: When a batch was settled, by a clock that only this run knows.
  returned: with O(part=batch)
  type: int
session:
  description: The administrator's session, for later runs. A secret; keep it in memory only.
  returned: with O(part=whole), after a login; not where this run had a session that is still good
  type: dict
requests:
  description: Requests that were sent, the login aside.
  returned: success, but for O(part=ask)
  type: int
  sample: 83
"""

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _batch, _options, _peer


def work(module):
    notes = {}
    try:
        result = _batch.settle(module.params, module.check_mode, notes, pace=module.params["pace"])
    except (_api.ApiError, _peer.PeerError) as err:
        module.fail_json(msg=str(err), failure=err.failure, **session(notes))
    return dict(result, **session(notes))


def session(notes):
    """The session of a fresh login: one that was given is for no result, since Ansible masks there what a no_log option holds."""
    return {"session": dict(one) for one in notes.get("sessions", {}).values()}


def main():
    _options.run_module(work, argument_spec=_options.FLEET)


if __name__ == "__main__":
    main()
