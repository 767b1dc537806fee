"""The client API, release by release."""
from __future__ import annotations

import hashlib
import re

import pytest
from gateclient import eras

NOT_BOUND = {"ok": False, "error": "Token is not bound to a peer. Register first."}
NOT_YOURS = {"ok": False, "error": "Token is not authorized for this peer"}
NO_SCOPE = {"ok": False, "error": "Token does not have permission for this resource"}
BROKEN = {"ok": False, "error": "Client registration failed"}
KEY = "[A-Za-z0-9+/]{43}="


@eras()
def test_ping_tells_the_release_and_the_time(gate):
    answer = gate.get("client/ping", gate.host_token())
    assert answer.status_code == 200 and set(answer.json()) == {"ok", "version", "timestamp"}
    assert answer.json()["version"] == {"fixed": "1.119.0"}.get(gate.era, gate.era)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", answer.json()["timestamp"])


@eras()
def test_who_is_let_in(gate):
    token = gate.host_token()
    for headers in ({"X-API-Token": token}, {"X-API-Key": token}, {"Authorization": "Bearer " + token}):
        assert gate.get("client/ping", headers=headers).status_code == 200
    for headers in ({}, {"X-API-Token": "gc_" + "0" * 96}, {"Authorization": token}, {"X-API-Token": ""}):
        refused = gate.get("client/ping", headers=headers)
        assert (refused.status_code, refused.json()) == (401, {"ok": False, "error": "Unauthorized"})
        assert "RateLimit-Limit" not in refused.headers


@eras()
def test_the_scope_of_the_client_api(gate):
    peers = gate.get("client/ping", gate.admin)
    assert peers.status_code == (200 if gate.era == "1.5.2" else 403)
    refused = gate.get("client/ping", gate.server.token("routes"))
    assert (refused.status_code, refused.json()) == (403, NO_SCOPE)
    assert "RateLimit-Limit" not in refused.headers


@eras("1.5.2")
def test_the_first_release_makes_a_peer_at_every_register(gate):
    token, host = gate.host_token(), gate.unique("web")
    names = [gate.post("client/register", token, {"hostname": host}).json()["peerName"] for turn in range(3)]
    assert names == [host, host + "-1", host + "-2"]


@eras("1.50.12", "fixed")
def test_a_second_register_is_the_same_peer(gate):
    token, host = gate.host_token(), gate.unique("web")
    first = gate.post("client/register", token, {"hostname": host, "platform": "linux 6.1", "clientVersion": "1.0.0"})
    second = gate.post("client/register", token, {"hostname": "another"})
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json() and first.json()["peerName"] == host
    assert first.json()["hash"] == hashlib.sha256(first.json()["config"].encode()).hexdigest()


@eras("1.118.2")
def test_the_broken_release_answers_500_and_leaves_a_peer_bound_to_the_token(gate):
    token, host = gate.host_token(), gate.unique("web")
    for turn in range(2):
        answer = gate.post("client/register", token, {"hostname": host})
        assert (answer.status_code, answer.json()) == (500, BROKEN)
    peer = gate.named(host)
    assert peer and not gate.named(host + "-2")
    assert gate.get("client/config?peerId=%d" % peer["id"], token).json()["peerName"] == host


@eras("1.118.2")
def test_the_broken_release_still_judges_the_hostname(gate):
    unbound, bound = gate.host_token(), gate.host_token(gate.new_peer()["id"])
    assert gate.post("client/register", unbound, {}).status_code == 400
    assert gate.post("client/register", unbound, {"hostname": "-x"}).status_code == 400
    assert gate.post("client/register", bound, {}).status_code == 400
    assert gate.post("client/register", bound, {"hostname": "-x"}).json() == BROKEN


@eras("1.118.2")
def test_the_broken_release_registers_for_a_session(gate):
    session, host = gate.session(), gate.unique("web")
    first = session.call("POST", "client/register", json={"hostname": host})
    second = session.call("POST", "client/register", json={"hostname": host})
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["peerId"] == second.json()["peerId"]


