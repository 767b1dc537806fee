# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tunnels that die for good: the server has another key, address or port. Each host comes back without a play, and a
play works meanwhile."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "shared"))

from scenario import HERE, Scenario, until  # noqa: E402

SYNC = 20  # seconds: gatecontrol_sync_interval
WITHIN = 2 * SYNC + 20  # and what beats themselves take on a machine that is busy
# At the router: what comes from the hosts, by sender, protocol, destination and port; answers to SSH aside.
COUNTED = """
table ip seen {
  set s { type ipv4_addr . inet_proto . ipv4_addr . inet_service; flags dynamic; size 65535; }
  chain f {
    type filter hook prerouting priority -300;
    iifname "%s" tcp sport 22 return
    iifname "%s" meta l4proto { tcp, udp } add @s { ip saddr . meta l4proto . ip daddr . th dport }
    iifname "%s" meta l4proto icmp add @s { ip saddr . meta l4proto . ip daddr . 0 }
  }
}
"""
# Another program of a host: it sends to the server, to its resolver's other ports and elsewhere all the time.
OTHERS = """
import socket, sys, time
while True:
    for address, port in (("%(server)s", 8443), ("%(server)s", 9999), ("%(resolver)s", 5353), ("198.51.100.9", 443)):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            s = socket.socket(socket.AF_INET, kind)
            s.setblocking(False)
            try:
                s.connect_ex((address, port))
                if kind == socket.SOCK_DGRAM:
                    s.send(b"other")
            except OSError:
                pass
            time.sleep(0.02)
            s.close()
"""


class Lab:
    def __init__(self) -> None:
        self.scenario = Scenario("rescue")
        self.hosts = self.scenario.hosts
        self.router = "gc-%s-router" % self.scenario.mark
        self.first = self.address = self.scenario.record["server"]["address"]
        self.other = self.first.rpartition(".")[0] + ".200"  # of the run's own, and so the router's
        self.resolver = self.scenario.record["machine_address"]
        self.folder = self.scenario.folder

    @property
    def url(self) -> str:
        return "https://%s:8443" % self.address

    def at_router(self, *command: str, stdin: str | None = None, check: bool = True) -> str:
        return subprocess.run(
            ["ip", "netns", "exec", self.router, *command], input=stdin, capture_output=True, text=True, check=check
        ).stdout

    def hub(self, *command: str) -> str:
        return subprocess.run(
            ["ip", "netns", "exec", self.scenario.netns, *command], capture_output=True, text=True, check=True
        ).stdout

    def ask(self, verb: str, **given):
        return self.scenario.ask(verb, self.url, **given)

    def settings(self, **values: str) -> None:
        self.ask("settings", values=values)

    def handshakes(self) -> dict[str, int]:
        """When each host's WireGuard and the hub's last agreed, Unix time, as the hub sees it."""
        peers = {peer["public_key"]: peer["name"] for peer in self.ask("peer", action="list")}
        lines = self.hub("wg", "show", ("gw" + self.scenario.mark)[:15], "latest-handshakes").splitlines()
        return {peers[key]: int(at) for key, at in (line.split("\t") for line in lines) if key in peers}

    def back(self, since: float, seconds: float, hosts: list[str] | None = None) -> dict[str, float]:
        """Wait until hosts have shaken hands and beaten since a moment; how long each took."""
        took: dict[str, float] = {}
        wanted = hosts or self.hosts

        def look() -> bool:
            shaken = self.handshakes()
            for host in wanted:
                if host not in took and shaken.get(host, 0) > since:
                    took[host] = time.time() - since
            return len(took) == len(wanted)

        until(look, seconds)
        missing = {
            host: self.scenario.on(
                host,
                "gatecontrol-agent show; wg show wg0 endpoints; cat /etc/resolv.conf; journalctl -n 30 --no-pager "
                "-u gatecontrol-apply -u gatecontrol-beat",
                check=False,
            )
            for host in wanted
            if host not in took
        }
        assert not missing, missing
        return took

    def well(self) -> None:
        """Every host's beat is answered through its tunnel, and the tunnel carries."""
        def answered(host: str) -> bool:
            self.scenario.on(host, "gatecontrol-agent beat", check=False)
            shown = self.scenario.shown(host)
            return shown["error"] is None and shown["status"] == "connected" and (shown["verdict"] or {}).get("ok")

        def look(host: str) -> None:
            assert until(lambda: answered(host), WITHIN), self.scenario.shown(host)
            assert self.scenario.echo(host, 4096) == 4096, host

        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(look, self.hosts))

    def counted(self, work):
        """{(protocol, destination, port)} of each host while something happens, and its result."""
        bridge = json.loads(
            self.at_router("ip", "-j", "route", "get", self.scenario.record["hosts"][self.hosts[0]]["address"])
        )[0]["dev"]
        self.at_router("nft", "-f", "/dev/stdin", stdin=COUNTED % (bridge, bridge, bridge))
        try:
            result = work()
            seen = json.loads(self.at_router("nft", "-j", "list", "set", "ip", "seen", "s"))["nftables"][-1]["set"].get(
                "elem", []
            )
        finally:
            self.at_router("nft", "delete", "table", "ip", "seen")
        found: dict[str, set] = {host: set() for host in self.hosts}
        names = {self.scenario.record["hosts"][host]["address"]: host for host in self.hosts}
        for entry in seen:
            sender, *rest = entry["concat"]
            found[names[sender]].add(tuple(rest))
        return found, result

    def move(self, address: str) -> None:
        """The server is at another address behind its name from now on; nothing answers at the old one."""
        old, self.address = self.address, address
        self.hub("ip", "address", "replace", "%s/32" % address, "dev", "lo")
        self.at_router("ip", "route", "replace", "%s/32" % address, "via", self.first)
        self.at_router("iptables", "-I", "FORWARD", "-d", old, "-j", "DROP")
        self.scenario.play(playbook=HERE / "server_power.yml", server_task="server_stop.yml").ok()
        self.scenario.play(
            playbook=HERE / "server_power.yml", server_task="server_start.yml", room_address=address, room_url=self.url
        ).ok()
        (self.folder / "server_address").write_text(address + "\n")
        self.settings(endpoint="gateway.test:51820")

    def move_back(self) -> None:
        self.at_router("iptables", "-F", "FORWARD")
        self.scenario.play(playbook=HERE / "server_power.yml", server_task="server_stop.yml", check=False)
        self.scenario.play(playbook=HERE / "server_power.yml", server_task="server_start.yml").ok()
        self.address = self.first
        (self.folder / "server_address").write_text(self.first + "\n")
        self.settings(endpoint="gateway.test:51820")


