"""gatecontrol_fleet: the peers and tokens of a batch, with one login or with a peers token."""
from __future__ import annotations

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _fleet, _play, _session

ADMIN = {"admin_user": "admin", "admin_password": "LoopbackTest123!"}
# A fresh server each: 5 logins in 15 minutes are allowed, and the tests below need more.
LOGINS = ("--login-limit", "100000")


@pytest.fixture
def fleet(gates, new_host):
    """(era, *server arguments) -> (gate, run): run(hosts, **args) gives the result of a run on a controller that keeps no file."""
    machine = new_host()

    def make(era, *arguments):
        gate = gates(era, *LOGINS, *arguments)
        gate.seen()

        def run(hosts, check=False, **args):
            hosts = [host if isinstance(host, dict) else {"host": host, "name": host} for host in hosts]
            return machine.ok("fleet", check, url=gate.url, hosts=hosts, **args)
        run.machine, run.gate = machine, gate
        return gate, run
    yield make
    assert machine.files() == {}


def proven(gate, **host):
    """A host that proves to have the key of the peer that it says it is enrolled as."""
    public_key = {peer["id"]: peer["public_key"] for peer in gate.peers("")}.get(host["peer_id"], "")
    return dict(host, proof=_play.expected_proof(public_key))


@pytest.mark.parametrize("era", ["1.50.12", "1.118.2", "fixed"])
def test_one_login_makes_peers_and_tokens_that_only_fit_them(fleet, new_host, era):
    gate, run = fleet(era)
    names = [gate.name("fleet") for _number in range(3)]
    result = run(names, **ADMIN)
    calls = gate.calls()
    assert calls[:3] == ["GET /login 200", "POST /login 302", "GET /dashboard 200"] and calls.count("POST /login 302") == 1
    assert calls.count("POST /peers 201") == 3 and sum("/users/" in call and call.startswith("POST") for call in calls) == 3
    assert [result["hosts"][name]["created"] for name in names] == [True] * 3 and result["requests"] == len(calls) - 3
    for name in names:
        got = result["hosts"][name]
        host = new_host()
        assert host.ok("peer", url=gate.url, token=got["token"], peer_id=got["peer"]["id"])["peer"]["name"] == name
        other = result["hosts"][names[0] if name != names[0] else names[1]]
        new_host().fails("peer", "wrong_peer", url=gate.url, token=got["token"], peer_id=other["peer"]["id"])


def test_a_second_batch_needs_no_second_login(fleet):
    gate, run = fleet("1.118.2")
    first = run([gate.name("fleet")], **ADMIN)
    gate.seen()
    second = run([gate.name("fleet")], session=first["session"], **ADMIN)
    assert not any("login" in call for call in gate.calls())
    assert "session" not in second  # it would come back masked, and the third batch could not use it


def test_a_session_that_ended_is_replaced(fleet):
    gate, run = fleet("1.118.2")
    result = run([gate.name("fleet")], session={"cookie": "s%3Agone.x", "csrf": "0" * 128}, **ADMIN)
    assert result["session"]["cookie"] != "s%3Agone.x" and "POST /login 302" in gate.calls()


def test_a_run_that_was_cut_off_leaves_one_peer_and_one_token(fleet, new_host):
    gate, run = fleet("1.118.2")
    name = gate.name("fleet")
    lost = run([name], **ADMIN)["hosts"][name]  # its token never reached the host
    again = run([name], **ADMIN)["hosts"][name]
    assert not again["created"] and again["peer"]["id"] == lost["peer"]["id"] and again["token"] != lost["token"]
    assert len(gate.peers(name)) == 1
    new_host().ok("peer", url=gate.url, token=again["token"], peer_id=again["peer"]["id"])
    new_host().fails("peer", "auth", url=gate.url, token=lost["token"], peer_id=lost["peer"]["id"])


def test_a_host_with_a_token_of_its_own_gets_none(fleet):
    gate, run = fleet("1.118.2")
    name = gate.name("fleet")
    got = run([{"host": name, "name": name, "token": False}], **ADMIN)["hosts"][name]
    assert got["peer"]["id"] and "token" not in got and not any("/users/" in call and call.startswith("POST") for call in gate.calls())


