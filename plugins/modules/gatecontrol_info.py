#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_info
short_description: Tell what a GateControl server says
version_added: 1.0.0
description:
  - Asks a GateControl server whether it answers, which release it is, what a token may do, and, with a peers token or as the administrator, which
    peers it has.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.server
  - callmetechie.gatecontrol.server.token
  - callmetechie.gatecontrol.server.peers_token
  - callmetechie.gatecontrol.server.admin
  - callmetechie.gatecontrol.attributes.info
options:
  gather:
    description:
      - What to ask for, one request each. V(server) is a ping with the client token, or one entry of the peers list with a peers token
        alone, which does not tell the release. V(permissions) needs a client token and a server since 1.6.1. V(peers) needs O(peers_token),
        or O(admin_user) and O(admin_password) and with them a login of its own, and one request for each 250 peers.
    type: list
    elements: str
    choices: [server, permissions, peers]
    default: [server]
seealso:
  - module: callmetechie.gatecontrol.gatecontrol_host_info
"""

EXAMPLES = r"""
- name: Ask whether the server answers and which release it is
  callmetechie.gatecontrol.gatecontrol_info:
    url: https://gate.example.com
    token: "{{ gatecontrol_token }}"
  register: gate

- name: List the peers from the controller
  callmetechie.gatecontrol.gatecontrol_info:
    url: https://gate.example.com
    peers_token: "{{ gatecontrol_peers_token }}"
    gather: [peers]
  delegate_to: localhost
  run_once: true
  register: gate
"""

RETURN = r"""
server:
  description: The server. RV(server.version) and RV(server.timestamp) are missing where only a peers token was given.
  returned: when V(server) was gathered
  type: dict
  contains:
    url:
      description: Its address in one spelling.
      type: str
      sample: https://gate.example.com
    version:
      description: Its release.
      type: str
      sample: 1.118.2
    timestamp:
      description: Its time, ISO 8601 in UTC.
      type: str
      sample: "2026-11-23T12:00:00.000Z"
    register:
      description: Whether a client token can register on this release, V(broken) where it is known to answer 500.
      type: str
      sample: broken
permissions:
  description: What the token may do, by name.
  returned: when V(permissions) was gathered
  type: dict
  sample: {services: false, traffic: false}
scopes:
  description: The token's effective scopes.
  returned: when V(permissions) was gathered
  type: list
  elements: str
  sample: [client]
peers:
  description: Every peer as the server lists it. C(transferRx) and C(transferTx) are bytes, C(latestHandshake) is in seconds since 1970.
  returned: when V(peers) was gathered
  type: list
  elements: dict
  sample: [{id: 5, name: web01, allowed_ips: 10.8.0.2/32, enabled: 1, isOnline: true}]
"""

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _options, _session


def work(module):
    options, gather = _options.reach(module.params, _options.own_settings()), module.params["gather"]
    token, peers_token = _options.secret(module.params), _options.secret(module.params, "peers_token")
    admin = "peers" in gather and not peers_token and module.params["admin_user"] and module.params["admin_password"]
    if not (token or peers_token or admin):
        raise _api.ApiError("no token was given; set token, token_file or peers_token", "options")
    result = {"changed": False}
    client = _options.api(dict(options, token=token)) if token else None
    peers = _options.api(dict(options, token=peers_token)) if peers_token else None
    if "server" in gather:
        result["server"] = {"url": options["url"]}
        if client:
            said = client.ping()
            result["server"].update(version=said.get("version"), timestamp=said.get("timestamp"),
                                    register="broken" if _api.register_broken(said.get("version")) else "works")
        else:
            next(peers.peers(page_size=1), None)
    if "permissions" in gather:
        if not client:
            raise _api.ApiError("permissions are those of a client token; set token or token_file", "options")
        said = client.permissions()
        result.update(permissions=said.get("permissions"), scopes=said.get("scopes"))
    if "peers" in gather:
        if admin:
            peers = _session.Admin(options)
            peers.transport.login(module.params["admin_user"], module.params["admin_password"])
        if not peers:
            raise _api.ApiError("the list of peers needs a token of scope peers; set peers_token", "options")
        result["peers"] = list(peers.peers())
    return result


def main():
    _options.run_module(work, argument_spec=dict(
        _options.REACH, **_options.TOKEN, **_options.PEERS_TOKEN, **_options.ADMIN,
        gather={"type": "list", "elements": "str", "choices": ["server", "permissions", "peers"], "default": ["server"]}))


if __name__ == "__main__":
    main()
