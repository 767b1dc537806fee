# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to the server beside a dead tunnel, on a real interface with wg-quick's own rules, and what leaves meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from conftest import wait_for

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _reach

SERVER, MOVED, RESOLVER = (
    "198.18.3.10",
    "198.18.3.20",
    "198.18.3.53",
)  # where the lab has its controller: a subnet behind the router
SERVE = """
import socket, struct, sys, threading
addresses = sys.argv[1:-2]
known, where = sys.argv[-2:]
def serve(address):
    with socket.create_server((address, 8443)) as server:
        while True:
            connection, peer = server.accept()
            connection.sendall(("%s %s" % (address, peer[0])).encode())
            connection.close()
for address in addresses:
    threading.Thread(target=serve, args=(address,), daemon=True).start()
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind((where, 53))
print("ready", flush=True)
while True:
    query, peer = names.recvfrom(2000)
    answer = query[:2] + struct.pack("!HHHHH", 0x8180, 1, 0, 0, 0) + query[12:]
    if query[-4:-2] == b"\\0\\1":
        answer = query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + query[12:] + b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\0\\0\\4" + socket.inet_aton(known)
    names.sendto(answer, peer)
"""
DIAL = """
import json, subprocess, sys, time
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment, _way
_way._observe.present = lambda root, interface: True
root, interface, host, seconds, beside, kept = json.loads(sys.argv[1])
def run(argv, stdin=None):
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr
way = _way.Way(run, _enrollment.Store(root), interface, beside, kept)
begin, said = time.monotonic(), None
try:
    with way.dial(host, 8443, begin + seconds) as connected:
        said = connected.recv(100).decode().split()
except OSError as error:
    said = str(error)
print(json.dumps([said, way.went_beside, time.monotonic() - begin]))
"""
# At the router: what comes from the host itself, by protocol, destination and port.
COUNTED = """
table ip seen {
  set s { type inet_proto . ipv4_addr . inet_service; flags dynamic; size 4096; }
  chain f {
    type filter hook prerouting priority -300;
    iifname "to-host" ip saddr 198.18.1.10 add @s { meta l4proto . ip daddr . th dport }
  }
}
"""
# Another program of the host: it sends to the server and elsewhere all the time.
OTHERS = """
import socket, time
print("ready", flush=True)
while True:
    s = socket.socket(); s.setblocking(False); s.connect_ex(("198.18.3.10", 8443)); time.sleep(0.02); s.close()
    d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        d.sendto(b"other", ("198.18.3.53", 53))
        d.sendto(b"other", ("198.18.3.10", 9999))
    except OSError:
        pass
    d.close()
"""


