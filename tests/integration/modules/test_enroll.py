"""gatecontrol_peer on the host: registering, resuming, refusing, adopting, moving."""
from __future__ import annotations

import re
import shutil
import sys

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment, _facts, _verify

from gateserver.running import Server

REGISTERS = pytest.mark.parametrize("gate", ["1.5.2", "1.50.12", "fixed"], indirect=True)
BINDS = pytest.mark.parametrize("gate", ["1.50.12", "fixed"], indirect=True)
ALL = pytest.mark.parametrize("gate", ["1.5.2", "1.50.12", "1.118.2", "fixed"], indirect=True)


def server_of(gate, token, host) -> dict:
    server = host.ok("info", url=gate.url, token=token)["server"]
    gate.seen()
    return server


def enroll(gate, host, name, token=None, **more) -> dict:
    return host.ok("peer", url=gate.url, token=token or gate.token(), name=name, **more)


@REGISTERS
def test_a_host_registers_with_one_request_and_needs_no_token_afterwards(gate, host):
    token, name = gate.token(), gate.name()
    server = server_of(gate, token, host)
    result = host.ok("peer", url=gate.url, token=token, name=name, server=server)
    entry, = gate.seen()
    assert (entry["method"], entry["path"], entry["status"]) == ("POST", "/api/v1/client/register", 201)
    headers = entry["headers"]
    assert headers["X-Client-Version"] == _verify.VERSION and headers["X-Client-Platform"] == sys.platform
    assert re.fullmatch("[0-9a-f]{64}", headers["X-Machine-Fingerprint"]) and headers["Accept-Language"] == "en"
    assert entry["body"]["hostname"] == name and entry["body"]["clientVersion"] == _verify.VERSION and "peerId" not in entry["body"]
    peer, = gate.peers(name)
    assert result["peer"] == {"id": peer["id"], "name": name} and result["created"] and result["changed"] and result["reporting"] == "full"
    assert result["diff"]["after"] == {"peer_id": peer["id"], "peer_name": name, "url": gate.url}
    assert host.record["token_digest"] == _enrollment.digest(token) and host.record["fingerprint"] == headers["X-Machine-Fingerprint"]
    assert set(host.files()) == {_enrollment.FILES[key] for key in ("enrollment", "token", "offered")}
    assert all(path.stat().st_mode & 0o077 == 0 for path in host.root.rglob("*gatecontrol*/*"))
    assert result["hash"] == _enrollment.digest(host.store.text("offered"))

    host.store.save("issued", host.store.text("offered"))
    host.store.save("enrollment", dict(host.record, hash=result["hash"]))
    before = host.files()
    for given in ({"token": token}, {}):
        again = host.ok("peer", url=gate.url, name=name, **given)
        assert not again["changed"] and not again["created"] and again["hash"] == result["hash"]
        assert gate.calls() == ["GET config/check 200"] and host.files() == before


@REGISTERS
def test_without_a_ping_of_the_play_it_pings_itself(gate, host):
    enroll(gate, host, gate.name())
    assert gate.calls() == ["GET ping 200", "POST register 201"]


def test_a_ping_of_another_server_is_not_believed(gate, host):
    enroll(gate, host, gate.name(), server={"url": "https://gate.example.com", "version": "1.118.2",
                                            "timestamp": "2026-01-01T00:00:00.000Z"})
    assert gate.calls() == ["GET ping 200", "POST register 201"]


@ALL
def test_check_mode_of_a_new_host_asks_and_writes_nothing(gate, host):
    result = host.ok("peer", check=True, url=gate.url, token=gate.token(), name="web")
    assert result["changed"] and result["hash"] is None and result["peer"] == {"id": None, "name": "web"}
    assert gate.calls() == [] and host.files() == {}


