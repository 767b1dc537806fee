"""The table of everything that can go wrong on the wire, of stages and ways, framings, bodies, statuses, types."""
from __future__ import annotations

import json

from faulty import (
    ANSWER, KEY, MODES, PEER, RAW, STAGES, TLS_WAYS, WAYS, Situation, canned, faulty_answer, tunnelled, with_body,
)

GOOD = json.dumps(ANSWER).encode()
SIZED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
FRAMED = {  # lengths and codings that are wrong or open to interpretation
    "length-short": SIZED + b"Content-Length: 20\r\n\r\n" + GOOD,
    "length-negative": SIZED + b"Content-Length: -1\r\n\r\n" + GOOD,
    "length-no-number": SIZED + b"Content-Length: many\r\n\r\n" + GOOD,
    "length-underscored": SIZED + b"Content-Length: 1_0\r\n\r\n" + GOOD,
    "length-of-10000-digits": SIZED + b"Content-Length: " + b"9" * 10000 + b"\r\n\r\n" + GOOD,
    "length-twice": SIZED + b"Content-Length: 5\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD,
    "length-and-chunks": SIZED
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(GOOD)
    + GOOD
    + b"\r\n0\r\n\r\n",
    "transfer-gzip": SIZED + b"Transfer-Encoding: gzip, chunked\r\n\r\n%x\r\n" % len(GOOD) + GOOD + b"\r\n0\r\n\r\n",
    "content-gzip": SIZED + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD,
    "chunk-no-number": SIZED + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + GOOD,
    "chunk-negative": SIZED + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n" + GOOD,
    "chunk-huge": SIZED + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 60000 + b"\r\n" + GOOD,
    "chunk-too-short": SIZED
    + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"
    + GOOD
    + b"\r\n0\r\n\r\n",
    "version-9": b"HTTP/9.9 200 OK\r\n" + RAW.encode() + b"\r\n\r\n",
    "version-0.9": RAW.encode() + b"\n" + GOOD,
    "status-no-number": b"HTTP/1.1 " + RAW.encode() + b"\r\n\r\n",
    "status-99": b"HTTP/1.1 99 " + RAW.encode() + b"\r\n\r\n",
    "status-1000": b"HTTP/1.1 1000 X\r\n\r\n",
    "status-101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "headers-200": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    "header-split": SIZED + b"X: a\rSet-Cookie: gc.sid=evil\r\nContent-Length: %d\r\n\r\n" % len(GOOD) + GOOD,
    "header-without-colon": b"HTTP/1.1 200 OK\r\n" + RAW.encode() + b"\r\nContent-Length: 0\r\n\r\n",
    "token-in-status-line": b"HTTP/1.1 TOKEN\r\n\r\n",
    "token-in-version": b"TOKEN\r\n\r\n",
}
BODIES = {  # complete answers that say nothing usable
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "text": b'"x"',
    "nan": GOOD.replace(b'"peerId": 1', b'"peerId": NaN'),
    "infinity": GOOD.replace(b'"peerId": 1', b'"peerId": -Infinity'),
    "overflow": GOOD.replace(b'"peerId": 1', b'"peerId": 1e999'),
    "digits": GOOD.replace(b'"peerId": 1', b'"peerId": ' + b"9" * 50000),
    "deep": b'{"ok":true,"a":' + b"[" * 100000 + b"]" * 100000 + b"}",
    "keys-twice": GOOD[:-1] + b',"ok": true}',
    "surrogate": GOOD[:-1] + b',"x": "\\ud800"}',
    "two-objects": GOOD + GOOD,
    "bom": b"\xef\xbb\xbf" + GOOD,
    "utf-16": GOOD.decode().encode("utf-16"),
    "no-ok": b"{}",
    "ok-text": b'{"ok":"true"}',
    "ok-1": b'{"ok":1}',
    "raw": RAW.encode(),
    "key": KEY.encode(),
    "token": b"TOKEN",
    "html": b"<title>" + RAW.encode() + b"</title>",
}
OTHER = (True, 1.5, -1, 0, "1", None, [], {}, "", "\x00", 2**60)  # in the place of what is relied on
STATUSES = {
    "echo-401": (b"401 Unauthorized", b'{"ok":false,"error":"bad token TOKEN"}'),
    "echo-500": (b"500 TOKEN", b"<title>TOKEN</title>"),
    "echo-403": (b"403 Forbidden", b'{"ok":false,"error":"TOKEN","feature":"TOKEN","limit":"TOKEN"}'),
    "echo-400": (b"400 Bad Request", b'{"ok":false,"error":"x","fields":{"name":"TOKEN","TOKEN":1}}'),
    "fields-list": (b"400 Bad Request", b'{"ok":false,"error":"x","fields":[1]}'),
    "feature-list": (b"403 Forbidden", b'{"ok":false,"feature":[1]}'),
    "key-500": (b"500 Error", b'{"ok":false,"error":"%s"}' % KEY.encode()),
    "error-list": (b"500 Error", b'{"ok":false,"error":["%s"]}' % RAW.encode()),
    "raw-418": (b"418 " + RAW.encode(), RAW.encode()),
    "204": (b"204 No Content", b""),
    "304": (b"304 Not Modified", b""),
    "429-far": (b"429 Too Many", b"{}"),
    "404-html": (b"404 Not Found", b"<p>" + RAW.encode()),
    "599": (b"599 X", b"\xff\xfe"),
}
REDIRECTS = {
    "elsewhere": b"https://evil.example/TOKEN",
    "user": b"http://gate.test@evil.example/",
    "circle": b"/again",
    "path-control": b"/a\x01b",
    "empty": b"",
    "no-url": b"http://[::1",
    "port": b"http://gate.test:99999/",
    "blank": b"/a b",
    "token": b"//x.example/TOKEN",
}
HANDSHAKES = {  # instead of TLS
    "silence": lambda wire: wire.silence(),
    "drip": lambda wire: wire.drip(b"\x16\x03\x03\x40\x00\x02", b"\x00"),
    "close": lambda wire: None,
    "reset": lambda wire: wire.reset(),
    "garbage": lambda wire: wire.line.sendall(RAW.encode() * 99),
    "http": lambda wire: wire.line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "flood": lambda wire: wire.flood(b"\x16\x03\x03\x00\x01\x00"),
    "alert": lambda wire: wire.line.sendall(b"\x15\x03\x03\x00\x02\x02\x28"),
    "warnings": lambda wire: wire.flood(b"\x15\x03\x03\x00\x02\x01\x00"),
    "empty-records": lambda wire: wire.flood(b"\x16\x03\x03\x00\x00"),
    "after-hello": lambda wire: (wire.line.recv(65536), wire.silence()),
}