@eras("1.5.2", "1.50.12", "fixed")
def test_another_token_with_the_same_hostname(gate):
    host = gate.unique("twin")
    first = gate.post("client/register", gate.host_token(), {"hostname": host}).json()
    second = gate.post("client/register", gate.host_token(), {"hostname": host}).json()
    third = gate.post("client/register", gate.host_token(), {"hostname": host}).json()
    if gate.era == "1.50.12":  # adopts the peer and hands out its private key
        assert second == first
    else:
        suffixes = ("-1", "-2") if gate.era == "1.5.2" else ("-2", "-3")
        assert (second["peerName"], third["peerName"]) == (host + suffixes[0], host + suffixes[1])
        assert second["config"] != first["config"]


@eras("1.50.12", "fixed")
def test_a_peer_id_in_the_body_is_adopted_by_one_era_only(gate):
    victim = gate.new_peer("victim")
    answer = gate.post("client/register", gate.host_token(), {"hostname": gate.unique("web"), "peerId": victim["id"]})
    assert (answer.json()["peerId"] == victim["id"]) == (gate.era == "1.50.12")


@eras("1.5.2", "1.50.12", "fixed")
@pytest.mark.parametrize(("hostname", "name"), [
    ("Büro PC %s!", "B_ro_PC_%s_"), ("%s.example.org", "%s.example.org"), ("%s" + "x" * 60, None)])
def test_hostnames_become_names(gate, hostname, name):
    mark = gate.unique("n")
    answer = gate.post("client/register", gate.host_token(), {"hostname": hostname % mark})
    assert answer.json()["peerName"] == (name % mark if name else (hostname % mark)[:50])


@eras("1.5.2", "1.50.12", "fixed")
def test_a_hostname_is_counted_as_javascript_counts(gate):
    mark = gate.unique("n")
    answer = gate.post("client/register", gate.host_token(), {"hostname": mark + "\U0001f600" + "x" * 50})
    assert answer.json()["peerName"] == (mark + "__" + "x" * 50)[:50]


@eras("1.5.2", "1.50.12", "fixed")
@pytest.mark.parametrize(("platform", "version", "told"), [
    (None, None, "(unknown, v?)"), ("", 0, "(unknown, v?)"), ("linux", 2, "(linux, v2)"), ("linux", 1.0, "(linux, v1)"),
    ("linux", True, "(linux, vtrue)"), ("linux", [1, None, "a"], "(linux, v1,,a)"), ("linux", {"a": 1}, "(linux, v[object Object])")])
def test_what_a_host_says_of_itself_is_written_as_javascript_does(gate, platform, version, told):
    host = gate.unique("says")
    gate.post("client/register", gate.host_token(), {"hostname": host, "platform": platform, "clientVersion": version})
    assert gate.named(host)["description"].endswith(" Client " + told if gate.era == "1.5.2" else "Client " + told)


@eras("1.5.2", "fixed")
def test_what_the_administrator_sees_of_a_new_host(gate):
    host = gate.unique("seen")
    gate.post("client/register", gate.host_token(), {"hostname": host, "platform": "android", "clientVersion": "2.0"})
    peer = gate.named(host)
    expected = {"1.5.2": ("Desktop Client (android, v2.0)", "desktop-client"),
                "fixed": ("Android Client (android, v2.0)", "mobile-client")}
    assert (peer["description"], peer["tags"]) == expected[gate.era]


@eras()
def test_the_config_text(gate):
    peer = gate.new_peer()
    text = gate.get("client/config?peerId=%d" % peer["id"], gate.host_token(peer["id"])).json()["config"]
    first = gate.era == "1.5.2"
    assert re.fullmatch(
        r"\[Interface\]\nPrivateKey = {key}\nAddress = {ip}/32\nDNS = {dns}\n{mtu}\n\[Peer\]\nPublicKey = {key}\nPresharedKey = {key}\n"
        r"Endpoint = vpn\.example\.com:51820\nAllowedIPs = 0\.0\.0\.0/0\nPersistentKeepalive = 25\n".format(
            key=KEY, ip=re.escape(peer["ip"]), dns=re.escape("1.1.1.1,8.8.8.8" if first else "10.8.0.1"),
            mtu="" if first else "MTU = 1420\n"), text)
    assert "PrivateKey = " + peer["privateKey"] in text and peer["publicKey"] not in text
    assert gate.get("peers/%d/config" % peer["id"], gate.admin).json() == {"ok": True, "config": text, "name": peer["name"]}


