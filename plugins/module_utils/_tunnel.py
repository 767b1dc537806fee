# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunnel: what runs now, what should run, the smallest step between, the step taken, the way back.

All knowledge of wg, ip, ifconfig, networksetup, wg-quick and resolvconf is here. On macOS the planner knows only nothing and restart.
`run(argv, stdin=None) -> (rc, out, err)` runs a command and raises OSError, or answers 127, where the program is missing; `services` is a
_services.Systemd or an object like it; `store` an _enrollment.Store.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import time

from . import _enrollment, _services, _wgconf

STALE = 180  # seconds without a handshake after which WireGuard itself drops a session (REJECT_AFTER_TIME)
MAIN, LOCAL = 254, 255  # routing tables
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
SILENT = 300  # seconds without a handshake after which a Mac's tunnel is started anew
NAMES = "var/run/wireguard"  # where wg-quick for macOS keeps the real names of its interfaces
BOOTED = "var/run/gatecontrol.booted"  # on macOS, which empties that folder at boot: what a reboot interrupted has been ended
DROP_IN = "etc/systemd/system/wg-quick@%s.service.d/50-gatecontrol.conf"
ERRORS = (_services.ServiceError, _wgconf.ConfigError, OSError)  # besides TunnelError, what a step may raise


class TunnelError(Exception):
    """A step failed or is impossible. str: one sentence with the failing command's own words, never a key."""


class Running:
    """What runs on an interface.

    private_key, public_key: base64, None where unset; listen_port, fwmark, mtu: int, fwmark 0 where off; up: bool; addresses: set of
    "address/prefix"; routes: set of (network, table) that wg-quick or an administrator set on this interface; rules: {4: list, 6: list}
    of dicts of `ip -N -j rule`; dns: set of servers and search domains, None where it cannot be told; kept: whether the route of the kept
    path exists, None where not asked; peers: {public key: dict of preshared_key, endpoint, allowed_ips (set), handshake (Unix time,
    0: never), rx, tx (bytes), keepalive (seconds)}; unseen: what cannot be seen on this host and so is not compared; a change is a restart then.
    """

    private_key = public_key = dns = kept = None
    listen_port = fwmark = mtu = 0
    up, unseen = True, ()

    def __init__(self):
        self.peers, self.addresses, self.routes, self.rules = {}, set(), set(), {4: [], 6: []}


class Plan:
    """action: "none", "sync", "restart", "up" or "down"; reasons: short texts for people, without secrets."""

    def __init__(self, action, reasons=()):
        self.action, self.reasons = action, list(reasons)


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


def _command(run, argv, stdin=None):
    """The output of a command. Raises TunnelError with its own words."""
    try:
        rc, out, err = run(argv, stdin)
    except OSError as error:
        raise TunnelError("%s cannot be run: %s; install wireguard-tools and iproute2" % (argv[0], error.strerror or error)) from None
    if rc == 127:
        raise TunnelError("%s is not installed; install wireguard-tools and iproute2" % argv[0])
    if rc:
        words = [line for line in (err or out).splitlines() if not line.startswith(("[#]", "[+]"))]  # wg-quick's trace
        said = re.sub(r"[A-Za-z0-9+/]{40,}=*", "(masked)", " ".join(" ".join(words).split()))
        raise TunnelError("%s failed: %s" % (" ".join(argv[2:] if argv[0] == "env" else argv), said or "exit status %d" % rc))
    return out


# --- what runs now

def _dump(run, interface, root):
    """Running with what wg knows; None where there is no such interface."""
    name = real_name(root, interface)
    if name is None:
        return None
    try:
        out = _command(run, ["wg", "show", name, "dump"])
    except TunnelError as error:
        # The second is what a kernel without WireGuard says of an interface that does not exist, the last are macOS's.
        if re.search("No such device|Protocol not supported|interface: (No such file|Connection refused)", str(error)):
            return None
        raise
    lines = [line.split("\t") for line in out.splitlines()]
    running = Running()
    running.private_key, running.public_key = (None if value == "(none)" else value for value in lines[0][:2])
    running.listen_port, running.fwmark = int(lines[0][2]), 0 if lines[0][3] == "off" else int(lines[0][3], 0)
    for public, preshared, endpoint, allowed, handshake, received, sent, keepalive in lines[1:]:
        running.peers[public] = {
            "preshared_key": None if preshared == "(none)" else preshared, "endpoint": None if endpoint == "(none)" else endpoint,
            "allowed_ips": set() if allowed == "(none)" else set(allowed.split(",")), "handshake": int(handshake), "rx": int(received),
            "tx": int(sent), "keepalive": 0 if keepalive == "off" else int(keepalive)}
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


def _ip6_rules(run):
    try:
        return json.loads(_command(run, ["ip", "-6", "-N", "-j", "rule", "show"]) or "[]")
    except (TunnelError, ValueError):
        return []  # a host without IPv6


def observe(run, interface, root="/", kept=None):
    """What runs on an interface: a Running, None where there is no such interface. Three processes, two on macOS.

    kept: the kept path (see reachability), to see its route as well. Raises TunnelError.
    """
    try:
        return _look(run, interface, root, kept)
    except TunnelError:
        if _dump(run, interface, root) is None:  # it went while it was looked at
            return None
        raise