def test_check_mode_makes_nothing(fleet):
    gate, run = fleet("1.118.2")
    name = gate.name("fleet")
    result = run([name], check=True, **ADMIN)
    assert result["changed"] and result["hosts"][name]["peer"]["id"] is None and not gate.peers(name)
    assert {call.split()[0] for call in gate.calls() if "login" not in call} == {"GET"}


@pytest.mark.parametrize("era", ["1.5.2", "1.50.12", "1.118.2", "fixed"])
def test_a_peers_token_reads_the_list_once(fleet, era):
    gate, run = fleet(era)
    names = [gate.name("fleet") for _number in range(4)]
    result = run(names, peers_token=gate.peers_token)
    calls = gate.calls()
    assert calls.count("GET /peers 200") == 1 and len(calls) == 1 + 2 * len(names) == result["requests"]
    assert all("PrivateKey" in result["hosts"][name]["config"] for name in names) and "session" not in result
    again = run(names, peers_token=gate.peers_token)
    assert not again["changed"] and len(gate.calls()) == 1 + len(names)


def test_the_licence_ends_the_batch_and_says_its_numbers(fleet):
    gate, run = fleet("1.118.2", "--profile", "community")
    names = [gate.name("fleet") for _number in range(5)]
    hosts = run(names, **ADMIN)["hosts"]
    assert [("token" in hosts[name]) for name in names] == [True] * 3 + [False] * 2
    for name in names[3:]:
        assert hosts[name]["failure"]["kind"] == "licence" and "3 of 3 in use" in hosts[name]["msg"]
    calls = gate.calls()
    assert calls.count("GET /license 200") == 1 and calls.count("POST /peers 201") == len(gate.peers("fleet")) == 3
    assert not any(call.endswith("403") for call in calls), "nothing is begun for a host that the licence has no room for"
    again = run(names[2:4], **ADMIN)["hosts"]
    assert "token" in again[names[2]] and again[names[3]]["failure"] == {
        "kind": "licence", "status": None, "feature": "vpn_peers", "current": 3, "limit": 3}
    run(names[:3], **ADMIN)
    assert gate.calls().count("GET /license 200") == 1, "who needs no peer does not ask"


def test_a_peers_token_learns_the_licence_from_the_first_refusal(fleet):
    gate, run = fleet("1.118.2", "--profile", "community", "--rate-limit", "1000")
    names = [gate.name("fleet") for _number in range(5)]
    hosts = run(names, peers_token=gate.peers_token)["hosts"]
    assert [("config" in hosts[name]) for name in names] == [True] * 3 + [False] * 2
    assert all("3 of 3 in use" in hosts[name]["msg"] for name in names[3:]) and gate.calls().count("POST /peers 403") == 1


def test_names_and_machines_that_occur_twice_are_refused(fleet):
    gate, run = fleet("1.118.2")
    name, free = gate.name("fleet"), gate.name("fleet")
    hosts = [{"host": "a", "name": name}, {"host": "b", "name": name}, {"host": "c", "name": gate.name("fleet"), "fingerprint": "f" * 64},
             {"host": "d", "name": gate.name("fleet"), "fingerprint": "f" * 64}, {"host": "e", "name": free, "fingerprint": "e" * 64}]
    result = run(hosts, **ADMIN)["hosts"]
    assert {host for host, got in result.items() if got.get("failure", {}).get("kind") == "clone"} == {"a", "b", "c", "d"}
    assert "a and b have the same name" in result["a"]["msg"] and "machine id" in result["d"]["msg"]
    assert result["e"]["peer"]["name"] == free and not gate.peers(name)


def test_fields_and_an_expiry_of_peer_and_token(fleet):
    gate, run = fleet("1.118.2")
    name = gate.name("fleet")
    run([{"host": name, "name": name, "tags": ["ephemeral"], "expires_at": "2031-01-01T00:00:00Z", "description": "job 7"}], **ADMIN)
    peer, = gate.peers(name)
    assert (peer["tags"], peer["expires_at"], peer["description"]) == ("ephemeral", "2031-01-01T00:00:00Z", "job 7")
    minted = [entry["body"] for entry in gate.seen() if entry["path"].endswith("/tokens") and entry["method"] == "POST"]
    assert [body["expires_at"] for body in minted] == ["2031-01-01T00:00:00Z"] and minted[0]["peer_id"] == peer["id"]


