"""The API's pure parts: names, releases, URLs, exclusions, the table of errors, the timing of tries."""
from __future__ import annotations

import json
import string

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _http
from hypothesis import given
from hypothesis import strategies as st


# ---------------------------------------------------------------- names

@pytest.mark.parametrize("hostname, name", [
    ("web01", "web01"), ("web01.example.org", "web01.example.org"), ("my host", "my_host"), ("a/b:c", "a_b_c"), ("WEB", "WEB"), ("ü", "_"),
    ("x" * 60, "x" * 50)])
def test_cleaned_name_is_what_register_makes(hostname, name):
    assert _api.cleaned_name(hostname) == name


@pytest.mark.parametrize("name", ["", "-x", "_x", ".x", "übel", " x", "\nx"])
def test_a_name_that_would_be_refused(name):
    for exact in (False, True):
        with pytest.raises(_api.ApiError, match="gatecontrol_name") as caught:
            _api.check_name(name, exact)
        assert caught.value.kind == "invalid_name"


@pytest.mark.parametrize("name", ["a b", "x" * 63, "9", "Web_01.b-c"])
def test_an_exact_name_is_kept(name):
    assert _api.check_name(name, exact=True) == name


@pytest.mark.parametrize("name", ["x" * 64, "a ", "a/b", "a\n", "aü"])
def test_an_exact_name_is_never_changed(name):
    with pytest.raises(_api.ApiError):
        _api.check_name(name, exact=True)


@given(st.text(min_size=1, max_size=80))
def test_a_checked_name_is_one_the_server_takes(name):
    try:
        made = _api.check_name(name)
    except _api.ApiError:
        return
    assert 1 <= len(made) <= 50 and made[0] in string.ascii_letters + string.digits
    assert set(made) <= set(string.ascii_letters + string.digits + "._-")
    assert _api.check_name(made) == _api.check_name(made, exact=True) == made


# ---------------------------------------------------------------- releases

@pytest.mark.parametrize("version, numbers, broken", [
    ("1.5.2", (1, 5, 2), False), ("1.50.12", (1, 50, 12), False), ("1.50.13", (1, 50, 13), True), ("1.76.2", (1, 76, 2), True),
    ("1.118.2", (1, 118, 2), True),
    ("1.118.2-beta.1", (1, 118, 2), True), ("v1.60.0", (1, 60, 0), True), ("1.118.3", (1, 118, 3), False), ("2.0.0", (2, 0, 0), False),
    ("1.119", (1, 119), False),
    ("", (), False), (None, (), False), ("unknown", (), False)])
def test_releases(version, numbers, broken):
    assert _api.release(version) == numbers and _api.register_broken(version) is broken


# ---------------------------------------------------------------- addresses

@pytest.mark.parametrize("url, normal", [
    ("https://gate.example.com", "https://gate.example.com"), ("HTTPS://Gate.Example.com:443/", "https://gate.example.com"),
    ("http://localhost:80", "http://localhost"), ("https://gate.example.com:8443/vpn//", "https://gate.example.com:8443/vpn"),
    ("https://[FD00::1]:8443", "https://[fd00::1]:8443"), ("http://127.0.0.1:443", "http://127.0.0.1:443")])
def test_one_spelling_of_a_url(url, normal):
    assert _api.normal_url(url) == normal == _api.normal_url(normal)


@pytest.mark.parametrize("host, loopback", [
    ("localhost", True), ("127.0.0.1", True), ("127.9.8.7", True), ("::1", True), ("127.0.0.1.example.com", False),
    ("localhost.example.com", False),
    ("10.0.0.1", False), ("128.0.0.1", False), ("127.1", False), ("", False), (None, False)])
def test_loopback(host, loopback):
    assert _http.is_loopback(host) is loopback


@pytest.mark.parametrize("host, no_proxy, excluded", [
    ("gate.example.com", "gate.example.com", True), ("gate.example.com", "example.com", True), ("gate.example.com", ".example.com", True),
    ("gate.example.com", " other.org , EXAMPLE.com", True), ("gate.example.com", "*", True), ("badexample.com", "example.com", False),
    ("gate.example.com", "", False), ("gate.example.com", None, False), ("gate.example.com", ",,", False)])
def test_exclusions_from_the_proxy(host, no_proxy, excluded):
    assert _http.is_excluded(host, no_proxy) is excluded


# ---------------------------------------------------------------- what an answer means

def explained(status, error=None, path=_api.CLIENT + "/config", headers=None, text=None, **more) -> _api.ApiError:
    body = dict({"ok": False}, **more, **({} if error is None else {"error": error}))
    return _api.explain("doing it", path, _http.Response(status, headers or {}, text or json.dumps(body)), {} if text else body)


