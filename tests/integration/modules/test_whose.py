"""Two machines never hold one key: a peer is a host's only on proof, on the user's word, or while nobody has used it."""
from __future__ import annotations

import time

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _batch, _options, _play, _proof

ADMIN = {"admin_user": "admin", "admin_password": "LoopbackTest123!"}
ERAS = [("1.118.2", "admin"), ("1.118.2", "peers"), ("1.5.2", "peers")]
USED = [{"latest_handshake": 1_700_000_000}, {"total_rx": 120}, {"transfer_tx": 1}]


class Controller:
    """One run of a play on a controller: what its tasks do for one host or several, by the options of gatecontrol_fleet."""

    def __init__(self, gate, secret, notes=None):
        self.gate, self.notes = gate, {} if notes is None else notes
        self.how = ADMIN if secret == "admin" else {"peers_token": gate.peers_token}

    def __call__(self, *hosts, state="present", check=False, **options):
        params = {**dict.fromkeys(_options.FLEET), "pace": False, "names": [], "others": 0, "url": self.gate.url, "state": state, **self.how, **options}
        given = [{**dict.fromkeys(_options.FLEET_HOST), "token": True, **host} for host in hosts]
        return _batch.settle(params, check, self.notes, given)["hosts"]

    def kind(self, host, **options):
        """How it was refused, None where it was not."""
        return self(host, **options)[host["host"]].get("failure", {}).get("kind")


@pytest.fixture(params=ERAS, ids="-".join)
def server(request, gates):
    era, secret = request.param
    gate = gates(era, "--login-limit", "100000")
    return gate, lambda notes=None: Controller(gate, secret, notes)


def enroll(gate, new_host, got, host, name, **options):
    """A machine that keeps what the controller gave it; its answer to a challenge."""
    given = {"token": got["token"]} if "token" in got else {"issued_config": got["config"]}
    host.ok("peer", url=gate.url, peer_id=got["peer"]["id"], name=name, **given, **options)
    return _proof.of_host(host.store, str(host.root / "wg0.conf"), _play.CHALLENGE)


@pytest.mark.parametrize("used", USED, ids=lambda used: next(iter(used)))
def test_another_machine_of_the_same_name_is_refused_though_the_first_is_off(server, new_host, used):
    gate, run = server
    name = gate.name("debian")
    got = run()({"host": "web01", "name": name})["web01"]
    gate.set(name, **used)
    before, other = gate.peers(name), {"host": "web02", "name": name}
    answer = run()(other)["web02"]
    assert answer["failure"]["kind"] == "not_ours" and "does not prove" in answer["msg"] and "gatecontrol_adopt=true" in answer["msg"]
    assert "config" not in answer and "token" not in answer and gate.peers(name) == before
    for claim in ({"peer_id": got["peer"]["id"]}, {"peer_id": got["peer"]["id"], "fingerprint": "f" * 64, "enrolled_as": name}, {"proof": "0" * 64},
                  {"wanted_id": got["peer"]["id"]}):
        assert run().kind(dict(other, **claim)) == "not_ours", claim
    assert run()(dict(other, adopt=True))["web02"]["peer"]["id"] == got["peer"]["id"], "the user's word"


def test_a_host_that_has_the_key_gets_its_peer_again_whatever_it_is_called_now(server, new_host):
    gate, run = server
    name, host = gate.name("web"), new_host()
    got = run()({"host": "web01", "name": name})["web01"]
    proof = enroll(gate, new_host, got, host, name)
    gate.set(name, total_rx=5, name=name + "-renamed")
    own = {"host": "web01", "name": name, "peer_id": got["peer"]["id"], "enrolled_as": name, "proof": proof}
    again = run()(own)["web01"]
    assert again["peer"] == dict(again["peer"], id=got["peer"]["id"], name=name + "-renamed") and not again["created"]
    assert run().kind(dict(own, name=name + "-other")) == "other_peer" and len(gate.peers(name)) == 1
    assert run().kind(dict(own, proof=None)) == "not_ours"


def test_a_run_that_was_cut_off_goes_on_though_the_server_was_started_anew(server, new_host):
    gate, run = server
    name = gate.name("web")
    first = run()({"host": "web01", "name": name})["web01"]  # the host never had it
    again = run()({"host": "web01", "name": name})["web01"]
    assert not again["created"] and again["peer"]["id"] == first["peer"]["id"] and ("token" in again or "config" in again)


def test_what_a_restart_forgets_is_not_all_that_tells(gates, new_host):
    gate = gates("1.118.2", "--login-limit", "100000")
    name, host = gate.name("web"), new_host()
    got = Controller(gate, "admin")({"host": "web01", "name": name})["web01"]
    enroll(gate, new_host, got, host, name)
    gate.set(name, latest_handshake=0, transfer_rx=0, transfer_tx=0, total_rx=0, total_tx=0)
    refused = Controller(gate, "admin")({"host": "web02", "name": name})["web02"]
    assert refused["failure"]["kind"] == "not_ours" and "token" in refused["msg"], "its token was used"


