# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Enrollment, rotation and retirement, killed at any moment or done by two plays at once: one run more heals, with no second peer, no half file and no
token that is left."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import time

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment, _play, _proof, _session

KILLS = int(os.environ.get("GATECONTROL_KILLS", "60"))
ADMIN = {"admin_user": "admin", "admin_password": "LoopbackTest123!"}


def killed(work, seconds: float) -> bool:
    """Kill work() after so long, as the kernel does; whether it was still at it."""
    number = os.fork()
    if not number:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(number, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(number, 0)[1])


@pytest.mark.parametrize("gate", ["1.50.12", "fixed"], indirect=True)
def test_an_enrollment_that_is_killed_at_any_moment_is_healed_by_one_run_more(gate, new_host, monkeypatch):
    monkeypatch.setattr(_enrollment, "ABANDONED", 0)
    chance, hits, lengths = random.Random(5), 0, []
    for _number in range(KILLS):
        host, name, token = new_host(), gate.name("killed"), gate.token()

        def run(host=host, name=name, token=token):
            enrolled = host.module("peer", url=gate.url, token=token, name=name)
            host.module("config", url=gate.url, hash=enrolled["hash"], stage=True)
        if not lengths:
            begin = time.monotonic()
            run()
            lengths.append(time.monotonic() - begin)
            continue
        hits += killed(run, chance.random() * lengths[0])
        for path in (host.root / "etc/gatecontrol").glob("*.json"):
            assert isinstance(json.loads(path.read_text(encoding="utf-8")), dict), path
        result = host.ok("peer", url=gate.url, token=token, name=name)
        peer, = gate.peers(name)
        assert result["peer"] == {"id": peer["id"], "name": name} and host.record["token_digest"] == _enrollment.digest(token)
        staged = host.ok("config", url=gate.url, hash=result["hash"], stage=True)
        assert staged["hash"] == _enrollment.digest(host.store.text("offered")) and host.store.text("candidate")
        assert host.store.load("intent") is None
        again = host.ok("peer", url=gate.url, name=name)
        assert not again["changed"] and len(gate.peers(name)) == 1
    assert hits > KILLS / 4


class Life:
    """A host and its controller, which has the administrator's login: what the role's tasks do, one module after the other."""

    def __init__(self, gate, controller, host):
        self.gate, self.controller, self.host, self.name = gate, controller, host, gate.name("life")

    def ask(self, state, keys=False, **more):
        """The controller's part; what it says of the host."""
        who = dict(more, host=self.name, name=self.name, peer_id=(self.host.record or {}).get("peer_id"),
                   proof=_proof.of_host(self.host.store, str(self.host.root / "etc/wireguard/wg0.conf"), _play.CHALLENGE))
        return self.controller.ok("fleet", url=self.gate.url, hosts=[who], state=state, keys=keys, **ADMIN)["hosts"][self.name]

    def take(self, got):
        """The host takes over what the controller has made for it."""
        taken = self.host.ok("peer", url=self.gate.url, token=got["token"], peer_id=got["peer"]["id"], name=self.name, adopt=True)
        self.host.ok("config", url=self.gate.url, hash=taken["hash"], stage=True)

    def enroll(self):
        if self.host.record is not None:
            known = self.host.module("peer", url=self.gate.url, name=self.name)
            if not known.get("failed"):
                self.host.ok("config", url=self.gate.url, hash=known["hash"], stage=True)
                return
            assert known["failure"]["kind"] == "auth" and "a second play over the same host at the same time revokes it too" in known["msg"], known
        self.take(self.ask("present"))

    def rotate(self, keys):
        got = self.ask("rotated", keys)
        self.take(got)
        self.ask("confirmed", token_id=got["token_id"])

    def retire(self):
        self.ask("absent")
        self.host.ok("agent", state="absent")

    def left(self):
        """(peers, tokens) that the server has for it."""
        admin, _user = _session.administrator(dict(ADMIN, session=None, token_user=None), {"url": self.gate.url})
        return self.gate.peers(self.name), [token["peer_id"] for token in admin.tokens() if self.name in token["name"].split()]

    def is_whole(self):
        (peer,), tokens = self.left()
        assert peer["name"] == self.name and tokens == [peer["id"]] == [self.host.record["peer_id"]]
        assert not self.host.ok("peer", url=self.gate.url, name=self.name)["changed"]
        assert self.host.record["token_digest"] == _enrollment.digest(self.host.store.text("token").strip())


WORKS = {"enroll": Life.enroll, "token": lambda life: life.rotate(False), "keys": lambda life: life.rotate(True), "retire": Life.retire}


