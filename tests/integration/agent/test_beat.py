"""What a beat sends, when, and what it makes of every answer."""
from __future__ import annotations

import json
import os
import pathlib
import re

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import (
    _agent, _cli, _drift, _enrollment, _verify)

from made_up_host import ERAS, Machine, enroll

ALL = pytest.mark.parametrize("gate", ERAS, indirect=True)


@ALL
def test_a_beat_is_one_request_and_one_more_when_the_check_is_due(gate, host):
    calls = []
    for _minute in range(7):
        host.beat()
        calls.append(gate.calls())
        host.pass_by(60)
    assert calls == [["heartbeat", "config/check"]] + [["heartbeat"]] * 4 + [["heartbeat", "config/check"], ["heartbeat"]]


def test_what_a_heartbeat_says(gate, host):
    host.beat()
    host.pass_by(100)
    gate.seen()
    shown = host.beat()
    entry, = gate.seen()
    assert (entry["method"], entry["path"], entry["status"]) == ("POST", "/api/v1/client/heartbeat", 200)
    body = entry["body"]
    assert body == {"peerId": host.store.load("enrollment")["peer_id"], "connected": True, "rxBytes": shown["rx_bytes"], "txBytes": shown["tx_bytes"],
                    "uptime": 100, "hostname": os.uname().nodename.split(".")[0].lower()}
    assert {key: type(value) for key, value in body.items()} == {
        "peerId": int, "connected": bool, "rxBytes": int, "txBytes": int, "uptime": int, "hostname": str}
    assert shown["rx_bytes"] > 0
    headers = entry["headers"]
    assert headers["X-Machine-Fingerprint"] == host.store.load("enrollment")["fingerprint"]
    assert headers["X-Client-Version"] == _verify.VERSION and headers["X-Client-Platform"] == "linux" and headers["Accept-Language"] == "en"
    host.set(send_version=False)
    host.beat()
    assert "X-Client-Version" not in gate.seen()[0]["headers"]


def test_the_first_state_is_kept_a_change_is_reported_once(gate, host):
    host.beat(check=False)
    assert gate.calls() == ["heartbeat"]
    host.silence()
    host.pass_by(200, handshake=False)
    host.beat(check=False)
    heartbeat, status = gate.seen()
    assert heartbeat["body"]["connected"] is False and heartbeat["body"]["uptime"] == 0
    assert status["path"] == "/api/v1/client/status" and status["body"]["status"] == "reconnecting" and set(status["body"]) == {"peerId", "status", "timestamp"}
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", status["body"]["timestamp"])
    host.beat(check=False)
    assert gate.calls() == ["heartbeat"]
    host.run(["ip", "link", "delete", "dev", "wg0"])
    host.beat(check=False)
    assert [entry["body"].get("status") for entry in gate.seen()] == [None, "disconnected"]


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 500}, {"kind": "drop", "when": "after"}])
def test_a_status_event_whose_answer_was_lost_is_reported_by_the_next_beat(gate, host, fault):
    host.beat(check=False)
    gate.seen()
    host.silence()
    host.pass_by(200, handshake=False)
    gate.fault(verb="status", count=1, **fault)
    shown = host.beat(check=False)
    assert shown["error"]["kind"] in ("server", "network") and [entry["path"].rsplit("/", 1)[1] for entry in gate.seen()] == ["heartbeat", "status"]
    assert host.beat(check=False)["error"] is None and gate.calls() == ["heartbeat", "status"]
    host.beat(check=False)
    assert gate.calls() == ["heartbeat"]


@pytest.mark.parametrize("gate", ["1.50.12", "fixed"], indirect=True)
def test_a_disabled_peer_is_shown_and_left_alone(gate, host):
    host.beat()
    gate.peer("disable", host.peer)
    before = host.files()
    shown = host.beat(check=False)
    told = shown["peer_enabled"]
    assert told is (None if gate.era == "1.5.2" else False) and shown["error"] is None and "wg0" in host.links
    assert "the administrator has disabled this peer" in _cli.described(shown)
    assert {path for path, what in host.files().items() if before.get(path) != what} == {"var/lib/gatecontrol/state.json"}
    gate.peer("enable", host.peer)
    assert host.beat(check=False)["peer_enabled"] is True


