#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_status
short_description: A heartbeat, or a change of the tunnel's state, is reported to a GateControl server
version_added: 1.0.0
description:
  - Does on demand what the agent's timer does. Sends a heartbeat with what the tunnel's interface says, and a status event only when the
    tunnel's state changed since the last one that was reported.
  - The server keeps no trace of a heartbeat that a client could read. That it was seen means that it was answered with 200.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.server
  - callmetechie.gatecontrol.server.token
  - callmetechie.gatecontrol.server.identity
  - callmetechie.gatecontrol.attributes
options:
  peer_id:
    description: Number of the peer. That of the host's enrollment without it.
    type: int
  interface:
    description: The tunnel's interface, on hosts that are not enrolled.
    type: str
    default: wg0
seealso:
  - module: callmetechie.gatecontrol.gatecontrol_host_info
"""

EXAMPLES = r"""
- name: Send a heartbeat of an enrolled host now
  callmetechie.gatecontrol.gatecontrol_status:

- name: Report for a peer whose tunnel was set up by other means
  callmetechie.gatecontrol.gatecontrol_status:
    url: https://gate.example.com
    token: "{{ gatecontrol_token }}"
    peer_id: "{{ gatecontrol_peer_id }}"
    interface: wg0
"""

RETURN = r"""
status:
  description: The tunnel's state, V(connected), V(reconnecting), V(disconnected) or V(error).
  returned: success
  type: str
  sample: connected
reported:
  description: Whether a status event was sent. A heartbeat alone is no change.
  returned: success
  type: bool
peer_enabled:
  description: Whether the server has the peer enabled, null where its release does not tell (before 1.33.0).
  returned: success
  type: bool
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
"""

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _agent, _api, _enrollment, _facts, _options

SHOWN = ("status", "peer_enabled", "handshake_age", "rx_bytes", "tx_bytes")


class _Beside(_enrollment.Store):
    """The host's files, with a memory of its own for a peer that is not the host's."""

    def __init__(self, root, peer_id):
        super().__init__(root)
        self.peer_id = peer_id

    def path(self, name):
        path = super().path(name)
        return path if name != "state" else "%s-%d.json" % (path[:-len(".json")], self.peer_id)


def work(module):
    params, agent = module.params, _options.agent(module)
    token = _options.secret(params)
    reach = _options.reach(params, agent.settings or agent.enrollment)
    agent.settings = dict(agent.settings, **{key: value for key, value in reach.items() if value is not None})
    if params["peer_id"] and params["peer_id"] != agent.enrollment.get("peer_id"):
        if not token:
            raise _api.ApiError("this host is not enrolled as peer %d, so token has to be given" % params["peer_id"], "options")
        agent.store, agent.interface = _Beside(agent.store.root, params["peer_id"]), params["interface"]
        agent.enrollment = {"peer_id": params["peer_id"], "reporting": "full", "interface": params["interface"],
                            "fingerprint": _facts.machine_fingerprint(agent.store.root, agent.run)}
    if params["send_version"] is not None:
        agent.settings["send_version"] = params["send_version"]
    if token:
        agent.token = token
    agent.check_identity()
    if not agent.reports:
        raise _agent.AgentError("this host has no token of its own (reporting: none), so it cannot report; give it a client token bound "
                                "to its peer", "settings")
    before = (agent.store.load("state") or {}).get("reported")
    if module.check_mode:
        shown = agent.show()
        return dict({key: shown[key] for key in SHOWN}, changed=before not in (None, shown["status"]), reported=False,
                    diff={"before": {"reported": before}, "after": {"reported": shown["status"]}})
    shown = agent.beat(check=False)
    if (shown["not_before"] or 0) > agent.now() and not shown["error"]:
        raise _api.ApiError("the heartbeat was not sent, since the token's rate limit is used up; come back in %d s"
                            % (shown["not_before"] - agent.now()), "rate_limited")
    if shown["error"]:
        raise _api.ApiError(shown["error"]["text"], shown["error"]["kind"])
    after = (agent.store.load("state") or {}).get("reported")
    changed = before is not None and before != after
    return dict({key: shown[key] for key in SHOWN}, changed=changed, reported=changed,
                diff={"before": {"reported": before}, "after": {"reported": after}})


def main():
    _options.run_module(work, argument_spec=dict(
        _options.REACH, **_options.TOKEN, **_options.IDENTITY, **_options.INTERFACE, peer_id={"type": "int"}))


if __name__ == "__main__":
    main()
