# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would stop an enrollment on this host, told before a peer is made. Changes nothing.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import ipaddress
import os
import re
import time

from . import _facts, _line, _observe, _points, _python, _services, _wgconf
from ._points import NotApplicable, Wrong

TUN = "dev/net/tun"
MARK = "proc/sys/net/ipv4/conf/all/src_valid_mark"  # wg-quick sets it for a full tunnel
NET_ADMIN = 12  # capabilities(7)
ORDER = ("root", "python", "systemd", "wireguard", "tun device", "capability", "sysctl", "networks")


class Preflight:
    """The points of one host.

    host: a _facts.Host; allowed_ips: networks that are to go into the tunnel, None where the server decides;
    interface: the tunnel's; table: as in the policy.
    """

    def __init__(self, host, allowed_ips=None, interface="wg0", table=None):
        self.host, self.root, self.run = host, host.store.root, host.run
        # Ansible lets a list be given as "a,b".
        self.allowed_ips = (
            [part.strip() for part in allowed_ips.split(",") if part.strip()]
            if isinstance(allowed_ips, str)
            else allowed_ips
        )
        self.interface, self.table = interface, table
        self.points = _points.Points(ORDER, (_facts.AgentError, _observe.TunnelError))
        self.mac = _services.system(self.root) == "macos"
        self.backend = None

    def look(self):
        """All points, in their order."""
        ask = self.points.ask
        ask("root", self.administrator)
        ask("python", lambda: _python.interpreter(self.run))
        ask("systemd", self.service_manager)
        for name, work in (
            ("wireguard", self.wireguard),
            ("tun device", self.tun),
            ("capability", self.capability),
            ("sysctl", self.sysctl),
            ("networks", self.networks),
        ):
            if self.mac:
                self.points.put(name, _points.NOT_APPLICABLE, "not on macOS")
            else:
                ask(name, work)
        return self.points.listed()

    def administrator(self):
        """Whether this runs as root."""
        if os.geteuid():
            raise Wrong(
                "the task does not run as root; let Ansible become root on this host (ansible_become,"
                " ansible_become_password)"
            )
        return "the task runs as root"

    def service_manager(self):
        """Whether what the agent's timer needs is there."""
        if not self.host.services.available():
            raise Wrong(
                "this host does not run %s, which the tunnel and the heartbeat need; enroll a host that is booted"
                " with it"
                % self.host.services.NAME
            )
        return "%s runs" % self.host.services.NAME

    def wireguard(self):
        """What makes WireGuard interfaces."""
        self.backend = _observe.backend(self.run)
        return {"kernel": "in the kernel", "wireguard-go": "wireguard-go is installed"}.get(
            self.backend, "not in the kernel, so wireguard-go is needed"
        )

    def tun(self):
        """Whether wireguard-go could make an interface."""
        if self.backend == "kernel":
            raise NotApplicable("WireGuard is in the kernel")
        try:
            os.close(os.open(os.path.join(self.root, TUN), os.O_RDWR))
        except OSError as err:
            raise Wrong(
                "/%s: %s, and WireGuard is not in this host's kernel; load the kernel's module tun or wireguard, or"
                " give the container this device" % (TUN, err.strerror)
            ) from None
        return "/%s opens" % TUN

    def capability(self):
        """Whether root may change networks here."""
        try:
            with open(os.path.join(self.root, "proc/self/status"), encoding="ascii") as handle:
                effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", handle.read(), re.MULTILINE)
        except OSError:
            effective = None
        if not effective:
            raise NotApplicable("the kernel does not tell it")
        if not int(effective.group(1), 16) >> NET_ADMIN & 1:
            raise Wrong(
                "root may not change networks here (CAP_NET_ADMIN is missing), so no tunnel can be made; give the"
                " container that capability"
            )
        return "root may change networks"

    def sysctl(self):
        """Whether wg-quick could do what a full tunnel takes."""
        if self.allowed_ips is not None and not any(str(network).endswith("/0") for network in self.allowed_ips):
            raise NotApplicable("no full tunnel is asked for")
        path = os.path.join(self.root, MARK)
        if not os.path.exists(path) or os.access(path, os.W_OK):
            return "can be set"
        raise Wrong(
            "/%s cannot be written (Read-only file system, as in a container), which wg-quick does for a tunnel that"
            " takes all traffic; set gatecontrol_allowed_ips to the networks behind the server, or let the container"
            " write there" % MARK
        )

    def networks(self):
        """Whether the tunnel's networks are this host's own."""
        if self.allowed_ips is None:
            raise NotApplicable("the server decides what goes into the tunnel")
        if self.table == "off":
            raise NotApplicable("no routes are made (gatecontrol_table: off)")
        found = overlaps(self.allowed_ips, own_networks(self.run, self.interface))
        if found:
            raise Wrong(found)
        return "none of %s is this host's own" % ", ".join(map(str, self.allowed_ips))


