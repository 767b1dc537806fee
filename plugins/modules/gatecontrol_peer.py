#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_peer
short_description: A peer exists on a GateControl server, is absent, enabled or disabled
version_added: 1.0.0
description:
  - With a client token it runs on the host itself. The host registers, or takes over the peer its token was bound to in advance, and keeps
    what it needs in C(/etc/gatecontrol). An enrolled host needs no token any more.
  - With O(peers_token) it runs anywhere, most often delegated to the controller, finds the peer by its name or makes it, and keeps its
    fields.
  - Registering is never repeated blindly. What the host wrote down before it tells a later run whether a peer the server has already is its
    own.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.server
  - callmetechie.gatecontrol.server.token
  - callmetechie.gatecontrol.server.peers_token
  - callmetechie.gatecontrol.server.identity
  - callmetechie.gatecontrol.attributes
options:
  state:
    description:
      - V(present) is the only state a client token can bring about.
      - V(enabled) and V(disabled) are V(present) and switched on or off.
    type: str
    choices: [present, absent, enabled, disabled]
    default: present
  name:
    description:
      - The peer's name, 1 to 63 ASCII letters, digits, dots, underscores, hyphens and blanks that begin with a letter or digit. The host's
        own name without it.
      - With O(peers_token), O(name) or O(peer_id) is needed, and the name is taken as it is. When a host registers, the server turns every
        other character, blanks too, into an underscore and cuts the name to 50 characters.
    type: str
  peer_id:
    description:
      - Number of an existing peer. With a client token, the peer that the token was bound to in advance; nothing is registered then.
    type: int
  interface:
    description: Name of the host's tunnel interface and of its config, kept with the enrollment.
    type: str
    default: wg0
  adopt:
    description:
      - Whether a peer that was there before is taken over, as for a host that was rebuilt.
      - Also lets a host that got a new machine id keep its peer, and one whose token or O(issued_config) is another peer's change over to
        that.
    type: bool
    default: false
  move:
    description: Whether a host that is enrolled on another server gives that enrollment up.
    type: bool
    default: false
  issued_config:
    description:
      - The text of the config as RV(config) of a run with O(peers_token). The host then keeps it with its enrollment. Together with
        O(peer_id) and O(name).
      - Without O(token) the host has no way to the server of its own (RV(reporting=none)).
    type: str
  files:
    description:
      - For a host that runs no Python, the texts of the files it keeps, by C(enrollment), C(token), C(intent), C(issued) and C(offered). The module then runs
        delegated to the controller, together with O(machine_fingerprint), O(client_platform) and O(name), and returns what is to lie on the host.
      - They hold secrets; use C(no_log).
    type: dict
  intent_only:
    description: With O(files), whether only the intent is made, which has to lie on the host before the run that registers it.
    type: bool
    default: false
  settled:
    description: What the controller has brought to the server for a peer. Kept with the host's enrollment, if that is of this peer.
    type: dict
    suboptions:
      peer_id:
        description: The peer's number.
        type: int
        required: true
      fields:
        description: What the lookup P(callmetechie.gatecontrol.gatecontrol_agent#lookup) gives for V(peer_fields). V(ephemeral) for a peer that has an end
          of its own, whose fields are not compared later.
        type: str
        required: true
  server:
    description: RV(callmetechie.gatecontrol.gatecontrol_info#module:server) of a moment ago. Saves a request. Ignored where its address is
      not O(url).
    type: dict
  description:
    description: The peer's description. Needs O(peers_token). On enrolled hosts set O(send_version=false) too, since the server overwrites
      it otherwise.
    type: str
  tags:
    description: The peer's tags, all of them. Needs O(peers_token).
    type: list
    elements: str
  peer_dns:
    description: The DNS servers the server writes into this peer's config. Needs O(peers_token).
    type: list
    elements: str
  peer_keepalive:
    description: Seconds between keepalive packets the server writes into this peer's config. Needs O(peers_token).
    type: int
  expires_at:
    description:
      - When the server disables the peer, as V(2026-12-31T23:59:59Z), or V(never). Needs O(peers_token).
      - A peer that has expired stays disabled when this is changed, unless O(state=enabled).
    type: str
  group_id:
    description: Number of the peer's group, V(0) for none. Needs O(peers_token).
    type: int
  return_config:
    description: Whether RV(config) is returned, which has the private key in it. Needs O(peers_token); use C(no_log).
    type: bool
    default: false
seealso:
  - module: callmetechie.gatecontrol.gatecontrol_config
"""

EXAMPLES = r"""
- name: Enroll this host with a client token of its own
  callmetechie.gatecontrol.gatecontrol_peer:
    url: https://gate.example.com
    token: "{{ gatecontrol_token }}"

- name: Have a peer of the host's name, from the controller
  callmetechie.gatecontrol.gatecontrol_peer:
    url: https://gate.example.com
    peers_token: "{{ gatecontrol_peers_token }}"
    name: "{{ inventory_hostname }}"
    tags: [web, production]
  delegate_to: localhost

- name: Retire a host that no longer exists
  callmetechie.gatecontrol.gatecontrol_peer:
    url: https://gate.example.com
    peers_token: "{{ gatecontrol_peers_token }}"
    name: web01
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
peer:
  description: The peer. C(enabled) and C(address) only with a peers token; null when it is absent.
  returned: success
  type: dict
  contains:
    id:
      description: Its number; null in check mode of a peer that is still to be made.
      type: int
      sample: 5
    name:
      description: Its name.
      type: str
      sample: web01
    enabled:
      description: Whether the server lets it in.
      type: bool
    address:
      description: Its address in the tunnel (CIDR).
      type: str
      sample: 10.8.0.2/32
created:
  description: Whether the peer was made in this run.
  returned: success
  type: bool
adopted:
  description: Whether a peer that was there before was taken over.
  returned: with a client token
  type: bool
reporting:
  description: V(full) where the host has a token of its own, V(none) where it has not and so sends no heartbeat and asks for no config
    itself.
  returned: with a client token or O(issued_config)
  type: str
  sample: full
hash:
  description: SHA-256 of the server's config text; null in check mode of a new enrollment.
  returned: with a client token, O(issued_config) or O(return_config)
  type: str
config:
  description: The config's text, private key included.
  returned: with O(return_config)
  type: str
files:
  description: What is to be written to the host (a text) or removed there (null), by the names of O(files), as base64 of JSON. After a failure too. It
    holds secrets.
  returned: with O(files)
  type: str
server:
  description: What the server said of itself, for the run that follows.
  returned: with O(intent_only)
  type: dict
failure:
  description: What a playbook can decide on when the module fails. C(kind) such as V(licence), V(not_ours) or V(rate_limited), C(status) of
    the answer, details.
  returned: failure
  type: dict
  sample: {kind: rate_limited, status: 429, retry_after: 840}
"""

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _facts, _options, _peer


def work(module):
    params = module.params
    peers_token = _options.secret(params, "peers_token")
    if peers_token and params["issued_config"] is None and params["files"] is None:
        return on_server(module, peers_token)
    given = [key for key in _options.PEER_FIELDS if params[key] is not None]
    given += ["state=" + params["state"]] * (params["state"] != "present") + ["return_config"] * params["return_config"]
    if given:
        raise _api.ApiError("%s needs a token of scope peers, a client token can only register; set peers_token"
                            % ", ".join(given), "options")
    with _options.alone(module, _options.agent(module)):
        return on_host(module)


def on_server(module, peers_token):
    params = module.params
    if not params["name"] and not params["peer_id"]:
        raise _api.ApiError("no peer was named; set name or peer_id", "options")
    api = _options.api(dict(_options.reach(params, _options.own_settings()), token=peers_token))
    peer = _peer.ServerPeer(api, params["name"], params["peer_id"])
    result = peer.settle(params["state"], _peer.wanted_fields(params), module.check_mode)
    result["diff"] = {"before": result.pop("before"), "after": result.pop("after")}
    if params["return_config"] and result["peer"] and result["peer"]["id"]:
        answer = api.peer_config(result["peer"]["id"])
        _options.keep_secret(answer["config"])
        result.update(config=answer["config"], hash=answer["hash"])
    return result


def on_host(module):
    params, remote = module.params, module.params["files"] is not None
    store, run = _options.store(params), _options.runner()
    before = store.load("enrollment") or {}
    settings = None if remote else store.load("settings")  # they say how the host itself reaches the server
    options = _options.reach(params, None if remote else settings or before)  # what a host keeps has no say in what the controller asks, and how
    url = options["url"]
    fingerprint = params["machine_fingerprint"] if remote else _facts.machine_fingerprint(store.root, run)
    who = _options.identity(params, settings, fingerprint)
    server = params["server"] or {}
    server = server if server.get("url") == url and server.get("timestamp") and server.get("version") else None
    peer = _peer.HostPeer(
        store, lambda token: _options.api(dict(options, token=token), who), url, token=_options.secret(params), name=params["name"],
        interface=params["interface"], peer_id=params["peer_id"], issued=params["issued_config"], adopt=params["adopt"],
        move=params["move"], server=server, settled=params["settled"], run=run, fingerprint=fingerprint,
        system=params["client_platform"] if remote else None)
    if params["intent_only"]:
        peer.intend()
        return dict(_options.returned(store), changed=False, server=dict(peer.server or {}, url=url))
    try:
        result = peer.present(module.check_mode)
    except (_api.ApiError, _peer.PeerError) as err:
        module.fail_json(msg=str(err), failure=err.failure, **_options.returned(store))
    result.update(_options.returned(store))
    shown = ("peer_id", "peer_name", "url")
    after = dict(zip(shown, (result["peer"]["id"], result["peer"]["name"], url)))
    result["diff"] = {"before": {key: before[key] for key in shown if key in before}, "after": after}
    return result


SPEC = dict(
    _options.REACH, **_options.TOKEN, **_options.PEERS_TOKEN, **_options.IDENTITY, **_options.INTERFACE, **_options.PEER_FIELDS,
    state={"type": "str", "choices": ["present", "absent", "enabled", "disabled"], "default": "present"},
    name={"type": "str"}, peer_id={"type": "int"}, adopt={"type": "bool", "default": False},
    move={"type": "bool", "default": False},
    issued_config={"type": "str", "no_log": True}, server={"type": "dict"},
    settled={"type": "dict", "options": {"peer_id": {"type": "int", "required": True}, "fields": {"type": "str", "required": True}}},
    return_config={"type": "bool", "default": False}, intent_only={"type": "bool", "default": False}, **_options.FILES)
REQUIRED_BY = {"issued_config": ["peer_id", "name"], "files": ["machine_fingerprint", "client_platform", "name"]}


def main():
    _options.run_module(work, argument_spec=SPEC, required_by=REQUIRED_BY)


if __name__ == "__main__":
    main()