def _look(run, interface, root, kept):
    running = _dump(run, interface, root)
    if running is None:
        return None
    if _services.system(root) == "macos":
        name = real_name(root, interface)
        if name is None:
            return None
        running.mtu, running.up, running.addresses = _ifconfig(run, name)
        running.unseen = ("routes", "DNS")
        return running
    asked = ["address show dev %s" % interface, "route show table all dev %s" % interface, "rule show"]
    if kept and "route" in kept:
        asked.append("route show %s table main" % kept[3])
    answers = _json_values(_command(run, ["ip", "-N", "-j", "-batch", "-"], "\n".join(asked) + "\n"))
    link = answers[0][0]
    running.mtu, running.up = link["mtu"], "UP" in link["flags"]
    running.addresses = {"%s/%d" % (address["local"], address["prefixlen"]) for address in link["addr_info"]}
    for route in answers[1]:
        # No protocol means "boot": set by hand or by wg-quick. Connected routes and those of routing daemons name theirs.
        if "protocol" not in route and "type" not in route and route.get("table") != str(LOCAL):
            family = 6 if "pref" in route or ":" in route["dst"] else 4
            default = "::/0" if family == 6 else "0.0.0.0/0"
            network = default if route["dst"] == "default" else str(ipaddress.ip_network(route["dst"]))
            running.routes.add((network, int(route.get("table", MAIN))))
    running.rules = {4: answers[2], 6: _ip6_rules(run)}
    running.kept = bool(answers[3]) if len(answers) > 3 else None
    running.dns = _dns(root, interface, link.get("ifindex"))
    return running


def _ifconfig(run, name):
    """(MTU, whether it is up, {"address/prefix"}) of an interface on macOS."""
    out = _command(run, ["ifconfig", name])
    flags, mtu = re.search(r"flags=\w+<([^>]*)>.* mtu (\d+)", out).groups()
    found = re.findall(r"\binet (\S+)(?: --> \S+)? netmask (0x[0-9a-f]+)", out)
    addresses = {"%s/%d" % (address, bin(int(mask, 16)).count("1")) for address, mask in found}
    addresses |= {"%s/%s" % found for found in re.findall(r"\binet6 ([0-9a-f:.]+)(?:%\S+)?(?: --> \S+)? prefixlen (\d+)", out)}
    return int(mtu), "UP" in flags.split(","), addresses


def _dns_record(root, interface, index=None):
    """(path, name): where the host's resolvconf keeps what it was told for an interface, and under which name; (None, ...) if unknown."""
    for place in ("usr/sbin/resolvconf", "sbin/resolvconf", "usr/bin/resolvconf", "usr/local/sbin/resolvconf"):
        program = os.path.join(root, place)
        if os.path.lexists(program):
            break
    else:
        return None, None
    if os.path.basename(os.path.realpath(program)) in ("resolvectl", "systemd-resolve"):
        return os.path.join(root, "run/systemd/resolve/netif", str(index)) if index else None, interface
    folder = os.path.join(root, "run/resolvconf")
    if os.path.isdir(os.path.join(folder, "interfaces")):  # openresolv
        return os.path.join(folder, "interfaces", interface), interface
    if os.path.isdir(os.path.join(folder, "interface")):  # Debian's resolvconf: wg-quick names the entry after the first simple pattern
        order = _enrollment.read_text(os.path.join(root, "etc/resolvconf/interface-order")) or ""
        prefix = re.search(r"^([A-Za-z0-9-]+)\*$", order, re.MULTILINE)
        name = "%s.%s" % (prefix.group(1), interface) if prefix else interface
        return os.path.join(folder, "interface", name), name
    return None, None


def _dns(root, interface, index):
    path = _dns_record(root, interface, index)[0]
    if path is None:
        return None
    found = set()
    for line in (_enrollment.read_text(path) or "").splitlines():
        words = line.replace("=", " ", 1).split()
        if words and words[0] in ("nameserver", "search", "domain", "SERVERS", "DOMAINS"):
            found.update(word for word in words[1:] if word not in ("~.", "."))
    return found


# --- what should run

def _networks(config):
    return [network for peer in config.peers for network in peer["AllowedIPs"]]


def _automatic(config):
    """Whether wg-quick chooses the tables and makes rules for a default route."""
    return "Table" not in config.interface


def _default_families(config, networks):
    """The families (4, 6) whose default route wg-quick would lead through the tunnel, for these allowed networks."""
    return {family for family, default in DEFAULT.items() if default in networks and _automatic(config)}


def _mark(config, running):
    """The fwmark that should be set: the config's own; under wg-quick's own default route the live one or that of its table; else 0."""
    mark = config.interface.get("FwMark", 0)
    if not mark and _default_families(config, _networks(config)):
        mark = _live_mark(running) or 51820
    return mark


def _live_mark(running):
    """The fwmark that is set or, where it was lost, the table of a default route on the interface, which wg-quick numbers alike; else 0."""
    tables = [table for network, table in running.routes if network in DEFAULT.values() and table != MAIN]
    return running.fwmark or min(tables, default=0)


def _routes(config, mark):
    """The routes wg-quick would set: set of (network, table)."""
    table = config.interface.get("Table", MAIN)
    if table == "off":
        return set()
    connected = [ipaddress.ip_interface(address).network for address in config.interface["Address"]]
    wanted = set()
    for network in _networks(config):
        whole = ipaddress.ip_network(network)
        if _automatic(config) and whole.prefixlen == 0:
            wanted.add((network, mark))
        elif not (_automatic(config) and any(whole.version == link.version and whole.subnet_of(link) for link in connected)):
            wanted.add((network, table))
    return wanted


def _is_mark_rule(rule, mark):
    return "not" in rule and int(rule.get("fwmark", "0"), 0) == mark and str(rule.get("table")) == str(mark)


def _is_suppress_rule(rule):
    return rule.get("suppress_prefixlen") == 0 and str(rule.get("table")) == str(MAIN)


