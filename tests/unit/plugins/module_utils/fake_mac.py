# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Mac made of dicts: it answers wg, ifconfig, route and wg-quick as those of macOS do, so far as the tunnel asks them."""

from __future__ import annotations

import ipaddress
import os
import pathlib

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _change, _observe, _services
from fake_host import FakeHost

VERSION = """<plist version="1.0">
<dict>
  <key>ProductName</key>
  <string>macOS</string>
  <key>ProductVersion</key>
  <string>14.7.1</string>
</dict>
</plist>
"""


class FakeMac(FakeHost):
    """Interfaces have names of their own; what no Mac has is an error. route: the answer of `route -n get`."""

    def __init__(self, root):
        super().__init__(root, resolver=False)
        path = pathlib.Path(root, _services.SYSTEM_VERSION)
        path.parent.mkdir(parents=True)
        path.write_text(VERSION)
        self.folder = pathlib.Path(root, _observe.NAMES)
        self.folder.mkdir(parents=True)
        pathlib.Path(root, "run/resolvconf/interfaces").mkdir(parents=True)  # where FakeHost keeps what DNS was set
        self.number, self.route, self.services = 3, "", Jobs(self)
        self.dns, self.dns_before = {"Wi-Fi": [], "*Thunderbolt Bridge": ["9.9.9.9"]}, {}  # of each network service; it outlives a boot

    def reboot(self):
        super().reboot()
        for path in (*self.folder.iterdir(), pathlib.Path(self.root, _change.BOOTED)):
            path.unlink(missing_ok=True)

    def booted(self):
        pathlib.Path(self.root, _change.BOOTED).touch()

    def real(self, name):
        path = self.folder / (name + ".name")
        return path.read_text().strip() if path.exists() else None

    def called(self, real):
        """The interface with this real name."""
        for path in self.folder.glob("*.name"):
            if path.read_text().strip() == real and path.stem in self.links:
                return path.stem
        raise LookupError("Unable to access interface: No such file or directory")

    def run(self, argv, stdin=None):
        assert argv[0] in ("wg", "wg-quick", "env", "ifconfig", "route", "sleep", "networksetup"), argv
        if argv[0] == "env":
            assert argv[1].startswith("WG_ENDPOINT_RESOLUTION_RETRIES=")
            return self.run(argv[2:], stdin)
        if argv[0] == "sleep":
            self.sleep(float(argv[1]))
            return 0, "", ""
        if argv[0] == "route":
            return 0, self.route, ""
        if argv[:2] == ["wg", "show"]:
            try:
                argv = ["wg", "show", self.called(argv[2]), argv[3]]
            except LookupError as error:
                return 1, "", str(error.args[0])
        return super().run(argv, stdin)

    def _networksetup(self, words, stdin):
        if words == ["-listallnetworkservices"]:
            return "An asterisk (*) denotes that a network service is disabled.\n" + "".join(name + "\n" for name in self.dns)
        name = next(name for name in self.dns if name.lstrip("*") == words[1])
        if words[0] == "-getdnsservers":
            return "\n".join(self.dns[name] or ["There aren't any DNS Servers set on %s." % words[1]]) + "\n"
        assert words[2:] == ["Empty"] and words[0] in ("-setdnsservers", "-setsearchdomains"), words
        if words[0] == "-setdnsservers":
            self.dns[name] = []

    def _ifconfig(self, words, stdin):
        if words[0] == "en0":
            return "en0: flags=8863<UP,BROADCAST,SMART,RUNNING> mtu 1500\n\tinet 192.0.2.10 netmask 0xffffff00 broadcast 192.0.2.255\n"
        try:
            link = self.links[self.called(words[0])]
        except LookupError:
            raise LookupError("ifconfig: interface %s does not exist" % words[0]) from None
        text = "%s: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu %d\n\toptions=6460000<TSO4,TSO6>\n" % (words[0], link["mtu"])
        for address in map(ipaddress.ip_interface, link["addresses"]):
            text += "\tinet %s --> %s netmask 0x%08x\n" % (address.ip, address.ip, int(address.netmask)) if address.version == 4 else \
                "\tinet6 %s prefixlen %d\n" % (address.ip, address.network.prefixlen)
        return text + "\tinet6 fe80::aede:48ff:fe00:1122%" + words[0] + " prefixlen 64 scopeid 0x13\n"

    def _up(self, interface, config):
        super()._up(interface, config)
        self.links[interface]["mark"] = 0  # and no rules: a default route is two halves
        self.rules = {4: [], 6: []}
        self.number += 1
        (self.folder / (interface + ".name")).write_text("utun%d\n" % self.number)
        (self.folder / ("utun%d.sock" % self.number)).touch()
        self.dns_before = {name: list(servers) for name, servers in self.dns.items()}
        for name in self.dns if config.interface.get("DNS") else ():
            self.dns[name] = list(config.interface["DNS"])
        os.utime(self.folder / (interface + ".name"), (self.time, self.time))

    def _down(self, interface, config):
        real = self.real(interface)
        super()._down(interface, config)
        (self.folder / (interface + ".name")).unlink()
        (self.folder / (real + ".sock")).unlink()
        self.dns.update(self.dns_before)


class Jobs:
    """launchd: it starts no tunnel and stops none, and what is enabled is loaded."""

    NAME = "launchd"

    def __init__(self, host):
        self.host = host

    def start(self, unit, limit=30):
        self.host.step("start", unit)
        self.host.active.add(unit)
        self.host.enabled.add(unit)

    def stop(self, unit):
        self.host.step("stop", unit)
        self.host.active.discard(unit)

    def enable(self, unit):
        self.start(unit)

    def disable(self, unit):
        self.host.step("disable", unit)
        self.host.enabled.discard(unit)

    def show(self, units, properties):
        return {unit: {"ActiveState": "active" if unit in self.host.active else "inactive", "LoadState": "loaded",
                       "UnitFileState": "enabled" if unit in self.host.enabled & self.host.active else "disabled"} for unit in units}

    def reset_failed(self, *units):
        """As launchd."""