@pytest.fixture(scope="module")
def lab() -> Lab:
    made = Lab()
    made.back(0, 30)
    made.well()
    return made


def timers(lab: Lab, verb: str) -> None:
    lab.scenario.everywhere("systemctl %s gatecontrol-beat.timer" % verb)


def test_another_key_of_the_server_and_nothing_else_leaves_meanwhile(lab):
    """As after a restored backup or a new installation."""
    program = OTHERS % {"server": lab.first, "resolver": lab.resolver}
    lab.scenario.everywhere(
        "cat >/run/others.py <<'END'\n%s\nEND\nsystemd-run --unit=others --collect /usr/bin/python3 /run/others.py"
        % program
    )
    try:
        time.sleep(2)
        since = time.time()

        def work() -> dict[str, float]:
            lab.settings(server_key="new")
            return lab.back(since + 1, WITHIN)

        left, took = lab.counted(work)
    finally:
        lab.scenario.everywhere("systemctl stop others", check=False)
    print("back after a new key:", {host: "%.0f s" % seconds for host, seconds in took.items()})
    own = {("tcp", lab.first, 8443), ("udp", lab.resolver, 53), ("udp", lab.first, 51820)}
    for host in ("full", "both"):
        assert left[host] <= own and ("tcp", lab.first, 8443) in left[host], "%s: %s" % (host, left[host] - own)
    assert not left["inside"] <= own, "what is no full tunnel lets others out, so the count can fail"
    lab.well()


def test_a_play_works_while_the_tunnels_are_dead(lab):
    timers(lab, "stop")
    since = time.time()
    lab.settings(server_key="new")
    play = lab.scenario.play().ok()
    lab.back(since + 1, 5)
    print("play over three dead tunnels: %.0f s" % play.seconds)
    timers(lab, "start")
    lab.well()


def test_another_port(lab):
    """The session stays, so no handshake tells: the tunnel carries again, to the new port."""
    def moved(port: int) -> float:
        since, left = time.time(), list(lab.hosts)
        lab.settings(endpoint="gateway.test:%d" % port)

        def look() -> bool:
            left[:] = [host for host in left if ":%d" % port not in lab.scenario.on(host, "wg show wg0 endpoints")]
            return not left

        assert until(look, WITHIN), left
        return time.time() - since

    try:
        took = moved(51821)
        lab.well()
    finally:
        moved(51820)
    print("back after a new port: %.0f s" % took)
    lab.well()


def test_another_address_behind_the_name(lab):
    try:
        since = time.time()
        lab.move(lab.other)
        took = lab.back(time.time(), WITHIN)
        print(
            "back after a move:",
            {host: "%.0f s" % seconds for host, seconds in took.items()},
            "of which %.0f s for the server" % (time.time() - since),
        )
        for host in lab.hosts:
            assert lab.other + ":51820" in lab.scenario.on(host, "wg show wg0 endpoints")
            assert lab.scenario.shown(host)["error"] is None
        state = json.loads(lab.scenario.on("both", "cat /var/lib/gatecontrol/state.json"))
        assert (
            state["server"]["host"] == "gateway.test" and state["server"]["addresses"].split()[0] == lab.other
        ), state
    finally:
        lab.move_back()
    lab.back(time.time(), WITHIN)
    lab.well()


def test_forbidden_a_dead_tunnel_stays_shut(lab):
    lab.scenario.play(gatecontrol_beside_tunnel=False, limit="full").ok()
    lab.scenario.ask_for_nothing()
    since = time.time()

    def work() -> None:
        lab.settings(server_key="new")
        lab.back(since + 1, WITHIN, ["inside", "both"])
        time.sleep(20)

    left, _nothing = lab.counted(work)
    assert left["full"] <= {("udp", lab.first, 51820)}, left["full"]
    assert lab.handshakes()["full"] < since
    shown = lab.scenario.shown("full")
    assert shown["error"]["kind"] == "network", shown
    lab.scenario.on("full", "systemctl stop wg-quick@wg0")  # by hand, as before
    lab.scenario.play().ok()
    lab.back(since + 1, WITHIN)
    lab.well()
