# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs: the interface, its peers, addresses, routes, rules and DNS, as wg, ip and the resolver tell them.

`run(argv, stdin=None) -> (rc, out, err)` runs a command and raises OSError, or answers 127, where the program is missing; `store` is an
_enrollment.Store. On macOS ifconfig takes the place of ip.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import ipaddress
import json
import os
import re

from . import _enrollment, _services, _wgconf

MAIN, LOCAL = 254, 255  # routing tables
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
RESOLVED = "org.freedesktop.resolve1"
NAMES = "var/run/wireguard"  # where wg-quick for macOS keeps the real names of its interfaces


class TunnelError(Exception):
    """A step failed or is impossible. str: one sentence with the failing command's own words, never a key."""


class MissingTool(TunnelError):
    """A program is not installed on the host."""


class Running:
    """What runs on an interface.

    interface: its name; private_key, public_key: base64, None where unset; listen_port, fwmark, mtu: int, fwmark 0 where off; up: bool; addresses: set of
    "address/prefix"; routes: set of (network, table) that wg-quick or an administrator set on this interface; rules: {4: list, 6: list}
    of dicts of `ip -N -j rule`; dns: set of servers and search domains, None where it cannot be told; kept: the route of the kept path as
    "via GATEWAY dev DEVICE", None where there is none or it was not asked for; tables: names of nft's tables with their
    family, None where not asked or not told; peers: {public key: dict of preshared_key, endpoint, allowed_ips (set), handshake (Unix time,
    0: never), rx, tx (bytes), keepalive (seconds)}; unseen: what cannot be seen on this host and so is not compared; a change is a restart then.
    """

    private_key = public_key = dns = kept = tables = interface = None
    listen_port = fwmark = mtu = 0
    up, unseen = True, ()

    def __init__(self):
        self.peers, self.addresses, self.routes, self.rules = {}, set(), set(), {4: [], 6: []}


def unit_of(interface):
    """The unit that owns an interface. Raises TunnelError for a name that wg-quick or systemd would not take."""
    if not _wgconf.INTERFACE_NAME.fullmatch(interface) or re.search("[=+]", interface):
        raise TunnelError("%r is no interface name for wg-quick@.service: up to 15 of the characters a-z A-Z 0-9 _ . -" % interface)
    return "wg-quick@%s.service" % interface


def config_path(store, interface):
    """Where wg-quick looks for the config of an interface."""
    return os.path.join(store.root, "etc/wireguard", interface + ".conf")


def real_name(root, interface):
    """What the kernel calls an interface; on macOS wg-quick has it written down, and None is one that is not there."""
    if _services.system(root) != "macos":
        return interface
    return (_enrollment.read_text(os.path.join(root, NAMES, interface + ".name")) or "").strip() or None


def present(root, interface):
    """Whether there is such an interface, told without wg, which may be missing."""
    name = real_name(root, interface)
    kernel = os.path.join(NAMES, "%s.sock") if _services.system(root) == "macos" else "sys/class/net/%s"
    return name is not None and os.path.exists(os.path.join(root, kernel % name))


def command(run, argv, stdin=None):
    """The output of a command. Raises TunnelError with its own words."""
    try:
        rc, out, err = run(argv, stdin)
    except OSError as error:
        raise MissingTool("%s cannot be run: %s; install wireguard-tools and iproute2" % (argv[0], error.strerror or error)) from None
    if rc == 127:
        raise MissingTool("%s is not installed; install wireguard-tools and iproute2" % argv[0])
    if rc:
        words = [line for line in (err or out).splitlines() if not line.startswith(("[#]", "[+]"))]  # wg-quick's trace
        said = re.sub(r"[A-Za-z0-9+/]{40,}=*", "(masked)", " ".join(" ".join(words).split()))
        raise TunnelError("%s failed: %s" % (" ".join(argv[2:] if argv[0] == "env" else argv), said or "exit status %d" % rc))
    return out