def _in_front(rules, first, second):
    """Whether a rule that passes one test stands in front of all that pass the other."""
    priority = min([rule["priority"] for rule in rules if first(rule)], default=None)
    return priority is not None and all(priority <= rule["priority"] for rule in rules if second(rule))


def _rules_differ(config, running, mark):
    for family in _default_families(config, _networks(config)):
        rules = running.rules[family]
        marked = [rule for rule in rules if _is_mark_rule(rule, mark)]
        if not marked or not _in_front(rules, _is_suppress_rule, lambda rule: rule in marked):
            return True
    return False


def _kept_missing(running, kept):
    if not kept or "route" in kept:
        return bool(kept) and not running.kept
    return not _in_front(running.rules[int(kept[0][1])], lambda rule: rule.get("src") == kept[4] and str(rule.get("table")) == str(MAIN),
                         lambda rule: "not" in rule and "fwmark" in rule)


def _endpoint_reason(peer, live, before, now, resolve):
    """Why the endpoint should be set again, or None. One that roamed and works is left alone, and so is a name that resolves to it."""
    wanted = peer.get("Endpoint")
    if wanted is None:
        return None
    if live["endpoint"] is None:
        return "it has no endpoint, should be %s" % wanted
    if before is not None and before.get("Endpoint") != wanted:
        return "endpoint %s, should be %s" % (live["endpoint"], wanted)
    (host, port), (live_host, live_port) = _wgconf.split_endpoint(wanted), _wgconf.split_endpoint(live["endpoint"])
    literal = re.fullmatch(r"[0-9.]+|.*:.*", host)
    different = port != live_port or bool(literal) and ipaddress.ip_address(host) != ipaddress.ip_address(live_host)
    if now - live["handshake"] < STALE and (before is not None or not different):
        return None
    if resolve and not literal and not different:
        answers = resolve(host)
        different = bool(answers) and live_host not in answers
    return "endpoint %s, should be %s" % (live["endpoint"], wanted) if different else None


def resolve_name(host):
    """The addresses of a host name, an empty set where it does not resolve."""
    try:
        return {str(ipaddress.ip_address(answer[4][0])) for answer in socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)}
    except OSError:
        return set()


def _difference(wanted, present):
    signs = ["+ %s" % value for value in sorted(wanted - present)] + ["- %s" % value for value in sorted(present - wanted)]
    return ", ".join(signs)


def _interface_reasons(config, running, applied, hooks):
    """Differences that only wg-quick can settle."""
    values = config.interface
    if not running.up:
        yield "the interface is down"
    if running.private_key != _wgconf.clamp(values["PrivateKey"]):
        yield "the private key differs"
    addresses = set(values["Address"])
    others = {address for address in running.addresses - addresses if not hooks and not address.startswith("fe80:")}  # the kernel's own
    if not addresses <= running.addresses or others:
        yield "addresses differ: " + _difference(addresses, running.addresses & addresses | others)
    for key, live in (("MTU", running.mtu), ("ListenPort", running.listen_port)):
        if key in values and values[key] != live:
            yield "%s is %s, should be %s" % (key, live, values[key])
    dns = set(values.get("DNS", []))
    if running.dns is not None and dns != running.dns:
        yield "DNS differs: " + _difference(dns, running.dns)
    live = {network for peer in running.peers.values() for network in peer["allowed_ips"]}
    wanted, live = _default_families(config, _networks(config)), _default_families(config, live)
    for family in sorted(wanted ^ live):
        yield "the default route for IPv%d should go %s the tunnel" % (family, "through" if family in wanted else "outside")
    mark = _mark(config, running)
    if running.unseen:
        pass  # macOS has neither marks nor rules
    elif running.fwmark != mark and not (hooks and not mark):
        yield "fwmark is %s, should be %s" % (running.fwmark or "off", mark or "off")
    elif _rules_differ(config, running, mark):
        yield "ip rules of the default route are missing"
    elif wanted and {route for route in _routes(config, mark) if route[1] == mark} - running.routes:
        yield "the default route is missing in table %d" % mark
    told = {key for key in ("MTU",) + ("FwMark",) * (not running.unseen) if key in values} | ({"DNS"} if running.dns is not None else set())
    unseen = [key for key in ("Table", "MTU", "FwMark", "DNS", *_wgconf.HOOKS) if key not in told]
    for key in unseen if applied else ():
        if applied.interface.get(key) != values.get(key):
            yield "%s changes" % key


def _peer_reasons(config, running, applied, now, resolve):
    """Differences that wg settles without dropping a session."""
    before = {peer["PublicKey"]: peer for peer in applied.peers} if applied else {}
    for peer in config.peers:
        name, live = "peer %s…: " % peer["PublicKey"][:8], running.peers.get(peer["PublicKey"])
        if live is None:
            yield name + "is missing"
            continue
        if live["preshared_key"] != peer.get("PresharedKey"):
            yield name + "the preshared key differs"
        if live["allowed_ips"] != set(peer["AllowedIPs"]):
            yield name + "allowed IPs differ: " + _difference(set(peer["AllowedIPs"]), live["allowed_ips"])
        if live["keepalive"] != peer.get("PersistentKeepalive", 0):
            yield name + "keepalive is %d s, should be %d s" % (live["keepalive"], peer.get("PersistentKeepalive", 0))
        reason = _endpoint_reason(peer, live, before.get(peer["PublicKey"]), now, resolve)
        if reason:
            yield name + reason
    for key in running.peers.keys() - {peer["PublicKey"] for peer in config.peers}:
        yield "peer %s…: should not be there" % key[:8]