@eras()
def test_config_check_compares_the_hash_letter_by_letter(gate):
    peer = gate.new_peer()
    token, path = gate.host_token(peer["id"]), "client/config/check?peerId=%d&hash=" % peer["id"]
    known = gate.get("client/config?peerId=%d" % peer["id"], token).json()
    assert gate.get(path + known["hash"], token).json() == {"ok": True, "updated": False}
    for other in ("", "0", known["hash"].upper()):
        assert gate.get(path + other, token).json() == {
            "ok": True, "updated": True, "config": known["config"], "hash": known["hash"]}


@eras()
def test_what_changes_the_hash(gate):
    peer = gate.new_peer()
    token, path = gate.host_token(peer["id"]), "client/config?peerId=%d" % peer["id"]

    def current():
        return gate.get(path, token).json()["hash"]
    before = current()
    for calm in ({"enabled": False}, {"description": "d", "tags": "t"}, {"expires_at": "2031-01-01T00:00:00.000Z"}, {"enabled": True}):
        gate.put("peers/%d" % peer["id"], calm)
        assert current() == before
    seen = {before}
    for change in ({"dns": "9.9.9.9"}, {"persistentKeepalive": 40}):
        gate.put("peers/%d" % peer["id"], change)
        seen.add(current())
    for change in ({"endpoint": "gate.example.org:51821"}, {"mtu": "1380"}, {"allowed_ips": "10.8.0.0/24"}, {"server_key": "new"}):
        gate.server.ask("settings", values=change)
        seen.add(current())
    assert len(seen) == 7
    gate.server.ask("settings", values={"endpoint": None, "mtu": None, "allowed_ips": None})


@eras()
def test_a_server_without_a_key_hands_out_a_placeholder(gate):
    peer = gate.new_peer()
    gate.server.ask("settings", values={"server_key": "none"})
    assert "PublicKey = <SERVER_PUBLIC_KEY>\n" in gate.get("peers/%d/config" % peer["id"], gate.admin).json()["config"]
    gate.server.ask("settings", values={"server_key": "new"})


@eras(but="1.5.2")
def test_a_token_sees_its_own_peer_only(gate):
    mine, other = gate.new_peer(), gate.new_peer()
    token, unbound = gate.host_token(mine["id"]), gate.host_token()
    for path in ("client/config", "client/config/check", "client/peer-info"):
        assert gate.get("%s?peerId=%d" % (path, mine["id"]), token).status_code == 200
        for wanted in (other["id"], 999999, "abc", 0):
            refused = gate.get("%s?peerId=%s" % (path, wanted), token)
            assert (refused.status_code, refused.json()) == (403, NOT_YOURS)
        refused = gate.get("%s?peerId=%d" % (path, mine["id"]), unbound)
        assert (refused.status_code, refused.json()) == (403, NOT_BOUND)
        assert gate.get(path, token).json() == {"ok": False, "error": "Peer ID is required"}
    for path in ("client/heartbeat", "client/status"):
        assert gate.post(path, token, {"peerId": other["id"]}).json() == NOT_YOURS
        assert gate.post(path, unbound, {"peerId": mine["id"]}).json() == NOT_BOUND


@eras("1.5.2")
def test_in_the_first_release_any_token_sees_any_peer(gate):
    peer = gate.new_peer()
    assert gate.get("client/config?peerId=%d" % peer["id"], gate.host_token()).json()["peerName"] == peer["name"]
    assert gate.get("client/config?peerId=0", gate.host_token()).status_code == 404
    german = gate.get("client/config", gate.host_token(), headers={"Accept-Language": "de"})
    assert german.json()["error"] == "Peer-ID ist erforderlich"
    for path in ("client/peer-info", "client/permissions", "client/traffic"):
        missing = gate.get(path, gate.host_token())
        assert (missing.status_code, missing.json()) == (404, {"error": "Not found"})


