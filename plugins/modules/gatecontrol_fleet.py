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
  - Needs O(admin_user) and O(admin_password), or O(session), or O(peers_token). Delegate it to the controller and use C(no_log), since it returns secrets.
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
      - V(present) and V(absent) say whether the peers exist. V(absent) revokes the tokens bound to them too, where an administrator's session is given.
      - V(kept) brings description, tags and the like to the peers that the hosts are enrolled as, by O(hosts[].peer_id) alone. It makes no peer and no token,
        and touches none that is there, so a token ends when it was to.
      - V(expired) does the same as V(absent) to every peer with the tag C(ephemeral) that the server disabled when its O(hosts[].expires_at) was over.
      - V(rotated) gives each host of O(hosts) a token beside the one it has, V(confirmed) takes away what was before once the host works with
        O(hosts[].token_id). Both need an administrator's session.
    type: str
    choices: [present, absent, kept, expired, rotated, confirmed]
    default: present
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
    description: Whether a peer that is online is handed to a host that does not hold its enrollment.
    type: bool
    default: false
  hosts:
    description: The hosts.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: The host's name in the play; the key of its result.
        type: str
        required: true
      name:
        description: The peer's name.
        type: str
        required: true
      peer_id:
        description: Number of the peer the host is enrolled as.
        type: int
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
  delegate_to: localhost
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
  delegate_to: localhost
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
session:
  description: The administrator's session, for later runs. A secret; keep it in memory only.
  returned: after a login, of a run that failed too; not where O(session) was given and still good
  type: dict
requests:
  description: Requests that were sent, the login aside.
  returned: success
  type: int
  sample: 83
"""

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _fleet, _options, _peer, _session


def work(module):
    params, state = module.params, module.params["state"]
    options = _options.reach(params, None)
    api, user = _session.administrator(params, options)
    peers_token = _options.secret(params, "peers_token")
    if not user and not peers_token:
        raise _api.ApiError("no secret was given for the server; set admin_user and admin_password, or peers_token", "options")
    fleet = _fleet.Fleet(api or _api.Api(dict(options, token=peers_token)), user, params["adopt"], params["pace"])
    hosts = params["hosts"] + [{"host": name, "name": name} for name in params["names"]]
    act = {
        "present": lambda: fleet.present(hosts, module.check_mode),
        "kept": lambda: fleet.kept(hosts, module.check_mode),
        "absent": lambda: fleet.absent(hosts, params["max_percent"], params["others"], module.check_mode),
        "expired": lambda: fleet.expired(module.check_mode),
        "rotated": lambda: fleet.rotated(hosts, params["keys"], module.check_mode),
        "confirmed": lambda: fleet.confirmed(hosts, module.check_mode)}[state]
    session = api.transport.fresh if user else None
    _options.keep_secret(*(session or {}).values())
    try:
        hosts = act()
    except (_api.ApiError, _peer.PeerError) as err:
        module.fail_json(msg=str(err), failure=err.failure, **({"session": session} if session else {}))
    _options.keep_secret(*[host.get(key) for host in hosts.values() for key in ("token", "config")])
    done = {name: "gone" if host.get("deleted") else "made" if host.get("created") else "changed" for name, host in hosts.items() if host.get("changed")}
    result = {"changed": bool(done), "hosts": hosts, "requests": fleet.api.requests, "diff": {"before": {}, "after": done}}
    return dict(result, session=session) if session else result


def main():
    _options.run_module(work, argument_spec=_options.FLEET)


if __name__ == "__main__":
    main()