@REGISTERS
def test_check_mode_of_an_enrolled_host_asks_once_and_writes_nothing(gate, host):
    name = gate.name()
    peer = enroll(gate, host, name)["peer"]
    gate.seen()
    before = host.files()
    gate.ask("settings", values={"mtu": "1333"})
    try:
        assert not host.ok("peer", check=True, url=gate.url, name=name)["changed"]
        assert gate.calls() == ["GET config/check 200"] and host.files() == before
        host.ok("peer", url=gate.url, name=name)
        assert "MTU = 1333" in host.store.text("offered")
    finally:
        gate.ask("settings", values={"mtu": None})
    assert host.record["peer_id"] == peer["id"]


def test_the_diff_and_the_result_show_no_secret(gate, host):
    token = gate.token()
    text = str(enroll(gate, host, gate.name(), token))
    keys = re.findall(r"[A-Za-z0-9+/]{43}=", host.store.text("offered"))
    assert len(keys) == 3 and token not in text and not any(key in text for key in keys)


def test_registering_on_a_broken_release_is_refused_before_it_leaves_a_peer(gates, host):
    gate = gates("1.118.2")
    gate.seen()
    token, name = gate.token(), gate.name()
    text = host.fails("peer", "register_broken", url=gate.url, token=token, name=name)
    assert "1.118.2" in text and "gatecontrol_peers_token" in text and "gatecontrol_peer_id" in text
    assert gate.calls() == ["GET ping 200"] and gate.peers(name) == [] and host.files() == {}
    server = server_of(gate, token, host)
    assert server["register"] == "broken"
    for check in (True, False):
        host.fails("peer", "register_broken", check=check, url=gate.url, token=token, name=name, server=server)
    assert gate.calls() == []


@ALL
def test_a_peer_made_on_the_controller_and_a_token_bound_to_it(gate, host, new_host):
    name = gate.name()
    made = new_host().ok("peer", url=gate.url, peers_token=gate.peers_token, name=name)
    token = gate.token(peer_id=made["peer"]["id"])
    gate.seen()
    result = host.ok("peer", url=gate.url, token=token, peer_id=made["peer"]["id"])
    assert gate.calls() == ["GET config 200"]
    assert result["peer"] == {"id": made["peer"]["id"], "name": name} and result["changed"] and not result["created"]
    assert result["reporting"] == "full"
    assert not host.ok("peer", url=gate.url, token=token, peer_id=made["peer"]["id"])["changed"]
    assert gate.calls() == ["GET config/check 200"] and host.record["fields"] is None
    number = made["peer"]["id"]
    for fields, peer_id, changed in (("a" * 64, number, True), ("a" * 64, number, False), ("b" * 64, number + 1, False)):  # what the controller has brought
        settled = {"fields": fields, "peer_id": peer_id}
        assert host.ok("peer", url=gate.url, settled=settled)["changed"] is changed and host.record["fields"] == "a" * 64
    assert not host.ok("peer", url=gate.url)["changed"]


@ALL
def test_a_config_read_on_the_controller_makes_a_host_that_does_not_report(gate, host, new_host):
    name = gate.name()
    made = new_host().ok("peer", url=gate.url, peers_token=gate.peers_token, name=name, return_config=True)
    assert made["hash"] == _enrollment.digest(made["config"])
    gate.seen()
    given = {"url": gate.url, "name": name, "peer_id": made["peer"]["id"], "issued_config": made["config"]}
    assert host.ok("peer", check=True, **given)["changed"] and host.files() == {}
    result = host.ok("peer", **given)
    assert result["changed"] and result["reporting"] == "none" and result["hash"] == made["hash"]
    assert not host.ok("peer", **given)["changed"] and "etc/gatecontrol/token" not in host.files()
    assert gate.calls() == []
    text = host.fails("peer", "no_secret", url=gate.url, name=name)
    assert "gatecontrol_peers_token" in text and name in text

    token = gate.token(peer_id=made["peer"]["id"])  # a token bound to the peer makes it everything
    result = host.ok("peer", url=gate.url, name=name, token=token)
    assert result["changed"] and result["reporting"] == "full" and gate.calls() == ["GET config/check 200"]
    if gate.era != "1.5.2":
        stranger = gate.token()
        shutil.rmtree(host.root / "etc/gatecontrol")
        text = host.fails("peer", "unbound", token=stranger, **given)
        assert "etc/gatecontrol/enrollment.json" not in host.files()


