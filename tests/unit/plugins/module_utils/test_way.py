# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which way requests take: the order of ways, what a socket is told, and who may go beside the tunnel at all."""

from __future__ import annotations

import json
import pathlib
import re
import socket
import time

import pytest

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment, _names, _way

MARK, KEPT = 51820, 0x6763
DEFAULT = {"dst": "default", "gateway": "192.0.2.254", "dev": "eth0", "metric": 100}


@pytest.mark.parametrize(
    "routes, device",
    [
        ([DEFAULT], "eth0"),
        ([DEFAULT, {"dst": "default", "dev": "eth1", "metric": 50}], "eth1"),
        ([DEFAULT, {"dst": "default", "dev": "eth1"}], "eth1"),
        ([DEFAULT, {"dst": "10.0.0.0/8", "dev": "wg0"}], "eth0"),
        ([DEFAULT, {"dst": "10.0.0.0/8", "dev": "wg0"}, {"dst": "10.1.0.0/16", "dev": "eth2", "metric": 900}], "eth2"),
        ([DEFAULT, {"dst": "10.1.1.1", "dev": "eth3"}], "eth3"),
        ([{"dst": "default", "dev": "wg0"}], None),
        ([{"type": "unreachable", "dst": "10.0.0.0/8", "dev": "lo"}, DEFAULT], "eth0"),
        ([{"dst": "default", "nexthops": [{"gateway": "192.0.2.1", "dev": "eth4", "weight": 1}]}], "eth4"),
        ([{"dst": "default", "dev": 7}, {"dst": "x", "metric": "y", "dev": "eth0"}], "eth0"),
        ([], None),
    ],
)
def test_the_device_of_the_best_route_beside(routes, device):
    assert _way.device_beside(routes, "wg0") == device


@pytest.mark.parametrize(
    "options, good",
    [
        ({}, True),
        ({"validate_certs": True, "proxy": "http://proxy.example.com:3128"}, True),
        ({"url": "http://gate.example.com"}, False),  # a token would be readable on the way
        ({"validate_certs": False}, False),  # whoever answers would be believed
        ({"proxy": "http://user:password@proxy.example.com"}, False),
        ({"beside_tunnel": False}, False),
        ({"url": None}, False),
    ],
)
def test_who_may_leave_beside_the_tunnel(options, good):
    assert _way.allowed({"url": "https://gate.example.com", **options}) is good


class Host:
    """A host whose wg and ip say what a test wants; `routes` by the words after `ip -4 -j route get`."""

    def __init__(self, root, there=True, mark=MARK, main=(DEFAULT,)):
        self.store, self.mark, self.main, self.asked = _enrollment.Store(str(root)), mark, list(main), []
        self.captured = {"unmarked": True, "marked": False, "kept": True}
        if there:
            (root / "sys/class/net/wg0").mkdir(parents=True)

    def run(self, argv, _stdin=None):
        self.asked.append(" ".join(argv))
        if argv[0] == "wg":
            return 0, "0x%x\n" % self.mark if self.mark else "off\n", ""
        if "get" in argv:
            marked = {str(MARK): "marked", str(KEPT): "kept"}[argv[7]] if "mark" in argv else "unmarked"
            captured = self.captured[marked]
            return 0, json.dumps([{"dst": argv[5], "dev": "wg0" if captured else "eth0"}]), ""
        return 0, json.dumps(self.main), ""

    def way(self, **how):
        return _way.Way(self.run, self.store, "wg0", **how)


class Recorded:
    def __init__(self, refuse=()):
        self.options, self.refuse = [], refuse

    def setsockopt(self, level, option, value):
        if option in self.refuse:
            raise PermissionError(1, "Operation not permitted")
        self.options.append((level, option, value))


