# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A step of a plan is taken: wg, ip and wg-quick are told, files are put in place, and the tunnel is taken away.

`run`, `store` as _observe takes them; `services` is a _services.Systemd or an object like it.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import contextlib
import os

from . import _enrollment, _observe, _plan, _reach, _repair, _services, _way, _wgconf

ERRORS = (_services.ServiceError, _wgconf.ConfigError, OSError)  # besides TunnelError, what a step may raise


def _stop(run, services, store, interface, running):
    """Take the tunnel down, by the config that lies there now, and what wg-quick may leave behind: ip rules and the resolver's entry."""
    try:
        services.stop(_observe.unit_of(interface))
    except _services.ServiceError:
        unit = _observe.unit_of(interface)
        if _observe.dump(run, interface, store.root) is not None and services.show([unit], ["LoadState"])[unit].get("LoadState") != "not-found":
            raise
    if _services.system(store.root) == "macos":
        bring_down(run, store, interface)
        return
    if _observe.dump(run, interface, store.root) is not None:  # somebody brought it up without its unit
        try:
            _observe.command(run, ["wg-quick", "down", interface])
        except _observe.TunnelError:
            _observe.command(run, ["ip", "link", "delete", "dev", interface])
    mark = _plan.live_mark(running) if running else 0
    for family in (4, 6) if mark else ():
        rules = _observe.ip_json(run, ["ip", "-4", "-N", "-j", "rule", "show"]) if family == 4 else _observe.ip6_rules(run)
        _repair.take_rules_out(run, rules, family, mark)
    path, name = _observe.dns_record(store.root, interface)
    if path and os.path.exists(path):
        _observe.command(run, ["resolvconf", "-d", name, "-f"])


def _start(run, services, store, interface, limit):
    if _services.system(store.root) == "macos":
        bring_up(run, store, interface, limit)
    services.reset_failed(_observe.unit_of(interface))
    services.start(_observe.unit_of(interface), limit=limit)


