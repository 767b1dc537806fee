"""Two machines never hold one key: of batches that follow each other, of several forks, and of a server that is stopped and started between two plays."""
from __future__ import annotations

import re
import sqlite3

import pytest
from test_play import ADMIN, player

NAME = "debian"


class Room:
    """A server that keeps its database in a file, and plays against it."""

    def __init__(self, kind, folder, era, secret):
        self.state = str(folder / "gate.db")
        self.gate = kind(era, "--login-limit", "100000", "--state", self.state)
        self.gate.server.arguments += ("--port", self.gate.url.rpartition(":")[2])
        self.play = player(self.gate, folder, ADMIN if secret == "admin" else {"gatecontrol_peers_token": self.gate.peers_token})

    def restart(self):
        """As a server whose interface is made anew: no handshake, and the counters begin at 0. What it adds up and when a token was used stays."""
        assert self.gate.server.stop() == 0
        with sqlite3.connect(self.state) as database:
            database.execute("UPDATE peers SET latest_handshake = NULL, transfer_rx = 0, transfer_tx = 0")
        database.close()
        url = self.gate.url
        self.gate.server.start()
        assert self.gate.server.url == url

    def enrolled(self, machine, got, name=NAME):
        """A machine keeps what the play got for it."""
        given = {"token": got["token"]} if "token" in got else {"issued_config": got["config"]}
        machine.ok("peer", url=self.gate.url, peer_id=got["peer"]["id"], name=name, **given)


@pytest.fixture
def room(tmp_path, gates):
    made, kind = [], type(gates("fixed"))

    def make(era, secret="admin"):
        made.append(Room(kind, tmp_path, era, secret))
        return made[-1]
    yield make
    for one in made:
        one.gate.server.stop()


def keys(*machines):
    """The private keys that lie on machines, and what stands for one: a token that is bound to a peer."""
    return [set(re.findall(r"PrivateKey = (\S+)", text)) | ({machine.files().get("etc/gatecontrol/token")} - {None})
            for machine in machines for text in ["".join(machine.files().values())]]


def served(got):
    return {host for host, one in got.items() if "token" in one or "config" in one}


@pytest.mark.parametrize("secret", ["admin", "peers"])
@pytest.mark.parametrize("serial, first", [(1, {"a"}), (2, set())], ids=["one by one", "two at once"])
def test_of_all_batches_of_a_run_one_host_of_a_name_or_a_number_gets_a_key(room, secret, serial, first):
    here = room("1.118.2", secret)
    made = here.gate.add("made")
    for count, variables in ((1, {"gatecontrol_name": NAME}), (1, {"gatecontrol_peer_id": made["id"]})):
        _status, output, got = here.play(dict.fromkeys("abcd", variables), serial=serial, environment={"ANSIBLE_FORKS": "4"})
        assert served(got) == first and sorted(got) == list("abcd"), output
        assert {one["failure"]["kind"] for host, one in got.items() if host not in first} == {"clone"}, got
        assert len(here.gate.peers(NAME)) == len(first) and len(here.gate.peers("made")) == count
    if first:  # and the number of the one that has the name is no other's, in whatever batch
        variables = {"a": {"gatecontrol_name": NAME}, **dict.fromkeys("bc", {"gatecontrol_peer_id": str(here.gate.peers(NAME)[0]["id"])})}
        assert served(here.play(variables, serial=serial)[2]) <= {"a"}


@pytest.mark.parametrize("secret", ["admin", "peers"])
def test_a_server_that_was_started_anew_gives_nobody_the_peer_of_a_machine_that_is_off(room, new_host, secret):
    here, first, second = room("1.118.2", secret), new_host(), new_host()
    _status, output, got = here.play({"a": {"gatecontrol_name": NAME}})
    assert served(got) == {"a"}, output
    here.enrolled(first, got["a"])
    # With the login the use of its token is all that tells, with a peers token what it has carried.
    here.gate.set(NAME, latest_handshake=1_700_000_000, transfer_rx=99, total_rx=99 * (secret == "peers"))
    here.restart()
    peers, held = here.gate.peers(NAME), keys(first)
    assert not peers[0]["latest_handshake"] and not peers[0]["transfer_rx"]
    # Another machine answers where the inventory has the first one, or is another host that calls itself so.
    for host, variables in (("a", {"gatecontrol_name": NAME}), ("b", {"gatecontrol_name": NAME}), ("b", {"gatecontrol_peer_id": peers[0]["id"]})):
        _status, output, got = here.play({host: variables})
        assert served(got) == set() and got[host]["failure"]["kind"] == "not_ours", output
        assert here.gate.peers(NAME) == peers
    _status, output, got = here.play({"b": {"gatecontrol_name": NAME + "-2"}})
    here.enrolled(second, got["b"], NAME + "-2")
    assert keys(first) == held and all(keys(first, second)) and not set.intersection(*keys(first, second))
    given = {} if secret == "admin" else {"issued_config": first.store.text("offered"), "peer_id": peers[0]["id"], "name": NAME}
    assert not first.ok("peer", url=here.gate.url, send_version=False, **given)["changed"], "the first one works on"


@pytest.mark.parametrize("era", ["1.50.12", "fixed"])
def test_nor_does_a_client_token_after_a_restart(room, new_host, era):
    here, first, second = room(era), new_host(), new_host()
    token, url = here.gate.token(), here.gate.url
    first.ok("peer", url=url, token=token, name=NAME)
    here.gate.set(NAME, latest_handshake=1_700_000_000, transfer_rx=99)
    here.restart()
    second.fails("peer", "not_ours", url=url, token=token, name=NAME)
    assert second.files() == {}
    if era == "1.50.12":  # this release gives a host the peer of its name
        second.fails("peer", "not_ours", url=url, token=here.gate.token(), name=NAME)
        assert second.files() == {}
    else:
        assert second.ok("peer", url=url, token=here.gate.token(), name=NAME)["peer"]["name"] != NAME
        assert all(keys(first, second)) and not set.intersection(*keys(first, second))
    assert not first.ok("peer", url=url, send_version=False)["changed"]