def test_a_full_tunnel_is_left_by_its_mark(tmp_path):
    host, sock = Host(tmp_path), Recorded()
    way = host.way()
    way.prepare(sock, "203.0.113.1")
    way.prepare(sock, "203.0.113.1")
    assert sock.options == [(socket.SOL_SOCKET, 36, MARK)] * 2
    asked = "ip -4 -j route get 203.0.113.1 mark %d"
    assert host.asked == ["wg show wg0 fwmark", asked % KEPT, asked % MARK]
    way.prepare(sock, "2001:db8::1")
    assert host.asked[3:] == ["ip -6 -j route get 2001:db8::1 mark %d" % mark for mark in (KEPT, MARK)], "a way is looked for once"
    host.captured["kept"], sock = False, Recorded()
    host.way().prepare(sock, "203.0.113.1")
    assert sock.options == [(socket.SOL_SOCKET, 36, KEPT)], "with which answers pass a strict rp_filter"


def test_a_narrow_network_is_left_by_a_device(tmp_path):
    host, sock = Host(tmp_path, mark=0), Recorded()
    host.way().prepare(sock, "203.0.113.1")
    assert sock.options == [(socket.SOL_SOCKET, 25, b"eth0\0")]
    host.captured["marked"], host.mark, sock = True, MARK, Recorded()  # full, and a narrow network in table main too
    host.way().prepare(sock, "203.0.113.1")
    assert sock.options == [(socket.SOL_SOCKET, 25, b"eth0\0")]
    host.main, sock = [{"dst": "default", "dev": "wg0"}], Recorded()
    with pytest.raises(OSError, match="no route to 203.0.113.1 but through wg0"):
        host.way().prepare(sock, "203.0.113.1")


def test_what_the_tunnel_does_not_capture_needs_no_means(tmp_path):
    host, sock = Host(tmp_path, mark=0), Recorded()
    host.captured["unmarked"] = False
    host.way().prepare(sock, "203.0.113.1")
    assert not sock.options


def test_without_the_right_to_mark_the_device_is_taken(tmp_path):
    host, sock = Host(tmp_path), Recorded(refuse=[36])
    host.way().prepare(sock, "203.0.113.1")
    assert sock.options == [(socket.SOL_SOCKET, 25, b"eth0\0")]


@pytest.mark.parametrize("said", ["", "null", "{}", "[1]", "[" * 100000, "not json"])
def test_what_ip_says_is_not_trusted(tmp_path, said):
    host = Host(tmp_path)
    way = _way.Way(lambda argv, stdin=None: (0, said, ""), host.store, "wg0")
    with pytest.raises(OSError, match="no route"):
        way.prepare(Recorded(), "203.0.113.1")


def test_on_a_mac_a_socket_is_bound_to_the_device_of_the_default_route(tmp_path, monkeypatch):
    plist = tmp_path / "System/Library/CoreServices/SystemVersion.plist"
    plist.parent.mkdir(parents=True)
    plist.write_text("")
    (tmp_path / "var/run/wireguard").mkdir(parents=True)
    (tmp_path / "var/run/wireguard/wg0.name").write_text("utun4\n")
    monkeypatch.setattr(socket, "if_nametoindex", {"en0": 6}.__getitem__)
    said = ["   route to: default\n    gateway: 192.0.2.254\n  interface: en0\n"]
    way, sock = _way.Way(lambda argv, stdin=None: (0, said[0], ""), _enrollment.Store(str(tmp_path)), "wg0"), Recorded()
    way.prepare(sock, "203.0.113.1")
    way.prepare(sock, "2001:db8::1")
    assert sock.options == [(socket.IPPROTO_IP, 25, 6), (socket.IPPROTO_IPV6, 125, 6)]
    said[0] = "  interface: utun4\n"
    with pytest.raises(OSError, match="no default route"):
        way.prepare(sock, "203.0.113.2")


# ---------------------------------------------------------------- the order of ways