def bring_up(run, store, interface, limit=30):
    """wg-quick up on macOS, where no unit does it. A name that does not resolve is given up within `limit` seconds."""
    _take_dns_back(run, store, interface)
    _observe.command(run, ["env", "WG_ENDPOINT_RESOLUTION_RETRIES=%d" % max(1, min(8, limit // 4)), "wg-quick", "up", interface])


def bring_down(run, store, interface):
    """wg-quick down on macOS, and what happens after it: wireguard-go ends, and then wg-quick's monitor takes routes and DNS back."""
    name = _observe.real_name(store.root, interface)
    if name is None:
        return
    try:
        _observe.command(run, ["wg-quick", "down", interface])
    except _observe.TunnelError:
        for path in (name + ".sock", interface + ".name"):  # which is what ends wireguard-go
            _enrollment.remove_file(os.path.join(store.root, _observe.NAMES, path))
    for _try in range(50):
        if run(["ifconfig", name], None)[0]:
            break
        run(["sleep", "0.2"], None)
    run(["sleep", "2"], None)
    _take_dns_back(run, store, interface)


def _take_dns_back(run, store, interface):
    """Take back what wg-quick for macOS set and could not take back, as after a power cut: macOS keeps DNS servers over a boot, so the endpoint's
    name would be asked of a server behind the tunnel, and wg-quick would take its own server for the one of before."""
    config = _observe.applied(_observe.config_path(store, interface))
    servers = [entry for entry in config.interface.get("DNS", ()) if _wgconf.is_literal(entry)] if config else []
    for line in run(["networksetup", "-listallnetworkservices"], None)[1].splitlines()[1:] if servers else ():
        service = line.lstrip("*")  # marks one that is disabled
        if run(["networksetup", "-getdnsservers", service], None)[1].split() == servers:
            for verb in ("-setdnsservers", "-setsearchdomains"):
                run(["networksetup", verb, service, "Empty"], None)


def put_back(run, services, store, interface, text, start, limit):
    """The hard way back: stop whatever runs, the old text (None: no file), start again if asked."""
    _stop(run, services, store, interface, _observe.observe(run, interface, store.root))
    if text is None:
        _enrollment.remove_file(_observe.config_path(store, interface))
    else:
        _enrollment.write_text(_observe.config_path(store, interface), text)
    if start:
        _start(run, services, store, interface, limit)


def _sync(run, store, interface, config, running, kept):
    for peer in config.peers:
        live = running.peers.get(peer["PublicKey"])
        if live and live["preshared_key"] != peer.get("PresharedKey"):
            # A live session would hide a wrong preshared key until its next handshake: begin a new one.
            _observe.command(run, ["wg", "set", interface, "peer", peer["PublicKey"], "remove"])
    # With addresses: the names' servers may lie behind the tunnel that this is to bring back.
    text = _wgconf.stripped(_plan.with_addresses(config, running, _way.resolver(run, store, interface)), running.fwmark, running.listen_port)
    # By a pipe: AppArmor's profile of wg lets it read below /etc/wireguard and from pipes, nothing else, and no key comes to lie in a file more.
    _observe.command(run, ["wg", "syncconf", interface, "/dev/stdin"], text)
    _repair.put_back(run, store, interface, config, running, _plan.lost(config, running, config, kept), kept)
    stale = _plan.route_steps(config, running)[1]
    if stale:
        lines = ["route delete %s dev %s table %d" % (network, interface, table) for network, table in sorted(stale)]
        _observe.command(run, ["ip", "-batch", "-"], "\n".join(lines) + "\n")


def apply(run, services, store, interface, step, config, kept=None, text=None, limit=30):
    """Take the step of a plan and put the config's file in place; enabled at boot afterwards, but for "down".

    config: the Config, None for "down"; text: the file's text, if not the canonical one; kept: the kept path; limit: seconds for a start.
    A tunnel that does not start is put back as it was. Raises TunnelError, ServiceError, OSError; with "down" the file stays.
    """
    unit, path = _observe.unit_of(interface), _observe.config_path(store, interface)
    running = _observe.observe(run, interface, store.root, kept) if step.action != "none" else None
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
        except (_observe.TunnelError, _services.ServiceError) as error:
            put_back(run, services, store, interface, old, running is not None and old is not None, limit)
            raise _observe.TunnelError("the tunnel did not start and is as it was before: %s" % error) from None
    if services.show([unit], ["UnitFileState"])[unit].get("UnitFileState") != "enabled":
        services.enable(unit)
    _reach.spare(store, interface, config, kept)
    if step.action != "none":
        _verify(run, store, interface, config, kept)


def _verify(run, store, interface, config, kept):
    after = _observe.observe(run, interface, store.root, kept)
    if after is None or after.public_key != _wgconf.public_key(config.interface["PrivateKey"]):
        raise _observe.TunnelError("%s does not have the key of its config after the change" % interface)
    after.dns = None  # what a resolver makes of its entry is not for this to judge
    rest = _plan.plan(config, after, config, kept)
    if rest.action != "none":
        raise _observe.TunnelError("%s still differs from its config after the change: %s" % (interface, "; ".join(rest.reasons)))


def remove(run, services, store, interface):
    """Take the tunnel, its start at boot, its config and its kept path away; True if there was any of it.

    Where its programs are gone, so much of it is taken away as goes without them.
    """
    unit, bare = _observe.unit_of(interface), False
    try:
        running = _observe.observe(run, interface, store.root)
    except _observe.MissingTool:
        running, bare = _observe.Running() if _observe.present(store.root, interface) else None, True
    state = services.show([unit], ["ActiveState", "UnitFileState"])[unit]
    there = running is not None or state.get("ActiveState") in ("active", "activating", "failed")
    if there and bare:
        with contextlib.suppress(_services.ServiceError):
            services.stop(unit)
        run(["ip", "link", "delete", "dev", interface], None)
    elif there:
        _stop(run, services, store, interface, running)
    if there:
        services.reset_failed(unit)
    enabled = state.get("UnitFileState") == "enabled"
    if enabled:
        services.disable(unit)
    kept = _reach.keep(run, services, store, interface, None), _reach.spare(store, interface, None)
    return any([there, enabled, *kept, _enrollment.remove_file(_observe.config_path(store, interface))])
