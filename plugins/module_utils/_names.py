# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names asked of the resolvers that a host has without its tunnel.

An answer is only as good as the wire it came over: whoever connects by it checks a certificate or a WireGuard key.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import contextlib
import ipaddress
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable

PORT = 53
MOST_SERVERS, MOST_RECORDS, MOST_ADDRESSES = 6, 64, 8
LONGEST_FILE = 65536  # bytes of a list of resolvers
AGAIN = 1.0    # seconds before a question is sent once more, as a datagram may be lost
OTHER = 0.3    # seconds in which the other family's answer may follow the first one
A, CNAME, AAAA = 1, 5, 28

# What the host's managers of names say in public of the servers they know: files (openresolv keeps what it replaced as
# a .bak), and folders with one file for each interface (openresolv of two ages, Debian's resolvconf).
LISTS = ("etc/resolv.conf", "etc/resolv.conf.bak", "run/systemd/resolve/resolv.conf", "run/NetworkManager/resolv.conf",
         "run/NetworkManager/no-stub-resolv.conf")
RECORDS = ("run/resolvconf/interfaces", "run/resolvconf/keys", "run/resolvconf/interface")

Prepare = Callable[[socket.socket, str], None]


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def servers(root: str, interface: str, inside: Iterable[str] = ()) -> list[str]:
    """The resolvers that the host has beside its tunnel, at most MOST_SERVERS.

    inside: the tunnel's own servers; they are left out but for public ones, which are the same from everywhere. Those
    on this machine are left out too: the system has asked them already.
    """
    texts = [_start_of(os.path.join(root, path)) for path in LISTS]
    for folder in RECORDS:
        with contextlib.suppress(OSError):
            names = sorted(os.listdir(os.path.join(root, folder)))
            others = [name for name in names if name != interface and not name.endswith("." + interface)]
            texts += [_start_of(os.path.join(root, folder, name)) for name in others]
    found: dict[str, None] = {}
    for line in "\n".join(texts).splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver" or not is_address(words[1].split("%")[0]):
            continue
        address = ipaddress.ip_address(words[1].split("%")[0])
        near = address.is_loopback or address.is_link_local or address.is_unspecified
        if not near and (str(address) not in inside or address.is_global):
            found[str(address)] = None
    return list(found)[:MOST_SERVERS]


