#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_config
short_description: A file holds a peer's current WireGuard config
version_added: 1.0.0
description:
  - Reads the peer's config from the server, checks every line of it, applies the local policy and writes what is left, or nothing. What the
    server sends is never passed through.
  - On an enrolled host it asks by the SHA-256 hash of the text and uses the host's own token.
  - It does not touch the running tunnel; that is M(callmetechie.gatecontrol.gatecontrol_tunnel).
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.server
  - callmetechie.gatecontrol.server.token
  - callmetechie.gatecontrol.server.peers_token
  - callmetechie.gatecontrol.server.identity
  - callmetechie.gatecontrol.policy
  - callmetechie.gatecontrol.attributes
options:
  dest:
    description: The file to write, such as C(/etc/wireguard/wg0.conf). Nothing is written without it, and without O(stage).
    type: path
  stage:
    description: Whether the config is kept as the candidate that M(callmetechie.gatecontrol.gatecontrol_tunnel) applies with a way back.
      For enrolled hosts.
    type: bool
    default: false
  peer_id:
    description: Number of the peer. That of the host's enrollment without it.
    type: int
  hash:
    description:
      - SHA-256 of the server's text that is known already. With it, RV(updated) tells whether the server has another one.
      - On an enrolled host, where the text with this hash lies already, the server is not asked.
    type: str
  files:
    description:
      - For a host that runs no Python, the texts of the files it keeps, as O(callmetechie.gatecontrol.gatecontrol_peer#module:files). The module then runs
        delegated to the controller, and with O(stage) returns what is to lie on the host.
    type: dict
  return_config:
    description: Whether RV(config) is returned, which has the private key in it. Use C(no_log).
    type: bool
    default: false
  owner:
    description: Name or number of the file's owner.
    type: str
  group:
    description: Name or number of the file's group.
    type: str
  mode:
    description:
      - The file's mode, as a text of octal digits that begins with 0, such as V('0640'), or symbolic, such as V(u=rw,g=r,o=).
      - Without quotes YAML makes another number of V(0640), so what does not begin with 0 is refused.
    type: str
    default: "0600"
  backup:
    description: Whether the file that is replaced is kept beside it with a time in its name.
    type: bool
    default: false
seealso:
  - module: callmetechie.gatecontrol.gatecontrol_tunnel
"""

EXAMPLES = r"""
- name: Write the config of a peer whose token this host was given
  callmetechie.gatecontrol.gatecontrol_config:
    url: https://gate.example.com
    token: "{{ gatecontrol_token }}"
    peer_id: "{{ gatecontrol_peer_id }}"
    dest: /etc/wireguard/wg0.conf
    allowed_ips: [10.8.0.0/24]
    dns: []
    backup: true

- name: Refresh the config of an enrolled host, which needs no secret
  callmetechie.gatecontrol.gatecontrol_config:
    dest: /etc/wireguard/wg0.conf
    allowed_ips: [10.8.0.0/24]
    dns: []
"""

RETURN = r"""
hash:
  description: SHA-256 of the server's text, 64 hex digits. Not the hash of the file, which is rendered anew.
  returned: success
  type: str
updated:
  description: Whether the server's text differs from O(hash), or from the enrollment's where that was not given.
  returned: success
  type: bool
config:
  description: The text as it is written, local policy applied.
  returned: with O(return_config)
  type: str
files:
  description: What is to be written to the host (a text) or removed there (null), by the names of O(files), as base64 of JSON. Holds secrets.
  returned: with O(files)
  type: str
dest:
  description: The file.
  returned: with O(dest)
  type: str
backup_file:
  description: Where the file that was replaced is kept.
  returned: when a backup was made
  type: str
needs:
  description: Tools that this config needs on the host and that are missing, C(resolvconf-link) where C(resolvectl) can stand in.
  returned: success
  type: list
  elements: str
  sample: [resolvconf]
plan:
  description:
    - The step (C(action)) that would bring the tunnel to this config, and its C(reasons), as RV(callmetechie.gatecontrol.gatecontrol_tunnel#module:action)
      tells.
  returned: in check mode with O(stage)
  type: dict
  sample: {action: restart, reasons: ["MTU is 1420, should be 1400"]}
full_tunnel:
  description: Whether the config routes all traffic (C(/0)) into the tunnel.
  returned: success
  type: bool
"""

import contextlib
import grp
import os
import pwd
import re
import stat

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _enrollment, _observe, _options, _plan, _preflight, _reach, _wgconf


def issued_text(module, agent, known):
    """The server's current text: by hash with the host's own copy, where there is one; else read from the server."""
    params = module.params
    copies = {_enrollment.digest(text): text for text in (agent.store.text("issued"), agent.store.text("offered")) if text is not None}
    if params["hash"] and params["hash"] in copies and not params["peer_id"]:
        return copies[params["hash"]]
    # What a host keeps has no say in what the controller asks in its place, and how.
    options = _options.reach(params, None if params["files"] is not None else agent.settings or agent.enrollment)
    peer_id = params["peer_id"] or agent.enrollment.get("peer_id")
    if not peer_id:
        raise _api.ApiError("this host is not enrolled, so peer_id has to be given", "options")
    peers_token = _options.secret(params, "peers_token")
    if peers_token:
        return _options.api(dict(options, token=peers_token)).peer_config(peer_id)["config"]
    if agent.enrollment.get("peer_id") == peer_id:
        agent.check_identity()
    token = _options.secret(params) or agent.token
    if not token:
        raise _api.ApiError("no token was given and none lies on this host; set token, token_file or peers_token", "options")
    api = _options.api(dict(options, token=token), _options.identity(params, agent.settings, agent.fingerprint))
    if known in copies:
        offer = api.config_check(peer_id, known)
        return offer["config"] if offer else copies[known]
    return api.config(peer_id)["config"]


def wanted_rights(params):
    """(mode, uid, gid) of the options, None for an owner or group that was not given. Raises ApiError (options) for what is none."""
    def number(name, named):
        value = params[name]
        try:
            return None if value is None else int(value) if value.isdigit() else named(value)[2]
        except KeyError:
            raise _api.ApiError("%s %s does not exist on this host; correct it" % (name, value), "options")
    return wanted_mode(params), number("owner", pwd.getpwnam), number("group", grp.getgrnam)


def wanted_mode(params):
    """The mode as a number; a symbolic one starts from that of the file, from 0600 where there is none. Raises ApiError (options) for what is none."""
    mode = params["mode"]
    if re.fullmatch("0[0-7]{3}", mode):
        return int(mode, 8)
    if re.fullmatch("[ugoa]*[-+=][rwxXst]*(?:,[ugoa]*[-+=][rwxXst]*)*", mode):
        there = params["dest"] and os.path.exists(params["dest"])
        now = os.stat(params["dest"]) if there else os.stat_result((stat.S_IFREG | 0o600,) + (0,) * 9)
        return AnsibleModule._symbolic_mode_to_octal(now, mode)
    raise _api.ApiError("mode %s is neither a text of four octal digits that begins with 0, nor symbolic: without quotes YAML makes another number of 0640; "
                        "write mode: '0640' or mode: u=rw,g=r,o=" % re.sub("[^0-9A-Za-z=+,-]", "?", mode)[:12], "options")


def rights_differ(dest, rights):
    seen = os.stat(dest)
    return any(wanted is not None and wanted != there for wanted, there in zip(rights, (seen.st_mode & 0o7777, seen.st_uid, seen.st_gid)))


def work(module):
    agent = _options.agent(module)
    with _options.alone(module, agent) if module.params["stage"] else contextlib.nullcontext():
        return read(module, agent)


def read(module, agent):
    params, rights = module.params, wanted_rights(module.params)
    known = params["hash"] or (None if params["peer_id"] not in (None, agent.enrollment.get("peer_id")) else agent.enrollment.get("hash"))
    offered = issued_text(module, agent, known)
    policy = _options.policy(params, agent.settings)
    # A file that somebody else takes may be for a host that has what this one has not.
    text = agent.rendered(offered, policy, None if params["stage"] else True)
    left_out = agent.left_out(offered, policy) if params["stage"] else []
    if left_out:
        module.warn("IPv6 is switched off on this host, so %s %s left out of its config until it is on" % (
            ", ".join(left_out), "is" if len(left_out) == 1 else "are"))
    _options.keep_secret(offered, text)
    config = _wgconf.parse(text, allow_hooks=True)
    offered_hash = _enrollment.digest(offered)
    result = {"changed": False, "hash": offered_hash, "updated": offered_hash != known,
              "full_tunnel": _wgconf.is_full_tunnel(config), "needs": agent.host.needs(config) if params["files"] is None else []}
    if params["return_config"]:
        result["config"] = text
    path = agent.config_path if params["stage"] else params["dest"]
    if path:
        before = _enrollment.read_text(path) if params["files"] is None else params["files"].get("config")
        result["changed"] = before != text or (not params["stage"] and rights_differ(path, rights))
        result["diff"] = {"before": _wgconf.mask(before or ""), "after": _wgconf.mask(text), "before_header": path, "after_header": path}
        if params["stage"] and params["files"] is None and before != text:
            _preflight.check_config(agent.host, config, agent.interface)
        if params["stage"] and module.check_mode:
            if params["files"] is None:
                plan = _plan.plan(config, agent.running(), _observe.applied(path), _reach.kept_path(agent.store, agent.interface))
                result["plan"] = {"action": plan.action, "reasons": plan.reasons}
        elif params["stage"]:
            agent.stage(offered, policy)
            result.update(_options.returned(agent.store))
        elif not params["stage"]:
            result["dest"] = path
            if result["changed"] and not module.check_mode:
                if before not in (None, text) and params["backup"]:
                    result["backup_file"] = module.backup_local(path)
                _enrollment.write_text(path, text, *rights)
    return result


SPEC = dict(
    _options.REACH, **_options.TOKEN, **_options.PEERS_TOKEN, **_options.IDENTITY, **_options.POLICY,
    dest={"type": "path"}, stage={"type": "bool", "default": False}, peer_id={"type": "int"}, hash={"type": "str"},
    return_config={"type": "bool", "default": False}, owner={"type": "str"}, group={"type": "str"},
    mode={"type": "str", "default": "0600"},
    backup={"type": "bool", "default": False}, **_options.FILES)
REQUIRED_BY = {"files": ["machine_fingerprint", "client_platform", "url"]}


def main():
    _options.run_module(work, argument_spec=SPEC, required_by=REQUIRED_BY)


if __name__ == "__main__":
    main()
