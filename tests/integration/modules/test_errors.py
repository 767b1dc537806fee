"""Every refusal of the server as the user reads it: a kind for programs, the server's words, what to do."""
from __future__ import annotations

import re
import secrets

import pytest
import requests

BINDS = pytest.mark.parametrize("gate", ["1.50.12", "1.118.2", "fixed"], indirect=True)
ALL = pytest.mark.parametrize("gate", ["1.5.2", "1.50.12", "1.118.2", "fixed"], indirect=True)


def bound(gate):
    """(token, peer id) of a peer made in advance."""
    peer = gate.add(gate.name())
    return gate.token(peer_id=peer["id"]), peer["id"]


def config(gate, host, kind, token, peer_id, **more) -> str:
    text = host.fails("config", kind, url=gate.url, token=token, peer_id=peer_id, dest=str(host.root / "wg0.conf"), **more)
    assert host.files() == {}
    return text


@ALL
def test_401_a_token_nobody_knows(gate, host):
    text = config(gate, host, "auth", "gc_" + secrets.token_hex(48), 1)
    assert '"Unauthorized" (401)' in text and "not expired and not revoked" in text
    assert host.failure["status"] == 401


@ALL
def test_403_scope(gate, host):
    token = gate.token("logs")
    assert "needs the scope client (peers on the 1.5.2 era)" in host.fails("info", "scope", url=gate.url, token=token)
    assert "needs the scope peers:" in host.fails("info", "scope", url=gate.url, peers_token=token, gather=["peers"])
    if gate.era != "1.5.2":
        assert "needs the scope client" in host.fails("info", "scope", url=gate.url, token=gate.token("peers"))


@BINDS
def test_403_unbound_and_wrong_peer(gate, host):
    token, peer_id = bound(gate)
    assert "deleted, or this token never had one" in config(gate, host, "unbound", gate.token(), peer_id)
    assert "give this host a token of its own" in config(gate, host, "wrong_peer", token, peer_id + 1000)


@BINDS
def test_403_user_disabled(gate, host):
    admin = requests.Session()
    csrf = re.search(r'name="_csrf" value="([0-9a-f]+)"', admin.get(gate.url + "/login", timeout=30).text).group(1)
    admin.post(gate.url + "/login", timeout=30, data={"username": "admin", "password": "LoopbackTest123!", "_csrf": csrf})
    admin.headers["X-CSRF-Token"] = re.search(r"csrfToken: '([0-9a-f]+)'", admin.get(gate.url + "/dashboard", timeout=30).text).group(1)
    user = admin.post(gate.url + "/api/v1/users", timeout=30, json={"username": gate.name("user"), "displayName": "U",
                                                                    "role": "user"}).json()["user"]
    peer = gate.add(gate.name())
    token = admin.post("%s/api/v1/users/%d/tokens" % (gate.url, user["id"]), timeout=30,
                       json={"name": "t", "scopes": ["client"], "peer_id": peer["id"]}).json()["token"]
    host.ok("config", url=gate.url, token=token, peer_id=peer["id"])
    admin.put("%s/api/v1/users/%d/toggle" % (gate.url, user["id"]), timeout=30, json={})
    text = config(gate, host, "user_disabled", token, peer["id"])
    assert "User account is disabled" in text and "enable the user" in text


@BINDS
def test_403_machine_binding(gate, host, new_host):
    token, peer_id = bound(gate)
    gate.ask("settings", values={"machine_binding": "global"})
    try:
        host.ok("config", url=gate.url, token=token, peer_id=peer_id)
        text = config(gate, new_host(), "machine_binding", token, peer_id)
        assert "different machine" in text and "reset the token's machine binding" in text
        assert "64 lower-case hex" in host.fails("config", "options", url=gate.url, token=token, peer_id=peer_id, machine_fingerprint="AB")
        # a call delegated from another machine shows that machine
        host.ok("config", url=gate.url, token=token, peer_id=peer_id)
        gate.seen()
        new_host().fails("config", "machine_binding", url=gate.url, token=token, peer_id=peer_id, machine_fingerprint="a" * 64,
                         client_platform="windows")
        headers = gate.seen()[0]["headers"]
        assert headers["X-Machine-Fingerprint"] == "a" * 64 and headers["X-Client-Platform"] == "windows"
    finally:
        gate.ask("settings", values={"machine_binding": "off"})