def ip_json(run, argv):
    """The list of objects that `ip -j` writes. Raises TunnelError."""
    out = command(run, argv)
    try:
        found = json.loads(out or "[]")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise unreadable(" ".join(argv), out)
    return found


def routes_to(run, address):
    """The routes of table main that lead to an address (of ipaddress), whichever is the best of them. Raises TunnelError."""
    return ip_json(run, ["ip", "-%d" % address.version, "-N", "-j", "route", "show", "match", str(address), "table", "main"])


def dump(run, interface, root):
    """Running with what wg knows; None where there is no such interface."""
    name = real_name(root, interface)
    if name is None:
        return None
    try:
        out = command(run, ["wg", "show", name, "dump"])
    except TunnelError as error:
        # The second is what a kernel without WireGuard says of an interface that does not exist, the last are macOS's.
        if re.search("No such device|Protocol not supported|interface: (No such file|Connection refused)", str(error)):
            return None
        raise
    try:
        running = read_dump(out.splitlines())
    except ValueError:
        raise unreadable("wg show %s dump" % name, out) from None
    running.interface = interface
    return running


def unreadable(program, out):
    """The TunnelError for output that is not what the program is known to write; no word of it is told, for it may hold keys."""
    return TunnelError("%s wrote %s; install wireguard-tools and iproute2 as the distribution has them" % (
        program, "what cannot be read" if out.strip() else "nothing"))


_INTERFACE = re.compile(r"[^\t]+\t[^\t]+\t[0-9]{1,5}\t(?:off|0x[0-9a-f]{1,8})")
_PEER = re.compile(r"[^\t]+\t[^\t]+\t(?:\(none\)|(?:[0-9.]+|\[[0-9a-f:.]+(?:%[^\t\]]+)?\]):[0-9]{1,5})\t[^\t]+(?:\t[0-9]{1,15}){3}\t(?:off|[0-9]{1,5})")


def read_dump(lines):
    """The Running of the lines of `wg show INTERFACE dump`. Raises ValueError for what is none."""
    if not lines or not _INTERFACE.fullmatch(lines[0]) or not all(_PEER.fullmatch(line) for line in lines[1:]):
        raise ValueError("no dump")
    lines = [line.split("\t") for line in lines]
    running = Running()
    running.private_key, running.public_key = (None if value == "(none)" else value for value in lines[0][:2])
    running.listen_port, running.fwmark = int(lines[0][2]), 0 if lines[0][3] == "off" else int(lines[0][3], 0)
    for public, preshared, endpoint, allowed, handshake, received, sent, keepalive in lines[1:]:
        running.peers[public] = {
            "preshared_key": None if preshared == "(none)" else preshared, "endpoint": None if endpoint == "(none)" else re.sub("%[^]]*", "", endpoint),
            "allowed_ips": set() if allowed == "(none)" else {_wgconf.canonical_address(network) for network in allowed.split(",")},
            "handshake": int(handshake), "rx": int(received), "tx": int(sent), "keepalive": 0 if keepalive == "off" else int(keepalive)}
    return running


def _json_values(text):
    """The JSON values that `ip -batch` writes one after the other."""
    decoder, at, values = json.JSONDecoder(), 0, []
    text = text.strip()
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        values.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return values


def ipv6(root):
    """Whether a new interface of this host can have IPv6: it is neither left out of the kernel (ipv6.disable=1) nor switched off by sysctl."""
    if not os.path.isdir(os.path.join(root, "proc/self")):
        return True
    switch = _enrollment.read_text(os.path.join(root, "proc/sys/net/ipv6/conf/default/disable_ipv6"))
    if switch is not None:
        return switch.strip() == "0"
    # The beat's sandbox hides /proc/sys; lo has its address wherever IPv6 is on.
    return bool((_enrollment.read_text(os.path.join(root, "proc/self/net/if_inet6")) or "").strip())


def ip6_rules(run):
    try:
        return ip_json(run, ["ip", "-6", "-N", "-j", "rule", "show"])
    except TunnelError:
        return []  # a host without IPv6


