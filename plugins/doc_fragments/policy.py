# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """What a config from the server may hold, and what is put in its place."""

    DOCUMENTATION = r"""
options:
  allow_hooks:
    description:
      - Whether C(PreUp), C(PostUp), C(PreDown) and C(PostDown) from the server are accepted. They run as root, so that whoever controls the
        server controls the host. V(false) unless set.
      - This and the other options of the local policy are taken from the agent's settings, on a host that has it, when they are not given.
    type: bool
  allowed_ips:
    description: Networks (CIDR) in place of the server's AllowedIPs, which are a full tunnel by default.
    type: list
    elements: str
  dns:
    description: DNS servers and search domains in place of the server's. An empty list leaves the host's DNS alone.
    type: list
    elements: str
  mtu:
    description: MTU in bytes in place of the server's.
    type: int
  table:
    description: Routing table, V(auto), V(off) or a number.
    type: str
  fwmark:
    description: Firewall mark of the tunnel's own packets, a number, V(0x) hex or V(off).
    type: str
  listen_port:
    description: UDP port the host listens on; a random one without it.
    type: int
  persistent_keepalive:
    description: Seconds between keepalive packets in place of the server's; V(0) turns them off.
    type: int
  allow_endpoints:
    description: If given, the only endpoints a config may name, as host, host:port or network (CIDR).
    type: list
    elements: str
  allow_allowed_ips:
    description: If given, every network of AllowedIPs must lie inside one of these (CIDR).
    type: list
    elements: str
  allow_dns:
    description: If given, every DNS server must lie inside one of these networks (CIDR), every search domain be one of these names.
    type: list
    elements: str
  kill_switch:
    description:
      - For a host whose O(client_platform) is V(windows), whether a C(/0) in AllowedIPs stays. With it WireGuard for Windows blocks all traffic
        outside the tunnel. Otherwise its two halves are written, which route the same.
    type: bool
"""