def _route_steps(config, running):
    """(missing, stale): sets of (network, table). Where hooks may have set routes of their own, none is stale."""
    wanted = _routes(config, _mark(config, running))
    return wanted - running.routes, set() if _hooks(config) else running.routes - wanted


def _hooks(config):
    return any(hook in config.interface for hook in _wgconf.HOOKS)


def plan(config, running, applied=None, kept=None, now=None, resolve=None):
    """The smallest step from what runs (a Running or None) to a Config (None: no tunnel).

    applied: the Config that was put in place last, if known: it tells a changed endpoint from a roamed one, and shows changes that leave no
    trace in what runs (Table, hooks). kept: the kept path (see reachability). now: Unix time. resolve(host) -> set of addresses: asked only
    for an endpoint by name whose last handshake is older than STALE.
    """
    if config is None:
        return Plan("down", ["the interface should not be there"]) if running else Plan("none")
    if running is None:
        return Plan("up", ["the interface is not there"])
    reasons = list(_interface_reasons(config, running, applied, _hooks(config)))
    action = "restart" if reasons or running.unseen else "sync"
    reasons += _peer_reasons(config, running, applied, time.time() if now is None else now, resolve)
    missing, stale = (set(), set()) if running.unseen else _route_steps(config, running)
    reasons += ["route %s in table %d is missing" % route for route in sorted(missing)]
    reasons += ["route %s in table %d should not be there" % route for route in sorted(stale)]
    if _kept_missing(running, kept):
        reasons.append("the path kept for the controller is missing: ip " + " ".join(kept))
    return Plan(action if reasons else "none", reasons)


# --- the step

def _stop(run, services, store, interface, running):
    """Take the tunnel down, by the config that lies there now, and what wg-quick may leave behind: ip rules and the resolver's entry."""
    try:
        services.stop(unit_of(interface))
    except _services.ServiceError:
        if _dump(run, interface, store.root) is not None:
            raise
    if _services.system(store.root) == "macos":
        _down(run, store, interface)
        return
    if _dump(run, interface, store.root) is not None:  # somebody brought it up without its unit
        try:
            _command(run, ["wg-quick", "down", interface])
        except TunnelError:
            _command(run, ["ip", "link", "delete", "dev", interface])
    mark = _live_mark(running) if running else 0
    for family in (4, 6) if mark else ():
        rules = json.loads(_command(run, ["ip", "-4", "-N", "-j", "rule", "show"])) if family == 4 else _ip6_rules(run)
        others = [rule for rule in rules if "not" in rule and "fwmark" in rule and not _is_mark_rule(rule, mark)]
        for rule in rules:
            if _is_mark_rule(rule, mark) or (_is_suppress_rule(rule) and not others):
                _command(run, ["ip", "-%d" % family, "rule", "delete", "pref", str(rule["priority"])])
    path, name = _dns_record(store.root, interface)
    if path and os.path.exists(path):
        _command(run, ["resolvconf", "-d", name, "-f"])


def _start(run, services, store, interface, limit):
    if _services.system(store.root) == "macos":
        _up(run, store, interface, limit)
    services.reset_failed(unit_of(interface))
    services.start(unit_of(interface), limit=limit)


