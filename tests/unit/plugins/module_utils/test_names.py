# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names asked of resolvers: which ones, the wire's format from hostile answers, and real datagrams on loopback."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time

import pytest

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _names

HOST = "gate.example.com"
A, AAAA = _names.A, _names.AAAA


def test_resolvers_beside_the_tunnel(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").write_text(
        "# ours\nsearch example.com\nnameserver 10.8.0.1\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver x\n"
    )
    for path, text in {
        "run/resolvconf/interfaces/wg0": "nameserver 10.8.0.1\nnameserver 10.8.0.7\n",
        "run/resolvconf/interfaces/eth0.dhcp": "nameserver 192.0.2.54\nnameserver\n",
        "run/resolvconf/keys/tun.wg0": "nameserver 10.8.0.8\n",
        "run/resolvconf/interface/eth1.dhclient": "nameserver 192.0.2.53\nnameserver 2001:db8::53\n",
        "run/systemd/resolve/resolv.conf": "nameserver fe80::1%2\nnameserver 0.0.0.0\nnameserver 9.9.9.9\nnameserver 10.8.0.1\n",
        "run/NetworkManager/resolv.conf": "nameserver 192.0.2.60\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    found = _names.servers(str(tmp_path), "wg0", ["10.8.0.1", "9.9.9.9", "lan.example"])
    assert found == ["192.0.2.53", "9.9.9.9", "192.0.2.60", "192.0.2.54", "2001:db8::53"]
    (tmp_path / "etc/resolv.conf").write_bytes(
        b"\xff\xfe nameserver\n" + b"nameserver 192.0.2.1\n" * 9 + b"#" * 10**6 + b"\nnameserver 192.0.2.2\n"
    )
    assert _names.servers(str(tmp_path), "wg0", [])[0] == "192.0.2.1" and "192.0.2.2" not in _names.servers(
        str(tmp_path), "wg0"
    )
    (tmp_path / "run/NetworkManager/resolv.conf").write_text(
        "".join("nameserver 192.0.2.%d\n" % number for number in range(100, 120))
    )
    assert len(_names.servers(str(tmp_path), "wg0")) == _names.MOST_SERVERS
    assert not _names.servers(str(tmp_path / "none"), "wg0")


# ---------------------------------------------------------------- the wire


def name(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def record(owner, kind, data, network=1):
    return owner + struct.pack("!HHIH", kind, network, 60, len(data)) + data


def answer(query, *records, flags=0x8180, count=None):
    return (
        query[:2]
        + struct.pack("!HHHHH", flags, 1, len(records) if count is None else count, 0, 0)
        + query[12:]
        + b"".join(records)
    )


HERE = b"\xc0\x0c"  # the question's own name
QUERY = _names.question(HOST, A, 4711)
ADDRESS = record(HERE, A, socket.inet_aton("192.0.2.1"))


def test_the_question():
    assert QUERY == struct.pack("!HHHHHH", 4711, 0x0100, 1, 0, 0, 0) + name(HOST) + b"\0\1\0\1"
    assert _names.question("gate.example.com.", A, 4711) == QUERY
    for bad in ("", "a..b", "x" * 64 + ".example"):
        with pytest.raises(ValueError):
            _names.question(bad, A, 1)


@pytest.mark.parametrize(
    "records, found",
    [
        ([ADDRESS], ["192.0.2.1"]),
        ([], []),
        ([record(name("GATE.example.COM"), A, bytes(4))], ["0.0.0.0"]),
        ([record(HERE, 5, name("web.example.com")), record(name("web.example.com"), A, b"\1\2\3\4")], ["1.2.3.4"]),
        ([record(name("web.example.com"), A, b"\1\2\3\4"), record(HERE, 5, name("web.example.com"))], ["1.2.3.4"]),
        ([record(name("other.example"), A, b"\1\2\3\4")], []),  # nobody asked for it
        ([record(HERE, A, b"\1\2\3")], []),
        ([record(HERE, A, b"\1\2\3\4", network=3)], []),
        ([record(HERE, AAAA, bytes(16))], []),
        ([record(HERE, 5, name("a.b")), record(name("a.b"), 5, name(HOST))], []),  # a circle
        ([ADDRESS] * 200, ["192.0.2.1"]),
    ],
)
def test_answers(records, found):
    cut, addresses = _names.answered(answer(QUERY, *records), QUERY)
    assert not cut and list(dict.fromkeys(addresses)) == found and len(addresses) <= _names.MOST_ADDRESSES


@pytest.mark.parametrize(
    "data",
    [
        b"",
        QUERY,  # no answer: our own question sent back
        answer(_names.question(HOST, A, 4712), ADDRESS),
        answer(_names.question("other.example", A, 4711), ADDRESS),
        answer(_names.question(HOST, AAAA, 4711), ADDRESS),
        answer(QUERY, ADDRESS)[:-2],
        answer(QUERY, ADDRESS, count=2),
        QUERY[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + b"\xc0\x0c",  # a name that points to itself
        QUERY[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + b"\x80abc",
        answer(QUERY, b"\xc0\xff" + ADDRESS[2:]),
    ],
)
def test_what_is_no_answer(data):
    with pytest.raises(ValueError):
        _names.answered(data, QUERY)


def test_an_answer_that_was_cut_off_names_nothing():
    assert _names.answered(answer(QUERY, ADDRESS, flags=0x8380), QUERY) == (True, [])


def test_random_answers_raise_nothing_else():
    randomly, good = random.Random(7), answer(QUERY, record(HERE, 5, name("web.example.com")), ADDRESS)
    for _round in range(5000):
        data = bytearray(good)
        for _change in range(randomly.randint(1, 6)):
            data[randomly.randrange(len(data))] = randomly.randrange(256)
        data = bytes(data[: randomly.randint(0, len(data))]) + os.urandom(randomly.randint(0, 30))
        begin = time.monotonic()
        try:
            _names.answered(data, QUERY)
        except ValueError:
            pass
        assert time.monotonic() - begin < 0.5


# ---------------------------------------------------------------- servers on loopback


class Resolver:
    """A server of names on 127.0.0.1: reply(query, over) -> list of answers, over "udp" or "tcp"."""

    def __init__(self, reply):
        self.reply, self.asked = reply, []
        while True:  # until a port is free for both
            self.tcp, self.udp = socket.create_server(("127.0.0.1", 0)), socket.socket(
                socket.AF_INET, socket.SOCK_DGRAM
            )
            self.port = self.tcp.getsockname()[1]
            try:
                self.udp.bind(("127.0.0.1", self.port))
                break
            except OSError:
                self.close()
        for work in (self._datagrams, self._streams):
            threading.Thread(target=work, daemon=True).start()

    def _datagrams(self):
        while True:
            try:
                query, peer = self.udp.recvfrom(2000)
            except OSError:
                return
            self.asked.append(query)
            for data in self.reply(query, "udp"):
                self.udp.sendto(data, peer)

    def _streams(self):
        while True:
            try:
                stream = self.tcp.accept()[0]
            except OSError:
                return
            with stream:
                query = stream.recv(2000)[2:]
                for data in self.reply(query, "tcp"):
                    stream.sendall(struct.pack("!H", len(data)) + data)

    def close(self):
        self.udp.close()
        self.tcp.close()


def ask(reply, seconds=5.0, prepare=lambda _socket, _address: None):
    resolver = Resolver(reply)
    begin = time.monotonic()
    try:
        return (
            _names.ask(HOST, ["127.0.0.1"], seconds, prepare, resolver.port),
            time.monotonic() - begin,
            resolver.asked,
        )
    finally:
        resolver.close()


def kind_of(query):
    return struct.unpack("!H", query[-4:-2])[0]


def good(query, _over):
    return [
        answer(
            query,
            (
                record(HERE, A, b"\xc0\0\2\1")
                if kind_of(query) == A
                else record(HERE, AAAA, socket.inet_pton(socket.AF_INET6, "2001:db8::1"))
            ),
        )
    ]


def test_both_families_are_asked_and_numbered_at_random():
    found, seconds, asked = ask(good)
    assert (
        found == ["192.0.2.1", "2001:db8::1"] and seconds < 1 and sorted(kind_of(query) for query in asked) == [A, AAAA]
    )
    assert len({query[:2] for _try in range(8) for query in ask(good)[2]}) > 8


def test_a_forged_answer_is_passed_over():
    forged, _seconds, _asked = ask(
        lambda query, over: [answer(bytes([query[0] ^ 1]) + query[1:], ADDRESS), b"x", *good(query, over)]
    )
    assert forged == ["192.0.2.1", "2001:db8::1"]


def test_what_does_not_fit_a_datagram_is_fetched_over_tcp():
    assert ask(lambda query, over: [answer(query, flags=0x8380)] if over == "udp" else good(query, over))[0] == [
        "192.0.2.1",
        "2001:db8::1",
    ]
    assert ask(lambda query, over: [answer(query, flags=0x8380)] if over == "udp" else [], seconds=1.5)[0] == []


def test_a_lost_question_is_sent_again():
    seen = []

    def reply(query, over):
        seen.append(query)
        return [] if seen.count(query) == 1 else good(query, over)

    found, seconds, _asked = ask(reply)
    assert found == ["192.0.2.1", "2001:db8::1"] and 0.9 < seconds < 2.5


def test_one_family_waits_for_the_other_a_moment_only():
    found, seconds, _asked = ask(lambda query, over: good(query, over) if kind_of(query) == A else [])
    assert found == ["192.0.2.1"] and seconds < 1.5


@pytest.mark.parametrize(
    "reply",
    [lambda query, over: [], lambda query, over: [answer(query, flags=0x8183)], lambda query, over: [b"x" * 3000]],
)
def test_nobody_knows_it(reply):
    found, seconds, _asked = ask(reply, seconds=0.8)
    assert found == [] and seconds < 1.2


def test_nothing_is_sent_where_no_way_leads_out():
    def refuse(_socket, _address):
        raise OSError("no way")

    found, seconds, asked = ask(good, prepare=refuse)
    assert (found, asked) == ([], []) and seconds < 0.5
    assert _names.ask("a..b", ["127.0.0.1"], 1, lambda _socket, _address: None) == []
    assert _names.ask(HOST, [], 1, lambda _socket, _address: None) == []
