"""Verify finds every difference between a host and what a play wants, asks the server once, and changes nothing."""
from __future__ import annotations

import base64
import json
import pathlib

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import (
    _agent, _cli, _drift, _enrollment, _facts, _gate, _install, _said, _verify)

from made_up_host import LAUNCHER, UNITS, enroll


def wanted(host, **options) -> dict:
    """What the action asks, from the options of the play that installed this host."""
    given = {"state": "present", "url": host.settings["url"], "interface": "wg0", "check": True, "settings": host.settings,
             "token_digest": _enrollment.digest(host.token) if hasattr(host, "token") else None, "launcher": LAUNCHER, "units": UNITS}
    return _verify.wanted(dict(given, **options))


@pytest.fixture
def verify(gate, steady):
    """Verify by the command line, as the action does: the answer, and that nothing on the disk changed."""
    steady.token = steady.store.text("token").strip()
    gate.seen()

    def ask(**options) -> dict:
        before = steady.files()
        words = base64.b64encode(json.dumps(wanted(steady, **options)).encode()).decode()
        status, text = _cli.command(steady.store, Clocked(steady), "verify", [words])
        assert status == 0 and steady.files() == before
        answer = _gate.marked("Welcome to this host!\n" + text + "\nbye\n", _verify.MARKER)
        assert answer["in_sync"] is (not answer["drift"]) and steady.token not in text
        assert _said.VERIFY_ANSWER(answer) == dict(answer, drift=[_gate.clean(text) for text in answer["drift"]]), "a key that the gate does not know"
        return answer
    return ask


class Clocked:
    """The host's way to run commands; what is not asked for fails the test."""

    def __init__(self, host):
        self.host = host

    def __call__(self, argv, stdin=None):
        reading = ("show", "-batch", "--version", "link")
        assert any(word in reading for word in argv), argv
        return self.host.run(argv, stdin)


def test_a_steady_host_is_in_sync_with_one_request(gate, steady, verify):
    answer = verify()
    assert answer["drift"] == [] and gate.calls() == ["config/check"]
    assert answer["server"] == {"asked": True, "updated": False} and answer["tunnel"] == {"action": "none", "reasons": []}
    assert answer["version"] == _verify.VERSION and answer["status"] == "connected" and answer["peer_name"] == steady.peer
    host = answer["host"]
    assert (host["system"], host["distribution"], host["version"], host["service_manager"]) == ("linux", "debian", "12", "systemd")
    assert verify(check=False)["server"] == {"asked": False} and gate.calls() == []


def test_a_url_is_compared_in_one_spelling(gate, verify):
    assert verify(url=gate.url.upper().replace("HTTP", "http") + "/")["drift"] == []


def edit(path, change=lambda text: text + "# by hand\n"):
    def do(host):
        file = pathlib.Path(host.root, path)
        file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
    return do


def remove(path):
    return lambda host: pathlib.Path(host.root, path).unlink()


def record(**values):
    return lambda host: host.store.save("enrollment", dict(host.store.load("enrollment"), **values))