@pytest.mark.parametrize("secret", ["admin", "peers"])
def test_fields_of_an_enrolled_host_are_kept_and_no_token_is_touched(fleet, secret):
    gate, run = fleet("1.118.2")
    name, how = gate.name("fleet"), ADMIN if secret == "admin" else {"peers_token": gate.peers_token}
    number = run([{"host": name, "name": name, "expires_at": "2031-01-01T00:00:00Z"}], **ADMIN)["hosts"][name]["peer"]["id"]
    tokens = tokens_of(gate, run, name)
    gate.set(name, name=name + "-renamed")
    host = proven(gate, host=name, name=name, peer_id=number, expires_at="2032-01-01T00:00:00Z", tags=["b", "a"])
    gate.seen()
    assert run([host], check=True, state="kept", **how)["changed"] and not gate.peers(name)[0]["tags"]
    assert run([host], state="kept", **how)["hosts"][name]["changed"]
    assert [call for call in gate.calls() if "login" not in call and not call.startswith("GET")] == ["PUT /peers/%d 200" % number]
    peer, = gate.peers(name)
    assert (peer["id"], peer["name"], peer["tags"], peer["expires_at"]) == (number, name + "-renamed", "a,b", "2032-01-01T00:00:00Z")
    assert not run([host], state="kept", **how)["changed"] and [token["id"] for token in tokens_of(gate, run, name)] == [tokens[0]["id"]]
    gone = run([dict(host, peer_id=99999)], state="kept", **how)["hosts"][name]
    assert gone["failure"]["kind"] == "not_found" and len(gate.peers(name)) == 1, "a peer of the same name is not it"


def test_absent_leaves_no_peer_and_no_token(fleet, new_host):
    gate, run = fleet("1.118.2")
    name = gate.name("fleet")
    got = run([name], **ADMIN)["hosts"][name]
    assert run([name], check=True, state="absent", **ADMIN)["hosts"][name]["deleted"] and gate.peers(name)
    gone = run([proven(gate, host=name, name=name, peer_id=got["peer"]["id"])], state="absent", **ADMIN)["hosts"][name]
    assert gone["deleted"] and gone["revoked"] == ["ansible: " + name] and not gate.peers(name)
    new_host().fails("peer", "auth", url=gate.url, token=got["token"], peer_id=got["peer"]["id"])
    assert not run([name], state="absent", **ADMIN)["changed"]


def test_a_wrong_password_and_no_secret_are_told(fleet):
    gate, run = fleet("fixed")
    hosts = [{"host": "a", "name": gate.name("fleet")}]
    text = run.machine.fails("fleet", "auth", url=gate.url, hosts=hosts, admin_user="admin", admin_password="wrong")
    assert "gatecontrol_admin_password" in text and "wrong" not in text
    assert "peers_token" in run.machine.fails("fleet", "options", url=gate.url, hosts=hosts)
    assert "nobody" in run.machine.fails("fleet", "not_found", url=gate.url, hosts=hosts, token_user="nobody", **ADMIN)


def test_tokens_can_be_those_of_another_user(fleet, new_host):
    gate, run = fleet("1.118.2")
    admin = _session.Admin({"url": gate.url, "allow_http": True})
    admin.transport.login("admin", "LoopbackTest123!")
    made = admin.call("making a user", "POST", "/api/v1/users", {"username": "automation", "role": "user"})[1]["user"]
    name = gate.name("fleet")
    got = run([name], token_user="automation", **ADMIN)["hosts"][name]
    token, = [token for token in admin.tokens() if token["peer_id"] == got["peer"]["id"]]
    assert token["user_id"] == made["id"] and token["name"] == "ansible: " + name
    assert new_host().ok("peer", url=gate.url, token=got["token"], peer_id=got["peer"]["id"])["peer"]["name"] == name
    again = run([name], token_user="automation", adopt=True, **ADMIN)["hosts"][name]
    token, = [token for token in admin.tokens() if token["peer_id"] == got["peer"]["id"]]
    assert token["user_id"] == made["id"] and again["peer"]["id"] == got["peer"]["id"]


