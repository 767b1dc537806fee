# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running tunnel has lost is put back live: rules, routes, nft's table, the resolver's entry, the kept path.

systemd-networkd takes rules and routes when it starts, nftables.service takes all tables, a new resolver knows nothing of the old one's entries.
`run`, `store` as _observe takes them; `agent` is an _agent.Agent.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations


from . import _enrollment, _observe, _plan, _reach, _services, _wgconf

UNIT = "gatecontrol-repair.service"  # the beat's own unit cannot change the network, and starts this one
RESOLVED = "systemd-resolved.service"
NF = {4: "ip", 6: "ip6"}  # how nft calls a family


def put_back(run, store, interface, config, running, lost, kept=None):
    """Put back what _plan.lost found of a Config. kept: the kept path. Raises TunnelError at the first command that fails."""
    mark = _plan.live_mark(running) or config.interface.get("FwMark", 0)
    routes = ["route add %s dev %s table %d" % (entry.what[0], interface, entry.what[1]) for entry in lost if entry.kind == "route"]
    ruled = [entry.what for entry in lost if entry.kind == "rules"]
    for entry in lost:
        if entry.kind == "table":
            _observe.command(run, ["nft", "-f", "-"], table(interface, entry.what, mark, running.addresses))
    if routes:
        _observe.command(run, ["ip", "-batch", "-"], "\n".join(routes) + "\n")
    for family in ruled:
        _rules(run, running, family, mark)
    if any(entry.kind == "dns" for entry in lost):
        _dns(run, store, interface, config)
    missing = [entry.what for entry in lost if entry.kind == "kept"]
    for command in kept or ():
        # New rules stand in front of all others, so that those of the kept path come after them.
        ruled_anew = "rule" in command and int(command[1][1]) in ruled
        if command in missing or ruled_anew:
            if "rule" in command:
                _take_out(run, running, command)
            _observe.command(run, command)


def _rules(run, running, family, mark):
    """wg-quick's two rules, in its own order; what is left of them goes first."""
    take_rules_out(run, running.rules[family], family, mark)
    for words in (["not", "fwmark", str(mark), "table", str(mark)], ["table", "main", "suppress_prefixlength", "0"]):
        _observe.command(run, ["ip", "-%d" % family, "rule", "add", *words])


def take_rules_out(run, rules, family, mark):
    """Take wg-quick's rules of a family out of those that the host has; what may be another tunnel's stays."""
    others = [rule for rule in rules if "not" in rule and "fwmark" in rule and not _plan.is_mark_rule(rule, mark)]
    for rule in rules:
        if _plan.is_mark_rule(rule, mark) or (_plan.is_suppress_rule(rule) and not others):
            _observe.command(run, ["ip", "-%d" % family, "rule", "delete", "pref", str(rule["priority"])])


def _take_out(run, running, command):
    family = int(command[1][1])
    for rule in running.rules[family]:
        if _plan.is_kept_rule(rule, command):
            run(["ip", "-%d" % family, "rule", "delete", "pref", str(rule["priority"])], None)


def table(interface, family, mark, addresses):
    """wg-quick's own table of a default route, word for word: packets for the tunnel's addresses come through the tunnel, and WireGuard's own packets
    carry their mark back through a strict reverse path filter."""
    name, nf = "wg-quick-" + interface, NF[family]
    own = sorted(address.split("/")[0] for address in addresses if (":" in address) == (family == 6))
    lines = ["add table %s %s" % (nf, name)]
    for chain, hook, priority in (("preraw", "prerouting", -300), ("premangle", "prerouting", -150), ("postmangle", "postrouting", -150)):
        lines.append("add chain %s %s %s { type filter hook %s priority %d; }" % (nf, name, chain, hook, priority))
    lines += ['add rule %s %s preraw iifname != "%s" %s daddr %s fib saddr type != local drop' % (nf, name, interface, nf, address) for address in own]
    lines += ["add rule %s %s postmangle meta l4proto udp mark %d ct mark set mark" % (nf, name, mark),
              "add rule %s %s premangle meta l4proto udp meta mark set ct mark" % (nf, name)]
    return "\n".join(lines) + "\n"


def _dns(run, store, interface, config):
    """Tell the host's resolvconf what wg-quick told it."""
    entries = config.interface["DNS"]
    servers = [entry for entry in entries if _wgconf.is_literal(entry)]
    domains = [entry for entry in entries if entry not in servers]
    text = "".join("nameserver %s\n" % server for server in servers) + ("search %s\n" % " ".join(domains) if domains else "")
    _observe.command(run, ["resolvconf", "-a", _observe.dns_record(store.root, interface)[1], "-m", "0", "-x"], text)


def in_use(agent):
    """The Config that the agent put in place last; None where there is none, or somebody else changed the file, which is for a play to settle."""
    text = _enrollment.read_text(agent.config_path)
    if text is None or _enrollment.digest(text) != agent.enrollment.get("file_hash"):
        return None
    try:
        return _wgconf.parse(text, allow_hooks=True)
    except _wgconf.ConfigError:
        return None


