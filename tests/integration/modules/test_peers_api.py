"""gatecontrol_peer with a peers token, and gatecontrol_info."""
from __future__ import annotations

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _enrollment, _peer

ALL = pytest.mark.parametrize("gate", ["1.5.2", "1.50.12", "1.118.2", "fixed"], indirect=True)


@pytest.fixture
def controller(gate, new_host):
    """Runs gatecontrol_peer with a peers token: (name, **args) -> result."""
    machine = new_host()

    def run(name=None, check=False, **args):
        return machine.ok("peer", check, url=gate.url, peers_token=gate.peers_token, **({"name": name} if name else {}), **args)
    run.machine = machine
    yield run
    assert machine.files() == {}  # nothing of a peer stays on the controller


@ALL
def test_a_peer_comes_stays_and_goes(gate, controller):
    name = gate.name()
    assert controller(name, check=True)["peer"] == {"id": None, "name": name, "enabled": True, "address": None} and gate.peers(name) == []
    made = controller(name)
    peer, = gate.peers(name)
    assert made["changed"] and made["created"]
    assert made["peer"] == {"id": peer["id"], "name": name, "enabled": True, "address": peer["allowed_ips"]}
    assert "rivate" not in str(made) and made["diff"]["before"] == {} and made["diff"]["after"]["name"] == name
    gate.seen()
    again = controller(name)
    assert not again["changed"] and not again["created"] and again["peer"] == made["peer"] and gate.calls() == ["GET /peers 200"]
    assert not controller(peer_id=peer["id"])["changed"] and gate.calls() == ["GET /peers/%d 200" % peer["id"]]
    assert controller(name, check=True, state="absent")["changed"] and gate.peers(name)
    gate.seen()
    gone = controller(name, state="absent")
    assert gone["changed"] and gone["peer"] is None and not gate.peers(name)
    assert gate.calls() == ["GET /peers 200", "DELETE /peers/%d 200" % peer["id"]]
    assert not controller(name, state="absent")["changed"] and not controller(peer_id=peer["id"], state="absent")["changed"]


@ALL
def test_fields_are_kept_and_others_left_alone(gate, controller):
    name = gate.name()
    fields = {"description": "Rack 4", "tags": ["web", "prod"], "peer_dns": ["10.8.0.1", "9.9.9.9"], "peer_keepalive": 30,
              "expires_at": "2031-01-01T00:00:00Z"}
    made = controller(name, **fields)
    peer, = gate.peers(name)
    assert {key: peer[key] for key in ("description", "dns", "persistent_keepalive", "expires_at")} == {
        "description": "Rack 4", "dns": "10.8.0.1,9.9.9.9", "persistent_keepalive": 30, "expires_at": "2031-01-01T00:00:00Z"}
    assert sorted(peer["tags"].split(",")) == ["prod", "web"] and made["diff"]["after"]["peer_keepalive"] == 30
    assert not controller(name, **fields)["changed"]
    gate.set(name, tags="prod, web", dns="10.8.0.1, 9.9.9.9")  # written by a person
    assert not controller(name, **fields)["changed"]
    gate.seen()
    checked = controller(name, check=True, description="Rack 5")
    assert checked["changed"] and checked["diff"]["before"]["description"] == "Rack 4"
    assert checked["diff"]["after"]["description"] == "Rack 5"
    assert gate.calls() == ["GET /peers 200"]
    controller(name, description="Rack 5")
    assert gate.seen()[-1]["body"] == {"description": "Rack 5"}
    controller(name, expires_at="never", tags=[], description="")
    assert gate.seen()[-1]["body"] == {"expires_at": None, "tags": "", "description": ""}
    peer, = gate.peers(name)
    assert peer["expires_at"] is None and not peer["tags"] and peer["persistent_keepalive"] == 30
    assert not controller(name, expires_at="never", tags=[], description="")["changed"]