@pytest.mark.parametrize("status, error, path, kind", [
    (401, "Unauthorized", _api.CLIENT, "auth"),
    (403, "Token does not have permission for this resource", _api.CLIENT, "scope"),
    (403, "Forbidden for token auth", "/api/v1/settings/dns", "scope"),
    (403, "User account is disabled", _api.CLIENT, "user_disabled"),
    (403, "Token is not bound to a peer. Register first.", _api.CLIENT, "unbound"),
    (403, "Token is not authorized for this peer", _api.CLIENT, "wrong_peer"),
    (403, "Token is already bound to a different peer", _api.CLIENT, "bound_elsewhere"),
    (403, "Token is bound to a different machine", _api.CLIENT, "machine_binding"),
    (403, "Machine fingerprint required", _api.CLIENT, "machine_binding"),
    (403, "Tokens cannot manage other tokens", "/api/v1/tokens", "forbidden"),
    (404, "Peer not found", _api.CLIENT, "not_found"),
    (404, "Bound peer no longer exists", _api.CLIENT, "not_found"),
    (409, "No available IP addresses in subnet", _api.CLIENT, "conflict"),
    (400, "No available IP addresses in subnet", _api.PEERS, "conflict"),
    (400, "A peer with this name already exists", _api.PEERS, "name_taken"),
    (400, "Hostname is required", _api.CLIENT, "invalid_name"),
    (400, "Invalid hostname for peer name", _api.CLIENT, "invalid_name"),
    (400, "Peer name must be alphanumeric (1-63 chars)", _api.PEERS, "invalid_name"),
    (400, "Invalid machine fingerprint format", _api.CLIENT, "machine_binding"),
    (400, "Peer ID is required", _api.CLIENT, "invalid"),
    (429, "Too many requests, please try again later", _api.CLIENT, "rate_limited"),
    (500, "Client registration failed", _api.CLIENT, "server"),
    (503, None, _api.CLIENT, "server"),
    (418, None, _api.CLIENT, "protocol"),
])
def test_every_refusal_has_its_kind(status, error, path, kind):
    caught = explained(status, error, path)
    assert caught.kind == kind and caught.status == status and str(caught).startswith("doing it failed: the server says ")
    assert "(%d); " % status in str(caught) and (error or "") in str(caught) and caught.failure["kind"] == kind


def test_a_licence_refusal_has_its_numbers():
    caught = explained(403, "Resource limit reached", feature="vpn_peers", current=3, limit=3, upgrade_url="https://example.com")
    assert caught.failure == {"kind": "licence", "status": 403, "feature": "vpn_peers", "current": 3, "limit": 3}
    caught = explained(403, "This feature requires a Pro license", feature="internal_dns")
    assert caught.failure == {"kind": "licence", "status": 403, "feature": "internal_dns"} and "(internal_dns)" in str(caught)


def test_a_404_without_ok_is_a_missing_endpoint():
    caught = _api.explain("doing it", _api.CLIENT + "/permissions?x=1", _http.Response(404, {}, ""), {"error": "Not found"})
    assert caught.kind == "endpoint_missing" and "/api/v1/client/permissions," in str(caught)


@pytest.mark.parametrize("headers, seconds", [
    ({"retry-after": "840"}, 840), ({"ratelimit-reset": "12"}, 12), ({"retry-after": "7", "ratelimit-reset": "900"}, 7), ({}, 60),
    ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 60), ({"retry-after": "-5", "ratelimit-reset": "x"}, 60)])
def test_how_long_a_rate_limit_lasts(headers, seconds):
    assert explained(429, "Too many", headers=headers).details["retry_after"] == seconds


@pytest.mark.parametrize("text, words", [
    ("<html><title>502 Bad Gateway</title>", "502 Bad Gateway"), ("", "Service Unavailable"),
    ("[Interface]\nPrivateKey = abc", "Service Unavailable"),
    ("<title>\x1b[2J\n</title>", "[2J")])
def test_words_of_an_answer_that_is_no_json(text, words):
    caught = explained(503, text=text or " ")
    assert '"%s" (503)' % words in str(caught) and "PrivateKey" not in str(caught)


# ---------------------------------------------------------------- tries

class Scripted:
    """A transport that gives prepared answers: a status, an (status, headers) pair or an exception."""

    url = "https://gate.example.com"

    def __init__(self, *answers):
        self.answers, self.sent = list(answers), []

    def request(self, method, path, headers, body=None, limit=None):
        self.sent.append((method, path))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, more = answer if isinstance(answer, tuple) else (answer, {})
        return _http.Response(status, more, json.dumps({"ok": status < 300, "error": "x", "version": "1", "timestamp": "2026-01-01T00:00:00.000Z",
                                                       "peer": {"id": 1, "name": "web"}}))