def _up(run, store, interface, limit=30):
    """wg-quick up on macOS, where no unit does it. A name that does not resolve is given up within `limit` seconds."""
    _take_dns_back(run, store, interface)
    _command(run, ["env", "WG_ENDPOINT_RESOLUTION_RETRIES=%d" % max(1, min(8, limit // 4)), "wg-quick", "up", interface])


def _down(run, store, interface):
    """wg-quick down on macOS, and what happens after it: wireguard-go ends, and then wg-quick's monitor takes routes and DNS back."""
    name = real_name(store.root, interface)
    if name is None:
        return
    try:
        _command(run, ["wg-quick", "down", interface])
    except TunnelError:
        for path in (name + ".sock", interface + ".name"):  # which is what ends wireguard-go
            _enrollment.remove_file(os.path.join(store.root, NAMES, path))
    for _try in range(50):
        if run(["ifconfig", name], None)[0]:
            break
        run(["sleep", "0.2"], None)
    run(["sleep", "2"], None)
    _take_dns_back(run, store, interface)


def _take_dns_back(run, store, interface):
    """Take back what wg-quick for macOS set and could not take back, as after a power cut: macOS keeps DNS servers over a boot, so the endpoint's
    name would be asked of a server behind the tunnel, and wg-quick would take its own server for the one of before."""
    config = applied(config_path(store, interface))
    servers = [entry for entry in config.interface.get("DNS", ()) if re.fullmatch("[0-9.]+|.*:.*", entry)] if config else []
    for line in run(["networksetup", "-listallnetworkservices"], None)[1].splitlines()[1:] if servers else ():
        service = line.lstrip("*")  # marks one that is disabled
        if run(["networksetup", "-getdnsservers", service], None)[1].split() == servers:
            for verb in ("-setdnsservers", "-setsearchdomains"):
                run(["networksetup", verb, service, "Empty"], None)


def _put_back(run, services, store, interface, text, start, limit):
    """The hard way back: stop whatever runs, the old text (None: no file), start again if asked."""
    _stop(run, services, store, interface, observe(run, interface, store.root))
    if text is None:
        _enrollment.remove_file(config_path(store, interface))
    else:
        _enrollment.write_text(config_path(store, interface), text)
    if start:
        _start(run, services, store, interface, limit)


def _sync(run, store, interface, config, running, kept):
    for peer in config.peers:
        live = running.peers.get(peer["PublicKey"])
        if live and live["preshared_key"] != peer.get("PresharedKey"):
            # A live session would hide a wrong preshared key until its next handshake: begin a new one.
            _command(run, ["wg", "set", interface, "peer", peer["PublicKey"], "remove"])
    path = store.path("candidate") + ".sync"
    try:
        _enrollment.write_text(path, _wgconf.stripped(config, running.fwmark, running.listen_port))
        _command(run, ["wg", "syncconf", interface, path])
    finally:
        _enrollment.remove_file(path)
    missing, stale = _route_steps(config, running)
    lines = ["route add %s dev %s table %d" % (network, interface, table) for network, table in sorted(missing)]
    lines += ["route delete %s dev %s table %d" % (network, interface, table) for network, table in sorted(stale)]
    if lines:
        _command(run, ["ip", "-batch", "-"], "\n".join(lines) + "\n")
    if _kept_missing(running, kept):
        _command(run, ["ip", *kept])


def apply(run, services, store, interface, step, config, kept=None, text=None, limit=30):
    """Take the step of a plan and put the config's file in place; enabled at boot afterwards, but for "down".

    config: the Config, None for "down"; text: the file's text, if not the canonical one; kept: the kept path; limit: seconds for a start.
    A tunnel that does not start is put back as it was. Raises TunnelError, ServiceError, OSError; with "down" the file stays.
    """
    unit, path = unit_of(interface), config_path(store, interface)
    running = observe(run, interface, store.root, kept) if step.action != "none" else None
    if step.action == "down":
        _stop(run, services, store, interface, running)
        return
    text = _wgconf.render(config) if text is None else text
    old = _enrollment.read_text(path)
    if step.action == "sync":
        _sync(run, store, interface, config, running, kept)
    elif step.action != "none":
        _stop(run, services, store, interface, running)
    if old != text:
        _enrollment.write_text(path, text)
    if step.action in ("up", "restart"):
        try:
            _start(run, services, store, interface, limit)
        except (TunnelError, _services.ServiceError) as error:
            _put_back(run, services, store, interface, old, running is not None and old is not None, limit)
            raise TunnelError("the tunnel did not start and is as it was before: %s" % error) from None
    if services.show([unit], ["UnitFileState"])[unit].get("UnitFileState") != "enabled":
        services.enable(unit)
    if step.action != "none":
        _verify(run, store, interface, config, kept)


def _verify(run, store, interface, config, kept):
    after = observe(run, interface, store.root, kept)
    if after is None or after.public_key != _wgconf.public_key(config.interface["PrivateKey"]):
        raise TunnelError("%s does not have the key of its config after the change" % interface)
    after.dns = None  # what a resolver makes of its entry is not for this to judge
    rest = plan(config, after, config, kept)
    if rest.action != "none":
        raise TunnelError("%s still differs from its config after the change: %s" % (interface, "; ".join(rest.reasons)))


# --- commit-confirm

def arm(store, interface, confirm_by="controller", timeout=40, kept=None, clock=time.monotonic):
    """Prepare the change to the candidate; returns its id. The caller then starts the unit that calls run_armed, with start_no_block.

    confirm_by: "controller" waits for confirm(), "server" takes the proof of run_armed for it. timeout: seconds from now to the way back.
    kept: the kept path of reachability, put in place with the change, None for none. Nothing of the tunnel is touched.
    Raises TunnelError while another change is under way, ConfigError for a candidate that does not parse.
    """
    unit_of(interface)
    _wgconf.parse(store.text("candidate") or "", allow_hooks=True)
    change, verdict, now = store.load("pending"), store.load("verdict"), clock()
    if change and not (verdict and verdict["id"] == change["id"]):
        if change["armed"] <= now <= change["deadline"] + 60:
            raise TunnelError("another change of %s is under way; try again in %d s" % (change["interface"], change["deadline"] + 61 - now))
        # It was interrupted: its way back is still the way to what worked last.
    else:
        change, old = {}, _enrollment.read_text(config_path(store, interface))
        store.drop("pending", "verdict")
        change["had_config"] = old is not None
        if old is not None:
            store.save("last_good", old)
    store.drop("confirm")
    change.update(id=os.urandom(16).hex(), word=None, interface=interface, confirm_by=confirm_by, armed=now, deadline=now + timeout,
                  kept=kept)
    store.save("pending", change)
    return change["id"]


def run_armed(run, services, store, prove=None, accept=None, sleep=time.sleep, clock=time.monotonic, probe=None):
    """Take the armed step, prove it, wait for its confirmation, else go back. Returns the verdict, None where nothing is pending.

    prove() -> None or the reason why the server is not reached; accept() records a success, and may be called twice;
    probe(interface, address, port, payload) sends a datagram. The verdict, also saved: {id, word, ok, reason, action, reasons, ended
    (Unix time)}; action and reasons are the plan's. Any failure whatsoever leads back to the config of before.
    """
    change = store.load("pending")
    if change is None:
        return None
    verdict = {"id": change["id"], "ok": False, "reason": None, "action": None, "reasons": []}
    try:
        sleep(1)  # the answer to whoever armed this should have left the host
        if "ran" not in change:
            state = services.show([unit_of(change["interface"])], ["UnitFileState"])[unit_of(change["interface"])]
            change.update(ran=_dump(run, change["interface"], store.root) is not None, enabled=state.get("UnitFileState") == "enabled",
                          kept_before=kept_path(store, change["interface"]))
            store.save("pending", change)
        begin = clock()
        step, proof = _take(run, services, store, change, clock)
        verdict.update(action=step.action, reasons=step.reasons)
        timeout = change["deadline"] - change["armed"]
        half = change["armed"] + timeout * 0.6
        last = change["deadline"] - min(clock() - begin, timeout / 4)  # the way back takes as long as the way there
        reason = _prove(run, store.root, change["interface"], proof, half, sleep, clock, probe or _datagram) or (prove() if prove else None)
        if not reason and change["confirm_by"] == "controller":
            change["word"] = os.urandom(16).hex()
            store.save("pending", change)
        while not reason and (store.text("confirm") or "").strip() != (change.get("word") or ""):
            if clock() > last:
                reason = "the controller did not come back over a new connection within %d s" % (change["deadline"] - change["armed"])
            sleep(0.2)
    except Exception as error:  # whatever it was, the host must find its way back
        reason = str(error) or type(error).__name__
    if reason:
        reason = _go_back(run, services, store, change, reason)
    verdict.update(ok=reason is None, reason=reason, word=change.get("word"))
    return _finish(store, verdict, accept)


def _finish(store, verdict, accept):
    if "ended" not in verdict:
        verdict["ended"] = int(time.time())
        store.save("verdict", verdict)
    if verdict["ok"] and accept:
        accept()
    store.drop("confirm", "last_good", "candidate")
    store.drop("pending")  # last: while it is there, whatever interrupts is recovered from
    return verdict


def _take(run, services, store, change, clock):
    """Take the armed step; returns (plan, (config, what ran before))."""
    interface = change["interface"]
    path = config_path(store, interface)
    config = _wgconf.parse(store.text("candidate") or "", allow_hooks=True)
    running = observe(run, interface, store.root, change["kept"])
    step = plan(config, running, applied(path), change["kept"])
    keep(run, services, store, interface, change["kept"])
    apply(run, services, store, interface, step, config, change["kept"], limit=max(5, int(change["deadline"] - clock())))
    return step, (config, running if step.action in ("sync", "none") else None)


def applied(path):
    """The Config of the file that was put in place last, None where there is none."""
    try:
        return _wgconf.parse(_enrollment.read_text(path) or "", allow_hooks=True)
    except _wgconf.ConfigError:
        return None


def _go_back(run, services, store, change, reason):
    """Restore the tunnel of before; returns the reason, with what failed on the way."""
    try:
        interface, text = change["interface"], store.text("last_good") if change["had_config"] else None
        if "ran" not in change:
            return reason  # nothing was touched yet
        if change["had_config"] and text is None:
            return reason + "; there was no way back: the last good config is gone"
        kept = change["kept_before"]
        keep(run, services, store, interface, kept)
        try:
            if text is None or not change["ran"]:
                raise TunnelError("there was no tunnel")
            config = _wgconf.parse(text, allow_hooks=True)
            step = plan(config, observe(run, interface, store.root, kept), applied(config_path(store, interface)), kept)
            apply(run, services, store, interface, step, config, kept, text)
        except (TunnelError,) + ERRORS:
            _put_back(run, services, store, interface, text, text is not None and change["ran"], 30)
        if not change["enabled"]:
            services.disable(unit_of(interface))
    except (TunnelError,) + ERRORS as error:
        return "%s; the way back failed too: %s" % (reason, error)
    return reason


def _targets(config):
    """(address, port, payload) of datagrams that may draw an answer through the tunnel: its DNS servers, the usual places of a gateway."""
    question = b"\x47\x43\x01\x00\x00\x01" + bytes(7) + b"\x00\x02\x00\x01"  # DNS: the root's name servers
    networks = [ipaddress.ip_network(network) for network in _networks(config)]
    own = [ipaddress.ip_interface(address) for address in config.interface["Address"]]
    near = [ipaddress.ip_network((one.ip, one.max_prefixlen - 8), strict=False) for one in own]
    found = {(entry, 53, question) for entry in config.interface.get("DNS", []) if re.fullmatch(r"[0-9.]+|.*:.*", entry)}
    found |= {(str(network[min(1, network.num_addresses - 1)]), 9, b"") for network in near + networks if network.prefixlen}
    return sorted(target for target in found if any(ipaddress.ip_address(target[0]) in network for network in networks))


def _datagram(interface, address, port, payload):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            if hasattr(socket, "SO_BINDTODEVICE"):  # elsewhere the routes lead there
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            sender.sendto(payload, (address, port))
        except OSError:
            pass  # the handshake decides


def _prove(run, root, interface, proof, limit, sleep, clock, probe):
    """None once a peer has answered since the step, else the reason.

    An answer is a newer handshake or more bytes received; after a change of the endpoint, at the new one."""
    config, before = proof
    peers = [peer["PublicKey"] for peer in config.peers if "Endpoint" in peer]
    old, first, next_probe = before.peers if before else {}, None, 0
    while peers:
        running = _dump(run, interface, root)
        if running is None:
            return "the interface went away"
        first = first or running
        for key in peers:
            live, known = running.peers.get(key, {}), old.get(key, {})
            settled = not known or known["endpoint"] == first.peers[key]["endpoint"] or live["endpoint"] == first.peers[key]["endpoint"]
            if live and settled and (live["rx"] > known.get("rx", 0) or live["handshake"] > known.get("handshake", 0)):
                return None
        if clock() > limit:
            return "no answer from the WireGuard peer %s… at %s" % (peers[0][:8], running.peers.get(peers[0], {}).get("endpoint"))
        if clock() >= next_probe:
            next_probe = clock() + 1
            for address, port, payload in _targets(config):
                probe(real_name(root, interface) or interface, address, port, payload)
        sleep(0.1)
    return None


def confirm(store, word, wait=60, sleep=time.sleep, clock=time.monotonic):
    """Ask for a change's verdict by its id, or confirm the change by the word that this gives once the step is taken and proven.

    Returns {"confirm": word} or the verdict, None where neither came within `wait` seconds. A connection made before the step proves
    nothing, however late its command runs: bring the word over a NEW one, made after the word was given.
    """
    end, said = clock() + wait, False
    while True:
        change, verdict = store.load("pending") or {}, store.load("verdict") or {}
        if change.get("word") and change["id"] == word:
            return {"confirm": change["word"]}
        if change.get("word") == word:
            if not said:  # once: the unit may be clearing up already
                store.save("confirm", word)
            said = True
        elif not change and word in (verdict.get("id"), verdict.get("word")):
            return verdict
        if clock() >= end:
            return None
        sleep(0.1)


def recover(run, services, store, live=False, accept=None):
    """End a change that was interrupted; returns its verdict, None where there is none.

    live=False: at boot, before wg-quick starts: only files are restored. live=True: the interface as well, after the unit was killed.
    """
    change, verdict = store.load("pending"), store.load("verdict")
    if change is None:
        return None
    if verdict and verdict["id"] == change["id"]:
        return _finish(store, verdict, accept)
    if live:
        reason = _go_back(run, services, store, change, "the change was interrupted")
    else:
        reason = "the host was rebooted in the middle of the change"
        path, text = config_path(store, change["interface"]), store.text("last_good")
        if "ran" in change:
            keep(run, services, store, change["interface"], change["kept_before"])
            if not change["had_config"]:
                _enrollment.remove_file(path)
            elif text is not None:
                _enrollment.write_text(path, text)
            if not change["enabled"]:
                services.disable(unit_of(change["interface"]))
    verdict = {"id": change["id"], "word": change.get("word"), "ok": False, "reason": reason, "action": None, "reasons": []}
    return _finish(store, verdict, accept)


def tend(run, services, store, interface, accept=None, now=time.time, sleep=time.sleep, clock=time.monotonic):
    """Keep a Mac's tunnel running: after a boot, after wireguard-go ended, after a sleep that it did not survive. Returns what was done, or None.

    A change under way is left alone, and ended if whoever was at it is gone. Raises TunnelError, ServiceError, OSError.
    """
    end = clock() + 60
    while not os.path.exists(os.path.join(store.root, BOOTED)):
        if clock() > end:
            raise TunnelError("a change that a reboot interrupted may be pending: gatecontrol-recover has not run since the boot")
        sleep(0.5)
    change, path = store.load("pending"), config_path(store, interface)
    if change:
        if change["armed"] <= clock() <= change["deadline"] + 30:
            return None
        return failed(interface, recover(run, services, store, live=True, accept=accept))
    config = applied(path)
    if config is None:
        return None
    running = observe(run, interface, store.root)
    if running is not None:
        begun = os.stat(os.path.join(store.root, NAMES, interface + ".name")).st_mtime
        silent = [now() - max(begun, running.peers.get(peer["PublicKey"], {}).get("handshake", 0))
                  for peer in config.peers if "Endpoint" in peer and peer.get("PersistentKeepalive")]
        if not silent or min(silent) < SILENT:
            return None
    _down(run, store, interface)
    _up(run, store, interface)
    return "%s was started, since %s" % (interface, "no peer had answered for %d s" % min(silent) if running else "it was not there")


def failed(interface, verdict):
    """The sentence for a change that was undone."""
    return "the change of %s was rolled back and the tunnel is as it was before: %s" % (interface, verdict["reason"])


# --- the path kept for the controller

def _ends(ssh_connection):
    """(controller's address, the host's own) of SSH_CONNECTION; None where there is nothing to keep reachable."""
    words = (ssh_connection or "").split()
    if len(words) != 4:
        return None
    client, own = (ipaddress.ip_address(re.sub("^::ffff:(?=[0-9.]+$)", "", word.split("%")[0])) for word in (words[0], words[2]))
    return None if client.is_loopback or client.is_link_local or client.version != own.version else (client, own)


def _way(run, client, own):
    """The route to the controller as `ip -j` tells it; None where there is none, as when the host has lost the address of a connection of before."""
    try:
        return json.loads(_command(run, ["ip", "-%d" % client.version, "-j", "route", "get", str(client), "from", str(own)]))[0]
    except TunnelError:
        return None


def _way_on_mac(run, client):
    """(device, whether a gateway stands between) of the route to the controller; device is None where there is none."""
    rc, out, _err = run(["route", "-n", "get", "-inet6" if client.version == 6 else "-inet", str(client)], None)
    device = re.search(r"^\s*interface: (\S+)", out, re.MULTILINE) if not rc else None
    return device and device.group(1), re.search(r"^\s*gateway: ", out, re.MULTILINE) is not None


def runs_through(run, interface, ssh_connection, root="/"):
    """Whether a connection runs through this very tunnel."""
    ends = _ends(ssh_connection)
    if not ends:
        return False
    if _services.system(root) == "macos":
        return (_way_on_mac(run, ends[0])[0] or "none") == real_name(root, interface)
    return (_way(run, *ends) or {}).get("dev") == interface


def reachability(run, config, interface, ssh_connection):
    """How a config would treat the controller's connection: {"kept", "through", "reason"}.

    ssh_connection: SSH_CONNECTION ("client port server port"), empty or None: no SSH. kept: words for `ip` that keep the path open, None
    where none is needed; through: the connection runs through this very tunnel now; reason: why the path cannot be kept, else None.
    A source rule to table main keeps it in a full tunnel, a route of its own where networks in table main would capture it.
    """
    result = {"kept": None, "through": False, "reason": None}
    ends = _ends(ssh_connection)
    if ends is None:
        return result
    client, own = ends
    route = _way(run, client, own)
    if route is None:
        return result
    option, host = "-%d" % client.version, "%s/%d" % (client, client.max_prefixlen)
    if route.get("dev") == interface:
        result.update(through=True, reason="the controller's connection from %s runs through %s itself" % (client, interface))
        return result
    networks = [ipaddress.ip_network(network) for network, table in _routes(config, 0) if table in (0, MAIN)]
    networks = [network for network in networks if network.version == client.version and client in network]
    if _automatic(config) and any(network.prefixlen == 0 for network in networks):
        result["kept"] = [option, "rule", "add", "from", str(own), "lookup", "main"]
    narrow = max([network.prefixlen for network in networks if network.prefixlen or not _automatic(config)], default=None)
    if narrow == client.max_prefixlen:
        result.update(kept=None, reason="AllowedIPs name the controller's address %s, which no route can keep outside the tunnel" % client)
    elif narrow is not None:
        others = json.loads(_command(run, ["ip", option, "-N", "-j", "route", "show", "match", str(client), "table", "main"]) or "[]")
        others = [other["dst"] for other in others if other.get("dev") != interface and other["dst"] != "default"]
        if not any(narrow < ipaddress.ip_network(other).prefixlen < client.max_prefixlen for other in others):
            gateway = ["via", route["gateway"]] if "gateway" in route else []
            result["kept"] = [option, "route", "replace", host, *gateway, "dev", route["dev"]]
    return result


def reachability_on_mac(run, config, name, ssh_connection):
    """The same on macOS, where no path can be kept: what lies on the host's own network is reached anyway. name: the interface's real one."""
    result, ends = {"kept": None, "through": False, "reason": None}, _ends(ssh_connection)
    if ends is None:
        return result
    client, own = ends
    device, gateway = _way_on_mac(run, client)
    if device and device == name:
        return dict(result, through=True, reason="the controller's connection from %s runs through the tunnel itself" % client)
    networks = [ipaddress.ip_network(network) for network in _networks(config) if config.interface.get("Table") != "off"]
    narrow = max([network.prefixlen for network in networks if network.version == client.version and client in network], default=None)
    near = -1
    if device and not gateway:
        near = max([int(address.split("/")[1]) for address in _ifconfig(run, device)[2] if ipaddress.ip_interface(address).ip == own], default=-1)
    if narrow is None or narrow < near:
        return result
    return dict(result, reason="AllowedIPs would lead the way to the controller's address %s into the tunnel, and on macOS no path outside is kept" % client)


def _opposite(kept):
    return [{"add": "delete", "replace": "delete"}.get(word, word) for word in kept]


def kept_path(store, interface):
    """The kept path that is in place now, as reachability gives it, or None."""
    text = _enrollment.read_text(os.path.join(store.root, DROP_IN % interface)) or ""
    found = re.search(r"^ExecStartPost=/sbin/ip (.*)$", text, re.MULTILINE)
    return found.group(1).split() if found else None


def keep(run, services, store, interface, kept):
    """Make a kept path part of the tunnel's unit (None: take it out), so that it comes and goes with the tunnel. True if that changed it.

    It is opened here and now only by the step that follows (apply); one that is no longer wanted is closed here.
    """
    path, before = os.path.join(store.root, DROP_IN % interface), kept_path(store, interface)
    if kept == before:
        return False
    if before:
        run(["ip", *_opposite(before)], None)
    if kept:
        add, delete = " ".join(kept), " ".join(_opposite(kept))
        text = "# Keeps the way to the machine that manages this host outside the tunnel.\n[Service]\nExecStartPost=-/sbin/ip %s\n" \
               "ExecStartPost=/sbin/ip %s\nExecStopPost=-/sbin/ip %s\n" % (delete, add, delete)
        _enrollment.write_text(path, text, 0o644)
        os.chmod(os.path.dirname(path), 0o755)
    else:
        _enrollment.remove_file(path)
        try:
            os.rmdir(os.path.dirname(path))
        except OSError:
            pass  # others have drop-ins there too
    services.daemon_reload()
    return True


# --- the ends

def remove(run, services, store, interface):
    """Take the tunnel, its start at boot, its config and its kept path away; True if there was any of it."""
    unit = unit_of(interface)
    running = observe(run, interface, store.root)
    state = services.show([unit], ["ActiveState", "UnitFileState"])[unit]
    there = running is not None or state.get("ActiveState") in ("active", "activating", "failed")
    if there:
        _stop(run, services, store, interface, running)
        services.reset_failed(unit)
    enabled = state.get("UnitFileState") == "enabled"
    if enabled:
        services.disable(unit)
    return any([there, enabled, keep(run, services, store, interface, None), _enrollment.remove_file(config_path(store, interface))])


def backend(run):
    """What makes WireGuard interfaces on this host: "kernel", "wireguard-go" or None. Tries it with an interface that is gone at once."""
    name = "gc" + os.urandom(5).hex()
    for answer, tries in (("kernel", (["ip", "link", "add", name, "type", "wireguard"], ["ip", "link", "delete", "dev", name])),
                          ("wireguard-go", (["wireguard-go", "--version"],))):
        try:
            for argv in tries:
                _command(run, argv)
            return answer
        except TunnelError:
            continue
    return None