@ALL
def test_a_peer_is_switched_off_and_on(gate, controller):
    name = gate.name()
    assert controller(name, state="disabled")["peer"]["enabled"] is False
    assert not gate.peers(name)[0]["enabled"]
    gate.seen()
    assert not controller(name, state="disabled")["changed"] and not controller(name)["changed"]
    assert gate.calls() == ["GET /peers 200"] * 2
    assert controller(name, check=True, state="enabled")["changed"] and not gate.peers(name)[0]["enabled"]
    gate.seen()
    assert controller(name, state="enabled")["peer"]["enabled"] is True and gate.peers(name)[0]["enabled"]
    assert gate.seen()[-1]["body"] == {"enabled": True}
    assert not controller(name, state="enabled")["changed"]


def test_names_are_taken_as_they_are(gate, controller):
    name = gate.name("web server ")
    controller(name)
    assert not controller(name)["changed"] and controller(name.upper())["created"]  # the server tells case apart
    long = gate.name("x" * 60)
    assert controller(long)["peer"]["name"] == long
    assert "1 to 63" in controller.machine.fails("peer", "invalid_name", url=gate.url, peers_token=gate.peers_token, name=long + "yyy")


def test_a_peer_is_found_behind_600_others(gates, new_host):
    gate, machine = gates("fixed", "--subnet", "10.64.0.0/16"), new_host()
    made = gate.ask("peer", action="add", peer="many", count=620)
    token = gate.server.token("peers")
    gate.seen()
    result = machine.ok("peer", url=gate.url, peers_token=token, name="many-612")
    assert result["peer"]["id"] == made[611]["id"] and not result["created"]
    entries = gate.seen()
    assert [entry["query"] for entry in entries] == ["limit=250&offset=%d" % offset for offset in (0, 250, 500)]
    assert machine.ok("peer", url=gate.url, peers_token=token, name="many-100")["peer"]["id"] == made[99]["id"]
    assert len(gate.seen()) == 1  # not more pages than needed
    peers = machine.ok("info", url=gate.url, peers_token=token, gather=["peers"])["peers"]
    assert len(peers) == len({peer["id"] for peer in peers}) == 620 and "privateKey" not in peers[0] and "private_key" not in peers[0]


@pytest.mark.parametrize("given, word", [
    ({"peer_dns": ["10.8.0.1\nPostUp = x"]}, "peer_dns"), ({"peer_dns": ["dns.example.com"]}, "IPv4"), ({"peer_dns": ["fd00::1"]}, "IPv4"),
    ({"peer_dns": []}, "cannot be emptied"), ({"peer_keepalive": 0}, "peer_keepalive"), ({"peer_keepalive": 65536}, "65535"),
    ({"expires_at": "tomorrow"}, "expires_at 'tomorrow'"), ({"expires_at": "2031-01-01"}, "never"), ({"description": "x" * 256}, "255")])
def test_what_the_server_would_swallow_or_choke_on_is_refused_before(gate, controller, given, word):
    assert word in controller.machine.fails("peer", "options", url=gate.url, peers_token=gate.peers_token, name="web", **given)
    assert gate.calls() == []


def test_an_unknown_group_is_named(gate, controller, waits):
    name = gate.name()
    args = {"url": gate.url, "peers_token": gate.peers_token, "name": name, "group_id": 77}
    assert "no group 77: correct group_id" in controller.machine.fails("peer", "uncertain", **args) and gate.peers(name) == []
    controller(name)
    gate.seen()
    text = controller.machine.fails("peer", "invalid", **args)
    assert '"Failed to update peer" (500)' in text and "no group 77: correct group_id" in text and waits == [] and len(gate.seen()) == 2
    assert not controller(name, group_id=0)["changed"]