def api(transport, max_wait=60, took=0.0, jitter=lambda low, high: (low + high) / 2, **more):
    """An Api whose clock moves by its waits, and by `took` seconds at each look; .waits are in seconds."""
    time = [0.0]

    def clock():
        time[0] += took
        return time[0]

    def sleep(seconds):
        one.waits.append(round(seconds, 2))
        time[0] += seconds
    one = _api.Api(dict({"url": "https://gate.example.com", "max_wait": max_wait}, **more), transport=transport, clock=clock, sleep=sleep,
                   jitter=jitter)
    one.waits = []
    return one


def lost(sent):
    return _api.ApiError("no answer", "network", sent=sent)


@pytest.mark.parametrize("answer", [500, 503, lost(True), lost(False)])
def test_waits_grow_by_half_until_max_wait(answer):
    for max_wait, waits in (60, [2, 3, 4.5, 6.75, 10.12, 15.19]), (10, [2, 3, 4.5]), (1, []), (0, []):
        one = api(Scripted(answer), max_wait)
        with pytest.raises(_api.ApiError):
            one.ping()
        assert one.waits == waits and one.requests == len(waits) + 1


def test_no_wait_is_longer_than_60_seconds():
    one = api(Scripted(500), 1000)
    with pytest.raises(_api.ApiError):
        one.ping()
    assert max(one.waits) == 60 and one.waits.count(60) > 5 and sum(one.waits) <= 1000


def test_the_time_requests_take_counts_too():
    one = api(Scripted(lost(True)), 60, took=15.0)
    with pytest.raises(_api.ApiError):
        one.ping()
    assert one.waits == [2, 3, 4.5]


@given(st.randoms(use_true_random=False))
def test_jitter_spreads_and_stays_within_max_wait(random):
    one = api(Scripted(500), 60, jitter=random.uniform)
    with pytest.raises(_api.ApiError):
        one.ping()
    assert sum(one.waits) <= 60
    assert all(0.8 * base <= wait + 0.01 and wait <= 1.2 * base + 0.01 for wait, base in zip(one.waits, (2, 3, 4.5, 6.75, 10.125, 15.1875)))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409])
def test_a_refusal_ends_at_once(status):
    one = api(Scripted(status))
    with pytest.raises(_api.ApiError):
        one.ping()
    assert one.waits == [] and one.requests == 1


def test_success_after_failures():
    one = api(Scripted(503, lost(True), (429, {"retry-after": "5"}), 200))
    assert one.ping()["version"] == "1" and one.waits == [2, 3, 5.5]


@pytest.mark.parametrize("seconds, waits", [("0", [1.5]), ("59", [59.5]), ("60", []), ("900", [])])
def test_a_rate_limit_is_waited_for_if_that_fits(seconds, waits):
    one = api(Scripted((429, {"retry-after": seconds}), 200))
    try:
        one.ping()
        assert waits
    except _api.ApiError as err:
        assert not waits and err.details["retry_after"] == int(seconds) and "come back in %s s" % seconds in str(err)
    assert one.waits == waits


@pytest.mark.parametrize("answer, uncertain", [(500, True), (502, True), (lost(True), True), (400, False), (403, False), (429, False)])
def test_what_makes_a_peer_is_never_sent_twice(answer, uncertain):
    for call in (lambda one: one.register("web", "linux", "1"), lambda one: one.create_peer("web")):
        one = api(Scripted(answer), 1000 if answer != 429 else 0)
        with pytest.raises(_api.ApiError) as caught:
            call(one)
        assert one.requests == 1 and (caught.value.kind == "uncertain") is uncertain
        assert ("the peer web may have been made" in str(caught.value)) is uncertain


def test_what_makes_a_peer_is_sent_again_when_it_never_left():
    one = api(Scripted(lost(False), lost(False), 200))
    assert one.create_peer("web")["id"] == 1 and one.waits == [2, 3]


def test_a_status_event_is_not_repeated():
    one = api(Scripted(lost(True)))
    with pytest.raises(_api.ApiError):
        one.status(1, "connected", "t")
    assert one.requests == 1


def test_what_is_not_known_is_not_sent():
    transport = Scripted(200)
    one = api(transport, token="gc_x")
    assert not any(name.startswith("X-") for name in one.headers) and one.headers["Authorization"] == "Bearer gc_x"
    one.call("x", "GET", "/x", query={"peerId": 5, "hash": None})
    assert transport.sent == [("GET", "/x?peerId=5")]


@pytest.mark.parametrize("identity, word", [({"fingerprint": "AB"}, "machine_fingerprint"),
                                            ({"fingerprint": "g" * 64}, "machine_fingerprint"),
                                            ({"platform": "a\r\nX: y"}, "client_platform"), ({"platform": "ü"}, "client_platform")])
def test_an_identity_that_is_none_is_refused(identity, word):
    with pytest.raises(_api.ApiError, match=word):
        _api.Api({"url": "https://gate.example.com"}, identity)