def observe(run, interface, root="/", kept=None):
    """What runs on an interface: a Running, None where there is no such interface.

    Three processes, one more in a full tunnel, one more for DNS where systemd-resolved keeps it; two on macOS.

    kept: the kept path (_reach.kept_path), to see its route as well. Raises TunnelError.
    """
    try:
        return _look(run, interface, root, kept)
    except TunnelError:
        if dump(run, interface, root) is None or _has_gone(run, interface, root):  # it went while it was looked at
            return None
        raise


def _has_gone(run, interface, root):
    """Whether the kernel has no such interface; the process of a tunnel in user space answers for a moment more."""
    if _services.system(root) == "macos":
        return False
    rc, _out, err = run(["ip", "link", "show", "dev", interface], None)
    return rc == 1 and "does not exist" in err


def _look(run, interface, root, kept):
    running = dump(run, interface, root)
    if running is None:
        return None
    if _services.system(root) == "macos":
        name = real_name(root, interface)
        if name is None:
            return None
        running.mtu, running.up, running.addresses = ifconfig(run, name)
        running.unseen = ("routes", "DNS")
        return running
    asked = ["address show dev %s" % interface, "route show table all dev %s" % interface, "rule show"]
    route = next((words for words in kept or () if "route" in words), None)
    if route:
        asked.append("route show %s table main" % route[4])
    out = command(run, ["ip", "-N", "-j", "-batch", "-"], "\n".join(asked) + "\n")
    try:
        link = _read_ip(running, _json_values(out))
    except (LookupError, ValueError, TypeError, AttributeError):
        raise unreadable("ip -j -batch", out) from None
    running.rules[6] = ip6_rules(run)
    if running.fwmark or any(words[0] == "nft" for words in kept or ()):
        running.tables = _tables(run)
    running.dns = _dns(run, root, interface, link["ifindex"])
    return running


def _read_ip(running, answers):
    """Put what `ip` answered to the questions of _look into a Running; returns what it says of the link."""
    link = answers[0][0]
    running.mtu, running.up = link["mtu"], "UP" in link["flags"]
    running.addresses = {"%s/%d" % (address["local"], address["prefixlen"]) for address in link["addr_info"]}
    for route in answers[1]:
        # No protocol means "boot": set by hand or by wg-quick. Connected routes and those of routing daemons name theirs.
        if "protocol" not in route and "type" not in route and route.get("table") != str(LOCAL):
            family = 6 if "pref" in route or ":" in route["dst"] else 4
            network = DEFAULT[family] if route["dst"] == "default" else str(ipaddress.ip_network(route["dst"]))
            running.routes.add((network, int(route.get("table", MAIN))))
    running.rules = {4: answers[2], 6: []}
    if len(answers) > 3 and answers[3]:
        running.kept = " ".join("%s %s" % (word, answers[3][0][key]) for word, key in (("via", "gateway"), ("dev", "dev")) if key in answers[3][0])
    int(link["ifindex"])
    return link


def _tables(run):
    """The names of nft's tables, such as "ip wg-quick-wg0"; None where nft is missing or may not be asked."""
    try:
        return {line[len("table "):] for line in command(run, ["nft", "list", "tables"]).splitlines()}
    except TunnelError:
        return None


def ifconfig(run, name):
    """(MTU, whether it is up, {"address/prefix"}) of an interface on macOS."""
    out = command(run, ["ifconfig", name])
    found = re.search(r"flags=\w+<([^>]*)>.* mtu (\d+)", out)
    if not found:
        raise unreadable("ifconfig %s" % name, out)
    flags, mtu = found.groups()
    found = re.findall(r"\binet (\S+)(?: --> \S+)? netmask (0x[0-9a-f]+)", out)
    addresses = {"%s/%d" % (address, bin(int(mask, 16)).count("1")) for address, mask in found}
    addresses |= {"%s/%s" % found for found in re.findall(r"\binet6 ([0-9a-f:.]+)(?:%\S+)?(?: --> \S+)? prefixlen (\d+)", out)}
    return int(mtu), "UP" in flags.split(","), addresses