def test_logins_that_are_used_up_say_when_to_come_back(gates, new_host):
    gate = gates("1.118.2", "--login-limit", "1")
    machine = new_host()
    machine.ok("fleet", url=gate.url, hosts=[{"host": "a", "name": gate.name("fleet")}], **ADMIN)
    text = machine.fails("fleet", "rate_limited", url=gate.url, hosts=[{"host": "a", "name": gate.name("fleet")}], **ADMIN)
    assert "come back in" in text and 0 < machine.failure["retry_after"] <= 900


def test_a_host_without_a_token_is_repaired_from_what_it_has(fleet, new_host):
    gate, run = fleet("1.118.2")
    name = gate.name("fleet")
    got = run([name], peers_token=gate.peers_token)["hosts"][name]
    host = new_host()
    host.ok("peer", url=gate.url, issued_config=got["config"], peer_id=got["peer"]["id"], name=name)
    assert "gatecontrol_peers_token" in host.fails("peer", "no_secret", url=gate.url)  # its config was never applied
    host.store.save("issued", got["config"])  # as the agent does when the tunnel is proven
    host.store.save("enrollment", dict(host.record, hash=got["hash"]))
    gate.seen()
    result = host.ok("peer", url=gate.url)
    assert not result["changed"] and result["hash"] == got["hash"] and result["reporting"] == "none"
    host.ok("config", hash=result["hash"], stage=True)
    assert host.store.text("candidate") and gate.calls() == []


# ---------------------------------------------------------------- runs that are cut off, answers that are lost

@pytest.mark.parametrize("path, method", [("*/peers", "POST"), ("*/users/*/tokens", "POST"), ("*/peers/*", "PUT"), ("*/tokens/*", "DELETE")])
def test_an_answer_that_is_lost_leaves_one_peer_and_one_token(fleet, new_host, path, method):
    gate, run = fleet("1.118.2")
    name = gate.name("fleet")
    hosts = [{"host": name, "name": name, "peer_keepalive": 17}]
    if method == "DELETE":
        run(hosts, **ADMIN)
    gate.fault("drop", path=path, method=method, when="after", count=1)
    first = run(hosts, **ADMIN)["hosts"][name]
    gate.server.no_faults()
    assert ("failure" in first) == (method == "POST"), first
    got = run(hosts, **ADMIN)["hosts"][name]
    assert [peer["persistent_keepalive"] for peer in gate.peers(name)] == [17] and len(tokens_of(gate, run, name)) == 1
    new_host().ok("peer", url=gate.url, token=got["token"], peer_id=got["peer"]["id"])


@pytest.mark.parametrize("path, method", [("*/peers", "POST"), ("*/peers/*/config", "GET")])
def test_an_answer_that_is_lost_with_a_peers_token(fleet, path, method):
    gate, run = fleet("1.5.2")
    name = gate.name("fleet")
    gate.fault("drop", path=path, method=method, when="after", count=1)
    run([name], peers_token=gate.peers_token)
    gate.server.no_faults()
    assert "config" in run([name], peers_token=gate.peers_token)["hosts"][name] and len(gate.peers(name)) == 1


def test_a_token_whose_peer_was_deleted_is_not_left_behind(fleet):
    gate, run = fleet("1.118.2")
    name = gate.name("fleet")
    run([name], **ADMIN)
    gate.delete(gate.peers(name)[0]["id"])
    run([name], **ADMIN)
    assert len(tokens_of(gate, run, name)) == 1
    gate.delete(gate.peers(name)[0]["id"])
    gone = run([name], state="absent", **ADMIN)["hosts"][name]
    assert not gone["deleted"] and gone["revoked"] == ["ansible: " + name] and not tokens_of(gate, run, name)


