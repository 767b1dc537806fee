# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's way to the host: what a config does to it, and how it is kept open beside the tunnel.

`run`, `services`, `store` as _step takes them.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import ipaddress
import os
import re

from . import _enrollment, _observe, _plan, _services

DROP_IN = "etc/systemd/system/wg-quick@%s.service.d/50-gatecontrol.conf"
BESIDE = "etc/gatecontrol/beside-%s.nft"  # the table that marks what came in beside the tunnel
MARK = "0x6763"
NETWORKD = "etc/systemd/networkd.conf.d/50-gatecontrol-%s.conf"


def _ends(ssh_connection):
    """(controller's address, the host's own) of SSH_CONNECTION; None where there is nothing to keep reachable."""
    words = (ssh_connection or "").split()
    if len(words) != 4:
        return None
    try:
        client, own = (ipaddress.ip_address(re.sub("^::ffff:(?=[0-9.]+$)", "", word.split("%")[0])) for word in (words[0], words[2]))
    except ValueError:
        return None  # "UNKNOWN": sshd on something that is no network, such as a socket of Unix, vsock or a pipe
    return None if client.is_loopback or client.is_link_local or client.version != own.version else (client, own)


def _way(run, client, own, interface):
    """The route to the controller as `ip -j` tells it; None where there is none, as when the host has lost the address of a connection of before.

    A connection that came in beside a full tunnel, to an address that is not the tunnel's, is answered by its mark.
    """
    asked = ["ip", "-%d" % client.version, "-j", "route", "get", str(client), "from", str(own)]
    try:
        route = _observe.ip_json(run, asked)[0]
        if route.get("dev") != interface:
            return route
        marked = _observe.ip_json(run, asked + ["mark", MARK])[0]
        if marked.get("dev") == interface:
            return route
        inside = _observe.ip_json(run, ["ip", "-j", "address", "show", "dev", interface, "to", str(own)])
        return route if any(link.get("addr_info") for link in inside) else marked
    except _observe.TunnelError:
        return None


def way_on_mac(run, target, version):
    """(device, whether a gateway stands between) of the route to an address of this IP version, or to "default"; device is None where there is none."""
    rc, out, _err = run(["route", "-n", "get", "-inet6" if version == 6 else "-inet", str(target)], None)
    device = re.search(r"^\s*interface: (\S+)", out, re.MULTILINE) if not rc else None
    return device and device.group(1), re.search(r"^\s*gateway: ", out, re.MULTILINE) is not None


def runs_through(run, interface, ssh_connection, root="/"):
    """Whether a connection runs through this very tunnel."""
    ends = _ends(ssh_connection)
    if not ends:
        return False
    if _services.system(root) == "macos":
        return (way_on_mac(run, ends[0], ends[0].version)[0] or "none") == _observe.real_name(root, interface)
    return (_way(run, *ends, interface) or {}).get("dev") == interface


def _table(interface):
    """The text of BESIDE. A connection that came in beside the tunnel, to an address of this host, is marked, and with it its answers: those of the
    host itself, and those of a container behind a published port. So is what the agent itself begins beside a dead tunnel (see _way), which it
    marks at its socket. What else the host begins, what it forwards for others and what carries a mark or
    belongs to a connection of somebody else's mark is left alone. The packets that come in are marked too, for the reverse path filter.
    The kernel takes the first packet that it sees of a connection for the one that began it. Of a connection that was open before the kernel
    followed connections here that may be an answer, so what then seems to come back tells by its port, which is a service's: neither one that the
    kernel gives to who asks elsewhere (from 32768 on, net.ipv4.ip_local_port_range) nor one that rpc clients ask from (512 to 1023).
    """
    return """\
# What came in beside the tunnel is answered beside it, whatever addresses this host has.
table inet gatecontrol-{0}
delete table inet gatecontrol-{0}
table inet gatecontrol-{0} {{
    chain arriving {{
        type filter hook prerouting priority -151; policy accept;
        ct direction original ct mark 0 iifname != {{ "{0}", "lo" }} fib daddr type local ct mark set {1}
        ct direction reply ct mark 0 iifname != {{ "{0}", "lo" }} fib daddr type local tcp dport {{ 1-511, 1024-32767 }} ct mark set {1}
        ct mark {1} meta mark 0 meta mark set {1}
    }}
    chain answering {{
        type route hook output priority -151; policy accept;
        meta mark {1} ct mark 0 ct mark set {1}
        ct mark {1} meta mark 0 meta mark set {1}
    }}
}}
""".format(interface, MARK)