@eras()
def test_where_the_peer_id_is_looked_for(gate):
    mine, other = gate.new_peer()["id"], gate.new_peer()["id"]
    token = gate.host_token(mine)

    def heartbeat(query, header, body):
        return gate.post("client/heartbeat" + ("?peerId=%d" % query if query else ""), token, body,
                         headers={"X-Peer-Id": str(header)} if header else {}).status_code
    if gate.era == "1.5.2":  # the body only
        assert heartbeat(mine, mine, {}) == 400
        assert heartbeat(999999, 999999, {"peerId": mine}) == 200
    else:
        assert heartbeat(mine, other, {"peerId": other}) == 200
        assert heartbeat(None, mine, {"peerId": other}) == 200
        assert heartbeat(None, None, {"peerId": str(mine)}) == 200
        assert heartbeat(other, mine, {"peerId": mine}) == 403
    for nothing in (0, None, "", False):
        assert gate.post("client/heartbeat", token, {"peerId": nothing}).status_code == 400
    for other_type in ([], {}, [[]], {"id": mine}, [mine, mine], mine + 0.5, -mine, "x", " ", [None]):  # true for the server's language, and no peer's
        assert gate.post("client/heartbeat", token, {"peerId": other_type}).status_code == (404 if gate.era == "1.5.2" else 403), other_type
    assert gate.get("client/config", token, headers={"X-Peer-Id": str(mine)}).status_code == 200


@eras()
def test_a_disabled_peer_keeps_its_answers(gate):
    peer = gate.new_peer()
    token = gate.host_token(peer["id"])
    gate.put("peers/%d" % peer["id"], {"enabled": False})
    assert gate.get("client/config?peerId=%d" % peer["id"], token).status_code == 200
    answer = gate.post("client/heartbeat", token, {"peerId": peer["id"], "connected": "yes", "rxBytes": -5}).json()
    assert answer == ({"ok": True} if gate.era == "1.5.2" else {"ok": True, "peerEnabled": False})
    if gate.era != "1.5.2":
        assert gate.get("client/peer-info?peerId=%d" % peer["id"], token).json()["peer"]["enabled"] is False


@eras()
def test_a_deleted_peer(gate):
    peer = gate.new_peer()
    token = gate.host_token(peer["id"])
    assert gate.call("DELETE", "peers/%d" % peer["id"], gate.admin).json() == {"ok": True}
    answer = gate.get("client/config?peerId=%d" % peer["id"], token)
    assert (answer.status_code, answer.json()) == ((404, {"ok": False, "error": "Peer not found"}) if gate.era == "1.5.2"
                                                   else (403, NOT_BOUND))
    again = gate.new_peer()
    assert again["ip"] == peer["ip"] and again["id"] != peer["id"] and again["publicKey"] != peer["publicKey"]


@eras(but="1.5.2")
def test_the_client_version_rewrites_the_description(gate):
    peer = gate.new_peer(description="by hand")
    token = gate.host_token(peer["id"])
    gate.get("client/ping", token)
    assert gate.row(peer["id"])["description"] == "by hand"
    gate.get("client/ping", token, headers={"X-Client-Version": "3.1", "X-Client-Platform": "Linux"})
    assert gate.row(peer["id"])["description"] == "Client (Linux, v3.1)"
    gate.put("peers/%d" % peer["id"], {"description": "by hand again"})
    gate.get("client/ping", token, headers={"X-Client-Version": "3.2"})  # not twice within five minutes
    assert gate.row(peer["id"])["description"] == "by hand again"


@eras(but="1.5.2")
@pytest.mark.parametrize(("platform", "label"), [
    ("android", "Android Client"), ("windows", "Desktop Client"), ("win32", "Desktop Client"),
    ("Android", "Client"), ("WINDOWS", "Client"), ("win32 10.0.22631", "Client"), ("darwin", "Client")])
def test_a_platform_is_known_in_one_spelling_only(gate, platform, label):
    peer = gate.new_peer()
    gate.get("client/ping", gate.host_token(peer["id"]), headers={"X-Client-Version": "3.1", "X-Client-Platform": platform})
    assert gate.row(peer["id"])["description"] == "%s (%s, v3.1)" % (label, platform)


@eras(but="1.5.2")
def test_permissions(gate):
    answer = gate.get("client/permissions", gate.server.token("client,client:traffic")).json()
    late = {"pihole": False, "piholeControl": False} if gate.era != "1.50.12" else {}
    assert answer["permissions"] == dict({"services": False, "traffic": True, "dns": False, "rdp": False}, **late)
    assert answer["scopes"] == ["client", "client:traffic"] and ("portalUrl" in answer) == bool(late)
    full = gate.get("client/permissions", gate.server.token("full-access")).json()["permissions"]
    assert full == dict({"services": True, "traffic": True, "dns": True, "rdp": False}, **late)  # full-access is not pihole's
    assert gate.get("client/services", gate.host_token()).json() == NO_SCOPE
    assert gate.get("client/dns-check", gate.server.token("client:dns")).json()["gatewayIp"] == "10.8.0.1"