def test_a_host_whose_token_was_revoked_and_peer_deleted_is_enrolled_again(enrolled):
    gate, run, name, host, got = enrolled
    run([], state="absent", names=[name], **ADMIN)
    again = run([proven(gate, host=name, name=name, peer_id=got["peer"]["id"])], **ADMIN)["hosts"][name]
    assert again["created"] and again["gone"]
    host.fails("peer", "other_token", url=gate.url, token=again["token"], peer_id=again["peer"]["id"])
    host.ok("peer", url=gate.url, token=again["token"], peer_id=again["peer"]["id"], adopt=again["gone"])
    assert not run([proven(gate, host=name, name=name, peer_id=again["peer"]["id"])], **ADMIN)["hosts"][name]["gone"]


def tokens_of(gate, run, name):
    """Details of the tokens that were minted for a peer."""
    return run.machine.ok("token", url=gate.url, state="listed", name="ansible: " + name, **ADMIN)["tokens"]


# ---------------------------------------------------------------- the rate limit

def test_a_batch_that_the_rate_limit_has_no_room_for_is_refused_before_it_begins(fleet):
    gate, run = fleet("1.118.2", "--rate-limit", "7")
    names = [gate.name("fleet") for _number in range(6)]
    text = run.machine.fails("fleet", "rate_limited", url=gate.url, peers_token=gate.peers_token, hosts=[{"host": name, "name": name} for name in names])
    assert "needs 12 requests" in text and "leaves 6 of 7" in text and "15 minutes" in text and "gatecontrol_pace" in text
    assert run.machine.failure["seconds"] == run.machine.failure["retry_after"] and not gate.peers("fleet")
    gate.ask("reset")
    assert all("config" in got for got in run(names[:3], peers_token=gate.peers_token)["hosts"].values()), "3 hosts fit"
    assert "gatecontrol_pace" in run.machine.fails("fleet", "rate_limited", url=gate.url, peers_token=gate.peers_token, hosts=[{"host": "a", "name": "a"}])


def test_a_batch_is_paced_by_the_headers_and_no_host_is_left_half_done(fleet, monkeypatch):
    gate, run = fleet("1.118.2", "--rate-limit", "7")
    gate.ask("reset")
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        gate.ask("reset")
    defaults = _api.Api.__init__.__defaults__
    monkeypatch.setattr(_api.Api.__init__, "__defaults__", (*defaults[:2], sleep, *defaults[3:]))
    names = [gate.name("paced") for _number in range(8)]
    result = run(names, peers_token=gate.peers_token, pace=True)
    assert all("config" in got for got in result["hosts"].values()) and len(gate.peers("paced")) == 8
    assert [895 < seconds < 905 for seconds in slept] == [True, True] and not any(call.endswith("429") for call in gate.calls())
    gate.ask("reset")
    for _number in range(7):
        run([], peers_token=gate.peers_token)
    assert "config" in run(names[:1], peers_token=gate.peers_token, pace=True)["hosts"][names[0]] and len(slept) == 3, "a budget that is spent already"


# ---------------------------------------------------------------- rotation

@pytest.fixture
def enrolled(fleet, new_host):
    """(gate, run, name, the host with its enrollment, what it was given)"""
    gate, run = fleet("1.118.2")
    name = gate.name("fleet")
    got = run([{"host": name, "name": name, "tags": ["web"], "description": "shop", "peer_keepalive": 17}], **ADMIN)["hosts"][name]
    host = new_host()
    host.ok("peer", url=gate.url, token=got["token"], peer_id=got["peer"]["id"], name=name, send_version=False)
    return gate, run, name, host, got


def test_a_token_is_rotated(enrolled, new_host):
    gate, run, name, host, got = enrolled
    who = [proven(gate, host=name, name=name, peer_id=got["peer"]["id"])]
    assert run(who, check=True, state="rotated", **ADMIN)["changed"] and len(tokens_of(gate, run, name)) == 1
    lost = run(who, state="rotated", **ADMIN)["hosts"][name]  # a run that was cut off here: the host works with what it has
    host.ok("peer", url=gate.url)
    second = run(who, state="rotated", **ADMIN)["hosts"][name]
    assert host.ok("peer", url=gate.url, token=second["token"])["changed"] and host.record["peer_id"] == got["peer"]["id"]
    done = run([dict(who[0], token_id=second["token_id"])], state="confirmed", **ADMIN)["hosts"][name]
    assert done["revoked"] == ["ansible: " + name] * 2 and not done["deleted"]
    assert [token["id"] for token in tokens_of(gate, run, name)] == [second["token_id"]]
    for token in (got["token"], lost["token"]):
        new_host().fails("peer", "auth", url=gate.url, token=token, peer_id=got["peer"]["id"])
    assert not host.ok("peer", url=gate.url)["changed"]
    assert not run([dict(who[0], token_id=second["token_id"])], state="confirmed", **ADMIN)["changed"]


