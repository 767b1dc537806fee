# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts from the peers of a GateControl server."""
from __future__ import annotations

DOCUMENTATION = r"""
name: gatecontrol
short_description: Hosts from the peers of a GateControl server
version_added: 1.0.0
description:
  - Every peer of the server becomes a host that is reached at its address in the tunnel, with what the server knows of it in C(gatecontrol_peer).
  - Reads the list of peers, 250 with each request.
  - A host that another source has too keeps its connection. The peer adds groups and variables to it, but no C(ansible_host), and O(compose) sets none of its
    variables that begin with C(ansible_). A host that enrolls itself may choose the name of its peer, so it could point another one's connection at itself.
    To reach such a host through the tunnel, set C(ansible_host) to C({{ gatecontrol_peer.address }}) in the variables of your own source.
  - For that this source has to be the last one, see O(before_others).
  - The file that configures it ends in C(gatecontrol.yml) or C(gatecontrol.yaml).
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.server
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [callmetechie.gatecontrol.gatecontrol]
  url:
    description: The server's address, such as V(https://gate.example.com).
    type: str
    required: true
    env:
      - name: GATECONTROL_URL
  peers_token:
    description: A token of scope C(peers) or C(read-only). Both can read every peer's keys, so it belongs on the controller only.
    type: str
    required: true
    env:
      - name: GATECONTROL_PEERS_TOKEN
  group_by:
    description:
      - What the built-in groups are made by. V(tag) gives C(tag_web), V(group) gives C(group_3) by the group's number, V(enabled) gives C(enabled) and
        C(disabled), V(online) gives C(online) and C(offline), V(handshake) gives C(fresh), C(stale) and C(never_seen).
      - They are plain Python. An expression of your own in O(groups), O(compose) or O(keyed_groups) costs about half a millisecond a host.
    type: list
    elements: str
    choices: [tag, group, enabled, online, handshake]
    default: [tag, group, enabled, online, handshake]
  before_others:
    description:
      - Whether other sources may be read after this one. Ansible reads sources in the order in which they are given, and the files of a folder by their names.
      - A host of a later source that says no C(ansible_host) would be reached at the address of the peer that is called like it. So this source is refused
        unless it is the last one.
      - Set it to V(true) where what follows names no hosts, such as a file for C(ansible.builtin.constructed) or one that only nests groups.
    type: bool
    default: false
  stale_after:
    description: Seconds since the latest handshake after which a peer is in the group C(stale).
    type: int
    default: 86400
  gateways:
    description: Whether peers of the type C(gateway), the server's own companions, are hosts too.
    type: bool
    default: false
"""

EXAMPLES = r"""
# A file that ends in gatecontrol.yml, with GATECONTROL_PEERS_TOKEN in the environment.
plugin: callmetechie.gatecontrol.gatecontrol
url: https://gate.example.com
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: .cache/inventory
cache_timeout: 300
keyed_groups:
  - key: gatecontrol_peer.name.split('-')[0]
    prefix: site
"""

import os
import re
import time

from ansible import context
from ansible.constants import LOCALHOST
from ansible.errors import AnsibleParserError
from ansible.inventory.manager import IGNORED
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _fleet, _options

