"""gatecontrol_fleet: the peers and tokens of a batch, with one login or with a peers token."""
from __future__ import annotations

import pytest

ADMIN = {"admin_user": "admin", "admin_password": "LoopbackTest123!"}
# A fresh server each: 5 logins in 15 minutes are allowed, and the tests below need more.
LOGINS = ("--login-limit", "1000")


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
    run([gate.name("fleet")], session=first["session"], **ADMIN)
    assert not any("login" in call for call in gate.calls())


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
    assert gate.calls().count("POST /peers 403") == 1 and len(gate.peers("fleet")) == 3


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


def test_absent_leaves_no_peer_and_no_token(fleet, new_host):
    gate, run = fleet("1.118.2")
    name = gate.name("fleet")
    got = run([name], **ADMIN)["hosts"][name]
    assert run([name], check=True, state="absent", **ADMIN)["hosts"][name]["deleted"] and gate.peers(name)
    gone = run([{"host": name, "name": name, "peer_id": got["peer"]["id"]}], state="absent", **ADMIN)["hosts"][name]
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