def test_a_release_before_1_33_0_does_not_tell_whether_the_peer_is_enabled(gates, machine):
    gate = gates("1.5.2")
    enroll(machine, gate)
    shown = machine.beat()
    assert shown["peer_enabled"] is None and shown["error"] is None and "disabled" not in _cli.described(shown)


# --- what the server answers

REFUSALS = {
    "auth": (401, "Invalid API token", "auth"),
    "scope": (403, "Token does not have permission for this resource", "scope"),
    "user": (403, "User account is disabled", "user_disabled"),
    "deleted": (403, "Token is not bound to a peer. Register first.", "unbound"),
    "other": (403, "Token is not authorized for this peer", "wrong_peer"),
    "machine": (403, "Token is bound to a different machine", "machine_binding"),
    "unknown": (403, "Go away", "forbidden"),
    "gone": (404, "Peer not found", "not_found"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_said_once_and_leaves_the_tunnel_alone(gate, host, refusal):
    status, text, kind = REFUSALS[refusal]
    host.beat()
    links, files = json.dumps(host.links, default=list), host.files()
    gate.seen()
    gate.fault("status", "heartbeat", status=status, text=text)
    status, said = _cli.command(host.store, host.run, "beat", [])
    assert gate.calls() == ["heartbeat %d" % REFUSALS[refusal][0]] and host.slept == []
    assert status == 1 and text in said and said.count("\n") <= 4
    error = host.store.load("state")["error"]
    assert error["kind"] == kind and "; " in error["text"] and "\n" not in error["text"]
    after = json.loads(json.dumps(host.links, default=list))
    before = json.loads(links)
    for link in (before, after):
        for peer in link["wg0"]["peers"].values():
            del peer["handshake"], peer["rx"]
    assert before == after
    assert {path for path, what in host.files().items() if files.get(path) != what} == {"var/lib/gatecontrol/state.json"}
    gate.server.no_faults()
    assert host.beat(check=False)["error"] is None


def test_a_real_deleted_peer_and_a_real_wrong_token(gate, host):
    host.beat()
    host.store.save("token", host.store.text("token").replace("gc_", "gc_0")[:99])
    assert host.beat()["error"]["kind"] == "auth"
    enroll(host, gate)
    gate.peer("delete", host.peer)
    assert host.beat()["error"]["kind"] == "unbound" and "wg0" in host.links


def test_a_rate_limit_makes_it_silent_until_then_and_says_so(gate, host):
    host.beat()
    gate.seen()
    gate.fault("status", "heartbeat", status=429, retry_after=200, text="Too many requests", count=1)
    shown = host.beat()
    assert shown["error"]["kind"] == "rate_limited" and shown["not_before"] == host.now() + 200 and gate.calls() == ["heartbeat 429"] and host.slept == []
    host.pass_by(199)
    for name in ("beat", "sync"):
        shown = host.beat(now=name == "sync")
        assert "the rate limit is used up, silent for" in _cli.described(shown) and gate.calls() == []
    host.pass_by(2)
    shown = host.beat(check=False)
    assert shown["error"] is None and gate.calls() == ["heartbeat"] and "rate limit" not in _cli.described(shown)


def test_a_short_rate_limit_is_waited_for(gate, host):
    gate.fault("status", "heartbeat", status=429, retry_after=7, count=1)
    assert host.beat(check=False)["error"] is None and host.slept == [7.5]


def test_a_failing_server_is_asked_again_within_the_time_of_one_beat(gate, host):
    host.beat()
    gate.seen()
    began = host.now()
    gate.fault("status", "*", status=503)
    shown = host.beat()
    assert host.slept == [2, 3, 4.5, 6.75, 10.12, 15.19] and host.now() - began <= 45
    assert shown["error"]["kind"] == "server" and gate.calls() == ["heartbeat 503"] * 7
    host.slept.clear()
    gate.server.no_faults()
    gate.fault("drop", "heartbeat", count=2)
    assert host.beat(check=False)["error"] is None and host.slept == [2, 3]


def test_all_requests_of_a_beat_share_its_time(gate, host):
    """The server comes back for the heartbeat and fails again: the check has what is left."""
    began = host.now()
    gate.fault("status", "heartbeat", status=503, count=4)
    gate.fault("status", "config/check", status=503)
    shown = host.beat()
    assert shown["error"]["kind"] == "server" and shown["last_beat"] == began and host.now() - began <= 45
    assert [entry["path"].rsplit("client/")[1] for entry in gate.seen()].count("heartbeat") == 5


def test_a_server_that_is_not_there(gate, host):
    host.beat()
    host.set(url="http://127.0.0.1:9")
    shown = host.beat()
    assert shown["error"]["kind"] == "network" and "127.0.0.1:9" in shown["error"]["text"] and "wg0" in host.links


@pytest.mark.parametrize("fault,kind", [("invalid-json", "protocol"), ("html", "protocol")])
def test_something_else_answers(gate, host, fault, kind):
    gate.fault(fault, "heartbeat")
    assert host.beat()["error"]["kind"] == kind and host.slept == []


def test_settings_that_lead_nowhere_are_said(gate, host):
    for settings, word in (({"url": "ftp://gate"}, "gatecontrol_url"), ({"url": "http://gate.example.com"}, "plain http"),
                           ({"proxy": "socks://user:secret@proxy"}, "gatecontrol_proxy")):
        host.settings = dict(host.settings)
        host.store.save("settings", _verify.settings_text(dict(host.settings, **settings)))
        shown = host.beat()
        assert shown["error"]["kind"] == "options" and word in shown["error"]["text"] and "secret" not in json.dumps(shown)


def test_without_settings_the_enrollments_server_is_asked(gate, host):
    host.store.drop("settings")
    assert host.beat(check=False)["error"] is None and gate.calls() == ["heartbeat"]


# --- the config

def changed(gate, host, **values):
    gate.peer("set", host.peer, **values)


def test_a_new_config_is_staged_armed_and_its_unit_started(gate, host):
    host.beat()
    changed(gate, host, persistent_keepalive=17)
    before = host.links["wg0"]["peers"].copy()
    host.pass_by(300)
    shown = host.beat()
    assert gate.calls()[-2:] == ["heartbeat", "config/check"] and shown["error"] is None and shown["pending"]
    assert host.started[-1] == _agent.APPLY and host.links["wg0"]["peers"].keys() == before.keys()
    pending = host.store.load("pending")
    assert pending["confirm_by"] == "server"
    assert host.agent().apply()["ok"]
    assert [peer["keepalive"] for peer in host.links["wg0"]["peers"].values()] == [17]
    assert gate.calls() == ["heartbeat"]
    assert all(_agent.RECOVER in drift or _agent.TIMER in drift for drift in _drift.verify(host.agent(), {})["drift"])  # they were not installed
    host.pass_by(300)
    assert host.beat()["refused"] is None and gate.calls()[-2:] == ["heartbeat", "config/check"]


@pytest.mark.parametrize("how", ["hooks", "placeholder", "private-placeholder", "unknown-key", "save-config", "second-interface", "short-key", "empty"])
def test_a_config_that_cannot_be_used_is_refused_said_and_not_tried_before_its_wait(gate, host, how):
    host.beat()
    kept = host.files()
    gate.fault("config", "config/check", how=how)
    changed(gate, host, persistent_keepalive=19)
    host.pass_by(300)
    shown = host.beat()
    if how == "empty":
        assert shown["error"]["kind"] == "protocol"
        return
    assert shown["error"]["kind"] == "config" and shown["error"]["text"].startswith("the server's config was refused and the tunnel left as it is: ")
    assert host.started == ["wg-quick@wg0.service"] and host.store.load("pending") is None
    assert {path for path, what in host.files().items() if kept.get(path) != what} == {"var/lib/gatecontrol/state.json"}
    gate.seen()
    for _minute in range(4):
        host.pass_by(60)
        assert host.beat()["error"] == shown["error"]  # said by every beat, not by one
    assert "error   the server's config was refused" in _cli.described(host.agent().show())


def test_a_config_that_was_rolled_back_does_not_flap(gate, host):
    host.beat()
    changed(gate, host, dns="10.8.0.53")
    host.set(policy={"allowed_ips": ["10.8.0.0/24"]})
    gaps, last = [], None
    for _five_minutes in range(45):
        host.pass_by(300)
        host.beat()
        if host.store.load("pending"):
            gaps += [host.now() - last] if last else []
            last = host.now()
            host.silence()
            verdict = host.agent().apply()
            host.answering = None
            assert not verdict["ok"] and "no answer" in verdict["reason"]
            assert "the last change was rolled back: no answer from the WireGuard peer" in _cli.described(host.agent().show())
    assert len(gaps) == 5 and all(gap >= wait for gap, wait in zip(gaps, (300, 600, 1200, 2400, 4800)))
    gate.peer("set", host.peer, dns="10.8.0.54")
    host.pass_by(300)
    host.beat()
    assert host.store.load("pending")["id"] and host.agent().apply()["ok"]  # another config is tried at once


def test_sync_tries_a_refused_config_at_once(gate, host):
    host.beat()
    gate.fault("config", "config/check", how="hooks", count=1)
    changed(gate, host, persistent_keepalive=21)
    assert host.beat(now=True)["error"]["kind"] == "config"
    shown = host.beat(now=True)
    assert shown["error"] is None and shown["pending"] and host.agent().apply()["ok"]


def test_a_hash_that_does_not_fit_changes_nothing(gate, host):
    host.beat()
    gate.fault("wrong-hash", "config/check")
    changed(gate, host, persistent_keepalive=23)
    shown = host.beat(now=True)
    assert shown["error"]["kind"] == "protocol" and "hash" in shown["error"]["text"] and not shown["pending"]
    assert gate.calls()[-3:] == ["heartbeat", "config/check", "config/check"]


def test_what_is_fetched_while_a_change_is_applied_is_not_taken_for_it(gate, host):
    """A play fetches a newer config while the unit still works on the one before: the host must not call itself current."""
    host.beat()
    changed(gate, host, persistent_keepalive=28)
    host.beat(now=True)
    first = host.store.text("offered")
    host.store.save("offered", first.replace("PersistentKeepalive = 28", "PersistentKeepalive = 29"))
    before = host.store.load("enrollment")["hash"]
    assert host.agent().apply()["ok"]
    record = host.store.load("enrollment")
    assert record["hash"] == before and record["file_hash"] == _enrollment.digest(pathlib.Path(host.root, "etc/wireguard/wg0.conf").read_text("utf-8"))
    host.beat(now=True)
    assert host.agent().apply()["ok"] and host.store.load("enrollment")["hash"] == _enrollment.digest(first)


# --- proving a change

@pytest.mark.parametrize("fault,proven", [
    ({"kind": "status", "status": 429, "retry_after": 900}, True), ({"kind": "status", "status": 401}, True),
    ({"kind": "status", "status": 403, "text": "User account is disabled"}, True), ({"kind": "status", "status": 500}, False), ({"kind": "drop"}, False)])
def test_a_refusal_proves_the_way_to_the_server_silence_does_not(gate, host, fault, proven):
    gate.fault(verb="heartbeat", **fault)
    reason = host.agent().prove()
    assert (reason is None) is proven


def test_a_host_without_a_token_of_its_own_sends_nothing(gate, machine):
    enroll(machine, gate, reporting="none")
    shown = machine.beat(now=True)
    assert gate.calls() == [] and shown["status"] == "connected" and machine.agent().prove() is None
    assert "none: this host has no token of its own" in _cli.described(shown)


# --- who may beat

def test_a_clone_falls_silent_without_a_request(gate, host, tmp_path_factory):
    host.beat()
    gate.seen()
    pathlib.Path(host.root, "etc/machine-id").write_text("0" * 32 + "\n", encoding="ascii")
    for name, words in (("beat", []), ("sync", [])):
        status, said = _cli.command(host.store, host.run, name, words)
        assert status == 1 and "clone of the one that enrolled as " + host.peer in said and gate.calls() == []
    assert any("clone" in reason for reason in _drift.verify(host.agent(), {})["drift"]) and gate.calls() == []


def test_without_an_enrollment_or_a_machine_id(gate, machine):
    assert _cli.command(machine.store, machine.run, "beat", []) == (1, "this host is not enrolled; run the play with a secret for it")
    assert _cli.command(machine.store, machine.run, "show", []) == (0, "not enrolled")
    enroll(machine, gate)
    pathlib.Path(machine.root, "etc/machine-id").write_text("uninitialized\n", encoding="ascii")
    status, said = _cli.command(machine.store, machine.run, "beat", [])
    assert status == 1 and "systemd-machine-id-setup" in said and gate.calls() == []


# --- what it shows

def test_the_textfile_for_prometheus(gate, host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("textfile")
    host.set(textfile=str(folder))
    host.publish()
    text = (folder / "gatecontrol.prom").read_text(encoding="utf-8")
    assert (folder / "gatecontrol.prom").stat().st_mode & 0o777 == 0o644
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    labels = '{peer="%s",interface="wg0"}' % host.peer
    assert values["gatecontrol_beat_success" + labels] == "1" and values["gatecontrol_peer_enabled" + labels] == "1"
    assert float(values["gatecontrol_last_beat_timestamp_seconds" + labels]) == host.now()
    assert int(values["gatecontrol_receive_bytes_total" + labels]) > 0 and values["gatecontrol_config_refused" + labels] == "0"
    for name in {line.split("{")[0] for line in values}:
        assert "# TYPE %s " % name in text and "# HELP %s " % name in text
    gate.fault("status", "heartbeat", status=401)
    host.pass_by(60)
    host.publish()
    assert "gatecontrol_beat_success%s 0" % labels in (folder / "gatecontrol.prom").read_text(encoding="utf-8")


@pytest.mark.parametrize("how", ["missing", "read-only"])
def test_a_textfile_that_cannot_be_written_is_said_and_costs_no_beat(gate, host, tmp_path_factory, monkeypatch, how):
    folder = tmp_path_factory.mktemp("textfile") / ("there" if how == "read-only" else "missing")
    write_text = _enrollment.write_text

    def refuse(path, *words):
        if path.startswith(str(folder)):
            raise OSError(30, "Read-only file system", path)
        write_text(path, *words)
    if how == "read-only":
        folder.mkdir()
        monkeypatch.setattr(_enrollment, "write_text", refuse)
    host.set(textfile=str(folder))
    status, said = _cli.command(host.store, host.run, "beat", [])
    assert status == 1 and str(folder) in said.splitlines()[-1] and said.splitlines()[-1].startswith("error   ")
    state = host.store.load("state")
    assert state["last_beat"] and gate.calls() == ["heartbeat", "config/check"]
    assert state["error"]["kind"] == "textfile" and str(folder) in host.agent().show()["error"]["text"]
    assert host.agent().prove() is None and folder.exists() is (how == "read-only")  # a change of the tunnel does not depend on it


def test_show_for_a_person_and_for_a_program(gate, host):
    host.beat()
    status, text = _cli.command(host.store, host.run, "show", [])
    lines = text.splitlines()
    assert status == 0 and lines[0] == "peer    %s (id %d) on %s" % (host.peer, host.store.load("enrollment")["peer_id"], gate.url)
    assert lines[1].startswith("tunnel  wg0, connected; handshake ") and lines[2].startswith("beat    answered ")
    status, text = _cli.command(host.store, host.run, "show", [], as_json=True)
    shown = json.loads(text)
    assert status == 0 and "\n" not in text and shown["status"] == "connected" and shown["requests"] == 2 and shown["enrolled"] is True
    secrets = [host.store.text("token").strip()] + re.findall("Key = (.*)", pathlib.Path(host.root, "etc/wireguard/wg0.conf").read_text("utf-8"))
    assert len(secrets) == 4 and not any(secret in text for secret in secrets)


def test_a_failing_tool_is_one_sentence(gate, host):
    def run(argv, stdin=None):
        return (1, "", "Unable to access interface: Operation not permitted") if argv[0] == "wg" else Machine.run(host, argv, stdin)
    for name in ("show", "beat"):
        status, said = _cli.command(host.store, run, name, [])
        assert status == 1 and said == "wg show wg0 dump failed: Unable to access interface: Operation not permitted"