def own_networks(run, interface):
    """{network: the name of the interface that has it} of this host, without loopback and the tunnel.

    Raises NotApplicable where ip is missing.
    """
    try:
        links = _observe.ip_json(run, ["ip", "-j", "address", "show"])
    except _observe.TunnelError:
        raise NotApplicable("ip is not installed yet") from None
    found = {}
    for link in links:
        for address in link.get("addr_info", []) if link.get("ifname") not in ("lo", interface) else []:
            network = ipaddress.ip_network("%s/%s" % (address["local"], address["prefixlen"]), strict=False)
            if network.prefixlen < network.max_prefixlen and not network.is_link_local:
                found[network] = link["ifname"]
    return found


def overlaps(allowed_ips, own):
    """Why these networks cannot go into a tunnel, as one sentence; None where they can. own: as own_networks has it."""
    for network in (ipaddress.ip_network(str(text), strict=False) for text in allowed_ips):
        if network in own:
            return (
                "AllowedIPs have %s, which is this host's own network on %s, and would cut it off there (RTNETLINK"
                " answers: File exists); leave it out with gatecontrol_allowed_ips" % (network, own[network])
            )
    return None


def endpoint_inside(config, resolve, near=lambda address: -1):
    """Why the tunnel of this Config would swallow its own packets, as one sentence; None where it would not.

    wg-quick keeps them out where all traffic (/0) goes into the tunnel, and nowhere else. resolve: a host's name -> its
    addresses; near: an address -> the length of the longest prefix that leads to it beside the tunnel, -1 where only
    the default does.
    """
    if _wgconf.is_full_tunnel(config) or config.interface.get("Table") == "off":
        return None
    networks = [ipaddress.ip_network(network) for peer in config.peers for network in peer["AllowedIPs"]]
    for peer in config.peers:
        name = _wgconf.split_endpoint(peer["Endpoint"])[0] if "Endpoint" in peer else None
        for address in map(ipaddress.ip_address, resolve(name) if name else ()):
            inside = [
                network
                for network in networks
                if network.version == address.version and address in network and network.prefixlen >= near(address)
            ]
            if inside:
                return (
                    "the server's own endpoint %s (%s) lies in %s of AllowedIPs, so that the tunnel would swallow its"
                    " own packets; leave that address out with gatecontrol_allowed_ips"
                    % (peer["Endpoint"], address, inside[0])
                )
    return None


def check_config(host, config, interface):
    """Raise AgentError where a tunnel of this Config cannot work on this host; asked before the tunnel is touched."""
    if _services.system(host.store.root) == "macos":
        return
    allowed_ips = [network for peer in config.peers for network in peer["AllowedIPs"]]
    try:
        found = (
            overlaps(allowed_ips, own_networks(host.run, interface)) if config.interface.get("Table") != "off" else None
        )
    except NotApplicable:
        found = None
    found = found or endpoint_inside(config, _addresses, lambda address: _near(host.run, address, interface))
    if found:
        raise _facts.AgentError(
            "the server's config cannot work on this host, and its tunnel was left as it is: %s" % found, "settings"
        )


def _near(run, address, interface):
    """As endpoint_inside takes it."""
    try:
        routes = _observe.routes_to(run, address)
    except _observe.TunnelError:
        routes = []
    return max(
        [
            ipaddress.ip_network(route["dst"]).prefixlen
            for route in routes
            if route.get("dev") != interface and route.get("dst", "default") != "default"
        ],
        default=-1,
    )


def _addresses(name):
    """The addresses of a host's name, none where they are not told within 5 s."""
    try:
        return [found[4][0].split("%")[0] for found in _line.addresses(name, 0, time.monotonic() + 5)]
    except OSError:
        return []