@eras()
def test_updates_are_public_since_1_20_9(gate):
    known = [gate.get("client/update/" + path).status_code for path in ("check?version=1.0.0", "check", "download")]
    assert known == ([401] * 3 if gate.era == "1.5.2" else [200, 400, 404])
    assert gate.get("client/update/nosuch").status_code == gate.post("client/update/check").status_code == 401
    if gate.era != "1.5.2":
        answer = gate.get("client/update/check?version=1.0.0&client=pro")
        assert answer.json() == {"ok": True, "available": False} and "RateLimit-Limit" in answer.headers
        assert gate.get("client/split-tunnel", gate.host_token()).json() == {
            "ok": True, "mode": "off", "networks": [], "locked": False, "source": "none"}


@eras(but="1.5.2")
def test_machine_binding(gate):
    gate.server.ask("settings", values={"machine_binding": "global"})
    try:
        peer = gate.new_peer()
        token, path = gate.host_token(peer["id"]), "client/config?peerId=%d" % peer["id"]

        def answer(fingerprint):
            reply = gate.get(path, token, headers={"X-Machine-Fingerprint": fingerprint} if fingerprint else {})
            return reply.status_code, reply.json().get("error")
        assert answer(None) == answer("short") == (403, "Machine fingerprint required")
        assert answer("a" * 64)[0] == 200
        assert answer("b" * 64) == (403, "Token is bound to a different machine")
        assert answer("A" * 64) == (400, "Invalid machine fingerprint format")
        assert answer(None)[0] == 403 and answer("a" * 64)[0] == 200
        assert gate.get("client/ping", token).status_code == 200
    finally:
        gate.server.ask("settings", values={"machine_binding": None})


@eras("1.50.12", "fixed")
def test_machine_binding_of_single_tokens(gate):
    session, peer = gate.session(), gate.new_peer()["id"]
    admin = next(user["id"] for user in session.call("GET", "users").json()["users"] if user["username"] == "admin")
    made = session.call("POST", "users/%d/tokens" % admin, json={
        "name": "t", "scopes": ["client", "client:traffic"], "peer_id": peer, "machine_binding_enabled": True}).json()
    binding = "tokens/%d/binding" % made["details"]["id"]

    def statuses(fingerprint):
        headers = {"X-Machine-Fingerprint": fingerprint} if fingerprint else {}
        reads = [gate.get("client/%s?peerId=%d" % (path, peer), made["token"], headers=headers)
                 for path in ("config", "config/check", "peer-info", "traffic")]
        writes = [gate.post("client/" + path, made["token"], {"peerId": peer}, headers=headers) for path in ("heartbeat", "status")]
        return {answer.status_code for answer in reads + writes}
    gate.server.ask("settings", values={"licence.machine_binding": False})
    try:
        refused = session.call("DELETE", binding)
        assert (refused.status_code, refused.json()["feature"]) == (403, "machine_binding") and statuses(None) == {200}
        gate.server.ask("settings", values={"machine_binding": "individual"})
        assert gate.get("client/config?peerId=%d" % peer, gate.host_token(peer)).status_code == 200
        assert statuses(None) == {403} and statuses("a" * 64) == {200} and statuses("b" * 64) == {403} and statuses("x") == {400}
        for path in ("ping", "permissions", "split-tunnel"):
            assert gate.get("client/" + path, made["token"]).status_code == 200
        assert session.call("DELETE", binding).json() == {"ok": True} and statuses("b" * 64) == {200}
        assert session.call("PUT", binding, json={"enabled": 0}).json()["error"] == "enabled must be a boolean"
        assert session.call("PUT", binding, json={"enabled": False}).json() == {"ok": True} and statuses(None) == {200}
    finally:
        gate.server.ask("settings", values={"machine_binding": None, "licence.machine_binding": None})