def beside(agent, running):
    """Why packets that belong into the tunnel pass beside it: a list of sentences; None where that cannot be told."""
    config = in_use(agent) if _services.system(agent.store.root) == "linux" else None
    if config is None:
        return None
    if running is None or not running.up:
        return ["the interface %s is %s" % (agent.interface, "down" if running else "not there")]
    return [entry.text for entry in _plan.lost(config, running, config, _reach.kept_path(agent.store, agent.interface)) if entry.beside]


def ipv6_changed(agent):
    """Whether IPv6 was switched on or off since the file was made: it is what the other state makes of the server's config."""
    text, issued = _enrollment.read_text(agent.config_path), agent.store.text("issued")
    if text is None or issued is None:
        return False
    try:
        have = _observe.ipv6(agent.store.root)
        return text != agent.rendered(issued, ipv6=have) and text == agent.rendered(issued, ipv6=not have)
    except _wgconf.ConfigError:
        return False


def resolver_off(agent, config, running):
    """A sentence where wg-quick cannot set a Config's DNS, since the resolver that resolvconf belongs to was switched off; else None."""
    kind, program = _observe.resolver(agent.store.root)
    if kind != "resolved" or not config.interface.get("DNS"):
        return None
    if running is not None and running.dns is not None:
        return None
    if agent.services.show([RESOLVED], ["ActiveState"])[RESOLVED].get("ActiveState") == "active":
        return None
    return ("systemd-resolved is switched off on this host, and %s belongs to it, so wg-quick cannot set the DNS of the config; start it "
            "(systemctl enable --now systemd-resolved), install openresolv, or set gatecontrol_dns=[]" % program)


def ills(agent, running):
    """What a beat finds that its repair can settle: a list of sentences, empty as a rule. None is told of where a change is under way."""
    config = in_use(agent) if _services.system(agent.store.root) == "linux" else None
    if config is None or agent.store.load("pending"):
        return []
    if ipv6_changed(agent):
        return ["IPv6 was switched %s since the config was put in place" % ("on" if _observe.ipv6(agent.store.root) else "off")]
    if running is None:
        unit = _observe.unit_of(agent.interface)
        state = agent.services.show([unit], ["ActiveState"])[unit].get("ActiveState")
        # One that somebody has stopped stays as it is.
        return ["%s is %s, and the interface is not there" % (unit, state)] if state in ("active", "failed") else []
    kept = _reach.kept_path(agent.store, agent.interface)
    found = [entry.text for entry in _plan.lost(config, running, config, kept)]
    if not way_is_kept(agent, config):
        found.append("the way kept for the controller is not the one that this host needs now")
    if not _reach.spared(agent.store, config, kept, agent.interface):
        found.append("systemd-networkd is not told what to leave alone")
    return found


def way_is_kept(agent, config):
    """Whether the kept path is the one that a Config needs on this host as it is now."""
    kept, controller = _reach.kept_path(agent.store, agent.interface), agent.enrollment.get("controller")
    if not kept and not _reach.captures(config, controller):
        return True  # which spares a steady run the processes
    reach = agent.reachability(_wgconf.render(config), controller)
    return bool(reach["reason"]) or reach["kept"] == kept


def repair(agent):
    """The work of the repair unit, which holds the host's lock: settle what ills() finds; returns what was done, a list of sentences.

    Raises TunnelError, ServiceError, AgentError, ConfigError, OSError; what could not be done now is tried again with the next beat.
    """
    running = agent.running()
    found, config = ills(agent, running), in_use(agent)
    if not found:
        return []
    if ipv6_changed(agent):
        agent.stage(agent.store.text("issued"))
        agent.launch("server", agent.enrollment.get("controller"))
        return found
    off = resolver_off(agent, config, running)
    if off:
        raise _observe.TunnelError(off)
    interface, unit = agent.interface, _observe.unit_of(agent.interface)
    if running is None:
        _start_anew(agent, unit)
    reach = agent.reachability(_wgconf.render(config), agent.enrollment.get("controller"))
    if not reach["reason"]:
        _reach.keep(agent.run, agent.services, agent.store, interface, reach["kept"])
    kept = _reach.kept_path(agent.store, interface)
    _reach.spare(agent.store, interface, config, kept)
    running = _observe.observe(agent.run, interface, agent.store.root, kept)
    if running is not None:
        put_back(agent.run, agent.store, interface, config, running, _plan.lost(config, running, config, kept), kept)
    return found


def _start_anew(agent, unit):
    """Start a tunnel whose unit failed, or whose interface was taken away under its unit."""
    try:
        agent.services.stop(unit)
    except _services.ServiceError:
        pass  # wg-quick has nothing to take down
    agent.services.reset_failed(unit)
    agent.services.start(unit)
