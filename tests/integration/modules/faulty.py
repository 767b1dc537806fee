"""A server, proxy or whatever stands between that does wrong on the wire, by a script.

A situation is chosen by the host's name in the URL. ``connect`` stands for the collection's own dial and gives a TCP
connection whose other end is the situation's script; names are not resolved for it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import socket
import ssl
import struct
import threading
import time
import typing

RAW = "RAW-ANSWER"  # stands in whatever is broken; no error text may show it
KEY = "cHJpdmF0ZSBrZXkgb2YgYSBwZWVyLCAzMiBieXRlcyE="
CONFIG = (
    f"[Interface]\nPrivateKey = {KEY}\nAddress = 10.8.0.2/32\n\n"
    f"[Peer]\nPublicKey = {KEY}\nEndpoint = vpn.example.com:51820\nAllowedIPs = 10.8.0.0/24\n"
)
PEER = {"id": 1, "name": "web", "enabled": 1, "allowed_ips": "10.8.0.2/32"}
MINTED = {"id": 7, "name": "ansible: web", "scopes": ["client"], "peer_id": 1}
ANSWER = {  # whatever is asked
    "ok": True,
    "version": "1.50.12",
    "timestamp": "2026-01-01T00:00:00.000Z",
    "permissions": {},
    "scopes": ["client"],
    "peerId": 1,
    "peerName": "web",
    "config": CONFIG,
    "hash": hashlib.sha256(CONFIG.encode()).hexdigest(),
    "updated": False,
    "peerEnabled": True,
    "peer": PEER,
    "peers": [PEER],
    "features": {"vpn_peers": 3},
    "users": [{"id": 1, "username": "admin"}],
    "tokens": [MINTED],
    "token": "gc_" + "0" * 96,
    "details": MINTED,
}
CSRF = "ab" * 64
DRIP = 0.04  # seconds between two bytes
ENDS = 8.0  # seconds after which a script gives up

# How an answer is cut into stages: framing -> its pieces in order. BODY and SIZE stand for what belongs to the request.
HEAD = [("status", b"HTTP/1.1 200 OK\r\n"), ("name", b"Content-Type"), ("value", b": application/json\r\n")]
FRAMINGS = {
    "length": [*HEAD, ("end", b"Content-Length: SIZE\r\n\r\n"), ("body", b"BODY")],
    "closed": [*HEAD, ("end", b"Connection: close\r\n\r\n"), ("tail", b"BODY")],
    "chunked": [
        *HEAD,
        ("end", b"Transfer-Encoding: chunked\r\n\r\n"),
        ("size", b"XSIZE"),
        ("extension", b";name=value\r\n"),
        ("data", b"BODY"),
        ("crlf", b"\r\n"),
        ("last", b"0\r\n"),
        ("trailer", b"X-Trailer: value\r\n\r\n"),
    ],
    "continue": [
        ("interim", b"HTTP/1.1 100 Continue\r\n\r\n"),
        *HEAD,
        ("end", b"Content-Length: SIZE\r\n\r\n"),
        ("body", b"BODY"),
    ],
    "hints": [
        ("early", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
        *HEAD,
        ("end", b"Content-Length: SIZE\r\n\r\n"),
        ("body", b"BODY"),
    ],
}
STAGES = {
    "status": "length",
    "name": "length",
    "value": "length",
    "end": "length",
    "body": "length",
    "tail": "closed",
    "size": "chunked",
    "extension": "chunked",
    "data": "chunked",
    "crlf": "chunked",
    "last": "chunked",
    "trailer": "chunked",
    "interim": "continue",
    "early": "hints",
}
FILLER = {
    "size": b"0",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n",
    "early": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "trailer": b"X: y\r\n",
}
WAYS = ("drip", "silence", "close", "reset", "garbage", "flood", "control", "long")
TLS_WAYS = ("alert", "plain")
MODES = ("plain", "tls", "proxy", "proxy-tls")


@dataclasses.dataclass(frozen=True)
class Situation:
    """One thing that goes wrong. ``script`` plays it; ``fails``: no call may take this for an answer."""

    name: str
    mode: str
    script: typing.Callable
    fails: bool = True

    def options(self, authority) -> dict:
        """How the collection is told to reach it."""
        host = f"{self.name}.gate.test"
        found = {
            "url": f"http{'s' if self.mode.endswith('tls') else ''}://{host}",
            "allow_http": True,
            "ca_path": authority.ca,
        }
        return dict(found, proxy=f"http://user:pr0xy-passw0rd@{host}:3128") if self.mode.startswith("proxy") else found


class Wire:
    """The other end of a connection, and what a script may do with it."""

    def __init__(self, connection, context):
        self.raw, self.line, self.context = connection, connection, context
        self.ends = time.monotonic() + ENDS

    def head(self) -> bytes:
        """A request's head, its body read as well."""
        data = b""
        while b"\r\n\r\n" not in data:
            part = self.line.recv(65536)
            if not part:
                raise ConnectionError
            data += part
        head, _end, body = data.partition(b"\r\n\r\n")
        size = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        while size and len(body) < size[0]:
            body += self.line.recv(65536)
        return head

    def secure(self) -> None:
        self.line = self.context.wrap_socket(self.raw, server_side=True)

    def drip(self, data: bytes, endless: bytes) -> None:
        """Byte by byte, and on with the filler until the client has had enough."""
        while time.monotonic() < self.ends:
            for number in range(len(data)):
                self.line.sendall(data[number : number + 1])
                time.sleep(DRIP)
            data = endless

    def flood(self, filler: bytes) -> None:
        block, sent = filler * (65536 // len(filler)), 0
        while time.monotonic() < self.ends and sent < 2**26:
            self.line.sendall(block)
            sent += len(block)

    def silence(self) -> None:
        """Until the client goes."""
        self.line.settimeout(max(0.1, self.ends - time.monotonic()))
        while self.line.recv(65536):
            pass

    def past_tls(self, data: bytes) -> None:
        """Send beside the TLS that the connection has."""
        number = os.dup(self.line.fileno())
        try:
            os.write(number, data)
            time.sleep(0.05)
        finally:
            os.close(number)

    def reset(self) -> None:
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.raw.detach() if self.line is self.raw else self.line.detach())