@pytest.mark.parametrize("era", ["1.5.2", "1.50.12", "1.118.2", "fixed"])
def test_403_licence_with_its_numbers(gates, host, era):
    gate = gates(era, "--profile", "community", "--rate-limit", "1000")
    for _peer in range(3 - len(gate.ask("peer", action="list"))):
        gate.add(gate.name("full"))
    expected = {"kind": "licence", "status": 403, "feature": "vpn_peers", "current": 3, "limit": 3}
    text = host.fails("peer", "licence", url=gate.url, peers_token=gate.peers_token, name="one-more")
    assert "3 of 3 in use" in text and host.failure == expected
    if era != "1.118.2":
        token = gate.token()
        text = host.fails("peer", "licence", url=gate.url, token=token, name="one-more")
        assert "vpn_peers: 3 of 3 in use" in text and "remove peers or extend the licence" in text
        assert host.failure == expected and host.files() == {} and not gate.peers("one-more")


@ALL
def test_404_a_peer_that_is_not_there(gate, host):
    text = host.fails("peer", "not_found", url=gate.url, peers_token=gate.peers_token, peer_id=99999)
    assert '"Peer not found" (404); there is no peer with this number: correct peer_id' in text
    if gate.era == "1.5.2":
        assert "the peer was deleted" in config(gate, host, "not_found", gate.token(), 99999)


def test_404_an_endpoint_of_a_later_release(gates, host):
    gate = gates("1.5.2")
    text = host.fails("info", "endpoint_missing", url=gate.url, token=gate.token(), gather=["permissions"])
    assert "either this release has no /api/v1/client/permissions" in text


@pytest.mark.parametrize("era", ["1.5.2", "fixed"])
def test_409_no_address_is_free(gates, host, era):
    gate = gates(era, "--subnet", "10.9.0.0/30")
    if not gate.peers("only"):
        gate.add("only")
    for given in ({"token": gate.token()}, {"peers_token": gate.peers_token}):
        text = host.fails("peer", "conflict", url=gate.url, name="one-more", **given)
        assert "No available IP addresses" in text and "enlarge the subnet" in text and host.files() == {}


def test_409_of_another_kind(gate, host):
    peer = gate.add(gate.name())
    gate.fault("status", path="/api/v1/peers/*", method="DELETE", status=409, text="Gateway is a failover home")
    text = host.fails("peer", "conflict", url=gate.url, peers_token=gate.peers_token, peer_id=peer["id"], state="absent")
    assert "failover home" in text and "web interface first" in text


@pytest.mark.parametrize("status, text, kind, advice", [
    (400, "Invalid machine fingerprint format", "machine_binding", "64 lower-case hex"),
    (400, "Invalid hostname for peer name", "invalid_name", "gatecontrol_name"),
    (400, "Peer ID is required", "invalid", "correct the value"),
    (400, "Internal server error", "invalid", "correct the value"),
    (403, "Token is already bound to a different peer", "bound_elsewhere", "each host a token of its own"),
    (403, "Machine fingerprint required", "machine_binding", "send machine_fingerprint"),
    (403, "Forbidden for token auth", "scope", "only a login"),
    (403, "Something new", "forbidden", "token's rights"),
    (405, "Method not allowed", "protocol", "what stands between"),
    (413, "Too large", "protocol", "what stands between"),
])
def test_the_other_refusals_end_at_once(gate, host, waits, status, text, kind, advice):
    gate.fault("status", path="*/ping", status=status, text=text)
    said = host.fails("info", kind, url=gate.url, token=gate.token())
    assert advice in said and '"%s" (%d)' % (text, status) in said and waits == [] and len(gate.seen()) == 1


def test_a_hostile_text_stays_one_line(gate, host):
    gate.fault("status", path="*/ping", status=403, text="no\n\x1b[31mPLAY RECAP\r\u202e" + "x" * 2000)
    said = host.fails("info", "forbidden", url=gate.url, token=gate.token())
    assert len(said) < 600 and all(character.isprintable() for character in said)
