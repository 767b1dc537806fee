# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What should run, and the smallest step there from what runs. Pure. On macOS it knows only nothing and restart.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import copy
import ipaddress
import time

from . import _clock, _observe, _wgconf

STALE = 180  # seconds without a handshake after which WireGuard itself drops a session (REJECT_AFTER_TIME)


class Plan:
    """action: "none", "sync", "restart", "up" or "down"; reasons: short texts for people, without secrets."""

    def __init__(self, action, reasons=()):
        self.action, self.reasons = action, list(reasons)


def allowed_networks(config):
    return [network for peer in config.peers for network in peer["AllowedIPs"]]


def without_ipv6(config):
    """(a new Config without its IPv6 parts, [those parts]), for a host that has IPv6 switched off, where wg-quick fails at the first of them.

    Raises ConfigError (kind "ipv6") where nothing is left: no address, or no peer.
    """
    result, left_out = copy.deepcopy(config), []

    def strip(values, name):
        entries = values.pop(name, ())
        left_out.extend(entry for entry in entries if ":" in entry)
        kept = [entry for entry in entries if ":" not in entry]
        if kept:
            values[name] = kept

    strip(result.interface, "Address")
    strip(result.interface, "DNS")
    for peer in result.peers:
        strip(peer, "AllowedIPs")
    result.peers = [peer for peer in result.peers if "AllowedIPs" in peer]
    if "Address" not in result.interface or not result.peers:
        raise _wgconf.ConfigError("IPv6 is switched off on this host, and nothing of the config is left without it; switch IPv6 on there, or give the peer an "
                                  "IPv4 address and IPv4 networks on the server", kind="ipv6")
    return result, left_out


def chooses_tables(config):
    """Whether wg-quick chooses the tables and makes rules for a default route."""
    return "Table" not in config.interface


def default_families(config, networks=None):
    """The families (4, 6) whose default route wg-quick would lead through the tunnel, for these allowed networks (None: the config's own)."""
    networks = allowed_networks(config) if networks is None else networks
    return {family for family, default in _observe.DEFAULT.items() if default in networks and chooses_tables(config)}


def _mark(config, running):
    """The fwmark that should be set: the config's own; under wg-quick's own default route the live one or that of its table; else 0."""
    mark = config.interface.get("FwMark", 0)
    if not mark and default_families(config):
        mark = live_mark(running) or 51820
    return mark


def live_mark(running):
    """The fwmark that is set or, where it was lost, the table of a default route on the interface, which wg-quick numbers alike; else 0."""
    tables = [table for network, table in running.routes if network in _observe.DEFAULT.values() and table != _observe.MAIN]
    return running.fwmark or min(tables, default=0)


def routes_of(config, mark):
    """The routes wg-quick would set: set of (network, table)."""
    table = config.interface.get("Table", _observe.MAIN)
    if table == "off":
        return set()
    connected = [ipaddress.ip_interface(address).network for address in config.interface["Address"]]
    wanted = set()
    for network in allowed_networks(config):
        whole = ipaddress.ip_network(network)
        if chooses_tables(config) and whole.prefixlen == 0:
            wanted.add((network, mark))
        elif not (chooses_tables(config) and any(whole.version == link.version and whole.subnet_of(link) for link in connected)):
            wanted.add((network, table))
    return wanted


def is_mark_rule(rule, mark):
    return "not" in rule and int(rule.get("fwmark", "0"), 0) == mark and str(rule.get("table")) == str(mark)


def is_suppress_rule(rule):
    return rule.get("suppress_prefixlen") == 0 and str(rule.get("table")) == str(_observe.MAIN)


def _in_front(rules, first, second):
    """Whether a rule that passes one test stands in front of all that pass the other."""
    priority = min([rule["priority"] for rule in rules if first(rule)], default=None)
    return priority is not None and all(priority <= rule["priority"] for rule in rules if second(rule))


def _rules_differ(family, running, mark):
    rules = running.rules[family]
    marked = [rule for rule in rules if is_mark_rule(rule, mark)]
    return not marked or not _in_front(rules, is_suppress_rule, lambda rule: rule in marked)


