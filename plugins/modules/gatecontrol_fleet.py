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
  - Needs O(admin_user) and O(admin_password), or O(session), or O(peers_token). Delegate it to the controller and use C(no_log), since it returns secrets.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.server
  - callmetechie.gatecontrol.server.peers_token
  - callmetechie.gatecontrol.server.admin
  - callmetechie.gatecontrol.attributes
attributes:
  idempotent:
    support: partial
    details: A host whose O(hosts[].token) is true is given a fresh token; the one of the same name before is revoked.
options:
  state:
    description: Whether the peers exist. V(absent) revokes the tokens bound to them too, where an administrator's session is given.
    type: str
    choices: [present, absent]
    default: present
  session:
    description: RV(session) of an earlier run, so that one login serves all batches. The server allows 5 in 15 minutes.
    type: dict
  token_user:
    description: Name of the user whose tokens are minted, the administrator who logs in without it.
    type: str
  adopt:
    description: Whether a peer that is online is handed to a host that does not hold its enrollment.
    type: bool
    default: false
  hosts:
    description: The hosts.
    type: list
    elements: dict
    required: true
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
"""

RETURN = r"""
hosts:
  description:
    - What each host got, by its name in the play. C(peer) and C(created), and C(token) with an administrator's session, or C(config) and C(hash)
      with a peers token.
    - Where it did not come about, C(msg) and C(failure) instead. The module itself does not fail then.
  returned: success
  type: dict
  sample: {web01: {peer: {id: 5, name: web01}, created: true}}
session:
  description: The administrator's session, for later runs. A secret; keep it in memory only.
  returned: with an administrator's session
  type: dict
requests:
  description: Requests that were sent, the login aside.
  returned: success
  type: int
  sample: 83
"""

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _enrollment, _fleet, _options, _session

HOST = dict(
    _options.PEER_FIELDS, host={"type": "str", "required": True}, name={"type": "str", "required": True}, peer_id={"type": "int"},
    fingerprint={"type": "str"}, token={"type": "bool", "default": True, "no_log": False})


def administrator(params, options):
    """An Admin that is logged in, with the session given if that is still good."""
    if params["session"]:
        admin = _session.Admin(options, params["session"])
        try:
            return admin, admin.user_id(params["token_user"] or params["admin_user"])
        except _api.ApiError as err:
            if err.kind != "auth" or not params["admin_password"]:
                raise
    admin = _session.Admin(options)
    admin.transport.login(params["admin_user"], params["admin_password"])
    return admin, admin.user_id(params["token_user"] or params["admin_user"])


def work(module):
    params = module.params
    options = _options.reach(params, _enrollment.Store().load("settings"))
    peers_token, user = _options.secret(params, "peers_token"), None
    if params["session"] or params["admin_password"]:
        if not params["admin_user"] and not (params["session"] and params["token_user"]):
            raise _api.ApiError("an administrator's password needs a name; set admin_user", "options")
        api, user = administrator(params, options)
    elif peers_token:
        api = _api.Api(dict(options, token=peers_token))
    else:
        raise _api.ApiError("no secret was given for the server; set admin_user and admin_password, or peers_token", "options")
    fleet = _fleet.Fleet(api, user, params["adopt"])
    hosts = (fleet.present if params["state"] == "present" else fleet.absent)(params["hosts"], module.check_mode)
    state = dict(api.transport.state) if user else None
    _options.keep_secret(*[host.get(key) for host in hosts.values() for key in ("token", "config")], *(state or {}).values())
    made = {name: "made" for name, host in hosts.items() if host.get("created") or host.get("deleted")}
    result = {"changed": any(host.get("changed") for host in hosts.values()), "hosts": hosts, "requests": api.requests,
              "diff": {"before": {}, "after": made if params["state"] == "present" else dict.fromkeys(made, "gone")}}
    return dict(result, session=state) if state else result


def main():
    _options.run_module(
        work, argument_spec=dict(
            _options.REACH, **_options.PEERS_TOKEN, **_options.ADMIN, state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            session={"type": "dict", "no_log": True}, token_user={"type": "str", "no_log": False}, adopt={"type": "bool", "default": False},
            hosts={"type": "list", "elements": "dict", "required": True, "options": HOST}))


if __name__ == "__main__":
    main()
