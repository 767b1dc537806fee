"""gatecontrol_token: the client tokens of one peer."""
from __future__ import annotations

import pytest

ADMIN = {"admin_user": "admin", "admin_password": "LoopbackTest123!"}
LATER = "2031-12-31T23:59:59Z"


@pytest.fixture
def tokens(gates, new_host):
    """(gate, run): run(**options) gives the result of a run on a controller that keeps no file, for a new peer."""
    gate = gates("1.118.2", "--login-limit", "100000")
    peer = gate.add(gate.name("peer"))
    machine = new_host()

    def run(check=False, **args):
        return machine.ok("token", check, **{"url": gate.url, "peer": peer["name"], **ADMIN, **args})
    run.machine, run.peer = machine, peer
    gate.seen()
    yield gate, run
    assert machine.files() == {}


def works(new_host, gate, token, peer):
    """Whether a host can enroll with a token."""
    return not new_host().module("peer", url=gate.url, token=token, peer_id=peer["id"]).get("failed")


def test_present_mints_once_and_its_token_fits_that_peer_only(tokens, new_host):
    gate, run = tokens
    checked = run(check=True)
    assert checked["changed"] and "token" not in checked and not any(call.startswith(("POST /users", "DELETE")) for call in gate.calls())
    made = run()
    assert made["changed"] and works(new_host, gate, made["token"], run.peer)
    assert not works(new_host, gate, made["token"], gate.add(gate.name("peer")))
    assert made["diff"]["before"] == {"tokens": []} and made["token"] not in str(made["diff"]) and made["token"] not in str(made["tokens"])
    again = run(session=made["session"], peer=None, peer_id=run.peer["id"])
    assert not again["changed"] and "token" not in again and [token["id"] for token in again["tokens"]] == [made["token_id"]]
    assert gate.calls().count("POST /login 302") == 1


def test_a_token_that_does_not_fit_is_replaced(tokens):
    _gate, run = tokens
    first = run()
    timed = run(expires_at=LATER)
    assert timed["changed"] and timed["revoked"] == [first["tokens"][0]["name"]] and [token["expires_at"] for token in timed["tokens"]] == [LATER]
    assert not run()["changed"] and not run(expires_at=LATER)["changed"]
    assert run(scopes=["client", "client:dns"])["changed"]


def test_rotated_revokes_the_old_one_at_once_or_when_told(tokens, new_host):
    gate, run = tokens
    first = run()
    second = run(state="rotated")
    assert not works(new_host, gate, first["token"], run.peer) and works(new_host, gate, second["token"], run.peer)
    third = run(state="rotated", revoke_old=False)
    assert works(new_host, gate, second["token"], run.peer) and len(third["tokens"]) == 2
    done = run(state="absent", except_id=third["token_id"])
    assert done["changed"] and [token["id"] for token in done["tokens"]] == [third["token_id"]]
    assert not works(new_host, gate, second["token"], run.peer) and works(new_host, gate, third["token"], run.peer)


def test_absent_takes_all_of_a_peer_or_those_of_a_name(tokens):
    gate, run = tokens
    run()
    run(name="by hand")
    assert run(check=True, state="absent", name="by hand")["revoked"] == ["by hand"] and len(run(state="listed")["tokens"]) == 2
    assert run(state="absent", name="by hand")["revoked"] == ["by hand"]
    run(name="by hand")
    assert len(run(state="absent")["revoked"]) == 2 and not run(state="absent")["changed"]
    run()
    gate.delete(run.peer["id"])
    assert run(state="absent")["revoked"] == ["ansible: " + run.peer["name"]] and not run(state="absent")["changed"]
    assert not run(state="absent", peer=None, peer_id=run.peer["id"])["changed"]


def test_an_answer_that_is_lost_while_revoking(tokens):
    gate, run = tokens
    run()
    gate.fault("drop", path="*/tokens/*", method="DELETE", when="after", count=1)
    assert run(state="absent")["changed"] and not run(state="listed")["tokens"]
    gate.server.no_faults()


def test_what_is_missing_is_told(tokens, gates):
    gate, run = tokens
    fails = run.machine.fails
    assert "peer_id" in fails("token", "options", url=gate.url, **ADMIN)
    assert "admin_user" in fails("token", "options", url=gate.url, peer="a")
    assert "expires_at" in fails("token", "options", url=gate.url, peer="a", expires_at="tomorrow", **ADMIN)
    assert "no peer nobody" in fails("token", "not_found", url=gate.url, peer="nobody", **ADMIN)
    old = gates("1.5.2", "--login-limit", "100000")
    assert "this login cannot mint tokens; give each host a client token" in fails("token", "endpoint_missing", url=old.url, peer="a", **ADMIN)