@pytest.mark.parametrize("work", WORKS)
def test_what_the_controller_does_with_a_host_may_be_killed_at_any_moment(gates, new_host, monkeypatch, work):
    monkeypatch.setattr(_enrollment, "ABANDONED", 0)
    gate, chance, hits, whole = gates("1.118.2", "--login-limit", "100000"), random.Random(work), 0, None
    for _number in range(KILLS // 2 + 1):
        life = Life(gate, new_host(), new_host())
        if work != "enroll":
            life.enroll()
        if whole is None:
            start = time.monotonic()
            WORKS[work](life)
            whole = time.monotonic() - start
        else:
            hits += killed(lambda life=life: WORKS[work](life), chance.random() * whole)
        for path in life.host.root.rglob("*.json"):
            assert isinstance(json.loads(path.read_text(encoding="utf-8")), dict), path
        WORKS[work](life)
        if work == "retire":
            assert life.left() == ([], []) and life.host.files() == {}
        else:
            life.is_whole()
            assert not list(life.host.root.rglob(".gatecontrol.*"))
            life.retire()
    assert hits > KILLS / 6


@pytest.mark.parametrize("code", [28, 30])
@pytest.mark.parametrize("file", ["intent", "offered", "token", "enrollment", "candidate"])
def test_an_enrollment_that_finds_no_room_says_so_and_the_next_one_heals(gate, host, monkeypatch, file, code):
    name, token, write_text, room = gate.name("full"), gate.token(), _enrollment.write_text, []

    def write(path, *words, **how):
        if not room and path == host.store.path(file):
            raise OSError(code, os.strerror(code), path)
        return write_text(path, *words, **how)
    monkeypatch.setattr(_enrollment, "write_text", write)
    if file == "candidate":
        digest = host.ok("peer", url=gate.url, token=token, name=name)["hash"]
        said = host.fails("config", "file", url=gate.url, hash=digest, stage=True)
    else:
        said = host.fails("peer", "file", url=gate.url, token=token, name=name)
    assert said == "%s: %s; look into the path and its rights" % (host.store.path(file), os.strerror(code))
    assert len(gate.peers(name)) == (file != "intent"), "what is registered is written down before"
    room.append(True)
    result = host.ok("peer", url=gate.url, token=token, name=name)
    host.ok("config", url=gate.url, hash=result["hash"], stage=True)
    peer, = gate.peers(name)
    assert host.record["peer_id"] == peer["id"] and host.store.text("candidate") and host.store.load("intent") is None
    assert not host.ok("peer", url=gate.url, name=name)["changed"]


ROUNDS = 8


def at_once(*works):
    """Processes that begin works together; whether all came to their ends."""
    gate, numbers = os.pipe(), []
    for work in works:
        numbers.append(os.fork())
        if not numbers[-1]:
            os.close(gate[1])
            os.read(gate[0], 1)
            try:
                work()
            finally:
                os._exit(0)
    for end in gate:
        os.close(end)
    return [os.waitpid(number, 0)[1] for number in numbers] == [0] * len(works)


@pytest.mark.parametrize("gate", ["1.50.12", "fixed"], indirect=True)
def test_two_plays_at_once_with_one_client_token_enroll_a_host_once(gate, new_host):
    for _number in range(ROUNDS):
        host, name, token = new_host(), gate.name("twice"), gate.token()

        def run(host=host, name=name, token=token):
            assert host.ok("peer", url=gate.url, token=token, name=name)["peer"]["name"] == name
            pathlib.Path(host.root, "done-%d" % os.getpid()).touch()
        assert at_once(run, run)
        peer, = gate.peers(name)
        assert len(list(host.root.glob("done-*"))) == 2 and host.record["peer_id"] == peer["id"] and host.store.load("intent") is None
        assert not host.ok("peer", url=gate.url, name=name)["changed"]


@pytest.mark.parametrize("work", ["enroll", "token", "keys", "retire"])
def test_two_plays_at_once_with_the_login_end_with_one_peer_and_one_token(gates, new_host, work):
    """One of them may fail, since the token that it was given is replaced by the other's; the next one heals."""
    gate = gates("1.118.2", "--login-limit", "100000")
    for _number in range(ROUNDS):
        life = Life(gate, new_host(), new_host())
        if work != "enroll":
            life.enroll()
        assert at_once(lambda life=life: WORKS[work](life), lambda life=life: WORKS[work](life))
        WORKS[work](life)
        if work == "retire":
            assert life.left() == ([], []) and life.host.files() == {}
        else:
            life.is_whole()
            life.retire()