class Net:
    """In place of the network: which addresses answer by the normal route and beside, which names are known where, what was tried."""

    def __init__(self, monkeypatch):
        self.normal, self.beside, self.inside, self.outside, self.tried = set(), set(), {}, {}, []
        monkeypatch.setattr(_way, "race", self.race)
        monkeypatch.setattr(_way, "known", self.system)
        monkeypatch.setattr(_names, "ask", self.ask)
        monkeypatch.setattr(_names, "servers", lambda *_arguments: ["192.0.2.53"])

    def race(self, addresses, _port, deadline, prepare=None, clock=None):
        assert deadline > clock(), "time is left for each"
        self.tried.append(("beside" if prepare else "normal", list(addresses), round(deadline - clock(), 1)))
        for address in addresses:
            if address in (self.beside if prepare else self.normal):
                return Connected(address)
        raise OSError(110, "Connection timed out")

    def system(self, host, _deadline):
        if _names.is_address(host):
            return [host]
        if host not in self.inside:
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return self.inside[host]

    def ask(self, host, _servers, _seconds, _prepare):
        return self.outside.get(host, [])


class Connected:
    def __init__(self, address):
        self.address = address

    def getpeername(self):
        return (self.address, 443)


@pytest.fixture
def net(monkeypatch):
    return Net(monkeypatch)


def dial(way, host="gate.example", seconds=15.0):
    return way.dial(host, 443, time.monotonic() + seconds).address


def test_the_normal_route_comes_first(tmp_path, net):
    net.inside["gate.example"], net.normal, net.beside = ["192.0.2.1", "192.0.2.2"], {"192.0.2.2"}, {"192.0.2.1"}
    way = Host(tmp_path).way()
    assert dial(way) == "192.0.2.2" and not way.went_beside
    assert net.tried == [("normal", ["192.0.2.1", "192.0.2.2"], 5.0)]
    assert way.reached() == {"host": "gate.example", "addresses": "192.0.2.2 192.0.2.1"}


def test_a_host_without_a_tunnel_has_all_the_time_for_the_normal_route(tmp_path, net):
    net.inside["gate.example"] = ["192.0.2.1"]
    with pytest.raises(OSError, match=r"\A\[Errno 110\] Connection timed out\Z"):
        dial(Host(tmp_path, there=False).way())
    assert net.tried == [("normal", ["192.0.2.1"], 15.0)]


def test_a_dead_tunnel_is_gone_round_and_first_the_next_time(tmp_path, net):
    net.inside["gate.example"], net.beside = ["192.0.2.1"], {"192.0.2.1"}
    way = Host(tmp_path).way()
    assert dial(way) == "192.0.2.1" and way.went_beside
    assert [tried[0] for tried in net.tried] == ["normal", "beside"]
    assert dial(way) == "192.0.2.1" and [tried[0] for tried in net.tried] == ["normal", "beside", "beside"]


def test_a_name_is_asked_beside_the_tunnel(tmp_path, net):
    net.outside["gate.example"], net.beside = ["192.0.2.9"], {"192.0.2.9"}
    assert dial(Host(tmp_path).way(kept={"host": "gate.example", "addresses": "192.0.2.1"})) == "192.0.2.9"
    assert [tried[:2] for tried in net.tried] == [("beside", ["192.0.2.9"])]


def test_a_server_that_moved_is_found_though_the_old_address_is_still_named_inside(tmp_path, net):
    net.inside["gate.example"], net.outside["gate.example"], net.beside = ["192.0.2.1"], ["192.0.2.9"], {"192.0.2.9"}
    assert dial(Host(tmp_path).way()) == "192.0.2.9"


def test_kept_addresses_are_the_last_resort(tmp_path, net):
    kept, net.beside = {"host": "gate.example", "addresses": "192.0.2.1 nonsense 2001:db8::1"}, {"2001:db8::1"}
    way = Host(tmp_path).way(kept=kept)
    assert dial(way) == "2001:db8::1" and net.tried == [("beside", ["192.0.2.1", "2001:db8::1"], 15.0)]
    assert way.reached() == {"host": "gate.example", "addresses": "2001:db8::1 192.0.2.1"}
    net.tried.clear()
    net.outside["gate.example"] = ["192.0.2.9"]  # which does not answer
    assert dial(Host(tmp_path / "other").way(kept=kept)) == "2001:db8::1" and [tried[2] for tried in net.tried] == [
        9.0,
        15.0,
    ]
    with pytest.raises(OSError):
        dial(Host(tmp_path / "third").way(kept=kept), host="other.example")