@ALL
def test_the_config_is_returned_on_demand_with_its_hash(gate, controller):
    name = gate.name()
    result = controller(name, return_config=True)
    assert result["hash"] == _enrollment.digest(result["config"]) and "PrivateKey" in result["config"]
    assert "config" not in controller(name) and "config" not in controller(name, check=True, return_config=True, state="absent")
    again = controller(name, return_config=True)
    assert not again["changed"] and again["hash"] == result["hash"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_to_a_creation_never_makes_a_second_peer(gate, controller, waits, when):
    name = gate.name()
    gate.fault("drop", path="/api/v1/peers", method="POST", when=when, count=1)
    text = controller.machine.fails("peer", "uncertain", url=gate.url, peers_token=gate.peers_token, name=name)
    assert "the next run finds it by its name" in text and waits == []
    assert controller(name)["created"] is (when == "before") and len(gate.peers(name)) == 1


def test_a_lost_answer_to_a_change_or_a_deletion_is_tried_again(gate, controller, waits):
    name = gate.name()
    controller(name)
    gate.fault("drop", path="/api/v1/peers/*", when="after", count=1)
    assert controller(name, description="x")["changed"] and gate.peers(name)[0]["description"] == "x"
    gate.fault("drop", path="/api/v1/peers/*", when="after", count=1)
    assert controller(name, state="absent")["changed"] and gate.peers(name) == [] and len(waits) == 2


def test_two_plays_that_make_the_same_peer_end_with_one(gate, controller):
    name = gate.name()
    gate.add(name)
    api = _api.Api({"url": gate.url, "token": gate.peers_token})
    peer = _peer.ServerPeer(api, name)
    answers, find = [None], peer.find  # the list was read before the other play made the peer
    peer.find = lambda: answers.pop() if answers else find()
    result = peer.settle("present", {})
    assert not result["created"] and not result["changed"] and result["peer"]["name"] == name and len(gate.peers(name)) == 1
    api.transport.close()


# ---------------------------------------------------------------- gatecontrol_info

@ALL
def test_info_tells_the_release_and_whether_registering_works(gate, host):
    token = gate.token()
    version = {"fixed": "1.119.0"}.get(gate.era, gate.era)
    for check in (False, True):
        server = host.ok("info", check, url=gate.url, token=token)["server"]
        assert server["url"] == gate.url and server["version"] == version and server["timestamp"].endswith("Z")
        assert server["register"] == ("broken" if gate.era == "1.118.2" else "works")
        entry, = gate.seen()
        assert "X-Machine-Fingerprint" not in entry["headers"] and "X-Client-Version" not in entry["headers"]  # a call about no machine
    server = host.ok("info", url=gate.url + "/", peers_token=gate.peers_token)["server"]
    assert server == {"url": gate.url} and [entry["query"] for entry in gate.seen()] == ["limit=1&offset=0"]
    assert host.files() == {}


def test_info_gathers_all_at_once(gate, host):
    name = gate.name()
    gate.add(name)
    result = host.ok("info", url=gate.url, token=gate.token(), peers_token=gate.peers_token, gather=["server", "permissions", "peers"])
    assert result["scopes"] == ["client"] and result["permissions"]["traffic"] is False
    assert name in [peer["name"] for peer in result["peers"]]
    assert gate.calls() == ["GET ping 200", "GET permissions 200", "GET /peers 200"] and not result["changed"]


def test_info_lists_the_peers_as_the_administrator_too(gates, host):
    gate, admin = gates("1.118.2"), {"admin_user": "admin", "admin_password": "LoopbackTest123!"}
    name = gate.name()
    gate.add(name)
    gate.seen()
    assert name in [peer["name"] for peer in host.ok("info", url=gate.url, gather=["peers"], **admin)["peers"]]
    assert gate.calls() == ["GET /login 200", "POST /login 302", "GET /dashboard 200", "GET /peers 200"]
    host.ok("info", url=gate.url, gather=["peers"], peers_token=gate.peers_token, **admin)
    assert gate.calls() == ["GET /peers 200"], "a peers token needs no login"
    host.fails("info", "auth", url=gate.url, gather=["peers"], **dict(admin, admin_password="wrong"))
    gate.seen()
    assert host.fails("info", "options", url=gate.url, **admin) and gate.calls() == []
    assert host.files() == {}


@pytest.mark.parametrize("given, word", [({}, "token"), ({"token": "gc_a", "gather": ["peers"]}, "peers_token"),
                                         ({"peers_token": "gc_a", "gather": ["permissions"]}, "token_file")])
def test_info_names_the_token_it_lacks(gate, host, given, word):
    assert word in host.fails("info", "options", url=gate.url, **given) and gate.calls() == []
