"""What stands between a host and its server: slow, broken and hostile answers, redirects, certificates, proxies."""
from __future__ import annotations

import secrets

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _http, _line, _verify
from listeners import Authority, Listener, Proxy

TOKEN = "gc_" + secrets.token_hex(48)
STEPS = [2, 3, 4.5, 6.75, 10.12, 15.19]  # seconds: half as long again each time, and the next one would pass 60 in all


@pytest.fixture
def enrolled(gate, host):
    """The host, with a peer."""
    name = gate.name()
    result = host.ok("peer", url=gate.url, token=gate.token(), name=name)
    host.store.save("issued", host.store.text("offered"))
    host.store.save("enrollment", dict(host.record, hash=result["hash"]))
    gate.seen()
    return host


def ping(host, url, **more):
    return host.module("info", url=url, token=TOKEN, **more)


# ---------------------------------------------------------------- tries

@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_is_tried_again_and_told_in_the_end(gate, host, waits, status):
    gate.fault("status", path="*/ping", status=status, text="Wartung", count=2)
    assert host.ok("info", url=gate.url, token=gate.token())["server"]["version"] and waits == STEPS[:2]
    gate.seen(), waits.clear()
    gate.fault("status", path="*/ping", status=status, text="Maintenance")
    text = host.fails("info", "server", url=gate.url, token=gate.token())
    assert text == 'asking the server failed: the server says "Maintenance" (%d); look into the server\'s log and run again' % status
    assert waits == STEPS and gate.calls() == ["GET ping %d" % status] * 7 and host.failure["status"] == status


def test_max_wait_0_tries_once(gate, host, waits):
    gate.fault("status", path="*/ping")
    host.fails("info", "server", url=gate.url, token=gate.token(), max_wait=0)
    assert waits == [] and len(gate.seen()) == 1


def test_a_rate_limit_is_waited_for_where_that_fits(gate, host, waits):
    gate.fault("status", path="*/ping", status=429, retry_after=30, count=1)
    host.ok("info", url=gate.url, token=gate.token())
    assert waits == [30.5] and len(gate.seen()) == 2
    for given, seconds in ({"retry_after": 840}, 840), ({}, 60):
        gate.fault("status", path="*/ping", status=429, count=1, **given)
        text = host.fails("info", "rate_limited", url=gate.url, token=gate.token())
        assert "come back in %d s" % seconds in text and host.failure["retry_after"] == seconds
    assert waits == [30.5] and len(gate.seen()) == 2


def test_a_used_up_budget_tells_when_to_come_back(gates, host, waits):
    gate = gates("fixed", "--rate-limit", "3")
    token = gate.token()
    for _call in range(3):
        host.ok("info", url=gate.url, token=token)
    assert "Too many requests" in host.fails("info", "rate_limited", url=gate.url, token=token)
    assert 890 < host.failure["retry_after"] <= 900 and waits == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_dropped_connection_is_tried_again(gate, enrolled, waits, when):
    gate.fault("drop", path="*/config/check", when=when, count=2)
    enrolled.ok("config", url=gate.url)
    assert len(gate.seen()) == 3 and waits == STEPS[:2]
    gate.fault("drop", path="*/config/check", when=when)
    text = enrolled.fails("config", "network", url=gate.url)
    assert text.startswith("no answer from %s: " % gate.url) and "check the address, the network and the server" in text


def test_nobody_there(host, waits):
    assert "Connection refused" in host.fails("info", "network", url="http://localhost:9", token=TOKEN) and waits == STEPS


def test_a_slow_answer_is_awaited_and_one_past_the_timeout_is_not(gate, host):
    gate.fault("delay", path="*/ping", seconds=0.3, count=1)
    host.ok("info", url=gate.url, token=gate.token())
    gate.fault("delay", path="*/ping", seconds=1.5)
    text = host.fails("info", "network", url=gate.url, token=gate.token(), timeout=1, max_wait=0)
    assert "timed out" in text


def test_an_answer_byte_by_byte_is_read_and_a_creeping_one_is_given_up(gate, enrolled):
    gate.fault("drip", path="*/config", seconds=0.0005, count=1)
    enrolled.ok("config", url=gate.url, peer_id=enrolled.record["peer_id"], hash="0" * 64)
    gate.fault("drip", path="*/config", seconds=0.02)
    text = enrolled.fails("config", "network", url=gate.url, peer_id=enrolled.record["peer_id"], hash="0" * 64, timeout=1, max_wait=0)
    assert "timed out" in text