def resolver(root):
    """(kind, program) of the host's resolvconf, which wg-quick tells a tunnel's DNS: "resolved", "openresolv", "resolvconf" or None if unknown."""
    for place in ("usr/sbin/resolvconf", "sbin/resolvconf", "usr/bin/resolvconf", "usr/local/sbin/resolvconf"):
        program = os.path.join(root, place)
        if os.path.lexists(program):
            break
    else:
        return None, None
    if os.path.basename(os.path.realpath(program)) in ("resolvectl", "systemd-resolve"):
        return "resolved", program
    folder = os.path.join(root, "run/resolvconf")
    kinds = (("interfaces", "openresolv"), ("interface", "resolvconf"))
    return next((kind for name, kind in kinds if os.path.isdir(os.path.join(folder, name))), None), program


def dns_record(root, interface):
    """(path, name): where a resolvconf that works with files keeps what it was told for an interface, and under which name; (None, ...) for others."""
    kind = resolver(root)[0]
    if kind == "openresolv":
        return os.path.join(root, "run/resolvconf/interfaces", interface), interface
    if kind == "resolvconf":  # Debian's: wg-quick names the entry after the first simple pattern
        order = _enrollment.read_text(os.path.join(root, "etc/resolvconf/interface-order")) or ""
        prefix = re.search(r"^([A-Za-z0-9-]+)\*$", order, re.MULTILINE)
        name = "%s.%s" % (prefix.group(1), interface) if prefix else interface
        return os.path.join(root, "run/resolvconf/interface", name), name
    return None, interface


def _dns(run, root, interface, index):
    """The DNS servers and search domains that the host's resolver has for an interface; None where it cannot be told."""
    if resolver(root)[0] == "resolved":
        # A process that is spared where the file names no DNS: wg-quick gave none then, and a config that brings some is told by its text.
        file = _enrollment.read_text(os.path.join(root, "etc/wireguard", interface + ".conf"))
        return _link_dns(run, index) if file is None or re.search(r"(?im)^\s*DNS\s*=", file) else None
    path = dns_record(root, interface)[0]
    if path is None:
        return None
    found = set()
    for line in (_enrollment.read_text(path) or "").splitlines():
        words = line.split()
        if words and words[0] in ("nameserver", "search", "domain"):
            found.update(words[1:])
    return found


def _link_dns(run, index):
    """What systemd-resolved says over the bus, which all may ask; its files are its own. busctl answers alike in all its releases."""
    # A bus label: a digit in front is written as "_" and its hexadecimal code.
    link = "/org/freedesktop/resolve1/link/_3%d" % index
    argv = ["timeout", "5", "busctl", "--json=short", "get-property", RESOLVED, link, RESOLVED + ".Link", "DNS", "Domains"]
    try:
        servers, domains = (json.loads(line)["data"] for line in command(run, argv).splitlines())
        # A domain "." is wg-quick's word for: ask these servers first.
        return {str(ipaddress.ip_address(bytes(address))) for _family, address in servers} | {name for name, _route in domains if name != "."}
    except (TunnelError, ValueError, KeyError, TypeError):
        return None


def applied(path):
    """The Config of the file that was put in place last, None where there is none."""
    try:
        return _wgconf.parse(_enrollment.read_text(path) or "", allow_hooks=True)
    except _wgconf.ConfigError:
        return None


def backend(run):
    """What makes WireGuard interfaces on this host: "kernel", "wireguard-go" or None. Tries it with an interface that is gone at once."""
    name = "gc" + os.urandom(5).hex()
    for answer, tries in (("kernel", (["ip", "link", "add", name, "type", "wireguard"], ["ip", "link", "delete", "dev", name])),
                          ("wireguard-go", (["wireguard-go", "--version"],))):
        try:
            for argv in tries:
                command(run, argv)
            return answer
        except TunnelError:
            continue
    return None
