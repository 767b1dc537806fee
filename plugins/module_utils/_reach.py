# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's way to the host: what a config does to it, and how it is kept open beside the tunnel.

`run`, `services`, `store` as _step takes them.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import ipaddress
import json
import os
import re

from . import _enrollment, _observe, _plan, _services

DROP_IN = "etc/systemd/system/wg-quick@%s.service.d/50-gatecontrol.conf"


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
        return json.loads(_observe.command(run, ["ip", "-%d" % client.version, "-j", "route", "get", str(client), "from", str(own)]))[0]
    except _observe.TunnelError:
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
        return (_way_on_mac(run, ends[0])[0] or "none") == _observe.real_name(root, interface)
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
    networks = [ipaddress.ip_network(network) for network, table in _plan.routes_of(config, 0) if table in (0, _observe.MAIN)]
    networks = [network for network in networks if network.version == client.version and client in network]
    if _plan.chooses_tables(config) and any(network.prefixlen == 0 for network in networks):
        result["kept"] = [option, "rule", "add", "from", str(own), "lookup", "main"]
    narrow = max([network.prefixlen for network in networks if network.prefixlen or not _plan.chooses_tables(config)], default=None)
    if narrow == client.max_prefixlen:
        result.update(kept=None, reason="AllowedIPs name the controller's address %s, which no route can keep outside the tunnel" % client)
    elif narrow is not None:
        others = json.loads(_observe.command(run, ["ip", option, "-N", "-j", "route", "show", "match", str(client), "table", "main"]) or "[]")
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
    networks = [ipaddress.ip_network(network) for network in _plan.allowed_networks(config) if config.interface.get("Table") != "off"]
    narrow = max([network.prefixlen for network in networks if network.version == client.version and client in network], default=None)
    near = -1
    if device and not gateway:
        near = max([int(address.split("/")[1]) for address in _observe.ifconfig(run, device)[2] if ipaddress.ip_interface(address).ip == own], default=-1)
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