def test_an_endless_answer_is_given_up(host, monkeypatch):
    monkeypatch.setattr(_line, "LARGEST", 10000)
    with Listener(body=b" " * 200000) as server:
        assert "too large" in host.fails("info", "protocol", url=server.url, token=TOKEN, max_wait=0)


def test_an_idle_connection_is_not_used_for_a_request_that_must_not_be_repeated(gate, monkeypatch):
    api = _api.Api({"url": gate.url, "token": gate.token()})
    api.ping()
    first = api.transport.connection
    api.ping()
    assert api.transport.connection is first
    monkeypatch.setattr(_http, "IDLE", -1)
    api.ping()
    assert api.transport.connection is not first
    api.transport.close()


# ---------------------------------------------------------------- spoiled answers

@pytest.mark.parametrize("kind", ["cut", "invalid-json", "html"])
@pytest.mark.parametrize("module", ["config", "peer"])
def test_an_answer_that_is_no_answer_changes_nothing_and_shows_no_key(gate, enrolled, waits, kind, module):
    gate.ask("settings", values={"mtu": "1300"})
    gate.fault(kind, path="*/config/check", when="after")
    before = enrolled.files()
    try:
        given = {"dest": str(enrolled.root / "etc/wireguard/wg0.conf")} if module == "config" else {"name": enrolled.record["peer_name"]}
        text = enrolled.fails(module, "network" if kind == "cut" else "protocol", url=gate.url, **given)
    finally:
        gate.ask("settings", values={"mtu": None})
    assert enrolled.files() == before and "[Interface" not in text and "<" not in text
    assert len(gate.seen()) == (7 if kind == "cut" else 1)


def test_a_wrong_hash_is_asked_twice_and_refused(gate, host):
    peer = gate.add(gate.name())
    token = gate.token(peer_id=peer["id"])
    gate.fault("wrong-hash", path="*/config")
    text = host.fails("peer", "protocol", url=gate.url, token=token, peer_id=peer["id"])
    assert "twice" in text and host.files() == {} and gate.calls() == ["GET config 200"] * 2
    gate.server.no_faults()
    gate.fault("wrong-hash", path="*/config", count=1)
    assert host.ok("peer", url=gate.url, token=token, peer_id=peer["id"])["changed"]


SPOILED = {"hooks": "PostUp is a hook", "placeholder": "placeholder", "private-placeholder": "placeholder", "crlf": "U+000D",
           "unknown-key": "Colour",
           "save-config": "SaveConfig", "second-interface": "second [Interface]", "short-key": "32 bytes", "short-private-key": "32 bytes",
           "short-preshared-key": "32 bytes", "empty": "config"}


@pytest.mark.parametrize("how", SPOILED)
def test_a_config_that_is_not_safe_is_not_written(gate, enrolled, how):
    dest = enrolled.root / "etc/wireguard/wg0.conf"
    enrolled.ok("config", url=gate.url, dest=str(dest))
    before = enrolled.files()
    gate.fault("config", path="*/config", how=how)
    for given in ({"dest": str(dest)}, {"stage": True}):
        text = enrolled.fails("config", "protocol" if how == "empty" else "syntax", url=gate.url, hash="0" * 64, **given)
        assert SPOILED[how] in text and enrolled.files() == before


def test_hooks_are_written_when_the_user_wants_them(gate, enrolled):
    gate.fault("config", path="*/config", how="hooks")
    dest = enrolled.root / "etc/wireguard/wg0.conf"
    assert enrolled.ok("config", url=gate.url, hash="0" * 64, dest=str(dest), allow_hooks=True)["changed"]
    assert "PostUp = " in dest.read_text()


@pytest.mark.parametrize("body", [b"[" * 100000, b'{"ok":true}', b'"x"', b'{"ok":true,"version":5,"timestamp":"x"}', b"\xff\xfe", b""])
def test_an_answer_of_another_shape_is_told(host, body):
    with Listener(body=body) as server:
        text = host.fails("info", "protocol", url=server.url, token=TOKEN)
        assert "failed: the answer" in text and len(server.seen) == 1


@pytest.mark.parametrize("config", ['"\\ud800"', "5", "null", '["a"]'])
def test_a_config_that_is_no_text_is_told(host, config):
    with Listener(body=('{"ok":true,"peerName":"x","hash":"%s","config":%s}' % ("0" * 64, config)).encode()) as server:
        assert "config" in host.fails("peer", "protocol", url=server.url, token=TOKEN, peer_id=1) and host.files() == {}