@eras(but="1.5.2")
def test_split_tunnel_presets(gate):
    session, preset = gate.session(), {"mode": "exclude", "networks": [{"cidr": "192.168.0.0/16", "label": "lan"}], "locked": True}
    assert session.call("PUT", "settings/split-tunnel", json=preset).json()["error"] == "Feature not licensed"
    own = session.call("POST", "tokens", json={
        "name": "t", "scopes": ["client"], "split_tunnel_override": {"mode": "include", "networks": [{"cidr": "10.0.0.0/8"}]}}).json()
    gate.server.ask("settings", values={"licence.split_tunnel_preset": True})
    try:
        assert session.call("PUT", "settings/split-tunnel", json=preset).json() == {"ok": True}
        for bad in ({"mode": "all"}, {"networks": [{"cidr": "fd00::/8"}]}, {"networks": [{"cidr": "10.0.0.0/8"}] * 51},
                    {"networks": [{"cidr": "10.0.0.0/8", "label": "x" * 101}]}):
            assert session.call("PUT", "settings/split-tunnel", json=dict(preset, **bad)).status_code == 400
        assert gate.get("client/split-tunnel", gate.host_token()).json() == dict(preset, ok=True, source="global")
        assert gate.get("client/split-tunnel", own["token"]).json() == {
            "ok": True, "mode": "include", "networks": [{"cidr": "10.0.0.0/8"}], "locked": False, "source": "token"}
    finally:
        gate.server.ask("settings", values={"licence.split_tunnel_preset": None, "split_tunnel": None})


@eras(but="1.5.2")
def test_traffic_of_a_peer(gate):
    mine, other = gate.new_peer()["id"], gate.new_peer()["id"]
    gate.server.ask("peer", action="set", peer=str(mine), values={"total_rx": 5, "total_tx": 7})
    token = gate.server.token("client:traffic", peer_id=mine)
    told = gate.get("client/traffic?peerId=%d" % mine, token).json()
    assert set(told["traffic"]) == {"total", "last24h", "last7d", "last30d"} and told["traffic"]["total"] == {"rx": 5, "tx": 7}
    assert gate.get("client/traffic?peerId=%d" % other, token).json() == NOT_YOURS
    assert gate.get("client/traffic", token).status_code == 400 and gate.get("client/ping", token).json() == NO_SCOPE


@eras("1.50.12", "fixed")
def test_machine_binding_at_register(gate):
    gate.server.ask("settings", values={"machine_binding": "global"})
    try:
        token, body = gate.host_token(), {"hostname": gate.unique("web")}

        def status(fingerprint):
            headers = {"X-Machine-Fingerprint": fingerprint} if fingerprint else {}
            return gate.post("client/register", token, body, headers=headers).status_code
        assert [status(None), status("short"), status("a" * 64), status("b" * 64), status("a" * 64)] == [400, 400, 200, 403, 200]
        assert gate.named(body["hostname"])
    finally:
        gate.server.ask("settings", values={"machine_binding": None})


@eras(but="1.5.2")
def test_dns_names(gate):
    gate.server.ask("settings", values={"licence.internal_dns": False})
    first, second = gate.new_peer(), gate.new_peer()
    refused = gate.post("client/peer/hostname", gate.host_token(first["id"]), {"hostname": "db"})
    assert (refused.status_code, refused.json()["feature"]) == (403, "internal_dns")
    gate.server.ask("settings", values={"licence.internal_dns": True})
    tokens = [gate.host_token(peer["id"]) for peer in (first, second)]
    name = gate.unique("db")
    assert gate.post("client/peer/hostname", tokens[0], {"hostname": name.upper()}).json() == {
        "ok": True, "assigned": name, "changed": True}
    gate.post("client/heartbeat", tokens[1], {"peerId": second["id"], "hostname": name})
    assert gate.row(second["id"])["hostname"] == name + "-2"
    assert gate.post("client/peer/hostname", tokens[0], {"hostname": "vpn"}).status_code == 400
    assert gate.post("client/peer/hostname", tokens[0], {"hostname": "a.b"}).status_code == 400
    limited = gate.post("client/peer/hostname", tokens[0], {"hostname": name})
    assert limited.status_code == 429 and limited.headers["RateLimit-Policy"] == "3;w=60"