@pytest.mark.parametrize("alias", [False, True], ids=["the peer's name", "another name"])
def test_a_token_that_waits_for_its_host_is_no_other_s(gates, alias):
    """Made in a run that was cut off, or minted beforehand: it is the host's of that name in the inventory, and of no host that calls itself so."""
    gate = gates("1.118.2", "--login-limit", "100000")
    name = gate.name("laptop")
    victim, evil = {"host": "web01.example.com" if alias else name, "name": name}, {"host": "evil", "name": name}
    first = Controller(gate, "admin")(victim)[victim["host"]]
    before = gate.peers(name)
    gate.seen()
    for claim in ({}, {"peer_id": first["peer"]["id"]}, {"wanted_id": first["peer"]["id"]}, {"fingerprint": "f" * 64, "enrolled_as": name}):
        for state in ("present", "absent"):
            for check in (False, True):
                answer = Controller(gate, "admin")(dict(evil, **claim), state=state, check=check)["evil"]
                assert answer["failure"]["kind"] == "not_ours" and "gatecontrol_adopt=true" in answer["msg"], (claim, state)
    told = "ansible: %s%s" % (name, " for web01.example.com" if alias else "")
    assert "its client token '%s' was not made for this host of the inventory" % told in Controller(gate, "admin")(evil)["evil"]["msg"]
    assert gate.peers(name) == before and not [call for call in gate.calls() if not call.startswith("GET ") and "login" not in call]
    again = Controller(gate, "admin")(victim)[victim["host"]]
    assert again["peer"]["id"] == first["peer"]["id"] and again["token"] != first["token"], "the run that was cut off goes on"
    taken = Controller(gate, "admin")(dict(evil, adopt=True))["evil"]
    assert taken["peer"]["id"] == first["peer"]["id"] and "token" in taken, "the user's word"
    assert Controller(gate, "admin").kind(victim) == "not_ours"


@pytest.mark.parametrize("alias", ["", "web01.example.com", "h" * 90], ids=["the peer's name", "another name", "a long one"])
def test_the_user_s_word_is_for_the_host_and_not_for_whatever_peer_it_says_it_is(gates, alias):
    """gatecontrol_adopt for all hosts of a play, one of which calls itself like another one."""
    gate = gates("1.118.2", "--login-limit", "100000")
    name = gate.name("laptop")
    victim, evil = {"host": alias or name, "name": name, "adopt": True, "named": False}, {"host": "evil", "name": name, "adopt": True, "named": False}
    first = Controller(gate, "admin")(victim)[victim["host"]]
    gate.set(name, total_rx=9)
    before = gate.peers(name)
    for claim in ({}, {"peer_id": first["peer"]["id"]}, {"peer_id": first["peer"]["id"], "name": gate.name("x")}):
        for state in ("present", "absent", "kept", "rotated"):
            answer = Controller(gate, "admin")(dict(evil, **claim), state=state)["evil"]
            assert answer.get("peer", {}).get("id") != first["peer"]["id"] and not answer.get("deleted") and gate.peers(name) == before, (claim, state)
    answer = Controller(gate, "admin")(evil)["evil"]
    assert "minted for another host" in answer["msg"] and "gatecontrol_name=" + name in answer["msg"]
    assert Controller(gate, "admin")(victim)[victim["host"]]["peer"]["id"] == first["peer"]["id"], "the rebuilt machine itself"
    assert Controller(gate, "admin")(dict(evil, named=True))["evil"]["peer"]["id"] == first["peer"]["id"], "the user's word for this peer"


def test_a_token_whose_time_is_over_waits_for_nobody(gates):
    gate = gates("1.118.2", "--login-limit", "100000")
    name = gate.name("job")
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    Controller(gate, "admin")({"host": "a", "name": name, "expires_at": soon})
    assert Controller(gate, "admin").kind({"host": "b", "name": name}) == "not_ours"
    time.sleep(3)
    assert Controller(gate, "admin").kind({"host": "b", "name": name}) is None


@pytest.mark.parametrize("state", ["kept", "absent"])
def test_a_claim_by_number_changes_and_deletes_nothing(server, new_host, state):
    gate, run = server
    name, host = gate.name("laptop"), new_host()
    got = run()({"host": "laptop", "name": name})["laptop"]
    proof = enroll(gate, new_host, got, host, name)
    claim = {"host": "evil", "name": name, "peer_id": got["peer"]["id"], "enrolled_as": name, "fingerprint": "f" * 64, "tags": ["evil"]}
    for used in ({}, {"total_rx": 9}):
        gate.set(name, **used)
        before = gate.peers(name)
        for said in ({}, {"proof": None}, {"proof": "f" * 64}, {"proof": ""}):
            answer = run()(dict(claim, **said), state=state)["evil"]
            assert answer["failure"]["kind"] == "not_ours" and "laptop" in answer["msg"], said
        assert gate.peers(name) == before
    assert "failure" not in run()(dict(claim, proof=proof, tags=["mine"]), state=state)["evil"]
    assert not gate.peers(name) if state == "absent" else gate.peers(name)[0]["tags"] == "mine"