def test_a_peers_token_way_host_follows_the_controller_to_a_new_peer_of_its_name(gate, host, new_host):
    controller, name = new_host(), gate.name()

    def given(peer_name):
        made = controller.ok("peer", url=gate.url, peers_token=gate.peers_token, name=peer_name, return_config=True)
        return {"url": gate.url, "name": peer_name, "peer_id": made["peer"]["id"], "issued_config": made["config"]}
    host.ok("peer", **given(name))
    gate.delete(name)
    renewed = given(name)
    assert host.ok("peer", **renewed)["changed"] and host.record["peer_id"] == renewed["peer_id"]
    other = given(gate.name("db"))
    before = host.files()
    text = host.fails("peer", "other_peer", **other)
    assert name in text and other["name"] in text and host.files() == before
    assert host.ok("peer", adopt=True, **other)["peer"]["name"] == other["name"]


# ---------------------------------------------------------------- interrupted

class Killed(Exception):
    """Stands for a run that ends at once."""


def kill_at_write(monkeypatch, number: int) -> None:
    """Let the store's write of this number, and every later one, fail."""
    save, count = _enrollment.Store.save, [0]

    def counted(store, name, value):
        count[0] += 1
        if count[0] >= number:
            raise Killed(name)
        save(store, name, value)
    monkeypatch.setattr(_enrollment.Store, "save", counted)


@REGISTERS
@pytest.mark.parametrize("write", [1, 2, 3, 4])  # the intent, the server's text, the token, the enrollment
def test_a_run_killed_between_two_writes_goes_on_with_its_own_peer(gate, host, monkeypatch, write):
    token, name = gate.token(), gate.name()
    with monkeypatch.context() as patch:
        kill_at_write(patch, write)
        with pytest.raises(Killed):
            host.module("peer", url=gate.url, token=token, name=name)
    assert host.record is None and len(gate.peers(name)) == (write > 1)
    result = host.ok("peer", url=gate.url, token=token, name=name)
    peer, = gate.peers(name)
    assert result["peer"]["id"] == peer["id"] and result["created"] and not result["adopted"]
    assert host.record["peer_id"] == peer["id"] and host.store.load("intent") is None


@ALL
@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_run_with_a_bound_token_that_is_killed_goes_on(gate, host, monkeypatch, write):
    peer = gate.add(gate.name())
    given = {"url": gate.url, "token": gate.token(peer_id=peer["id"]), "peer_id": peer["id"]}
    with monkeypatch.context() as patch:
        kill_at_write(patch, write)
        with pytest.raises(Killed):
            host.module("peer", **given)
    assert (host.record is None) == (write < 3), "the token is written before its first request, and then the record"
    assert host.ok("peer", **given)["peer"]["id"] == peer["id"] and host.ok("peer", **given)["changed"] is False


@pytest.mark.parametrize("spoiled", ["gc_changed\n", ""])
def test_a_token_file_that_was_changed_is_written_again(gate, host, spoiled):
    token, name = gate.token(), gate.name()
    enroll(gate, host, name, token)
    host.store.save("token", spoiled)
    assert host.ok("peer", check=True, url=gate.url, token=token, name=name)["changed"] and host.store.text("token") == spoiled
    assert host.ok("peer", url=gate.url, token=token, name=name)["changed"] and host.store.text("token").strip() == token
    assert not host.ok("peer", url=gate.url, token=token, name=name)["changed"]


def test_an_intent_does_not_outlive_its_enrollment(gate, host):
    token, name = gate.token(), gate.name()
    enroll(gate, host, name, token)
    host.store.save("intent", {"url": gate.url})  # of a run killed after its last write
    assert not host.ok("peer", url=gate.url, name=name)["changed"] and host.store.load("intent") is None


