# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host made of dicts: it answers wg, ip, wg-quick and systemctl as the real programs do, so far as the tunnel asks them.

What the real programs do was seen in the namespaces of tests/integration/tunnel, which also tests against them.
"""

from __future__ import annotations

import copy
import ipaddress
import json
import os
import pathlib
import re

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment, _names, _observe, _reach, _services, _wgconf

ZERO = "A" * 43 + "="


class Crash(BaseException):
    """The process is killed: no handler runs."""


def resolved(endpoint):
    """The address that wg has of an endpoint: of any name the same."""
    host, _colon, port = endpoint.rpartition(":")
    return endpoint if _names.is_address(host.strip("[]")) else "192.0.2.51:" + port


class FakeHost:
    """run is the command runner; services and store go with it. Every command, service call and file operation is one step:
    the step numbered crash_at and all after it raise Crash instead."""

    def __init__(self, root, resolver=True):
        self.root = str(root)
        self.links, self.rules, self.tables = {}, {4: [], 6: []}, set()
        self.enabled, self.active = set(), set()
        self.answering = None  # (public key, endpoint) of a peer that answers; None: every peer
        self.time, self.handshakes, self.next_port = 1000.0, 0, 40000
        self.log, self.steps, self.crash_at = [], 0, None
        self.extra_routes = {}  # routes of table main on other devices: network -> what ip shows of it
        if resolver:
            pathlib.Path(root, "sbin").mkdir(parents=True, exist_ok=True)
            pathlib.Path(root, "sbin/resolvconf").touch()
            pathlib.Path(root, "run/resolvconf/interfaces").mkdir(parents=True, exist_ok=True)
        self.store, self.services = _enrollment.Store(self.root), Services(self)

    def __enter__(self):
        """Make each write and removal of a file a step too, without waiting for a disk."""
        self._kept = _enrollment.write_text, _enrollment.remove_file

        def write_text(path, text, mode=0o600, owner=None, group=None):
            self.step("write", path)
            pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
            pathlib.Path(path).write_bytes(text.encode("utf-8", "surrogateescape"))
            os.chmod(path, mode)

        def remove_file(path):
            if os.path.exists(path):
                self.step("remove", path)
            return self._kept[1](path)

        _enrollment.write_text, _enrollment.remove_file = write_text, remove_file
        return self

    def __exit__(self, *_error):
        _enrollment.write_text, _enrollment.remove_file = self._kept

    def step(self, *what):
        self.steps += 1
        if self.crash_at is not None and self.steps >= self.crash_at:
            raise Crash
        self.log.append(what)

    def sleep(self, seconds):
        self.time += seconds

    def clock(self):
        return self.time

    def reboot(self):
        """Everything but files goes; enabled units start."""
        self.links, self.rules, self.tables, self.active, self.crash_at = {}, {4: [], 6: []}, set(), set(), None
        for path in pathlib.Path(self.root, "run/resolvconf/interfaces").glob("*"):
            path.unlink()

    def boot(self):
        for unit in self.enabled:
            try:
                self.services.start(unit)
            except _services.ServiceError:
                pass

    def seen(self, interface):
        """What runs, comparable: without counters and without a port that was chosen at random."""
        if interface not in self.links:
            return None
        link = copy.deepcopy(self.links[interface])
        for peer in link["peers"].values():
            for counter in ("handshake", "rx", "tx"):
                del peer[counter]
            peer["allowed"].sort()
        link["port"] = 0 if link["port"] >= 40000 else link["port"]
        link["routes"].sort(key=json.dumps)
        rules = {
            family: [{key: value for key, value in rule.items() if key != "priority"} for rule in self.rules[family]] for family in (4, 6)
        }
        dns = pathlib.Path(self.root, "run/resolvconf/interfaces", interface)
        return link, rules, sorted(self.tables), dns.read_text() if dns.exists() else None

    # the commands

    def run(self, argv, stdin=None):
        asking = argv[:2] == ["wg", "show"] or argv[:2] in (["nft", "list"], ["nft", "-c"]) or "show" in argv or "-batch" in argv and "show" in (stdin or "")
        if not asking:
            self.step("run", *argv)
        try:
            return 0, getattr(self, "_" + argv[0].replace("-", "_"))(argv[1:], stdin) or "", ""
        except LookupError as error:
            return 1, "", str(error.args[0])

    def _wg(self, words, stdin):
        if words[0] == "show":
            return self._dump(words[1])
        if words[0] == "syncconf":
            assert words[2] == "/dev/stdin" and stdin, "profiles let wg read from pipes"
            self._setconf(self._link(words[1]), stdin, sync=True)
        elif words[0] == "set":
            link = self._link(words[1])
            if words[2] == "peer" and words[4] == "remove":
                link["peers"].pop(words[3], None)
            else:
                raise AssertionError(words)
        else:
            raise AssertionError(words)
        return ""

    def _link(self, interface):
        if interface not in self.links:
            raise LookupError("Unable to access interface: No such device")
        return self.links[interface]

    def _dump(self, interface):
        link = self._link(interface)
        public = _wgconf.public_key(link["private"]) if link["private"] else "(none)"
        lines = [[link["private"] or "(none)", public, str(link["port"]), hex(link["mark"]) if link["mark"] else "off"]]
        for key, peer in link["peers"].items():
            if peer["endpoint"] and self.answering in (None, (key, peer["endpoint"])):
                self.handshakes += 1
                peer["handshake"], peer["rx"] = self.handshakes, peer["rx"] + 92
            lines.append(
                [
                    key,
                    peer["psk"] or "(none)",
                    peer["endpoint"] or "(none)",
                    ",".join(peer["allowed"]) or "(none)",
                    str(peer["handshake"]),
                    str(peer["rx"]),
                    str(peer["tx"]),
                    str(peer["keepalive"] or "off"),
                ]
            )
        return "".join("\t".join(line) + "\n" for line in lines)

    def _setconf(self, link, text, sync=False):
        """What wg does: key, port and mark are replaced, and in a sync a peer keeps what the text does not say."""
        new, peers, target = {"private": None, "port": 0, "mark": 0}, {}, None
        for line in text.splitlines():
            key, _equals, value = (part.strip() for part in line.partition("="))
            if key == "PublicKey":
                old = link["peers"].get(value) if sync else None
                target = peers[value] = dict(
                    old or {"psk": None, "endpoint": None, "keepalive": 0, "handshake": 0, "rx": 0, "tx": 0}, allowed=[]
                )
            elif key == "PrivateKey":
                new["private"] = _wgconf.clamp(value)
            elif key == "ListenPort":
                new["port"] = int(value)
            elif key == "FwMark":
                new["mark"] = int(value)
            elif key == "PresharedKey":
                target["psk"] = None if value == ZERO else value
            elif key == "Endpoint":
                target["endpoint"] = resolved(value)
            elif key == "AllowedIPs":
                target["allowed"] += value.replace(" ", "").split(",")
            elif key == "PersistentKeepalive":
                target["keepalive"] = 0 if value == "off" else int(value)
        if not new["port"]:
            self.next_port += 1
            new["port"] = self.next_port
        link.update(new, peers=peers)

    def _ip(self, words, stdin):
        family = 6 if "-6" in words else 4
        words = [word for word in words if word not in ("-4", "-6", "-N", "-j")]
        if words[:1] == ["-batch"]:
            return "\n".join(filter(None, (self._ip(line.split(), None) for line in stdin.splitlines())))
        kind, verb = words[0], words[1]
        if (kind, verb) == ("address", "show"):
            link = self._link(words[3])
            shown = [
                {"family": "inet6" if ":" in entry else "inet", "local": entry.split("/")[0], "prefixlen": int(entry.split("/")[1])}
                for entry in link["addresses"]
            ]
            return json.dumps([{"ifindex": 9, "mtu": link["mtu"], "flags": ["UP"] if link["up"] else [], "addr_info": shown}])
        if (kind, verb) == ("rule", "show"):
            return json.dumps(
                [{"priority": 0, "src": "all", "table": "255"}] + self.rules[family] + [{"priority": 32766, "src": "all", "table": "254"}]
            )
        if (kind, verb) == ("route", "show") and words[2] == "table":
            return json.dumps([self._shown(route) for route in self._link(words[5])["routes"]])
        if (kind, verb) == ("route", "show"):
            return json.dumps([self.extra_routes[words[2]]] if words[2] in self.extra_routes else [])
        if kind == "rule":
            return self._rule(family, verb, words[2:])
        if kind == "route" and verb == "replace":
            shown = dict(zip(words[3::2], words[4::2]))
            self.extra_routes[words[2]] = {"gateway" if key == "via" else key: value for key, value in shown.items()}
        elif kind == "route" and verb == "delete" and words[2] in self.extra_routes and "table" not in words:
            del self.extra_routes[words[2]]
        elif kind == "route":
            interface, route = words[4], [words[2], int(words[6]), "boot"]
            routes = self._link(interface)["routes"]
            if verb == "delete":
                routes.remove(route)
            elif any(old[:2] == route[:2] for old in routes):
                raise LookupError("RTNETLINK answers: File exists")
            else:
                routes.append(route)
        elif (kind, verb) == ("link", "delete"):
            self._link(words[3])
            del self.links[words[3]]
        else:
            raise AssertionError(words)
        return ""

    @staticmethod
    def _shown(route):
        shown = {"dst": "default" if route[0].endswith("/0") else re.sub(r"/(32|128)$", "", route[0]), "flags": []}
        if ":" in route[0]:
            shown["pref"] = "medium"
        if route[1] != 254:
            shown["table"] = str(route[1])
        if route[2] == "kernel":
            shown["protocol"] = "2"
        return shown

    def _rule(self, family, verb, words):
        rules = self.rules[family]
        if verb == "delete" and words[0] == "pref":
            rules.remove(next(rule for rule in rules if rule["priority"] == int(words[1])))
            return
        rule = {"src": "all", "table": "254"}
        if words[0] == "from":
            rule["src"] = words[1]
        elif words[0] == "fwmark":
            rule["fwmark"] = words[1]
        elif words[0] == "not":
            rule.update({"not": None, "fwmark": hex(int(words[2])), "table": words[4]})
        else:
            rule["suppress_prefixlen"] = 0
        found = [old for old in rules if {key: value for key, value in old.items() if key != "priority"} == rule]
        if verb == "add":
            rules.insert(0, dict(rule, priority=min([old["priority"] for old in rules], default=32766) - 1))
        elif found:
            rules.remove(found[0])
        else:
            raise LookupError("RTNETLINK answers: No such file or directory")

    def _nft(self, words, stdin):
        if words == ["list", "tables"]:
            return "".join("table %s\n" % name for name in sorted(self.tables))
        if words[0] == "-c":
            return ""
        if words[:2] == ["delete", "table"]:
            name = " ".join(words[2:])
            if name not in self.tables:
                raise LookupError("Error: No such file or directory")
            self.tables.remove(name)
            return ""
        text = stdin if words == ["-f", "-"] else pathlib.Path(words[1]).read_text()
        self.tables |= set(re.findall(r"^(?:add )?table (\S+ \S+)", text, re.MULTILINE))
        return ""

    def _resolvconf(self, words, stdin):
        if words[0] == "-a":
            pathlib.Path(self.root, "run/resolvconf/interfaces", words[1]).write_text(stdin)
            return
        assert words[0] == "-d"
        pathlib.Path(self.root, "run/resolvconf/interfaces", words[1]).unlink(missing_ok=True)

    def _wg_quick(self, words, stdin):
        interface = words[1]
        text = _enrollment.read_text(_observe.config_path(self.store, interface))
        if text is None:
            raise LookupError("wg-quick: no such file")
        config = _wgconf.parse(text, allow_hooks=True)
        (self._up if words[0] == "up" else self._down)(interface, config)

    def _up(self, interface, config):
        if interface in self.links:
            raise LookupError("wg-quick: `%s' already exists" % interface)
        values = config.interface
        link = {"peers": {}, "addresses": list(values["Address"]), "mtu": values.get("MTU", 1420), "up": True, "routes": []}
        self._setconf(link, _wgconf._render(config, ("PrivateKey", "ListenPort", "FwMark")))
        for address in values["Address"]:
            own = ipaddress.ip_interface(address)
            if own.network.prefixlen < own.max_prefixlen:
                link["routes"].append([str(own.network), 254, "kernel"])
        self.links[interface] = link
        if values.get("DNS"):
            servers = [entry for entry in values["DNS"] if re.fullmatch("[0-9.]+|.*:.*", entry)]
            domains = [entry for entry in values["DNS"] if entry not in servers]
            text = "".join("nameserver %s\n" % server for server in servers) + ("search %s\n" % " ".join(domains) if domains else "")
            pathlib.Path(self.root, "run/resolvconf/interfaces", interface).write_text(text)
        table = values.get("Table", "auto")
        allowed = sorted((network for peer in link["peers"].values() for network in peer["allowed"]), key=lambda n: -int(n.split("/")[1]))
        for network in allowed if table != "off" else ():
            whole = ipaddress.ip_network(network)
            if table != "auto":
                link["routes"].append([network, table, "boot"])
            elif whole.prefixlen == 0:
                used = {route[1] for route in link["routes"]}
                mark = link["mark"] or next(number for number in range(51820, 60000) if number not in used)
                link["mark"] = mark
                link["routes"].append([network, mark, "boot"])
                self._rule(whole.version, "add", ["not", "fwmark", str(mark), "table", str(mark)])
                self._rule(whole.version, "add", ["table", "main", "suppress_prefixlength", "0"])
                self.tables.add("%s wg-quick-%s" % ("ip6" if whole.version == 6 else "ip", interface))
            elif not any(
                whole.version == ipaddress.ip_network(route[0]).version and whole.subnet_of(ipaddress.ip_network(route[0]))
                for route in link["routes"]
                if route[1] == 254
            ):
                link["routes"].append([network, 254, "boot"])

    def _down(self, interface, config):
        link = self._link(interface)
        if (
            "Table" not in config.interface
            and link["mark"]
            and any(n.endswith("/0") for peer in link["peers"].values() for n in peer["allowed"])
        ):
            for family in (4, 6):
                self.rules[family] = [
                    rule for rule in self.rules[family] if rule.get("table") != str(link["mark"]) and rule.get("suppress_prefixlen") != 0
                ]
        del self.links[interface]
        self.tables = {name for name in self.tables if not name.endswith(" wg-quick-" + interface)}
        if config.interface.get("DNS"):
            pathlib.Path(self.root, "run/resolvconf/interfaces", interface).unlink(missing_ok=True)


class Services:
    """systemd, so far as units of wg-quick need it."""

    def __init__(self, host):
        self.host = host

    @staticmethod
    def _interface(unit):
        return unit[len("wg-quick@") : -len(".service")]

    def _drop_in(self, unit, kind):
        text = _enrollment.read_text(os.path.join(self.host.root, _reach.DROP_IN % self._interface(unit))) or ""
        for dash, words in re.findall("^%s=(-?)(?:/usr)?/sbin/(.*)$" % kind, text, re.MULTILINE):
            rc, _out, err = self.host.run(words.split())
            if rc and not dash:
                raise _services.ServiceError(err)

    def start(self, unit, limit=30):
        self.host.step("start", unit)
        if unit in self.host.active:
            return
        rc, _out, err = self.host.run(["wg-quick", "up", self._interface(unit)])
        if rc:
            raise _services.ServiceError("start failed; it wrote: " + err)
        self.host.active.add(unit)
        self._drop_in(unit, "ExecStartPost")

    def stop(self, unit):
        self.host.step("stop", unit)
        if unit in self.host.active:
            self.host.active.discard(unit)
            self.host.run(["wg-quick", "down", self._interface(unit)])
            self._drop_in(unit, "ExecStopPost")

    def show(self, units, properties):
        return {
            unit: {
                "UnitFileState": "enabled" if unit in self.host.enabled else "disabled",
                "LoadState": "loaded",
                "ActiveState": "active" if unit in self.host.active else "inactive",
            }
            for unit in units
        }

    def enable(self, unit):
        self.host.step("enable", unit)
        self.host.enabled.add(unit)

    def disable(self, unit):
        self.host.step("disable", unit)
        self.host.enabled.discard(unit)

    def reset_failed(self, unit):
        pass

    def daemon_reload(self):
        self.host.step("daemon-reload")