def test_a_proxys_own_error_page_is_told_by_its_title(host):
    with Listener(503, b"<html><head><title>503 Service\n Unavailable</title></head><body>Varnish</body></html>",
                  {"Content-Type": "text/html"}) as server:
        assert 'the server says "503 Service Unavailable" (503)' in host.fails("info", "server", url=server.url, token=TOKEN, max_wait=0)
    with Listener(404, b"nothing here", {"Content-Type": "text/plain"}) as server:
        assert "is not a GateControl server" in host.fails("info", "endpoint_missing", url=server.url, token=TOKEN)


# ---------------------------------------------------------------- the token stays with its server

@pytest.mark.parametrize("auth_header, name, prefix", [(None, "Authorization", "Bearer "), ("x-api-token", "X-API-Token", ""),
                                                       ("x-api-key", "X-API-Key", "")])
def test_the_token_goes_in_one_header(host, auth_header, name, prefix):
    with Listener() as server:
        assert not ping(host, server.url, **({"auth_header": auth_header} if auth_header else {})).get("failed")
        (_method, path, headers), = server.seen
    assert path == "/api/v1/client/ping" and headers[name] == prefix + TOKEN and str(headers).count(TOKEN) == 1
    assert headers["Accept-Language"] == "en" and headers["User-Agent"] == "callmetechie.gatecontrol/" + _verify.VERSION


def test_a_server_below_a_path(host):
    with Listener() as server:
        assert ping(host, server.url + "/gate/")["server"]["url"] == server.url + "/gate"
        assert server.seen[0][1] == "/gate/api/v1/client/ping"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_not_followed(host, status):
    with Listener() as other, Listener(status, b"", {"Location": other.url + "/api/v1/client/ping"}) as server:
        text = host.fails("info", "redirect", url=server.url, token=TOKEN)
        assert other.url in text and other.seen == [] and len(server.seen) == 1


def test_a_redirect_of_the_embedded_server_is_not_followed_either(gate, enrolled):
    with Listener() as other:
        gate.fault("redirect", path="*/config/check", url=other.url)
        enrolled.fails("config", "redirect", url=gate.url, dest=str(enrolled.root / "wg0.conf"))
        assert other.seen == []


def test_a_redirect_within_the_server_is_followed_but_not_for_ever(host):
    with Listener(307, b"", {"Location": "/elsewhere?a=b#c"}) as server:
        assert "in a circle" in host.fails("info", "redirect", url=server.url, token=TOKEN)
        assert [path for _method, path, _headers in server.seen] == ["/api/v1/client/ping"] + ["/elsewhere?a=b"] * 3


@pytest.mark.parametrize("location", ["", "http://localhost@evil.example/", "//evil.example/x", "https://localhost/", "ftp://x", "\xe4",
                                      "http://[::1"])
def test_strange_redirects_end_in_an_error(host, location):
    with Listener(302, b"", {"Location": location}) as server:
        result = ping(host, server.url, max_wait=0)
    assert result["failed"] and result["failure"]["kind"] in ("redirect", "network")


def test_a_redirect_of_a_post_is_not_followed(host, waits):
    with Listener(307, b"", {"Location": "/other"}) as server:
        given = {"url": server.url, "version": "1.50.12", "timestamp": "2026-01-01T00:00:00.000Z"}
        host.fails("peer", "redirect", url=server.url, token=TOKEN, name="web", server=given)
        assert len(server.seen) == 1 and host.files() == {}


def test_plain_http_leaves_this_machine_only_when_allowed(host):
    for url in ("http://192.0.2.1", "http://gate.example.com:3000", "http://127.0.0.1.example.com"):
        text = host.fails("info", "options", url=url, token=TOKEN)
        assert "plain http" in text and "gatecontrol_allow_http" in text
    with Proxy() as proxy:  # nothing leaves: the proxy says 502
        result = ping(host, "http://gate.invalid", allow_http=True, proxy="http://127.0.0.1:%d" % proxy.port, max_wait=0)
        assert result["failure"]["kind"] == "network" and proxy.seen == [("CONNECT", "gate.invalid:80")]


@pytest.mark.parametrize("url", ["gate.example.com", "ftp://gate.example.com", "https://", "https://user:pw@gate.example.com",
                                 "https://gate.example.com?x=1",
                                 "https://gate.example.com:99999", "https://[::1", "https://gäte.example.com",
                                 "https://gate.example.com/a b"])