@REGISTERS
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_to_register_never_makes_a_second_peer(gate, host, waits, when):
    token, name = gate.token(), gate.name()
    gate.fault("drop", path="*/register", when=when, count=1)
    first = host.module("peer", url=gate.url, token=token, name=name)
    assert [call for call in gate.calls() if "register" in call] == ["POST register %d" % (503 if when == "before" else 201)]
    assert waits == []
    if gate.era == "1.5.2" and when == "after":  # its token may look
        assert first["created"] and not first.get("failed")
    else:
        assert first["failure"] == {"kind": "uncertain", "status": None, "cause": "network"}
        assert name in first["msg"] and "run the play again" in first["msg"] and set(host.files()) == {"etc/gatecontrol/intent.json"}
    result = host.ok("peer", url=gate.url, token=token, name=name)
    peer, = gate.peers(name)
    assert result["peer"] == {"id": peer["id"], "name": name}


@pytest.mark.parametrize("kind", ["html", "invalid-json", "cut", "status"])
def test_a_spoiled_answer_to_register_is_told_and_resumed(gate, host, waits, kind):
    token, name = gate.token(), gate.name()
    gate.fault(kind, path="*/register", when="after", count=1)
    text = host.fails("peer", "uncertain", url=gate.url, token=token, name=name)
    assert name in text and host.failure["cause"] in ("protocol", "network", "server")
    assert host.ok("peer", url=gate.url, token=token, name=name)["created"] and len(gate.peers(name)) == 1


def test_an_interrupted_run_that_took_the_licences_last_peer_goes_on_by_its_number(gates, host, waits):
    gate = gates("1.50.12", "--profile", "community", "--rate-limit", "1000")
    for _peer in range(2 - len(gate.ask("peer", action="list"))):
        gate.add(gate.name("full"))
    for peer in gate.ask("peer", action="list")[2:]:
        gate.delete(peer["id"])
    token, name = gate.token(), gate.name()
    gate.fault("drop", path="*/register", when="after", count=1)
    host.fails("peer", "uncertain", url=gate.url, token=token, name=name)
    text = host.fails("peer", "licence", url=gate.url, token=token, name=name)
    assert "3 of 3 in use" in text and "gatecontrol_peer_id" in text and host.failure["limit"] == 3
    peer, = gate.peers(name)
    assert host.ok("peer", url=gate.url, token=token, name=name, peer_id=peer["id"])["peer"]["id"] == peer["id"]


def test_a_register_that_answers_500_names_the_other_ways(gate, host, waits):
    token, name = gate.token(), gate.name()
    gate.fault("status", path="*/register", status=500, count=1, text="Client registration failed")
    text = host.fails("peer", "uncertain", url=gate.url, token=token, name=name)
    assert "Client registration failed" in text and "gatecontrol_peers_token" in text and waits == []


def test_the_1_6_0_era_cannot_tell_what_was_made_and_says_so(gates, host, waits):
    gate = gates("1.6.0")
    gate.seen()
    token, name = gate.token("client"), gate.name()
    gate.fault("drop", path="*/register", when="after", count=1)
    host.fails("peer", "uncertain", url=gate.url, token=token, name=name)
    gate.calls()
    for _run in range(2):
        text = host.fails("peer", "not_ours", url=gate.url, token=token, name=name)
        assert "peer %s or %s-1" % (name, name) in text and "gatecontrol_state=absent" in text
        assert not any("register" in call for call in gate.calls()) and len(gate.peers(name)) == 1