@pytest.mark.parametrize("lost", [None, ("*/peers/*", "PUT"), ("*/peers", "POST"), ("*/users/*/tokens", "POST")])
def test_keys_are_rotated_by_a_second_peer(enrolled, lost):
    gate, run, name, host, got = enrolled
    who = [proven(gate, host=name, name=name, peer_id=got["peer"]["id"])]
    assert run(who, check=True, state="rotated", keys=True, **ADMIN)["changed"] and len(gate.peers(name)) == 1
    if lost:
        gate.fault("drop", path=lost[0], method=lost[1], when="after", count=1)
        run(who, state="rotated", keys=True, **ADMIN)
        gate.server.no_faults()
    second = run(who, state="rotated", keys=True, **ADMIN)["hosts"][name]
    assert [(peer["id"], peer["name"]) for peer in gate.peers(name)] == [
        (got["peer"]["id"], name + _fleet.ROTATED), (second["peer"]["id"], name)]
    host.ok("peer", url=gate.url, send_version=False)  # the first one works on
    key = host.store.text("offered")
    host.ok("peer", url=gate.url, token=second["token"], peer_id=second["peer"]["id"], adopt=True, send_version=False)
    assert host.record["peer_id"] == second["peer"]["id"] and host.record["peer_name"] == name and host.store.text("offered") != key
    again = run([proven(gate, host=name, name=name, peer_id=second["peer"]["id"])], state="rotated", keys=True, **ADMIN)["hosts"][name]
    assert again["peer"]["id"] == second["peer"]["id"], "what is not confirmed yet is not rotated a second time"
    host.ok("peer", url=gate.url, token=again["token"], send_version=False)
    done = run([proven(gate, host=name, name=name, peer_id=second["peer"]["id"], token_id=again["token_id"])], state="confirmed", **ADMIN)["hosts"][name]
    assert done["deleted"]
    peer, = gate.peers(name)
    assert {key: peer[key] for key in ("id", "name", "tags", "description", "persistent_keepalive")} == {
        "id": second["peer"]["id"], "name": name, "tags": "web", "description": "shop", "persistent_keepalive": 17}
    assert [token["id"] for token in tokens_of(gate, run, name)] == [again["token_id"]]
    assert not host.ok("peer", url=gate.url, send_version=False)["changed"]


def test_absent_takes_what_a_rotation_left_too(enrolled):
    gate, run, name, _host, got = enrolled
    run([proven(gate, host=name, name=name, peer_id=got["peer"]["id"])], state="rotated", keys=True, **ADMIN)
    assert len(gate.peers(name)) == 2
    run([proven(gate, host=name, name=name, peer_id=got["peer"]["id"])], state="absent", **ADMIN)
    assert not gate.peers(name) and not tokens_of(gate, run, name)


def test_what_cannot_be_rotated_is_told(enrolled):
    gate, run, name, _host, got = enrolled
    hosts = [proven(gate, host=name, name=name, peer_id=got["peer"]["id"])]
    assert "admin_user" in run.machine.fails("fleet", "options", url=gate.url, hosts=hosts, state="rotated", peers_token=gate.peers_token)
    assert run([dict(hosts[0], peer_id=99999)], state="rotated", **ADMIN)["hosts"][name]["failure"]["kind"] == "not_found"


# ---------------------------------------------------------------- hosts that are gone

