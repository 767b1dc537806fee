#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_token
short_description: The client tokens of a peer are minted, rotated, revoked or listed
version_added: 1.0.0
description:
  - Looks after the tokens that are bound to one peer of a GateControl server, with the administrator's login. Server releases since 1.16.0; no licence feature
    is needed.
  - It always works on the controller, in Ansible's own process, whatever host the task is for; no host sees the login. Use C(no_log), since it returns
    secrets. For a whole batch of hosts M(callmetechie.gatecontrol.gatecontrol_fleet) needs fewer requests.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.server
  - callmetechie.gatecontrol.server.admin
  - callmetechie.gatecontrol.server.session
  - callmetechie.gatecontrol.attributes
attributes:
  idempotent:
    support: partial
    details: Not with O(state=rotated). The server shows a token's text only once, so a second run with O(state=present) returns none.
options:
  state:
    description:
      - V(present) has a token of this name, scopes and expiry that is not over; it is minted where there is none, and replaces one that does not fit.
      - V(rotated) mints a new one.
      - V(absent) revokes those of this name, or all that are bound to the peer where no O(name) is given.
      - V(listed) changes nothing.
    type: str
    choices: [present, rotated, absent, listed]
    default: present
  peer:
    description: The peer's name.
    type: str
  peer_id:
    description: The peer's number, in place of O(peer).
    type: int
  name:
    description: The token's name, C(ansible) and the peer's unless set. Without a peer, V(absent) revokes and V(listed) lists what has this name.
    type: str
  scopes:
    description: What the token may do. The role of O(token_user) may cut it.
    type: list
    elements: str
    default: [client]
  expires_at:
    description: When the token ends, as V(2026-12-31T23:59:59Z). V(present) leaves an existing one's expiry alone without it.
    type: str
  revoke_old:
    description: Whether O(state=rotated) revokes the tokens of this name that were there before. With V(false) they stay until O(state=absent) with
      O(except_id), so that the new one can be tried first.
    type: bool
    default: true
  except_id:
    description: Number of a token that stays.
    type: int
seealso:
  - module: callmetechie.gatecontrol.gatecontrol_fleet
"""

EXAMPLES = r"""
- name: Have a token for a machine that is made later, with a peer of its own
  callmetechie.gatecontrol.gatecontrol_token:
    url: https://gate.example.com
    admin_user: admin
    admin_password: "{{ gatecontrol_admin_password }}"
    peer: web01
    expires_at: "2031-12-31T23:59:59Z"
  no_log: true
  register: minted

- name: Revoke all tokens of this peer but that one
  callmetechie.gatecontrol.gatecontrol_token:
    url: https://gate.example.com
    session: "{{ minted.session }}"
    token_user: admin
    peer: web01
    state: absent
    except_id: "{{ minted.token_id }}"
  no_log: true
  when: minted.token_id is defined
"""

RETURN = r"""
token:
  description: The new token. It is shown only now.
  returned: when one was minted
  type: str
token_id:
  description: The new token's number.
  returned: when one was minted
  type: int
  sample: 7
tokens:
  description: Details of the peer's tokens as they are now, or of those of O(name). Never their text.
  returned: success
  type: list
  elements: dict
  sample: [{id: 7, name: "ansible: web01", peer_id: 5, scopes: [client], expires_at: null}]
revoked:
  description: Names of the tokens that were revoked.
  returned: success
  type: list
  elements: str
session:
  description: The administrator's session, for later runs. A secret; keep it in memory only.
  returned: after a login, so not where O(session) was given and still good
  type: dict
"""

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _fleet, _options, _peer, _session


def work(module):
    params, state = module.params, module.params["state"]
    named = params["peer"] or params["peer_id"]
    if not named and (state in ("present", "rotated") or state == "absent" and not params["name"]):
        raise _api.ApiError("no peer was named; set peer or peer_id", "options")
    expires_at = _peer.wanted_fields({"expires_at": params["expires_at"]}).get("expires_at")
    admin, user = _session.administrator(params, _options.reach(params, None))
    if not admin:
        raise _api.ApiError("tokens need the administrator's login; set admin_user and admin_password", "options")
    try:
        peer = _peer.ServerPeer(admin, params["peer"], params["peer_id"]).find() if named else None
    except _api.ApiError as err:
        if state != "absent" or err.kind != "not_found":
            raise
        peer = None
    if named and not peer and state != "absent":
        raise _api.ApiError("the server has no peer %s; make it first with gatecontrol_peer or gatecontrol_fleet" % params["peer"], "not_found")
    if named and not peer:  # its tokens are unbound since it is gone, and found by name alone
        params["name"] = params["name"] or _fleet.token_name(params["peer"] or "")
    tokens = _fleet.Tokens(admin, user, peer, params["name"])
    result = tokens.settle(state, params["scopes"], expires_at, params["revoke_old"], params["except_id"], module.check_mode)
    session = admin.transport.fresh
    _options.keep_secret(result.get("token"), *(session or {}).values())
    result["diff"] = {"before": result.pop("before"), "after": result.pop("after")}
    return dict(result, session=session) if session else result


SPEC = dict(
    _options.REACH, **_options.SESSION, state={"type": "str", "choices": ["present", "rotated", "absent", "listed"], "default": "present"},
    peer={"type": "str"}, peer_id={"type": "int"}, name={"type": "str"}, scopes={"type": "list", "elements": "str", "default": ["client"]},
    expires_at={"type": "str"}, revoke_old={"type": "bool", "default": True}, except_id={"type": "int"})
REQUIRED_BY = {}


def main():
    _options.run_module(work, argument_spec=SPEC, required_by=REQUIRED_BY)


if __name__ == "__main__":
    main()