def is_kept_rule(rule, words):
    """Whether a rule is the one of a kept path's command."""
    if str(rule.get("table")) != str(_observe.MAIN) or "not" in rule:
        return False
    return int(rule.get("fwmark", "0"), 0) == int(words[5], 0) if words[4] == "fwmark" else rule.get("src") == words[5] and "fwmark" not in rule


def _kept_is_there(running, words):
    if words[0] == "nft":
        return running.tables is None or "inet gatecontrol-%s" % running.interface in running.tables
    if "route" in words:
        return running.kept == " ".join(words[5:])
    return _in_front(running.rules[int(words[1][1])], lambda rule: is_kept_rule(rule, words), lambda rule: "not" in rule and "fwmark" in rule)


class Lost:
    """Something that a running tunnel has lost and that can be put back live. kind: "rules" (what: the family), "route" ((network, table)),
    "table" (the family), "dns" or "kept" (the command); text: a sentence; beside: whether packets pass beside the tunnel meanwhile."""

    def __init__(self, kind, what, text):
        self.kind, self.what, self.text, self.beside = kind, what, text, kind in ("rules", "route")


def lost(config, running, applied=None, kept=None):
    """What a running tunnel has lost of its Config, in the order in which it is put back: a list of Lost. applied, kept: as plan() takes them."""
    if running is None or running.unseen or not running.up:
        return []  # where the interface is down its routes went with it
    mark, found = _mark(config, running), []
    families = sorted(default_families(config)) if running.fwmark == mark else []
    for family in families:
        name = "%s wg-quick-%s" % ("ip6" if family == 6 else "ip", running.interface)
        if running.tables is not None and name not in running.tables:
            found.append(Lost("table", family, "the table %s of nft is missing" % name))
    found += [Lost("route", route, "route %s in table %d is missing" % route) for route in sorted(route_steps(config, running)[0])]
    for family in families:
        if _rules_differ(family, running, mark):
            found.append(Lost("rules", family, "ip rules of the IPv%d default route are missing" % family))
    if _dns_is_lost(config, running, applied):
        found.append(Lost("dns", None, "DNS differs: " + _difference(set(config.interface["DNS"]), running.dns)))
    for words in kept or ():
        if not _kept_is_there(running, words):
            found.append(Lost("kept", words, "what keeps the way to the controller open is missing: " + " ".join(words)))
    return found


def _dns_is_lost(config, running, applied):
    """Whether the resolver no longer has what wg-quick told it: nobody changed the config, and nothing else was set since."""
    dns = set(config.interface.get("DNS", ()))
    return bool(running.dns is not None and dns - running.dns and running.dns <= dns and applied and set(applied.interface.get("DNS", ())) == dns)


def _endpoint_reason(peer, live, before, now):
    """Why the endpoint should be set again, or None. One that roamed and works is left alone, and so is any address of a name (see moved_endpoints)."""
    wanted = peer.get("Endpoint")
    if wanted is None:
        return None
    if live["endpoint"] is None:
        return "it has no endpoint, should be %s" % wanted
    if before is not None and before.get("Endpoint") != wanted:
        return "endpoint %s, should be %s" % (live["endpoint"], wanted)
    (host, port), (live_host, live_port) = _wgconf.split_endpoint(wanted), _wgconf.split_endpoint(live["endpoint"])
    different = port != live_port or _wgconf.is_literal(host) and ipaddress.ip_address(host) != ipaddress.ip_address(live_host)
    if not is_stale(live["handshake"], now) and (before is not None or not different):
        return None
    return "endpoint %s, should be %s" % (live["endpoint"], wanted) if different else None


def is_stale(handshake, now):
    """Whether a handshake (Unix time, 0: never) is too old for a session that lives; one that lies in the future says nothing of now."""
    age = _clock.age(handshake, now)
    return age is None or age >= STALE


def _by_name(config, running):
    """(peer, what runs of it, host, port, live host) of the peers whose endpoint is a name; the live host is None where there is no endpoint."""
    for peer in config.peers:
        live = running.peers.get(peer["PublicKey"], {}) if running else {}
        host, port = _wgconf.split_endpoint(peer["Endpoint"]) if "Endpoint" in peer else ("", 0)
        if host and not _wgconf.is_literal(host):
            yield peer, live, host, port, _wgconf.split_endpoint(live["endpoint"])[0] if live.get("endpoint") else None