def test_a_url_that_is_none_is_told(host, url):
    text = host.fails("info", "options", url=url, token=TOKEN)
    assert "https://gate.example.com; correct gatecontrol_url" in text and "pw@" not in text


# ---------------------------------------------------------------- certificates

@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secure(authority):
    with Listener(context=authority.context()) as server:
        yield server


def test_an_unknown_authority_is_refused_before_the_token_is_sent(host, secure):
    secure.seen.clear()
    text = host.fails("info", "tls", url=secure.url, token=TOKEN)
    assert "unable to get local issuer certificate" in text and "gatecontrol_ca_path" in text and secure.seen == []


def test_a_certificate_of_another_name_is_refused(host, secure, authority):
    text = host.fails("info", "tls", url=secure.url.replace("localhost", "127.0.0.1"), token=TOKEN, ca_path=authority.ca)
    assert "127.0.0.1" in text


def test_the_authoritys_file_and_no_check_at_all(host, secure, authority):
    for given in ({"ca_path": authority.ca}, {"validate_certs": False}, {"validate_certs": False, "ca_path": authority.ca}):
        assert not ping(host, secure.url, **given).get("failed")
    assert not ping(host, secure.url.replace("localhost", "127.0.0.1"), ca_path=authority.ca, validate_certs=False).get("failed")


@pytest.mark.parametrize("option", ["ca_path", "client_cert", "client_key"])
def test_a_certificate_file_that_is_none_is_named(host, secure, authority, option, tmp_path):
    (tmp_path / "bad.pem").write_text("no certificate")
    certificate, _key = authority.issue("client")
    for path in (str(tmp_path / "bad.pem"), "/nowhere.pem"):
        given = {option: path, **({"client_cert": certificate} if option == "client_key" else {})}
        assert option in host.fails("info", "options", url=secure.url, token=TOKEN, **given)


def test_a_client_certificate(host, authority):
    certificate, key = authority.issue("client")
    with Listener(context=authority.context(client_ca=authority.ca)) as server:
        assert not ping(host, server.url, ca_path=authority.ca, client_cert=certificate, client_key=key).get("failed")
        result = ping(host, server.url, ca_path=authority.ca, max_wait=0)
        assert result["failure"]["kind"] in ("tls", "network") and len(server.seen) == 1


def test_https_to_a_server_that_speaks_http(gate, host):
    assert "no trusted connection" in host.fails("info", "tls", url=gate.url.replace("http:", "https:"), token=TOKEN)


# ---------------------------------------------------------------- proxies

@pytest.mark.parametrize("secret", [None, "user:p@ss word"])
def test_a_proxy_sees_a_tunnel_and_no_token(gate, host, secure, authority, secret):
    login = "user:p%40ss%20word@" if secret else ""
    with Proxy(secret) as proxy:
        address = "http://%s127.0.0.1:%d" % (login, proxy.port)
        host.ok("info", url=gate.url, token=gate.token(), proxy=address)
        assert not ping(host, secure.url, ca_path=authority.ca, proxy=address).get("failed")
        assert proxy.seen == [("CONNECT", gate.url[7:]), ("CONNECT", secure.url[8:])]
        assert not ping(host, secure.url, ca_path=authority.ca, proxy=address, no_proxy="example.com, localhost").get("failed")
        assert len(proxy.seen) == 2


def test_a_proxys_refusal_is_told_at_once_and_without_the_password(gate, host, waits):
    with Proxy("user:right") as proxy:
        text = host.fails("info", "proxy", url=gate.url, token=gate.token(), proxy="http://user:wr0ngpass@127.0.0.1:%d" % proxy.port)
        assert "407" in text and "gatecontrol_proxy" in text and "wr0ngpass" not in text and "127.0.0.1:%d" % proxy.port in text
        assert waits == [] and gate.seen() == []


@pytest.mark.parametrize("address", ["https://proxy.example.com", "socks5://x", "http://", "http://proxy.example.com:x", "//:3128"])
def test_a_proxy_that_is_none_is_told(host, address):
    assert "gatecontrol_proxy" in host.fails("info", "options", url="https://gate.example.com", token=TOKEN, proxy=address)


def test_the_environments_proxy_is_not_used(gate, host, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    host.ok("info", url=gate.url, token=gate.token())