@eras()
def test_bodies_that_are_no_json_objects(gate):
    token = gate.host_token()
    for raw in ("{not json", "5", '"x"', "null", '{"a": NaN}'):
        for sender in (token, None):
            answer = gate.call("POST", "client/heartbeat", sender, data=raw, headers={"Content-Type": "application/json"})
            assert (answer.status_code, answer.json()) == (400, {"error": "Internal server error"})
            assert "RateLimit-Limit" not in answer.headers
    for raw, kind in (("[]", "application/json"), ('{"peerId": 1}', "text/plain"), ("", "application/json")):
        answer = gate.call("POST", "client/heartbeat", token, data=raw, headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()) == (400, {"ok": False, "error": "Peer ID is required"})
    for size, status in ((1024**2, 400), (1024**2 + 1, 413)):
        body = b'{"a":"' + b"x" * (size - 8) + b'"}'
        assert gate.call("POST", "client/heartbeat", token, data=body, headers={"Content-Type": "application/json"}).status_code == status
    page = gate.call("POST", "/login", data="{not json", headers={"Content-Type": "application/json"})
    assert page.status_code == 400 and page.headers["Content-Type"] == "text/html; charset=utf-8"
    deep = gate.call("POST", "client/heartbeat", token, data="[" * 200_000, headers={"Content-Type": "application/json"})
    assert (deep.status_code, deep.json()) == (400, {"error": "Internal server error"})


@eras()
def test_paths_that_are_not_there(gate):
    token = gate.host_token()
    for method, path in (("GET", "client/nosuch"), ("PUT", "client/heartbeat"), ("GET", "client/register"), ("GET", "/api/client/ping")):
        answer = gate.call(method, path, token)
        assert (answer.status_code, answer.json()) == (404, {"error": "Not found"})
    assert gate.get("nosuch", token).json() == NO_SCOPE
    assert gate.get("client/nosuch").status_code == 401
    page = gate.get("/nosuch")
    assert page.status_code == 404 and page.headers["Content-Type"].startswith("text/html")


@eras()
def test_headers_of_every_answer(gate):
    peer = gate.new_peer()
    token, path = gate.host_token(peer["id"]), "client/config?peerId=%d" % peer["id"]
    answer = gate.get(path, token)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and "Server" not in answer.headers
    etag = answer.headers["ETag"]
    assert etag.startswith('W/"')
    for known in (etag, etag[2:], '"x", ' + etag):
        same = gate.get(path, token, headers={"If-None-Match": known})
        assert same.status_code == 304 and not same.content and same.headers["ETag"] == etag
        assert "Content-Type" not in same.headers
    assert gate.get(path, token, headers={"If-None-Match": 'W/"other"'}).status_code == 200


@eras()
def test_texts_follow_the_language(gate):
    token = gate.host_token()
    for language, text in (("de", "Hostname ist erforderlich"), ("de-DE,de;q=0.9,en;q=0.8", "Hostname ist erforderlich"),
                           ("en,de", "Hostname is required"), ("fr", "Hostname is required")):
        assert gate.post("client/register", token, {}, headers={"Accept-Language": language}).json()["error"] == text
    assert gate.post("client/register?lang=de", token, {}).json()["error"] == "Hostname ist erforderlich"
    assert gate.post("client/register?lang=en", token, {}, headers={"Accept-Language": "de"}).json()["error"] == "Hostname is required"
    assert gate.get("client/ping", headers={"Accept-Language": "de"}).json()["error"] == "Unauthorized"


@eras()
def test_a_session_is_answered_in_its_language_too(gate):
    session = gate.session()
    for path in ("client/config?peerId=999999&lang=de", "peers/999999?lang=de"):
        assert session.call("GET", path).json() == {"ok": False, "error": "Peer nicht gefunden"}
    late = [("GET", "client/peer-info?peerId=999999&lang=de")] if gate.era != "1.5.2" else []
    for method, path in [("POST", "client/heartbeat?lang=de"), ("POST", "client/status?lang=de")] + late:
        refused = session.call(method, path, json={"peerId": 999999})
        assert (refused.status_code, refused.json()["error"]) == (404, "Peer nicht gefunden")


@eras()
@pytest.mark.parametrize("wanted", ["1_0", "nan", "1e400", "1%00", "%D9%A1"])
def test_a_peer_id_that_is_no_number_to_javascript(gate, wanted):
    first = gate.get("peers?limit=1", gate.admin).json()["peers"] or [gate.new_peer()]
    refused = gate.get("client/config?peerId=" + wanted, gate.host_token(first[0]["id"]))
    assert refused.status_code == (404 if gate.era == "1.5.2" else 403)