class Rescue:
    """The lab's host in front of a server and a resolver on another subnet."""

    def __init__(self, lab):
        self.lab = lab

    def dial(self, host, seconds=6.0, beside=True, kept=None):
        words = json.dumps([self.lab.root, self.lab.interface, host, seconds, beside, kept])
        done = subprocess.run(
            ["ip", "netns", "exec", self.lab.mark + "-host", sys.executable, "-c", DIAL, words],
            capture_output=True,
            text=True,
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def tunnel(self, allowed, interface=""):
        self.lab.apply(self.lab.config(allowed, interface))
        wait_for(self.lab.answers)

    def kill(self):
        """The hub forgets the host, as after a restored backup."""
        self.lab.must(
            "hub",
            "wg syncconf %s /dev/stdin" % self.lab.hub_interface,
            "[Interface]\nPrivateKey = %s\nListenPort = 51820\n" % self.lab.hub_key,
        )

    def counted(self, work):
        """{(protocol, destination, port)} of what came out of the host while something happens, and its result."""
        self.lab.must("router", "nft -f /dev/stdin", COUNTED)
        try:
            result = work()
            seen = json.loads(self.lab.must("router", "nft -j list set ip seen s"))["nftables"][-1]["set"].get(
                "elem", []
            )
        finally:
            self.lab.must("router", "nft delete table ip seen")
        return {tuple(entry["concat"]) for entry in seen}, result


@pytest.fixture(scope="module")
def served(built):
    for address in (MOVED, RESOLVER):
        built.must("controller", "ip address add %s/24 dev eth0" % address)
    child = built.spawn("controller", SERVE, SERVER, MOVED, SERVER, RESOLVER)
    yield
    child.kill()
    for address in (MOVED, RESOLVER):
        built.must("controller", "ip address delete %s/24 dev eth0" % address)


@pytest.fixture
def rescue(lab, served):
    path = os.path.join(lab.root, "etc/resolv.conf")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as handle:
        handle.write("nameserver %s\n" % RESOLVER)
    yield Rescue(lab)
    os.unlink(path)


def test_a_living_full_tunnel_carries_the_request(rescue):
    rescue.lab.must("hub", "ip address add %s/32 dev lo" % SERVER)
    child = rescue.lab.spawn("hub", SERVE, SERVER, SERVER, "127.0.0.1")
    try:
        rescue.tunnel("0.0.0.0/0")
        said, beside, _seconds = rescue.dial(SERVER)
        assert (said, beside) == ([SERVER, "10.88.0.2"], False)
    finally:
        child.kill()
        rescue.lab.must("hub", "ip address delete %s/32 dev lo" % SERVER)


@pytest.mark.parametrize("allowed", ["0.0.0.0/0", "0.0.0.0/0, ::/0", "0.0.0.0/0, 198.18.3.0/24"])
def test_out_of_a_dead_full_tunnel_and_nothing_else_with_it(rescue, allowed):
    rescue.tunnel(allowed)
    rescue.kill()
    others = rescue.lab.spawn("host", OTHERS)

    def work():
        return rescue.dial(SERVER), rescue.dial("gate.example")

    try:
        left, ((said, beside, seconds), (named, named_beside, named_seconds)) = rescue.counted(work)
    finally:
        others.kill()
    assert (said, beside) == ([SERVER, "198.18.1.10"], True) and 2 < seconds < 6
    assert (named, named_beside) == ([SERVER, "198.18.1.10"], True) and named_seconds < 6
    own = {("tcp", SERVER, 8443), ("udp", RESOLVER, 53), ("udp", "198.18.2.10", 51820)}
    assert left == own, "a datagram of others to the resolver or the server would be here as well"
    sent = rescue.lab.must("host", "wg show %s dump" % rescue.lab.interface)
    assert sent, "the tunnel is as it was"


def test_other_programs_stay_in_the_dead_tunnel(rescue):
    """The same count without any request of ours: what remains is WireGuard's."""
    rescue.tunnel("0.0.0.0/0")
    rescue.kill()
    others = rescue.lab.spawn("host", OTHERS)
    try:
        left, _nothing = rescue.counted(lambda: time.sleep(6))
    finally:
        others.kill()
    assert left == {("udp", "198.18.2.10", 51820)}


def test_forbidden_it_waits(rescue):
    rescue.tunnel("0.0.0.0/0")
    rescue.kill()
    left, (said, beside, seconds) = rescue.counted(lambda: rescue.dial(SERVER, 2.0, beside=False))
    assert "timed out" in said and not beside and seconds < 3 and left <= {("udp", "198.18.2.10", 51820)}


def test_a_network_that_holds_the_server_counts_as_well(rescue):
    rescue.tunnel("10.88.0.0/24, 198.18.3.0/24")
    rescue.kill()
    assert rescue.dial(SERVER)[:2] == [[SERVER, "198.18.1.10"], True]
    assert rescue.dial("gate.example")[:2] == [[SERVER, "198.18.1.10"], True]
    assert (
        rescue.dial("gate.example", kept={"host": "gate.example", "addresses": MOVED})[0][0] == SERVER
    ), "what the name is now comes first"


def test_kept_addresses_where_no_resolver_answers(rescue):
    rescue.tunnel("0.0.0.0/0")
    rescue.kill()
    with open(os.path.join(rescue.lab.root, "etc/resolv.conf"), "w", encoding="ascii") as handle:
        handle.write("nameserver 10.88.0.1\nnameserver 198.18.3.99\n")
    kept = {"host": "gate.example", "addresses": MOVED}
    said, beside, seconds = rescue.dial("gate.example", 8.0, kept=kept)
    assert (said, beside) == ([MOVED, "198.18.1.10"], True) and seconds < 8
    assert "not resolved" in rescue.dial("gate.example", 4.0)[0]


def test_the_halves_of_all_addresses(rescue):
    """As for macOS and Windows, but on Linux: routes of main, and no mark; the endpoint has a route of its own."""
    rescue.lab.must("host", "ip route add 198.18.2.10 via 198.18.1.1")
    try:
        rescue.tunnel("0.0.0.0/1, 128.0.0.0/1")
        rescue.kill()
        assert rescue.dial(SERVER)[:2] == [[SERVER, "198.18.1.10"], True]
    finally:
        rescue.lab.must("host", "ip route delete 198.18.2.10")


def test_a_strict_reverse_path_filter_lets_answers_pass_where_the_controllers_way_is_kept(rescue):
    """As docs/lockout.md says."""
    config = rescue.lab.config("0.0.0.0/0")
    reach = _reach.reachability(rescue.lab.run, config, rescue.lab.interface, "198.18.3.10 40000 198.18.1.10 22", rescue.lab.root)
    rescue.lab.must("host", "sysctl -qw net.ipv4.conf.eth0.rp_filter=1")
    try:
        rescue.tunnel("0.0.0.0/0")
        rescue.kill()
        assert "timed out" in rescue.dial(SERVER, 4.0)[0], "no way is kept"
        _reach.keep(rescue.lab.run, rescue.lab.services, rescue.lab.store, rescue.lab.interface, reach["kept"])
        for command in reach["kept"]:
            rescue.lab.must("host", " ".join(command))
        assert rescue.dial(SERVER, 4.0)[:2] == [[SERVER, "198.18.1.10"], True]
        assert rescue.dial("gate.example", 4.0)[:2] == [[SERVER, "198.18.1.10"], True]
    finally:
        rescue.lab.must("host", "sysctl -qw net.ipv4.conf.eth0.rp_filter=0")