def test_the_1_5_2_era_does_not_take_a_peer_that_is_in_use(gates, host, monkeypatch):
    gate = gates("1.5.2")
    token, name = gate.token(), gate.name()
    with monkeypatch.context() as patch:
        kill_at_write(patch, 1)
        with pytest.raises(Killed):
            host.module("peer", url=gate.url, token=token, name=name)
    host.store.save("intent", {"url": gate.url, "token_digest": _enrollment.digest(token), "name": name,
                               "server_time": "2026-01-01T00:00:00.000Z",
                               "fingerprint": _fingerprint(host)})
    gate.add(name)
    gate.set(name, latest_handshake=1790000000)
    assert host.ok("peer", url=gate.url, token=token, name=name)["peer"]["name"] == name + "-1"
    host.store.drop("enrollment", "token")
    host.store.save("intent", {"url": gate.url, "token_digest": _enrollment.digest(token), "name": name,
                               "server_time": "2026-01-01T00:00:00.000Z",
                               "fingerprint": _fingerprint(host)})
    gate.add(name + "-7")
    text = host.fails("peer", "not_ours", url=gate.url, token=token, name=name)
    assert name + "-1, " + name + "-7" in text


def _fingerprint(host) -> str:
    return _facts.machine_fingerprint(str(host.root))


# ---------------------------------------------------------------- whose peer is it

def test_a_peer_of_the_same_name_is_another_machines_until_the_user_says_so(gates, host, new_host):
    gate = gates("1.50.12")
    name = gate.name()
    other = enroll(gate, new_host(), name)
    gate.seen()
    token = gate.token()
    text = host.fails("peer", "not_ours", url=gate.url, token=token, name=name)
    assert "gatecontrol_adopt=true" in text and "id %d" % other["peer"]["id"] in text and host.files() == {}
    assert "PrivateKey" not in text and host.failure["peer_id"] == other["peer"]["id"]
    host.fails("peer", "not_ours", url=gate.url, token=token, name=name)  # nor the second time
    result = host.ok("peer", url=gate.url, token=token, name=name, adopt=True)
    assert result["adopted"] and not result["created"] and result["peer"] == other["peer"] and len(gate.peers(name)) == 1


@BINDS
def test_a_token_of_a_second_machine_is_refused(gate, host, new_host):
    token, name, second = gate.token(), gate.name(), new_host()
    enroll(gate, host, name, token)
    text = second.fails("peer", "not_ours", url=gate.url, token=token, name=gate.name("db"))
    assert name in text and second.files() == {}


def test_a_clone_is_refused_until_it_has_a_token_of_its_own(gate, host, new_host):
    token, name = gate.token(), gate.name()
    enroll(gate, host, name, token)
    clone = new_host()
    shutil.copytree(host.root / "etc/gatecontrol", clone.root / "etc/gatecontrol")
    gate.seen()
    for given in ({}, {"token": token}):
        text = clone.fails("peer", "clone", url=gate.url, name=name, **given)
        assert name in text and "token of its own" in text
    text = clone.fails("config", "clone")
    assert name in text
    assert gate.calls() == []
    result = clone.ok("peer", url=gate.url, name=name + "b", token=gate.token())
    assert result["created"] and result["peer"]["name"] == name + "b" and clone.record["fingerprint"] == _fingerprint(clone)


def test_a_host_with_a_new_machine_id_keeps_its_peer_when_told_so(gate, host):
    name = gate.name()
    peer = enroll(gate, host, name)["peer"]
    (host.root / "etc/machine-id").write_text("f" * 32 + "\n", encoding="ascii")
    host.fails("peer", "clone", url=gate.url, name=name)
    result = host.ok("peer", url=gate.url, name=name, adopt=True)
    assert result["changed"] and result["peer"] == peer and host.record["fingerprint"] == _fingerprint(host)
    assert not host.ok("peer", url=gate.url, name=name)["changed"]


def test_a_rotated_token_for_the_same_peer_is_taken_over(gate, host):
    name = gate.name()
    peer = enroll(gate, host, name)["peer"]
    token = gate.token(peer_id=peer["id"])
    gate.seen()
    result = host.ok("peer", url=gate.url, name=name, token=token)
    assert result["changed"] and result["peer"] == peer and host.store.text("token") == token + "\n"
    assert gate.calls() == ["GET config/check 200"]
    assert not host.ok("peer", url=gate.url, name=name, token=token)["changed"]