def test_nothing_is_rotated_or_confirmed_for_a_claim(gates, new_host):
    gate = gates("1.118.2", "--login-limit", "100000")
    name, host, run = gate.name("laptop"), new_host(), Controller(gate, "admin")
    got = run({"host": "laptop", "name": name})["laptop"]
    proof = enroll(gate, new_host, got, host, name)
    claim = {"host": "evil", "name": name, "peer_id": got["peer"]["id"], "enrolled_as": name, "token_id": 1}
    for state in ("rotated", "confirmed"):
        for keys in (False, True):
            assert Controller(gate, "admin").kind(claim, state=state, keys=keys) == "not_ours"
    assert len(gate.peers(name)) == 1
    own = dict(claim, host="laptop", proof=proof, token_id=None)
    run = Controller(gate, "admin")
    second = run(own, state="rotated")["laptop"]
    # The numbers are the controller's own; what the host says of them changes nothing.
    done = run({"host": "laptop", "name": "other", "peer_id": 99999, "token_id": 1}, state="confirmed")["laptop"]
    assert done["revoked"] == ["ansible: %s for laptop" % name] and not done["deleted"]
    new_host().ok("peer", url=gate.url, token=second["token"], peer_id=got["peer"]["id"])


def test_a_name_that_looks_like_a_rotation_s_first_peer_does_not_take_the_real_one_along(server, new_host):
    gate, run = server
    name, host = gate.name("laptop"), new_host()
    run()({"host": "laptop", "name": name})
    gate.set(name, total_rx=9)
    got = run()({"host": "evil", "name": name + ".pre-rotation", "adopt": True})["evil"]
    proof = enroll(gate, new_host, got, host, name + ".pre-rotation")
    evil = {"host": "evil", "name": name + ".pre-rotation", "peer_id": got["peer"]["id"], "proof": proof}
    real = [peer for peer in gate.peers(name) if peer["name"] == name]
    if "token" in got:
        assert run().kind(evil, state="rotated", keys=True) == "not_ours"
    assert run()(evil, state="absent")["evil"]["deleted"] and gate.peers(name) == real


@pytest.mark.parametrize("used", [{}, {"total_rx": 9}], ids=["new", "used"])
@pytest.mark.parametrize("ending", [".pre-rotation", ""], ids=["first", "second"])
def test_a_name_of_a_rotation_that_was_taken_beforehand_does_not_take_the_other_peer_along(server, new_host, ending, used):
    """A host calls itself NAME.pre-rotation before there is a NAME, or NAME while the rotation of another one is cut off; its own token may do so, too."""
    gate, run = server
    if not used and "admin_user" not in run().how:
        return  # without the list of tokens a peer that nobody has used is whoever's calls itself so
    name = gate.name("laptop")

    def enrolled(inventory_name, peer_name, **word):
        got = run()({"host": inventory_name, "name": peer_name, **word})[inventory_name]
        proof = enroll(gate, new_host, got, new_host(), peer_name)
        gate.set(peer_name, **used)
        return {"host": inventory_name, "name": peer_name, "peer_id": got["peer"]["id"], "enrolled_as": peer_name, "proof": proof}
    if ending:
        assert run().kind({"host": "evil", "name": name + ending}) == "not_ours"
        evil, victim = enrolled("evil", name + ending, adopt=True), enrolled("laptop", name)
    else:
        victim = enrolled("laptop", name)
        gate.set(name, name=name + ".pre-rotation")
        evil = enrolled("evil", name)
    number = victim["peer_id"]
    real = [peer for peer in gate.peers(name) if peer["id"] == number]
    for claim in ({"peer_id": number}, {"wanted_id": number}, {"peer_id": number, "name": real[0]["name"], "enrolled_as": real[0]["name"]}):
        got = run()(dict(evil, **claim))["evil"]
        assert got.get("peer", {}).get("id") != number and "token" not in got and "config" not in got, claim
    for state in ("kept", "rotated", "confirmed", "absent"):
        for claim in ({"peer_id": number}, {}) if "admin_user" in run().how or state in ("kept", "absent") else ():
            got = run()(dict(evil, **claim, tags=["evil"]), state=state, keys=True)["evil"]
            assert (got.get("peer") or {}).get("id") != number, (state, claim)
            assert [peer for peer in gate.peers(name) if peer["id"] == number] == real, (state, claim)


