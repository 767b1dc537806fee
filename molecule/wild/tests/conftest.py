# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run that molecule made, with every tunnel in order before each test."""

from __future__ import annotations

import concurrent.futures
import difflib
import json
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2] / "shared"), str(HERE.parents[3] / "tests/hosts")]

import room  # noqa: E402
from scenario import Scenario, until  # noqa: E402

WITHIN = 60  # seconds: two sync intervals, and what beats themselves take on a machine that is busy
# What a tunnel has beside its peers: rules, its routes, nft's tables, the resolver's entry, and whether networkd leaves them alone.
STATE = """
ip -4 rule | cut -d: -f2-; ip -6 rule | cut -d: -f2-
ip -4 -N route show table all dev wg0 | sort; ip -6 -N route show table all dev wg0 | grep -v -e fe80 -e ff00 | sort
nft list tables | grep wg0 | sort
if [ -d /run/resolvconf ]; then cat /run/resolvconf/*/wg0; else (resolvectl dns wg0; resolvectl domain wg0) | cut -d" " -f3-; fi
cat /etc/systemd/networkd.conf.d/50-gatecontrol-wg0.conf 2>&1
"""


class Lab:
    """The scenario's hosts, by what runs on them and by what they say."""

    def __init__(self) -> None:
        self.scenario = Scenario("wild")
        self.run = room.Room(self.scenario.mark, self.scenario.folder.parent)
        self.names = self.scenario.hosts
        self.cloud = [name for name in self.names if name.startswith("cloud")]

    def on(self, host: str, command: str, check: bool = True) -> str:
        return self.scenario.on(host, command, check)

    def each(self, hosts: list[str], work) -> dict:
        """{host: what work(host) returns}, all at once."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            return dict(zip(hosts, pool.map(work, hosts)))

    def show(self, host: str) -> dict:
        return json.loads(self.on(host, "gatecontrol-agent show --json", check=False))

    def state(self, host: str) -> str:
        return self.on(host, STATE, check=False)

    def metric(self, host: str, name: str) -> str:
        lines = self.on(host, "cat /var/lib/textfile/gatecontrol.prom").splitlines()
        return next(line.rsplit(" ", 1)[1] for line in lines if line.startswith("gatecontrol_%s{" % name))

    def reachable(self, host: str, address: str | None = None) -> bool:
        """Whether a new SSH connection from the controller's subnet comes through, to the host's address or another one."""
        _net, known = self.run.host(host)
        if address and address != known.address:
            line = self.run.known_hosts.read_text().replace(known.address + " ", address + " ")
            self.run.known_hosts.write_text("".join(sorted(set((self.run.known_hosts.read_text() + line).splitlines(keepends=True)))))
            known.address = address
        return self.run.ssh(known, "true", timeout=8).returncode == 0

    def comes_back(self, hosts: list[str], before: dict[str, str], seconds: float = WITHIN) -> None:
        """Wait until the tunnels of hosts have again what they had, without a play."""
        left = list(hosts)

        def look() -> bool:
            now = self.each(left, self.state)
            left[:] = [host for host in left if now[host] != before[host]]
            return not left

        until(look, seconds)
        said = "journalctl -n 30 --no-pager -u gatecontrol-beat -u gatecontrol-repair"
        assert not left, "\n".join(line for host in left for line in (
            *difflib.unified_diff(before[host].splitlines(), self.state(host).splitlines(), host + " before", host + " now", n=0, lineterm=""),
            self.on(host, said, check=False)))

    def carries(self, host: str) -> None:
        """Wait until a host says that its tunnel does, and all of it."""
        def look() -> bool:
            shown = self.show(host)
            return shown["status"] == "connected" and not shown["beside_tunnel"]

        assert until(look, WITHIN), self.show(host)


@pytest.fixture(scope="session")
def whole_lab():
    return Lab()


@pytest.fixture
def lab(whole_lab):
    """The lab, each of whose tunnels carries."""
    whole_lab.scenario.no_faults()
    whole_lab.scenario.everywhere("systemctl start gatecontrol-beat.timer")
    whole_lab.each(whole_lab.names, whole_lab.carries)
    return whole_lab