def test_names_alone_and_no_more_than_a_share(fleet):
    gate, run = fleet("1.118.2", "--subnet", "10.66.1.0/24")
    names = [gate.name("gone") for _number in range(10)]
    run(names, **ADMIN)
    gate.seen()
    text = run.machine.fails("fleet", "share", url=gate.url, state="absent", names=names[:2], others=1, max_percent=20, **ADMIN)
    assert "delete 3 of the server's 10 peers" in text and "allows 2" in text and len(gate.peers("gone")) == 10
    assert not any(call.startswith("DELETE") for call in gate.calls())
    result = run([], state="absent", names=[*names[:2], "gone-never"], max_percent=20, **ADMIN)
    assert {name: got["deleted"] for name, got in result["hosts"].items()} == {names[0]: True, names[1]: True, "gone-never": False}
    assert len(gate.peers("gone")) == 8 and not tokens_of(gate, run, names[0])
    assert not run([], state="absent", names=names[:2], max_percent=20, **ADMIN)["changed"]
    for name in names[2:-1]:
        run([], state="absent", names=[name], max_percent=5, **ADMIN)  # one may always go
    got = run([], state="absent", names=names[-1:], peers_token=gate.peers_token)["hosts"][names[-1]]
    assert got["deleted"] and got["staying"] == ["ansible: " + names[-1]] and not gate.peers("gone")


@pytest.mark.parametrize("secret", ["admin", "peers_token"])
def test_expired_takes_only_what_is_ephemeral_and_over_and_disabled(fleet, secret):
    gate, run = fleet("1.118.2")
    over, soon, other, off = [gate.name("job") for _number in range(4)]
    run([{"host": over, "name": over, "tags": ["ci", "ephemeral"], "expires_at": "2031-01-01T00:00:00Z"},
         {"host": soon, "name": soon, "tags": ["ephemeral"], "expires_at": "2031-01-01T00:00:00Z"},
         {"host": other, "name": other, "tags": ["ephemerally"]}, {"host": off, "name": off, "tags": ["ephemeral"]}], **ADMIN)
    gate.set(over, expires_at="2020-01-01T00:00:00Z")
    gate.set(other, expires_at="2020-01-01T00:00:00Z", enabled=0)
    gate.set(off, enabled=0)
    how = ADMIN if secret == "admin" else {"peers_token": gate.peers_token}
    assert not run([], state="expired", **how)["changed"], "the server has not disabled it yet"
    gate.ask("sweep")
    assert run([], check=True, state="expired", **how)["hosts"][over]["deleted"] and gate.peers(over)
    result = run([], state="expired", **how)
    assert list(result["hosts"]) == [over] and not gate.peers(over) and gate.peers(soon) and gate.peers(other) and gate.peers(off)
    assert result["hosts"][over]["staying"] == ([] if secret == "admin" else ["ansible: " + over])
    assert bool(tokens_of(gate, run, over)) == (secret != "admin")
    for name in (soon, other, off):
        gate.delete(name)


def test_a_peer_that_expired_and_gets_more_time_is_enabled_again(fleet):
    gate, run = fleet("1.118.2")
    name = gate.name("job")
    run([name], **ADMIN)
    gate.ask("peer", action="expire", peer=name)
    assert not gate.peers(name)[0]["enabled"]
    run([name], **ADMIN)
    assert not gate.peers(name)[0]["enabled"], "nobody said until when"
    for end, enabled in (("2021-01-01T00:00:00Z", 0), ("2031-01-01T00:00:00Z", 1)):
        run([{"host": name, "name": name, "expires_at": end}], **ADMIN)
        assert gate.peers(name)[0]["enabled"] == enabled


def test_a_batch_that_is_refused_keeps_its_login(fleet):
    gate, run = fleet("1.118.2")
    [name] = [gate.name("fleet")]
    run([name], **ADMIN)
    result = run.machine.module("fleet", url=gate.url, state="absent", names=[name], max_percent=1, others=99, **ADMIN)
    assert result["failure"]["kind"] == "share" and result["session"]["cookie"]
    gate.seen()
    run([gate.name("fleet")], session=result["session"], **ADMIN)
    assert not any("login" in call for call in gate.calls())


def test_what_others_delete_counts_for_the_share(fleet):
    gate, run = fleet("1.118.2")
    run([gate.name("fleet") for _number in range(4)], **ADMIN)
    said = run.machine.fails("fleet", "share", url=gate.url, state="absent", names=[], max_percent=50, others=400, **ADMIN)
    assert "400 of the server's" in said