def test_kept_addresses_help_a_host_without_a_tunnel_too(tmp_path, net):
    net.normal = {"192.0.2.1"}
    way = Host(tmp_path, there=False).way(kept={"host": "gate.example", "addresses": "192.0.2.1"})
    assert dial(way) == "192.0.2.1" and net.tried == [("normal", ["192.0.2.1"], 15.0)]


def test_forbidden_nothing_leaves_beside_the_tunnel(tmp_path, net):
    net.inside["gate.example"], net.outside["gate.example"], net.beside = ["192.0.2.1"], ["192.0.2.1"], {"192.0.2.1"}
    way = Host(tmp_path).way(beside=False)
    with pytest.raises(OSError, match="Connection timed out"):
        dial(way)
    assert [tried[0] for tried in net.tried] == ["normal"]
    assert way.addresses("other.example", time.monotonic() + 5) == [] and way.addresses(
        "gate.example", time.monotonic() + 5
    ) == ["192.0.2.1"]


def test_both_ways_are_told_of_in_the_error(tmp_path, net):
    with pytest.raises(
        OSError,
        match=re.escape(
            "Temporary failure in name resolution, and beside the tunnel wg0: the name gate.example was not resolved"
        ),
    ):
        dial(Host(tmp_path).way())
    net.inside["gate.example"] = ["192.0.2.1"]
    with pytest.raises(
        OSError, match=re.escape("Connection timed out, and beside the tunnel wg0: Connection timed out")
    ):
        dial(Host(tmp_path / "other").way())


def test_an_address_needs_no_name(tmp_path, net):
    net.beside = {"192.0.2.1"}
    way = Host(tmp_path).way()
    assert dial(way, host="192.0.2.1") == "192.0.2.1" and way.reached() is None


# ---------------------------------------------------------------- a race of addresses


def listener():
    return socket.create_server(("127.0.0.1", 0))


def test_the_first_address_that_answers_wins():
    with listener() as server:
        port = server.getsockname()[1]
        begin = time.monotonic()
        with _way.race(["127.0.0.9", "127.0.0.1"], port, begin + 5) as connected:  # refused at once
            assert connected.getpeername() == ("127.0.0.1", port) and 4 < connected.gettimeout() <= 5
        assert time.monotonic() - begin < _way.STAGGER


def test_an_address_that_is_silent_holds_nothing_up():
    def silent(opened, address):
        if address == "127.0.0.9":
            full.append(opened)

    full = []
    with listener() as server, socket.create_server(("127.0.0.9", 0), backlog=0) as deaf:
        port = deaf.getsockname()[1]
        fillers = []
        for _number in range(4):  # a full queue drops what comes
            fillers.append(socket.socket())
            fillers[-1].setblocking(False)
            fillers[-1].connect_ex(("127.0.0.9", port))
        time.sleep(0.1)
        with socket.create_server(("127.0.0.1", port)) as good:
            begin = time.monotonic()
            with _way.race(["127.0.0.9", "127.0.0.1"], port, begin + 5, silent) as connected:
                assert connected.getpeername()[0] == "127.0.0.1" and good and server and full
            assert _way.STAGGER <= time.monotonic() - begin < 2
        begin = time.monotonic()
        with pytest.raises(OSError, match="timed out"):
            _way.race(["127.0.0.9"], port, begin + 0.5)
        assert 0.4 < time.monotonic() - begin < 1
        for filler in fillers:
            filler.close()


def test_a_race_that_nobody_wins():
    for addresses in (["127.0.0.1"], []):
        with pytest.raises(OSError):
            _way.race(addresses, 1, time.monotonic() + 1)
    with pytest.raises(OSError, match="no way"):
        _way.race(
            ["127.0.0.1"], 1, time.monotonic() + 1, lambda _opened, _address: (none for none in ()).throw(OSError("no way"))
        )
    before = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    for _round in range(20):
        with pytest.raises(OSError):
            _way.race(["127.0.0.1", "127.0.0.2"], 1, time.monotonic() + 1)
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) <= before + 1