RESERVED = ("all", "ungrouped", *LOCALHOST)  # as hosts they would catch what a play delegates to the controller, or mean a group


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Hosts from the peers of a GateControl server."""

    NAME = "callmetechie.gatecontrol.gatecontrol"

    def verify_file(self, path):
        return super().verify_file(path) and path.endswith(("gatecontrol.yml", "gatecontrol.yaml"))

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path)
        self._read_config_data(path)
        later = None if self.get_option("before_others") else source_after(path, context.CLIARGS.get("inventory") or ())
        if later:
            raise AnsibleParserError("%s is read after the peers of %s, and a host of it that is called like a peer could be reached at that peer's address; "
                                     "give this source as the last one (the files of a folder are read in the order of their names), or set before_others: "
                                     "true where what follows names no hosts" % (later, self.get_option("url")))
        self.load_cache_plugin()
        key = self.get_cache_key(path)
        use = self.get_option("cache") and cache
        peers = self._cache.get(key) if use else None
        if peers is None:
            try:
                options = {name: self.get_option(name) for name in _options.REACH}
                peers = [_fleet.slim(peer) for peer in _api.Api(dict(options, token=self.get_option("peers_token"))).peers()]
            except _api.ApiError as err:
                raise AnsibleParserError(str(err)) from err
            if self.get_option("cache"):
                self._cache[key] = peers
        self._fill(peers)

    def _fill(self, peers):
        by, stale, now = self.get_option("group_by"), self.get_option("stale_after"), time.time()
        own = [self.get_option(name) for name in ("compose", "groups", "keyed_groups")]
        strict, groups, own_hosts = self.get_option("strict"), {}, set()
        for peer in peers:
            if peer["type"] == "gateway" and not self.get_option("gateways"):
                continue
            host = re.sub(r"[^A-Za-z0-9_.-]", "_", peer["name"])
            if host in own_hosts or host in RESERVED:
                what = "a peer of %s is called %s, a name that Ansible keeps for itself" if host in RESERVED else "two peers of %s are called %s"
                self.display.warning((what + "; the one with the id %d is left out") % (self.get_option("url"), host, peer["id"]))
                continue
            own_hosts.add(host)
            foreign = host in self.inventory.hosts  # one that another source has too is the same host, but the peer's name proves no connection
            entry = self.inventory.hosts[self.inventory.add_host(host)]
            # Not by the inventory's own set_variable, which would take a host called like a group for that group.
            entry.set_variable("gatecontrol_peer", dict(peer, handshake_age=int(now - peer["handshake"]) if peer["handshake"] else None))
            if peer["address"] and not foreign:
                entry.set_variable("ansible_host", peer["address"])
            for group in built_in(peer, by, stale, now):
                if group not in groups:
                    groups[group] = self.inventory.groups[self.inventory.add_group(group)]
                groups[group].add_host(entry)  # add_child would take it for the group, too
            if any(own) and host in self.inventory.groups:
                self.display.warning("a peer of %s is called %s like a group, so compose, groups and keyed_groups are not for it"
                                     % (self.get_option("url"), host))
            elif any(own):
                composed = {name: text for name, text in own[0].items() if not (foreign and name.startswith("ansible_"))}
                self._set_composite_vars(composed, entry.get_vars(), host, strict)
                self._add_host_to_composed_groups(own[1], entry.get_vars(), host, strict, fetch_hostvars=False)
                self._add_host_to_keyed_groups(own[2], entry.get_vars(), host, strict, fetch_hostvars=False)


def built_in(peer, by, stale, now):
    """Names of the built-in groups a peer is in."""
    if "tag" in by:
        for tag in peer["tags"]:
            yield "tag_" + re.sub(r"\W", "_", tag)
    if "group" in by and peer["group_id"]:
        yield "group_%d" % peer["group_id"]
    if "enabled" in by:
        yield "enabled" if peer["enabled"] else "disabled"
    if "online" in by:
        yield "online" if peer["online"] else "offline"
    if "handshake" in by:
        yield "never_seen" if not peer["handshake"] else "stale" if now - peer["handshake"] > stale else "fresh"


def source_after(path, sources):
    """What Ansible reads after an inventory source, of those that it was given; None for nothing. Those of a folder are read in the order of their names."""
    for number, source in enumerate(sources):
        inside = source.rstrip("/")
        if path != source and not path.startswith(inside + "/"):
            continue
        if number + 1 < len(sources):
            return sources[number + 1]
        while path.rstrip("/") != inside:
            folder, name = os.path.split(path)
            later = sorted(other for other in os.listdir(folder) if other > name and not IGNORED.search(os.fsencode(other)))
            if later:
                return os.path.join(folder, later[0])
            path = folder
    return None