@BINDS
def test_a_token_of_another_peer_is_refused_on_an_enrolled_host(gate, host, new_host):
    name = gate.name()
    enroll(gate, host, name)
    before = host.files()
    for token in (gate.token(), gate.token(peer_id=gate.add(gate.name("db"))["id"])):
        gate.seen()
        text = host.fails("peer", "other_token", url=gate.url, name=name, token=token)
        assert name in text and "second peer was not made" in text
        assert gate.calls() == ["GET config/check 403", "GET config/check 200"] and host.files() == before


@REGISTERS
def test_a_deleted_peer_is_made_anew_where_a_secret_is_given(gate, host):
    token, name = gate.token(), gate.name()
    first = enroll(gate, host, name, token)["peer"]
    gate.delete(first["id"])
    text = host.fails("peer", "not_found" if gate.era == "1.5.2" else "unbound", url=gate.url, name=name)
    assert "run the play with a secret for this host" in text and host.record["peer_id"] == first["id"]
    gate.seen()
    result = host.ok("peer", url=gate.url, name=name, token=token)
    assert result["created"] and result["peer"]["id"] != first["id"] and len(gate.peers(name)) == 1
    assert gate.calls() == ["GET config/check %d" % (404 if gate.era == "1.5.2" else 403), "GET ping 200", "POST register 201"]
    gate.delete(name)
    assert host.ok("peer", url=gate.url, name=name, token=gate.token())["created"]  # or with a new token


def test_a_deleted_peer_is_replaced_by_the_one_the_controller_made(gates, host):
    gate = gates("1.118.2")
    name = gate.name()
    for _time in range(2):
        peer = gate.add(name)
        token = gate.token(peer_id=peer["id"])
        assert host.ok("peer", url=gate.url, token=token, peer_id=peer["id"])["peer"] == {"id": peer["id"], "name": name}
        assert host.store.text("token") == token + "\n"
        gate.delete(name)


def test_another_interface_is_refused(gate, host):
    name = gate.name()
    enroll(gate, host, name)
    assert "wg0" in host.fails("peer", "other_interface", url=gate.url, name=name, interface="wg1")


# ---------------------------------------------------------------- other servers

def test_a_renamed_server_is_the_same_and_another_one_is_not(gates, host, tmp_path):
    state = str(tmp_path / "gate.db")
    gate, name = gates("fixed"), "web01"
    with Server("--era", "fixed", "--state", state) as server:
        token = server.token("client")
        peer = host.ok("peer", url=server.url, token=token, name=name)["peer"]
    with Server("--era", "fixed", "--state", state) as server:
        result = host.ok("peer", url=server.url, name=name)
        assert result["changed"] and result["peer"] == peer and host.record["url"] == server.url
        assert not host.ok("peer", url=server.url, name=name)["changed"]
    before = host.files()
    token, gate_name = gate.token(), gate.name()
    gate.seen()
    text = host.fails("peer", "other_server", url=gate.url, name=gate_name, token=token)
    assert server.url in text and "gatecontrol_move=true" in text
    host.fails("peer", "other_server", url=gate.url, name=gate_name)
    assert host.files() == before and not any("register" in call for call in gate.calls())
    result = host.ok("peer", url=gate.url, name=gate_name, token=token, move=True)
    assert result["created"] and host.record["url"] == gate.url and host.record["peer_name"] == gate_name


def test_a_restored_server_with_another_key_is_another_server(gates, host, tmp_path):
    state = str(tmp_path / "gate.db")
    with Server("--era", "fixed", "--state", state) as server:
        peer = host.ok("peer", url=server.url, token=server.token("client"), name="web01")["peer"]
    with Server("--era", "fixed", "--state", state) as server:
        server.ask("settings", values={"server_key": "new"})
        before = host.files()
        host.fails("peer", "other_server", url=server.url, name="web01")
        assert host.files() == before
        result = host.ok("peer", url=server.url, name="web01", move=True)
        assert result["peer"] == peer and not result["created"] and len(server.ask("peer", action="list")) == 1
        assert not host.ok("peer", url=server.url, name="web01")["changed"]