FILES = {path.lstrip("/"): path for path in [_verify.LIBRARY_FILE % name for name in _verify.MODULES] + ["/" + _verify.LAUNCHER] + sorted(UNITS)}
CHANGES = {
    **{"edited " + path: (edit(path), full + " differs") for path, full in FILES.items()},
    **{"removed " + path: (remove(path), full + " is missing") for path, full in FILES.items()},
    "settings edited": (edit("etc/gatecontrol/settings.json"), "the agent's settings differ"),
    "settings removed": (remove("etc/gatecontrol/settings.json"), "the agent's settings differ"),
    "token edited": (edit("etc/gatecontrol/token", lambda text: "gc_" + "0" * 96 + "\n"), "the token file was changed"),
    "token removed": (remove("etc/gatecontrol/token"), "the token file was changed"),
    "folder opened": (lambda host: pathlib.Path(host.root, "etc/gatecontrol").chmod(0o755), "/etc/gatecontrol can be read by others than root"),
    "enrollment removed": (remove("etc/gatecontrol/enrollment.json"), "this host is not enrolled; run the play with a secret for it"),
    "enrollment damaged": (edit("etc/gatecontrol/enrollment.json", lambda text: text[:40]), "this host is not enrolled; run the play with a secret for it"),
    "another server": (record(url="https://other.example.com"), "the enrollment is with https://other.example.com"),
    "another interface": (record(interface="wg7"), "the enrollment uses the interface wg7"),
    "another machine": (edit("etc/machine-id", lambda text: "1" * 32 + "\n"), "this machine is a clone of the one that enrolled as"),
    "config edited": (edit("etc/wireguard/wg0.conf"), "wg0.conf was changed"),
    "config removed": (remove("etc/wireguard/wg0.conf"), "wg0.conf is missing"),
    "tunnel away": (lambda host: host.systemctl(["stop", "wg-quick@wg0.service"]) and host.run(["wg", "show", "x", "dump"]), "the interface is not there"),
    "tunnel's peer away": (lambda host: host.links["wg0"]["peers"].clear(), "peer"),
    "tunnel's address away": (lambda host: host.links["wg0"]["addresses"].clear(), "address"),
    "tunnel's route away": (lambda host: host.links["wg0"]["routes"].clear(), "route"),
    "unit stopped": (lambda host: host.active.discard("wg-quick@wg0.service"), "wg-quick@wg0.service is inactive"),
    "unit disabled": (lambda host: host.enabled.discard("wg-quick@wg0.service"), "wg-quick@wg0.service is not enabled at boot"),
    "timer stopped": (lambda host: host.active.discard(_agent.TIMER), "gatecontrol-beat.timer is inactive"),
    "timer disabled": (lambda host: host.enabled.discard(_agent.TIMER), "gatecontrol-beat.timer is not enabled at boot"),
    "recovery disabled": (lambda host: host.enabled.discard(_agent.RECOVER), "gatecontrol-recover.service is not enabled at boot"),
    "change under way": (lambda host: host.store.save("pending", {"id": "1", "armed": 0, "deadline": 1}), "a change of the tunnel is under way"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_drift_is_found_and_costs_no_request(gate, steady, verify, change):
    make, words = CHANGES[change]
    make(steady)
    answer = verify()
    assert any(words in reason for reason in answer["drift"]), answer["drift"]
    assert gate.calls() == ([] if change != "change under way" else ["config/check"])


@pytest.mark.parametrize("policy, words", [
    ({"mtu": 1300}, "wg0.conf is not what the local policy makes of the server's config"),
    ({"allow_endpoints": ["10.0.0.0/8"]}, "is not one of the allowed endpoints")])
def test_a_policy_that_was_never_applied_is_found(gate, steady, verify, policy, words):
    """A run that was cut off after the settings were written, or whose change was rolled back."""
    steady.settings = dict(steady.settings, policy=dict(steady.settings["policy"], **policy))
    steady.install()
    answer = verify()
    assert len(answer["drift"]) == 1 and words in answer["drift"][0] and gate.calls() == []


WISHES = {
    "url": ({"url": "https://new.example.com"}, "the enrollment is with http://127.0.0.1"),
    "interface": ({"interface": "wg1"}, "the enrollment uses the interface wg0"),
    "token": ({"token_digest": _enrollment.digest("gc_another")}, "the token given is not the one on the host"),
    "settings": ({"settings": {"url": "https://new.example.com", "heartbeat_interval": 30}}, "the agent's settings differ"),
    "launcher": ({"launcher": LAUNCHER + "\n"}, "/usr/local/sbin/gatecontrol-agent differs"),
    "units": ({"units": dict(UNITS, **{"/etc/systemd/system/gatecontrol-new.service": "x"})}, "/etc/systemd/system/gatecontrol-new.service is missing"),
}


@pytest.mark.parametrize("wish", WISHES)
def test_every_new_wish_is_found(gate, steady, verify, wish):
    options, words = WISHES[wish]
    answer = verify(**options)
    assert len(answer["drift"]) == 1 and words in answer["drift"][0] and gate.calls() == []


def test_what_the_play_wants_of_the_peer_is_found_beside_what_the_server_says(gate, steady, verify):
    answer = verify(peer_fields="a" * 64)
    assert answer["drift"] == ["the peer has not been given what the play wants of it on the server"] and gate.calls() == ["config/check"]
    steady.store.save("enrollment", dict(steady.store.load("enrollment"), fields="a" * 64))
    assert verify(peer_fields="a" * 64)["in_sync"] and verify(peer_fields="")["in_sync"] and verify()["in_sync"]
    assert verify(peer_fields="b" * 64)["peer_fields"] is False
    assert verify()["peer_fields"] is None and verify(peer_fields="a" * 64)["peer_fields"] is True
    # The peer of a clone is another host's, and the number of one is another peer's on another server.
    assert verify(peer_fields="b" * 64, url="https://new.example.com")["peer_fields"] is None
    for other in ({"fields": "ephemeral"}, {"fingerprint": "f" * 64}):
        steady.store.save("enrollment", dict(steady.store.load("enrollment"), **other))
        assert verify(peer_fields="b" * 64)["peer_fields"] is None
        steady.store.save("enrollment", dict(steady.store.load("enrollment"), fields="a" * 64))


def test_a_url_in_another_spelling_is_the_same(gate, steady, verify):
    assert verify(url=steady.settings["url"].upper() + "/")["in_sync"]


def test_the_server_has_a_new_config(gate, steady, verify):
    gate.peer("set", steady.peer, persistent_keepalive=11)
    answer = verify()
    assert answer["drift"] == ["the server has a new config"] and answer["server"] == {"asked": True, "updated": True} and gate.calls() == ["config/check"]


@pytest.mark.parametrize("fault,kind", [({"kind": "status", "status": 503}, "server"), ({"kind": "drop"}, "network"),
                                        ({"kind": "status", "status": 429, "retry_after": 3}, "rate_limited"), ({"kind": "status", "status": 401}, "auth")])
def test_a_server_that_fails_is_asked_once(gate, steady, verify, fault, kind):
    gate.fault(verb="config/check", **fault)
    answer = verify()
    assert answer["server"]["error"]["kind"] == kind and answer["drift"] == ["the server: " + answer["server"]["error"]["text"]]
    assert len(gate.calls()) == 1 and steady.slept == []


def test_while_the_rate_limit_is_used_up_nothing_is_asked(gate, steady, verify):
    gate.fault("status", "heartbeat", status=429, retry_after=500, count=1)
    steady.beat()
    gate.seen()
    answer = verify()
    assert answer["in_sync"] and answer["server"] == {"asked": False, "not_before": steady.now() + 500} and gate.calls() == []


def test_a_rate_limit_noted_by_a_clock_that_was_ahead_silences_nobody(gate, steady, verify):
    """The beat does not believe it either."""
    steady.store.save("state", dict(steady.store.load("state"), not_before=steady.now() + 40 * 86400))
    answer = verify()
    assert answer["in_sync"] and answer["server"] == {"asked": True, "updated": False} and gate.calls() == ["config/check"]
    steady.pass_by(60 * 3 + 31)
    assert _drift.verify(steady.agent(), wanted(steady, token_digest=None))["codes"] == ["beat_silent"]


def test_a_silent_agent_is_found(gate, steady):
    steady.pass_by(60 * 3 + 31)
    seen = _drift.verify(steady.agent(), wanted(steady, token_digest=None))
    assert seen["drift"] == ["the agent has not beaten for 211 s"]


def test_without_wishes_only_the_host_itself_counts(gate, steady):
    assert _drift.verify(steady.agent(), {})["in_sync"]


def test_a_host_without_a_token_of_its_own(gate, machine):
    enroll(machine, gate, reporting="none")
    machine.install()
    machine.systemctl(["stop", _agent.TIMER])
    machine.systemctl(["disable", _agent.TIMER])
    answer = _drift.verify(machine.agent(), wanted(machine))
    assert answer["in_sync"] and answer["server"] == {"asked": False, "last_check": None} and gate.calls() == []
    assert _cli.command(machine.store, machine.run, "checked", []) == (0, None)
    assert _drift.verify(machine.agent(), wanted(machine))["server"]["last_check"] > machine.now() - 60


@pytest.mark.parametrize("there,needs", [
    ("", ["wg", "wg-quick", "ip", "wireguard-go"]), ("wg wg-quick", ["ip", "wireguard-go"]), ("wg wg-quick ip wireguard-go", [])])
def test_a_new_host_says_what_it_needs(gate, machine, monkeypatch, there, needs):
    monkeypatch.setattr(_facts.shutil, "which", lambda tool, path: "/usr/bin/" + tool if tool in there.split() else None)
    answer = _drift.verify(machine.agent(), wanted_of_a_new_host(gate))
    assert answer["drift"][0] == "this host is not enrolled; run the play with a secret for it" and not answer["enrolled"] and answer["peer_id"] is None
    assert answer["host"]["fingerprint"] == _facts.machine_fingerprint(machine.root) and answer["host"]["needs"] == needs
    assert gate.calls() == []


def wanted_of_a_new_host(gate) -> dict:
    return _verify.wanted({"url": gate.url, "interface": "wg0", "settings": {"url": gate.url}, "launcher": LAUNCHER, "units": UNITS})


def test_absent_names_everything_that_is_left(gate, steady, verify):
    paths = [path for path in [*FILES.values()] if "/lib/" not in path] + ["/usr/local/lib/gatecontrol", "/etc/gatecontrol", "/var/lib/gatecontrol"]
    drift = verify(state="absent")["drift"]
    assert {path + " is there" for path in paths} | {"the interface wg0 is there"} <= set(drift) and gate.calls() == []
    steady.systemctl(["stop", "wg-quick@wg0.service"])
    steady.run(["wg", "show", "wg0", "dump"])
    _install.remove(steady.agent())
    assert _drift.verify(steady.agent(), wanted(steady, state="absent"))["in_sync"]