def other_types() -> dict:
    """Bodies in which one thing that is relied on is of another type."""
    found = {}
    for key in (
        "version",
        "timestamp",
        "permissions",
        "scopes",
        "peerId",
        "peerName",
        "config",
        "hash",
        "updated",
        "peer",
        "peers",
        "users",
        "tokens",
        "token",
        "details",
        "features",
        "peer.id",
        "peer.name",
        "peer.enabled",
    ):
        for number, value in enumerate(OTHER):
            first, _dot, second = key.partition(".")
            changed = dict(PEER, **{second: value}) if second else value
            answer = dict(ANSWER, **{first: changed})
            if second:
                answer["peers"] = [changed]
            found["%s-%d" % (key.lower().replace(".", "-"), number)] = json.dumps(answer).encode()
    return found


def table() -> list:
    """Every situation."""
    found = [
        Situation(
            f"{stage}-{way}-{mode}",
            mode,
            tunnelled(faulty_answer(stage, way), mode),
            way in ("drip", "silence", "flood")
            or way != "long"
            and stage in ("status", "value", "end")
            and way != "alert",
        )
        for mode in MODES
        for stage in STAGES
        for way in WAYS + (TLS_WAYS if mode.endswith("tls") else ())
    ]
    for mode in ("plain", "tls"):
        every = {
            **{"frame-" + name: canned(answer) for name, answer in FRAMED.items()},
            **{"body-" + name: with_body(body) for name, body in BODIES.items()},
            **{
                "to-" + name: canned(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: ", where, b"\r\n\r\n")
                for name, where in REDIRECTS.items()
            },
            **{
                "says-" + name: with_body(body, status, b"Retry-After: %s\r\n" % (b"9" * 40))
                for name, (status, body) in STATUSES.items()
            },
        }
        found += [
            Situation(f"{name.replace('.', '-')}-{mode}", mode, tunnelled(script, mode))
            for name, script in every.items()
        ]
    found += [Situation("type-" + name, "plain", with_body(body), False) for name, body in other_types().items()]
    found += [
        Situation(f"tls-{name}-{mode}", mode, tunnelled(script, mode, secure=False))
        for name, script in HANDSHAKES.items()
        for mode in ("tls", "proxy-tls")
    ]
    for stage in ("status", "name", "value", "end"):
        found += [
            Situation(f"connect-{stage}-{way}", "proxy", faulty_answer(stage, way), way != "long") for way in WAYS
        ]
    return found + [
        Situation(
            f"connect-says-{status.split()[0].decode()}",
            "proxy-tls",
            canned(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"),
        )
        for status in (
            b"301 Moved",
            b"403 Forbidden",
            b"407 " + RAW.encode(),
            b"404 Not Found",
            b"500 Error",
            b"502 Bad",
            b"101 X",
            b"204 No",
        )
    ]