# ---------------------------------------------------------------- names and secrets

@pytest.mark.parametrize("name", ["-x", "_x", "übel", ".hidden"])
@pytest.mark.parametrize("check", [True, False])
def test_a_name_the_server_would_refuse_is_not_sent(gate, host, name, check):
    token = gate.token()
    text = host.fails("peer", "invalid_name", check=check, url=gate.url, token=token, name=name)
    assert repr(name) in text and "gatecontrol_name" in text
    text = host.fails("peer", "invalid_name", check=check, url=gate.url, peers_token=gate.peers_token, name=name)
    assert "gatecontrol_name" in text and gate.calls() == [] and host.files() == {}


@pytest.mark.parametrize("given, word", [
    ({}, "gatecontrol_token"), ({"token": "hunter2"}, "gc_"), ({"token": "gc_ab cd"}, "blank"),
    ({"token_file": "/nowhere/token"}, "/nowhere/token"),
    ({"token": "gc_ab", "state": "absent"}, "peers_token"), ({"token": "gc_ab", "tags": ["a"]}, "tags"),
    ({"token": "gc_ab", "return_config": True}, "return_config"), ({"peers_token": "gc_ab"}, "peer_id")])
def test_what_is_missing_or_malformed_is_named_before_anything_is_sent(gate, host, given, word):
    result = host.module("peer", url=gate.url, **({"name": "web"} if "peers_token" not in given else {}), **given)
    assert result["failed"] and word in result["msg"] and result["failure"]["kind"] in ("options", "no_secret")
    assert gate.calls() == [] and host.files() == {}


def test_a_token_comes_from_a_file_too(gate, host, tmp_path):
    (tmp_path / "token").write_text(gate.token() + "\n", encoding="ascii")
    assert host.ok("peer", url=gate.url, token_file=str(tmp_path / "token"), name=gate.name())["created"]


def test_a_host_without_a_machine_id_is_told(gate, host):
    (host.root / "etc/machine-id").unlink()
    assert "systemd-machine-id-setup" in host.fails("peer", "settings", url=gate.url, token=gate.token(), name="web")


@REGISTERS
def test_a_tunnel_that_was_there_before_is_not_replaced(gate, host):
    """Its key may be kept nowhere else."""
    place = host.root / "etc/wireguard/wg0.conf"
    place.parent.mkdir()
    place.write_text("[Interface]\nPrivateKey = of somebody else\n", encoding="ascii")
    token, before = gate.token(), host.files()
    said = host.fails("peer", "other_interface", url=gate.url, token=token, name=gate.name())
    assert "gatecontrol_interface" in said and "gatecontrol_adopt=true" in said and gate.calls() == [] and host.files() == before
    host.fails("peer", "other_interface", True, url=gate.url, token=token, name=gate.name())
    assert host.ok("peer", url=gate.url, token=token, name=gate.name(), interface="wg1")["created"]


@BINDS
def test_a_token_that_is_gone_from_the_host_is_told(gate, host):
    name = gate.name()
    result = enroll(gate, host, name)
    host.store.save("issued", host.store.text("offered"))
    host.store.save("enrollment", dict(host.record, hash=result["hash"]))
    host.store.drop("token")
    said = host.fails("peer", "no_secret", url=gate.url, name=name)
    assert "etc/gatecontrol/token" in said and "gatecontrol_token" in said


@BINDS
def test_a_peers_token_in_the_environment_does_not_reach_a_host_whose_files_were_handed_over(gate, host, monkeypatch):
    """It is the inventory plugin's; the host registers with its own token all the same."""
    monkeypatch.setenv("GATECONTROL_PEERS_TOKEN", gate.peers_token)
    name = gate.name()
    result = host.ok("peer", url=gate.url, token=gate.token(), name=name, files={}, machine_fingerprint="a" * 64, client_platform="windows")
    assert result["files"] and result["created"] and "POST register 201" in gate.calls()
