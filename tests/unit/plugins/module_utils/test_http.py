"""The transport and its connections, over socket pairs."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _answers, _api, _http, _line, _session

OK = b'{"ok":true,"version":"1.50.12","timestamp":"2026-01-01T00:00:00.000Z"}'


def answer(body=OK, *headers, status="200 OK"):
    return (
        "HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n"
        % (status, "".join(header + "\r\n" for header in headers), len(body))
    ).encode("latin-1") + body


class Far:
    """The other end of each connection: gives each request the next answer. .heads, .dialled tell what came."""

    def __init__(self, *answers):
        self.answers, self.heads, self.dialled = list(answers), [], []

    def dial(self, host, port, deadline):
        assert 0 < deadline - time.monotonic() <= 5
        self.dialled.append((host, port))
        near, far = socket.socketpair()
        threading.Thread(target=self._serve, args=(far,), daemon=True).start()
        return near

    def _serve(self, far):
        with far:
            data = b""
            while self.answers:
                while b"\r\n\r\n" not in data:
                    part = far.recv(65536)
                    if not part:
                        return
                    data += part
                head, _end, data = data.partition(b"\r\n\r\n")
                self.heads.append(head.decode("latin-1"))
                far.sendall(self.answers.pop(0))
            far.recv(1)


def transport(far, url="http://localhost", **options):
    return _http.HttpTransport(_http.complete(dict({"url": url, "timeout": 2}, **options)), far.dial)


@pytest.mark.parametrize(
    "url, where, host",
    [
        ("http://[::1]", ("::1", 80), "[::1]"),
        ("http://[::1]:8080/x", ("::1", 8080), "[::1]:8080"),
        ("http://[2001:db8::5]/", ("2001:db8::5", 80), "[2001:db8::5]"),
        ("http://localhost", ("localhost", 80), "localhost"),
        ("http://127.0.0.1:81", ("127.0.0.1", 81), "127.0.0.1:81"),
        ("http://LOCALHOST:80", ("localhost", 80), "localhost"),
    ],
)
def test_where_a_url_is_connected_to(url, where, host):
    far = Far(answer())
    assert transport(far, url, allow_http=True).request("GET", "/x", {}).status == 200
    assert far.dialled == [where] and f"\r\nHost: {host}\r\n" in far.heads[0]


def test_a_proxy_is_asked_for_an_address_in_brackets():
    far = Far(b"HTTP/1.1 200 OK\r\n\r\n", answer())
    transport(far, "http://[2001:db8::5]", allow_http=True, proxy="[2001:db8::9]", no_proxy="192.0.2.0/24").request(
        "GET", "/x", {}
    )
    assert far.dialled == [("2001:db8::9", 3128)] and far.heads[0].startswith(
        "CONNECT [2001:db8::5]:80 HTTP/1.1\r\nHost: [2001:db8::5]:80"
    )


@pytest.mark.parametrize(
    "host, port, no_proxy, excluded",
    [
        ("10.1.2.3", 443, "10.0.0.0/8", True),
        ("11.1.2.3", 443, "10.0.0.0/8", False),
        ("10.1.2.3", 443, "10.1.2.3", True),
        ("10.1.2.3", 443, "10.1.2.3:8443", False),
        ("10.1.2.3", 8443, "10.1.2.3:8443", True),
        ("10.1.2.3", 443, "0.1.2.3/33, 10.1.2.3/32", True),
        ("2001:db8::5", 443, "2001:db8::/32", True),
        ("2001:db8::5", 443, "[2001:db8:0::5]", True),
        ("2001:db8::5", 443, "[2001:db8::5]:443", True),
        ("2001:db8::5", 443, "[2001:db8::5]:80", False),
        ("2001:db8::5", 443, "10.0.0.0/8", False),
        ("gate.example.com", 443, "example.com:443", True),
        ("gate.example.com", 444, "example.com:443", False),
        ("gate.example.com", 443, "*.example.com", True),
        ("gate.example.com.", 443, ".EXAMPLE.com", True),
        ("notexample.com", 443, "example.com", False),
        ("gate.example.com", 443, "10.0.0.0/8", False),
        ("gate.example.com", 443, "a b  example.com", True),
        ("gate.example.com", 443, ":443", False),
        ("gate.example.com", 443, ",", False),
    ],
)
def test_what_goes_past_the_proxy(host, port, no_proxy, excluded):
    assert _http.is_excluded(host, no_proxy, port) is excluded


@pytest.mark.parametrize(
    "location",
    [
        "http://LOCALHOST/y?a=b",
        "http://localhost:80/y?a=b#c",
        "HTTP://LocalHost:80/y?a=b",
        "//localhost/y?a=b",
        "y?a=b",
        "/y?a=b",
    ],
)
def test_a_redirect_within_the_origin_in_any_spelling(location):
    far = Far(answer(b"", "Location: " + location, status="302 Found"), answer())
    assert transport(far).request("GET", "/x", {}).status == 200 and far.heads[1].startswith("GET /y?a=b HTTP/1.1")


@pytest.mark.parametrize(
    "location",
    [
        "http://localhost.evil/",
        "http://localhost:81/",
        "https://localhost/",
        "http://localhost@evil/",
        "http://a@localhost/",
        "http://localhost:port/",
        "/\x7f",
        "/a b",
        "http://[::1",
    ],
)
def test_a_redirect_out_of_the_origin(location):
    far = Far(answer(b"", "Location: " + location, status="302 Found"), answer())
    with pytest.raises(_http.ApiError) as caught:
        transport(far).request("GET", "/x", {})
    assert caught.value.kind == ("protocol" if "\x7f" in location else "redirect") and len(far.heads) == 1


def test_every_cookie_is_seen():
    page = b'<input name="_csrf" value="abc"> csrfToken: "' + b"0" * 32 + b'"'
    far = Far(
        answer(page, "Set-Cookie: gc.sid=first; Path=/", "Set-Cookie: proxy=1"),
        answer(
            b"",
            "Set-Cookie: lb=2; Path=/",
            "Set-Cookie: gc.sid=second; HttpOnly",
            "set-cookie: x-gc.sid=no",
            "Location: /dashboard",
            status="302 Found",
        ),
        answer(page, "Set-Cookie: proxy=3"),
    )
    session = _session.Session({"url": "http://localhost"})
    session.http.dial = far.dial
    session.http.options["timeout"] = 2
    assert session.login("admin", "password")["cookie"] == "second"
    assert [f"Cookie: gc.sid={value}" in far.heads[number] for number, value in ((1, "first"), (2, "second"))] == [
        True,
        True,
    ]


def test_a_cookie_with_control_characters_is_none():
    far = Far(
        answer(b"", "Set-Cookie: gc.sid=a\r\n\tb"),
        answer(b"", "Set-Cookie: gc.sid=a b"),
        answer(b"", "Set-Cookie: gc.sid=\xe4"),
    )
    kept = transport(far)
    assert [kept.request("GET", "/", {}).cookies for _turn in range(3)] == [{}, {}, {}]


@pytest.mark.parametrize("value", ["gc_x\r\nX: y", "gc_\u00e4", "gc_\x00", "gc_\u2028"])
def test_a_token_that_no_header_may_hold_is_never_shown(value):
    far = Far(answer())
    with pytest.raises(_http.ApiError) as caught:
        _api.Api({"url": "http://localhost", "token": value, "timeout": 2}, dial=far.dial).ping()
    assert caught.value.kind == "options" and "gc_" not in str(caught.value) and far.dialled == []


# ---------------------------------------------------------------- one connection, many answers


def test_what_came_too_much_is_not_taken_for_the_next_answer():
    far = Far(answer() + answer(b'{"ok":true,"smuggled":1}'), answer(b'{"ok":true}'))
    kept = transport(far)
    kept.request("GET", "/1", {})
    assert "smuggled" not in kept.request("GET", "/2", {}).text and len(far.dialled) == 2


def test_a_connection_is_kept_and_one_that_was_closed_is_not_used():
    far = Far(answer(), answer(), answer(OK, "Connection: close"), answer())
    kept = transport(far)
    for number in range(4):
        assert kept.request("GET", "/%d" % number, {}).status == 200
    assert len(far.dialled) == 2 and len(far.heads) == 4


# ---------------------------------------------------------------- time


def test_a_name_that_is_never_resolved(monkeypatch):
    real = socket.getaddrinfo

    def resolve(host, port, family=0, kind=0, protocol=0, flags=0):
        if not flags & socket.AI_NUMERICHOST:
            time.sleep(3)
        return real(host, port, family, kind, protocol, flags)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    begun = time.monotonic()
    with pytest.raises(_http.ApiError, match="was not resolved in time") as caught:
        _api.Api({"url": "https://gate.example.com", "timeout": 0.3, "max_wait": 0}).ping()
    assert time.monotonic() - begun < 1.5 and caught.value.kind == "network" and not caught.value.sent


@pytest.mark.parametrize("silent", [1, 3, 20])
def test_addresses_share_the_time(monkeypatch, silent):
    """Behind addresses that swallow everything the last one tried is still reached, and all together end in time."""
    door = socket.create_server(("127.0.0.1", 0))
    full = socket.socket()
    full.bind(("127.0.0.2", door.getsockname()[1]))
    full.listen(0)
    held = [socket.socket() for _turn in range(3)]
    for one in held:
        one.setblocking(False)
        one.connect_ex(full.getsockname())
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname())] * silent + [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", door.getsockname())
    ]
    monkeypatch.setattr(_line, "addresses", lambda host, port, deadline: found)
    begun = time.monotonic()
    try:
        _line.dial("gate.example.com", 443, begun + 0.8).close()
        assert silent < _line.ADDRESSES
    except OSError:
        assert silent >= _line.ADDRESSES
    finally:
        for one in (*held, full, door):
            one.close()
    assert time.monotonic() - begun < 1.8


def test_a_whole_call_ends_within_its_time():
    class Dripping(Far):
        def _serve(self, far):
            with far, contextlib.suppress(OSError):
                far.recv(65536)
                self.heads.append(time.monotonic())
                for _turn in range(100):
                    far.sendall(b"HTTP/1.1 100 Continue\r\n\r\n"[len(self.heads) % 2 :])
                    time.sleep(0.3)

    for timeout, max_wait in ((1, 2), (1, 0)):
        far, begun = Dripping(), time.monotonic()
        with pytest.raises(_http.ApiError) as caught:
            _api.Api(
                {"url": "http://localhost", "timeout": timeout, "max_wait": max_wait},
                dial=far.dial,
                jitter=lambda low, high: 0.2,
            ).ping()
        assert caught.value.kind in ("network", "protocol") and time.monotonic() - begun < max(timeout, max_wait) + 2


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    "text",
    [
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":-Infinity}',
        '{"a":1e400}',
        '{"a":%s}' % ("9" * 21),
        '{"a":%s}' % ("9" * 100000),
        '{"a":1,"a":1}',
        '{"b":{"a":1,"a":2}}',
        '{"a":"\\ud800"}',
        '{"\\udfff":1}',
        "[" * 200000,
        '{"a":1',
        "",
        "\ufeff{}",
        '{"a":1}{"b":2}',
    ],
)
def test_json_that_no_server_sends(text):
    begun = time.monotonic()
    assert _answers.parsed(text) is None and time.monotonic() - begun < 1


def test_json_that_a_server_sends():
    for value in ({"a": [1, 1.5, None, True, "\u00e4\U0001f600", -1, 2**60]}, [], "x", 5):
        assert _answers.parsed(json.dumps(value)) == value


@pytest.mark.parametrize(
    "shape, good, bad",
    [
        ("id!", (1, 2**52), (0, -1, True, 1.0, "1", None, 2**53)),
        ("number", (0, 1.5, None), (True, -1, "1", 1e300)),
        ("flag!", (0, 1, True, False), (2, None, "1", 1.5)),
        ("moment!", ("2026-01-01T00:00:00.000Z", "2026-01-01 00:00:00"), ("x", "2026-01-01", "", None, 5)),
        ("text", ("", "x", None), (5, [], True)),
        ("word!", ("web 1",), ("", "a\nb", "x" * 256, None)),
        ("words!", ([], ["a"]), ([1], "a", None, ["\x1b"])),
        ("token!", ("gc_" + "0" * 96,), ("gc_", "gc_ x", "x" * 99, 5, None, "gc_" + "0" * 999)),
        ("hash!", ("0" * 64,), ("0" * 63, "G" * 64, None)),
    ],
)
def test_types_of_answers(shape, good, bad):
    for value in good:
        assert _answers.checked("x", {"key": value}, {"key": shape})
    for value in bad:
        with pytest.raises(_http.ApiError, match="x failed: the answer has no valid key") as caught:
            _answers.checked("x", {"key": value}, {"key": shape})
        assert caught.value.kind == "protocol"


def test_a_list_without_an_end():
    """A server that always has one more page."""

    class Endless(_http.HttpTransport):
        def __init__(self, repeat):
            super().__init__(_http.complete({"url": "http://localhost"}))
            self.count, self.repeat = 0, repeat

        def request(self, method, path, headers, body=None, limit=None):
            self.count += 1
            first = 1 if self.repeat else self.count * 250
            return _http.Response(
                200,
                {},
                json.dumps({"ok": True, "peers": [{"id": first + number, "name": "web"} for number in range(250)]}),
            )

    for repeat, most in ((True, 3), (False, 500)):
        server = Endless(repeat)
        with pytest.raises(_http.ApiError, match="does not end") as caught:
            list(_api.Api({"url": "http://localhost"}, transport=server).peers())
        assert caught.value.kind == "protocol" and server.count < most


def test_secrets_are_hidden():
    headers = {"Authorization": "Bearer gc_short-one", "Cookie": "gc.sid=0123456789", "X-CSRF-Token": "abcdefghij"}
    assert _http.hidden("gc_short-one 0123456789 abcdefghij", headers) == "*** *** ***"
    assert _http.shown(f"token gc_{'ab' * 48}\nkey {'A' * 43 + '='}\x1b[2J") == "token *** key *** [2J"