def _kept_open(run, config, interface, root):
    """Commands that keep open what comes in beside a full tunnel: a mark, or a rule for each address where nft or the kernel knows no such marks."""
    families = sorted(_plan.default_families(config))
    if not families:
        return []
    path, text = os.path.join(root, BESIDE % interface), _table(interface)
    # What is in use already need not be tried.
    if _enrollment.read_text(path) == text or _works(run, ["nft", "-c", "-f", "-"], text):
        return [["nft", "-f", path]] + [["ip", "-%d" % family, "rule", "add", "fwmark", MARK, "lookup", "main"] for family in families]
    kept = []
    for link in _observe.ip_json(run, ["ip", "-j", "address", "show", "scope", "global"]):
        for address in link.get("addr_info", ()) if link.get("ifname") != interface else ():
            family = 6 if ":" in address["local"] else 4
            if family in families and not address.get("temporary"):
                kept.append(["ip", "-%d" % family, "rule", "add", "from", address["local"], "lookup", "main"])
    return sorted(kept)


def _works(run, argv, text):
    try:
        return run(argv, text)[0] == 0
    except OSError:
        return False


def captures(config, ssh_connection):
    """Whether a config's networks hold the controller's address, or all addresses there are."""
    ends = _ends(ssh_connection)
    networks = [ipaddress.ip_network(network) for network in _plan.allowed_networks(config)]
    return bool(_plan.default_families(config)) or bool(ends) and any(network.version == ends[0].version and ends[0] in network for network in networks)


def reachability(run, config, interface, ssh_connection, root="/"):
    """How a config would treat the controller's connection: {"kept", "through", "reason"}.

    ssh_connection: SSH_CONNECTION ("client port server port"), empty or None: no SSH. kept: the commands that keep the way open (see keep), None
    where none is needed; through: the connection runs through this very tunnel now; reason: why the way cannot be kept, else None.
    In a full tunnel all that comes in beside it is answered beside it; a route of its own leads to a controller that narrower networks in table
    main would capture, along the way that the host has to it now.
    """
    kept = _kept_open(run, config, interface, root)
    result = {"kept": kept or None, "through": False, "reason": None}
    ends = _ends(ssh_connection)
    if ends is None:
        return result
    client, own = ends
    if (_way(run, client, own, interface) or {}).get("dev") == interface:
        result.update(through=True, reason="the controller's connection from %s runs through %s itself" % (client, interface))
        return result
    networks = [ipaddress.ip_network(network) for network, table in _plan.routes_of(config, 0) if table in (0, _observe.MAIN)]
    networks = [network for network in networks if network.version == client.version and client in network]
    narrow = max([network.prefixlen for network in networks if network.prefixlen or not _plan.chooses_tables(config)], default=None)
    if narrow == client.max_prefixlen:
        result.update(kept=None, reason="AllowedIPs name the controller's address %s, which no route can keep outside the tunnel" % client)
    elif narrow is not None:
        route = _beside(run, client, interface, narrow)
        result["kept"] = kept + [route] if route else kept or None
    return result


def _beside(run, client, interface, narrow):
    """The command for a route to the controller beside the tunnel; None where a nearer route leads there anyway, or none at all."""
    option = "-%d" % client.version
    found = _observe.routes_to(run, client)
    lengths = [(0 if route["dst"] == "default" else ipaddress.ip_network(route["dst"]).prefixlen, -route.get("metric", 0), number)
               for number, route in enumerate(found) if route.get("dev") not in (None, interface)]
    lengths = [entry for entry in lengths if entry[0] < client.max_prefixlen]  # the route to it alone is what is asked for
    if not lengths or max(lengths)[0] > narrow:
        return None
    route = found[max(lengths)[2]]
    gateway = ["via", route["gateway"]] if "gateway" in route else []
    return ["ip", option, "route", "replace", "%s/%d" % (client, client.max_prefixlen), *gateway, "dev", route["dev"]]


def reachability_on_mac(run, config, name, ssh_connection):
    """The same on macOS, where no path can be kept: what lies on the host's own network is reached anyway. name: the interface's real one."""
    result, ends = {"kept": None, "through": False, "reason": None}, _ends(ssh_connection)
    if ends is None:
        return result
    client, own = ends
    device, gateway = way_on_mac(run, client, client.version)
    if device and device == name:
        return dict(result, through=True, reason="the controller's connection from %s runs through the tunnel itself" % client)
    networks = [ipaddress.ip_network(network) for network in _plan.allowed_networks(config) if config.interface.get("Table") != "off"]
    narrow = max([network.prefixlen for network in networks if network.version == client.version and client in network], default=None)
    near = -1
    if device and not gateway:
        near = max([int(address.split("/")[1]) for address in _observe.ifconfig(run, device)[2] if ipaddress.ip_interface(address).ip == own], default=-1)
    if narrow is None or narrow < near:
        return result
    return dict(result, reason="AllowedIPs would lead the way to the controller's address %s into the tunnel, and on macOS no path outside is kept" % client)