def _start_of(path: str) -> str:
    """A file's text as far as it is believed; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read(LONGEST_FILE)
    except OSError:
        return ""


# ---------------------------------------------------------------- the wire (RFC 1035)

def question(host: str, kind: int, number: int) -> bytes:
    """A query for the records of a kind. Raises ValueError for what is no host name."""
    labels = host.rstrip(".").encode("idna").split(b".")
    if not all(0 < len(label) < 64 for label in labels):
        raise ValueError("%r is no host name" % host)
    name = b"".join(struct.pack("B", len(label)) + label for label in labels) + b"\0"
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", kind, 1)


def _name(data: bytes, at: int) -> tuple[bytes, int]:
    """The name at an offset, lower-case, and where what follows it begins. Raises ValueError, IndexError."""
    labels, after, jumps = [], 0, 0
    while True:
        length = data[at]
        if length >= 192:
            jumps += 1
            if jumps > 16:
                raise ValueError("a name that does not end")
            after = after or at + 2
            at = (length & 63) << 8 | data[at + 1]
        elif length > 63 or sum(map(len, labels)) > 255:
            raise ValueError("a name that is none")
        elif length:
            labels.append(data[at + 1:at + 1 + length].lower())
            at += 1 + length
        else:
            return b".".join(labels), after or at + 1


def answered(data: bytes, asked: bytes) -> tuple[bool, list[str]]:
    """(whether the answer was cut off, the addresses it names) of the answer to a query. Raises ValueError where it is
    none to it."""
    try:
        number, flags, questions, count = struct.unpack("!HHHH", data[:8])
        name, at = _name(data, 12)
        wanted, end = _name(asked, 12)
        ours = (*struct.unpack("!H", asked[:2]), wanted, asked[end:end + 4])
        if (number, name, data[at:at + 4]) != ours or questions != 1 or not flags & 0x8000:
            raise ValueError("no answer to this question")
        kind, at, records = struct.unpack("!H", asked[end:end + 2])[0], at + 4, []
        for _record in range(min(count, MOST_RECORDS) if not flags & 0x0200 else 0):
            owner, at = _name(data, at)
            sort, network, _life, size = struct.unpack("!HHIH", data[at:at + 10])
            at += 10
            if at + size > len(data):
                raise ValueError("an answer that is cut off")
            if network == 1 and sort in (kind, CNAME):
                records.append((owner, sort, _name(data, at)[0] if sort == CNAME else data[at:at + size]))
            at += size
    except (IndexError, struct.error) as err:
        raise ValueError("a damaged answer") from err
    names = {wanted}
    for _step in records:  # aliases may stand in any order
        names |= {value for owner, sort, value in records if sort == CNAME and owner in names}
    length = 4 if kind == A else 16
    values = [value for owner, sort, value in records if sort == kind and owner in names and len(value) == length]
    return bool(flags & 0x0200), [str(ipaddress.ip_address(value)) for value in values[:MOST_ADDRESSES]]


class _Asked:
    """One question to one server, under way."""

    def __init__(self, host: str, server: str, kind: int, port: int, prepare: Prepare) -> None:
        self.server, self.port, self.prepare = server, port, prepare
        self.query = question(host, kind, struct.unpack("!H", os.urandom(2))[0])
        self.socket = self._open(socket.SOCK_DGRAM)
        try:
            self.socket.setblocking(False)
            self.socket.connect((server, port))  # what another address sends is not seen then
            self.socket.send(self.query)
        except OSError:
            self.socket.close()
            raise

    def _open(self, kind: int) -> socket.socket:
        opened = socket.socket(socket.AF_INET6 if ":" in self.server else socket.AF_INET, kind)
        try:
            self.prepare(opened, self.server)
        except OSError:
            opened.close()
            raise
        return opened

    def receive(self, seconds: float) -> list[str]:
        """The addresses that were answered; a long answer is fetched over TCP. Raises OSError, ValueError."""
        cut, found = answered(self.socket.recv(4096), self.query)
        return self._over_tcp(seconds) if cut else found

    def _over_tcp(self, seconds: float) -> list[str]:
        end = time.monotonic() + seconds
        with self._open(socket.SOCK_STREAM) as stream:
            stream.settimeout(max(0.05, seconds))
            stream.connect((self.server, self.port))
            stream.sendall(struct.pack("!H", len(self.query)) + self.query)
            data = b""
            while len(data) < 2 or len(data) < 2 + struct.unpack("!H", data[:2])[0]:
                stream.settimeout(max(0.05, end - time.monotonic()))
                part = stream.recv(4096)
                if not part or time.monotonic() > end:
                    raise OSError("%s broke off its answer" % self.server)
                data += part
        return answered(data[2:], self.query)[1]


def ask(host: str, resolvers: Iterable[str], seconds: float, prepare: Prepare, port: int = PORT) -> list[str]:
    """The addresses that resolvers have for a name, all asked at once; empty where none answers within `seconds`.

    prepare(socket, address) makes a socket leave as it should, and raises OSError where it cannot; IPv4 stands first.
    """
    end, again, open_questions = time.monotonic() + seconds, time.monotonic() + AGAIN, []
    found: dict[str, None] = {}
    with selectors.DefaultSelector() as selector:
        try:
            for server in resolvers:
                for kind in (A, AAAA):
                    with contextlib.suppress(OSError, UnicodeError, ValueError):
                        asked = _Asked(host, server, kind, port, prepare)
                        open_questions.append(asked)
                        selector.register(asked.socket, selectors.EVENT_READ, asked)
            while selector.get_map() and time.monotonic() < end:
                for key, _events in selector.select(max(0.0, min(end, again) - time.monotonic())):
                    _take(key.data, selector, found, end - time.monotonic())
                    end = min(end, time.monotonic() + OTHER) if found else end
                if time.monotonic() >= again:
                    again = end
                    for key in selector.get_map().values():
                        with contextlib.suppress(OSError):
                            key.data.socket.send(key.data.query)
        finally:
            for asked in open_questions:
                asked.socket.close()
    return sorted(found, key=lambda address: ":" in address)[:MOST_ADDRESSES]


def _take(asked: _Asked, selector: selectors.BaseSelector, found: dict[str, None], seconds: float) -> None:
    try:
        found.update(dict.fromkeys(asked.receive(seconds)))
    except ValueError:
        return  # not the answer; it may still come
    except OSError:
        pass
    selector.unregister(asked.socket)