def _address_of(answers, live_host):
    """Which of a name's addresses an endpoint gets: the live one if it is among them, else one of the same family, else the first; None for none."""
    same = [answer for answer in answers if live_host and (":" in answer) == (":" in live_host)]
    return live_host if live_host in answers else (same or list(answers) or [None])[0]


def moved_endpoints(config, running, now, resolve):
    """[(public key, "ADDRESS:PORT")] of the peers that do not answer and whose endpoint's name has other addresses by now.

    now: Unix time, None where no peer is known to answer; resolve(host) -> list of addresses, asked only for an endpoint by name whose last
    handshake is older than STALE.
    """
    moved = []
    for peer, live, host, port, live_host in _by_name(config, running):
        if live and (now is None or is_stale(live["handshake"], now)):
            address = _address_of(resolve(host), live_host)
            if address not in (None, live_host):
                moved.append((peer["PublicKey"], _wgconf.join_endpoint(address, port)))
    return moved


def with_addresses(config, running, resolve):
    """A Config whose endpoints are addresses, for `wg`, which knows the system's resolver only and waits for it long; a name nobody knows stays."""
    found = {peer["PublicKey"]: (_address_of(resolve(host), live_host), port) for peer, _live, host, port, live_host in _by_name(config, running)}
    return _wgconf.Config(config.interface, [
        dict(peer, Endpoint=_wgconf.join_endpoint(*found[peer["PublicKey"]])) if found.get(peer["PublicKey"], (None,))[0] else peer
        for peer in config.peers])


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
    if running.dns is not None and dns != running.dns and not _dns_is_lost(config, running, applied):
        yield "DNS differs: " + _difference(dns, running.dns)
    live = {network for peer in running.peers.values() for network in peer["allowed_ips"]}
    wanted = default_families(config)
    for family in sorted(wanted ^ default_families(config, live)):
        yield "the default route for IPv%d should go %s the tunnel" % (family, "through" if family in wanted else "outside")
    mark = _mark(config, running)
    if running.unseen:
        pass  # macOS has neither marks nor rules
    elif running.fwmark != mark and not (hooks and not mark):
        yield "fwmark is %s, should be %s" % (running.fwmark or "off", mark or "off")
    told = {key for key in ("MTU",) + ("FwMark",) * (not running.unseen) if key in values} | ({"DNS"} if running.dns is not None else set())
    unseen = [key for key in ("Table", "MTU", "FwMark", "DNS", *_wgconf.HOOKS) if key not in told]
    for key in unseen if applied else ():
        if applied.interface.get(key) != values.get(key):
            yield "%s changes" % key


def _peer_reasons(config, running, applied, now):
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
        reason = _endpoint_reason(peer, live, before.get(peer["PublicKey"]), now)
        if reason:
            yield name + reason
    for key in sorted(running.peers.keys() - {peer["PublicKey"] for peer in config.peers}):
        yield "peer %s…: should not be there" % key[:8]


def route_steps(config, running):
    """(missing, stale): sets of (network, table). Where hooks may have set routes of their own, none is stale."""
    wanted = routes_of(config, _mark(config, running))
    return wanted - running.routes, set() if _hooks(config) else running.routes - wanted


def _hooks(config):
    return any(hook in config.interface for hook in _wgconf.HOOKS)


def plan(config, running, applied=None, kept=None, now=None):
    """The smallest step from what runs (a Running or None) to a Config (None: no tunnel).

    applied: the Config that was put in place last, if known: it tells a changed endpoint from a roamed one, and shows changes that leave no
    trace in what runs (Table, hooks). kept: the kept path (_reach.kept_path). now: Unix time.
    """
    if config is None:
        return Plan("down", ["the interface should not be there"]) if running else Plan("none")
    if running is None:
        return Plan("up", ["the interface is not there"])
    reasons = list(_interface_reasons(config, running, applied, _hooks(config)))
    action = "restart" if reasons or running.unseen else "sync"
    reasons += _peer_reasons(config, running, applied, time.time() if now is None else now)
    if action != "restart":
        reasons += [entry.text for entry in lost(config, running, applied, kept)]
        reasons += ["route %s in table %d should not be there" % route for route in sorted(route_steps(config, running)[1])]
    return Plan(action if reasons else "none", reasons)