def _opposite(command):
    if command[0] == "nft":
        name = re.search(r"beside-(.*)\.nft$", command[2]).group(1)
        return ["nft", "delete", "table", "inet", "gatecontrol-" + name]
    return [{"add": "delete", "replace": "delete"}.get(word, word) for word in command]


def kept_path(store, interface):
    """The commands of the kept path that is in place now, as reachability gives them, or None."""
    text = _enrollment.read_text(os.path.join(store.root, DROP_IN % interface)) or ""
    found = re.findall(r"^ExecStartPost=-?(?:/usr)?/sbin/((?:ip|nft) .*)$", text, re.MULTILINE)
    return [line.split() for line in found if " delete " not in line] or None


def keep(run, services, store, interface, kept):
    """Make a kept path part of the tunnel's unit (None: take it out), so that it comes and goes with the tunnel. True if that changed it.

    It is opened here and now only by the step that follows (apply); what is no longer wanted is closed here. A command that fails when the tunnel
    starts, such as a route by a gateway of elsewhere, does not keep the tunnel from starting; the next beat sees to it.
    """
    path, before, changed = os.path.join(store.root, DROP_IN % interface), kept_path(store, interface), False
    table, beside = os.path.join(store.root, BESIDE % interface), any(command[0] == "nft" for command in kept or ())
    if beside and _enrollment.read_text(table) != _table(interface):
        _enrollment.write_text(table, _table(interface))
        changed = True
    if kept != before:
        for command in before or ():
            if command not in (kept or ()):
                run(_opposite(command), None)
        if kept:
            _enrollment.write_text(path, _drop_in(kept), 0o644)
            os.chmod(os.path.dirname(path), 0o755)
        else:
            _remove(path)
        services.daemon_reload()
        changed = True
    if not beside and _enrollment.remove_file(table):
        if not any(command[0] == "nft" for command in before or ()):  # marked for a step that was not taken
            run(_opposite(["nft", "-f", table]), None)
        changed = True
    return changed


def mark(run, store, interface, kept):
    """Mark what comes in from now on, ahead of the step that needs the marks (see keep, which takes them away where that step is not taken).

    A connection that is open, and silent while the tunnel takes all, would be answered into the tunnel until its other end says something.
    """
    for command in kept or ():
        if command[0] == "nft":
            _enrollment.write_text(os.path.join(store.root, BESIDE % interface), _table(interface))
            run(command, None)


def _drop_in(kept):
    lines = ["# What came in beside the tunnel is answered beside it: the way to the machine that manages this host.", "[Service]"]
    for command in kept:
        place = "-/usr/sbin/" if command[0] == "nft" else "-/sbin/"
        if "rule" in command:  # one that was left is not to become two
            lines.append("ExecStartPost=%s%s" % (place, " ".join(_opposite(command))))
        lines += ["ExecStartPost=%s%s" % (place, " ".join(command)), "ExecStopPost=%s%s" % (place, " ".join(_opposite(command)))]
    return "\n".join(lines) + "\n"


def _remove(path):
    """Remove a file, and its folder if it was the only one there. True if there was one."""
    there = _enrollment.remove_file(path)
    try:
        os.rmdir(os.path.dirname(path))
    except OSError:
        pass  # others have drop-ins there too, or it is not there
    return there


def spare_text(store, config, kept, interface):
    """What systemd-networkd has to be told for a Config (None: no tunnel); None where nothing has to be said."""
    networkd = any(os.path.exists(os.path.join(store.root, place, "systemd/system/systemd-networkd.service")) for place in ("usr/lib", "lib", "etc"))
    if not networkd or config is None or not (_plan.default_families(config) or kept):
        return None
    return ("# systemd-networkd removes rules and routes that it did not make whenever it starts, as when systemd is upgraded.\n"
            "# Without those of wg-quick what should go through the tunnel %s leaves beside it.\n"
            "[Network]\nManageForeignRoutingPolicyRules=no\nManageForeignRoutes=no\n" % interface)


def spared(store, config, kept, interface):
    """Whether systemd-networkd is told what it has to be told."""
    return _enrollment.read_text(os.path.join(store.root, NETWORKD % interface)) == spare_text(store, config, kept, interface)


def spare(store, interface, config, kept=None):
    """Have systemd-networkd leave the tunnel's rules and routes alone from its next start on, or no longer. True if that changed anything."""
    path, text = os.path.join(store.root, NETWORKD % interface), spare_text(store, config, kept, interface)
    if spared(store, config, kept, interface):
        return False
    if text is None:
        return _remove(path)
    _enrollment.write_text(path, text, 0o644)
    os.chmod(os.path.dirname(path), 0o755)
    return True