def answered(head: bytes, body: bytes | None = None) -> tuple:
    """(what is to replace the status line or b"", body) for a request."""
    method, path = head.split(b" ")[:2]
    if body is None and path.endswith((b"/login", b"/dashboard")):
        page = b'<input name="_csrf" value="%s"><script>csrfToken: \'%s\'</script>' % (CSRF.encode(), CSRF.encode())
        return (
            b"HTTP/1.1 302 Found\r\nLocation: /dashboard\r\nSet-Cookie: gc.sid=s3ss10n-c00k1e; Path=/\r\n"
            if method == b"POST"
            else b""
        ), page
    return b"", json.dumps(ANSWER).encode() if body is None else body


def spoil(wire: Wire, way: str, stage: str, piece: bytes) -> bool:
    """Send a piece in a bad way. Whether the script goes on after it."""
    filler = FILLER.get(stage, b"a")
    half = piece[: len(piece) // 2] if stage not in ("interim", "early") else piece
    if way in ("control", "long"):
        wire.line.sendall(
            half + (b"\x00\x1b[2J\r" + RAW.encode() if way == "control" else filler * 70000) + piece[len(half) :]
        )
        return True
    wire.line.sendall({"garbage": RAW.encode() + b"\xff\x00\xfe\n" * 9}.get(way, half))
    if way == "drip":
        wire.drip(b"", filler)
    elif way == "flood":
        wire.flood(filler)
    elif way == "silence":
        wire.silence()
    elif way == "reset":
        wire.reset()
    elif way == "alert":
        wire.past_tls(b"\x15\x03\x03\x00\x02\x02\x28")
    elif way == "plain":
        wire.past_tls(RAW.encode() * 9)
    return False


def faulty_answer(stage: str, way: str) -> typing.Callable:
    """The script of an answer that is good up to a stage."""

    def script(wire):
        head = wire.head()
        status, body = answered(head)
        for name, piece in FRAMINGS[STAGES[stage]]:
            if name == "status" and status:
                piece = status
            piece = (
                piece.replace(b"XSIZE", b"%x" % len(body)).replace(b"SIZE", b"%d" % len(body)).replace(b"BODY", body)
            )
            if name != stage:
                wire.line.sendall(piece)
            elif not spoil(wire, way, name, piece):
                return

    return script


def tunnelled(script: typing.Callable, mode: str, secure: bool = True) -> typing.Callable:
    """The script behind what its mode has before it: a proxy's answer, TLS."""

    def whole(wire):
        if mode.startswith("proxy"):
            wire.head()
            wire.line.sendall(b"HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r\n")
        if mode.endswith("tls") and secure:
            wire.secure()
        script(wire)

    return whole


def secrets_of(head: bytes) -> bytes:
    """What a request's own headers hold, but for the plain ones."""
    return b" ".join(
        line.split(b": ", 1)[1]
        for line in head.split(b"\r\n")[1:]
        if b": " in line and not line.startswith((b"Host", b"Content", b"User"))
    )


def canned(*pieces: bytes) -> typing.Callable:
    """The script of one fixed answer to every request. TOKEN stands for what the request's own headers hold."""

    def script(wire):
        while True:
            echo = secrets_of(wire.head())
            wire.line.sendall(b"".join(pieces).replace(b"TOKEN", echo))
            if b"Connection: close" in pieces[0]:
                return

    return script


def with_body(body: bytes, status: bytes = b"200 OK", more: bytes = b"") -> typing.Callable:
    """The script of a complete answer with this body."""

    def script(wire):
        while True:
            echo = secrets_of(wire.head())
            filled = body.replace(b"TOKEN", echo)
            wire.line.sendall(
                b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n"
                % (status, more.replace(b"TOKEN", echo), len(filled))
                + filled
            )

    return script


class Stage:
    """Plays the situations: ``connect`` is a dial that knows them by their hosts' names.

    ``played``: the names of those that somebody has connected to.
    """

    def __init__(self, authority, situations):
        self.authority = authority
        self.situations = {situation.name: situation for situation in situations}
        self.context = authority.context(name="*.gate.test")
        self.door = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.callers, self.played = {}, set()
        threading.Thread(target=self._accept, daemon=True).start()

    def connect(self, host: str, _port: int, deadline: float) -> socket.socket:
        connected = socket.socket()
        connected.bind(("127.0.0.1", 0))
        self.callers[connected.getsockname()[1]] = self.situations[host.partition(".")[0]]
        connected.settimeout(max(0.1, deadline - time.monotonic()))
        connected.connect(self.door.getsockname())
        return connected

    def _accept(self) -> None:
        while True:
            try:
                connection, (_host, port) = self.door.accept()
            except OSError:
                return
            connection.settimeout(ENDS)
            situation = self.callers.pop(port)
            self.played.add(situation.name)
            threading.Thread(target=self._play, args=(connection, situation), daemon=True).start()

    def _play(self, connection, situation) -> None:
        wire = Wire(connection, self.context)
        try:
            situation.script(wire)
        except (OSError, ssl.SSLError, ValueError):
            pass  # the client has gone
        finally:
            wire.line.close()
            connection.close()

    def close(self) -> None:
        self.door.close()