def test_one_run_gives_a_peer_to_one_host_only(server, new_host):
    gate, run = server
    name, notes = gate.name("localhost"), {}
    one = run(notes)({"host": "a", "name": name})["a"]
    for other in ({"name": name}, {"name": gate.name("x"), "wanted_id": one["peer"]["id"]}, {"name": name, "adopt": True}):
        assert run(notes).kind(dict({"host": "b"}, **other)) == "clone"
    assert run(notes)({"host": "a", "name": name})["a"]["peer"]["id"] == one["peer"]["id"]
    both = run({})(*({"host": host, "name": host, "wanted_id": one["peer"]["id"]} for host in "cd"))
    assert {host: got["failure"]["kind"] for host, got in both.items()} == {"c": "clone", "d": "clone"}


def test_the_number_of_the_play_is_the_peer_that_the_host_gets(server, new_host):
    gate, run = server
    made, name = gate.add(gate.name("made")), gate.name("web")
    got = run()({"host": "web01", "name": name, "wanted_id": made["id"]})["web01"]
    assert got["peer"]["id"] == made["id"] and not got["created"] and not gate.peers(name)
    assert run().kind({"host": "web01", "name": name, "wanted_id": 99999}) == "not_found" and not gate.peers(name)


def test_what_this_run_made_goes_with_its_host_and_nothing_else_does(server, new_host):
    gate, run = server
    name, other, notes = gate.name("job"), gate.name("laptop"), {}
    run()({"host": "laptop", "name": other})
    gate.set(other, total_rx=1)
    run(notes)({"host": "job", "name": name})  # and the host was lost before it had it
    gone = run(notes)({"host": "job", "name": other}, state="absent")["job"]
    assert gone["deleted"] and not gate.peers(name) and gate.peers(other)
    assert run(notes).kind({"host": "job", "name": other}, state="absent") == "not_ours"


@pytest.mark.parametrize("ending", ["", ".pre-rotation"])
def test_a_name_alone_deletes_no_peer_that_was_not_made_for_the_host(server, ending):
    """One that somebody made by hand, and that waits for its machine."""
    gate, run = server
    name = gate.name("printer")
    gate.add(name + ending)
    before, evil = gate.peers(name), {"host": "evil", "name": name}
    for check in (True, False):
        answer = run()(evil, state="absent", check=check)["evil"]
        assert answer["failure"]["kind"] == "not_ours" and "gatecontrol_adopt=true" in answer["msg"] and gate.peers(name) == before
    assert run()(dict(evil, adopt=True), state="absent")["evil"]["deleted"] and not gate.peers(name), "the user's word"


def test_what_a_run_that_was_cut_off_made_goes_by_its_token(server):
    gate, run = server
    name = gate.name("web")
    web = {"host": "web01", "name": name}
    run()(web)
    assert run().kind({"host": "evil", "name": name}, state="absent") == "not_ours"
    gone = run()(web, state="absent")["web01"]
    if "admin_user" in run().how:
        assert gone["deleted"] and gone["revoked"] == ["ansible: %s for web01" % name]
    else:
        assert gone["failure"]["kind"] == "not_ours", "a peers token sees no token"
    assert len(gate.peers(name)) == ("admin_user" not in run().how)


def test_a_client_token_that_the_server_knows_to_be_bound_to_the_peer_is_proof(gates):
    gate = gates("1.118.2", "--login-limit", "100000")
    name = gate.name("web")
    peer = gate.add(name)
    gate.set(name, total_rx=7)
    own, foreign = gate.token(peer_id=peer["id"]), gate.token(peer_id=gate.add(gate.name("x"))["id"])
    reach = dict(dict.fromkeys(_options.FLEET), url=gate.url, state="present", **ADMIN)
    for token, kind in ((foreign, "not_ours"), (own, None), (gate.peers_token, "not_ours"), (gate.token(), "not_ours")):
        host = dict(dict.fromkeys(_options.FLEET_HOST), host="web01", name=name, wanted_id=peer["id"], token=False)
        asked = _batch.ask(dict(reach, client_token=token, hosts=[host]))["asked"]["host"]
        assert Controller(gate, "admin").kind(asked) == kind


def test_in_the_first_releases_no_token_is_bound_and_none_is_proof(gates):
    gate = gates("1.5.2", "--login-limit", "100000")
    peer = gate.add(gate.name("web"))
    host = dict(dict.fromkeys(_options.FLEET_HOST), host="web01", name="web01", wanted_id=peer["id"])
    reach = dict(dict.fromkeys(_options.FLEET), url=gate.url, state="present", peers_token=gate.peers_token)
    assert _batch.ask(dict(reach, client_token=gate.token(), hosts=[host]))["asked"]["host"]["bound"] is None
