"""A Windows host as the controller sees it: texts in place of files, the config that WireGuard for Windows takes, the agent asked."""
from __future__ import annotations

import base64
import json
import pathlib

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _agent, _api, _enrollment, _options, _peer, _verify, _wgconf, _windows

KEY = base64.b64encode(bytes(range(32))).decode()
CONFIG = ("[Interface]\nPrivateKey = %s\nAddress = 10.8.0.2/32\nFwMark = 51820\nTable = 100\n\n"
          "[Peer]\nPublicKey = %s\nAllowedIPs = 10.9.0.0/16, 0.0.0.0/0, ::/0\n" % (KEY, KEY))
TOKEN = "gc_" + "ab" * 48
FINGERPRINT = "a" * 64
PING = {"version": "1.50.12", "timestamp": "2026-11-25T10:00:00.000Z", "url": "https://gate.example.com"}


def test_texts_are_a_store_in_memory():
    store = _enrollment.Texts({"token": "old\n", "intent": "{}", "issued": None})
    assert store.text("issued") is None and store.load("intent") == {}
    store.save("token", "old\n")
    assert store.changed == {}
    store.save("token", "new\n")
    assert store.drop("intent", "issued") and not store.drop("issued") and store.text("intent") is None
    assert store.changed == {"token": "new\n", "intent": None}
    store.save("intent", {"a": 1})
    assert store.changed["intent"] == store.text("intent") == '{\n "a": 1\n}\n'


def test_texts_come_back_in_a_form_that_no_masking_spoils():
    store = _enrollment.Texts({})
    store.save("token", TOKEN)
    answer = _options.returned(store)
    assert TOKEN not in json.dumps(answer) and json.loads(base64.b64decode(answer["files"])) == {"token": TOKEN}
    assert _options.returned(_enrollment.Store("/nowhere")) == {}


@pytest.mark.parametrize("kill_switch, networks", [
    (False, ["10.9.0.0/16", "0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"]), (True, ["10.9.0.0/16", "0.0.0.0/0", "::/0"])])
def test_a_config_for_windows(kill_switch, networks):
    config = _wgconf.parse(CONFIG)
    made = _wgconf.for_windows(config, kill_switch)
    assert made.peers[0]["AllowedIPs"] == networks and _wgconf.is_full_tunnel(made)
    assert set(made.interface) == {"PrivateKey", "Address"} and config == _wgconf.parse(CONFIG)
    assert _wgconf.parse(_wgconf.render(made)) == made


def test_table_off_stays():
    config = _wgconf.override(_wgconf.parse(CONFIG), table="off")
    assert _wgconf.for_windows(config).interface["Table"] == "off"


def test_the_agent_renders_for_the_platform_it_is_about():
    store = _enrollment.Texts({})
    for platform, expected in (("windows", "0.0.0.0/1"), ("linux", "0.0.0.0/0")):
        assert expected in _agent.Agent(store, None, platform=platform, fingerprint=FINGERPRINT).rendered(CONFIG, {})


class Api:
    """A server that makes a peer, or has one."""

    def __init__(self, created=True, made="2026-11-25 10:00:01"):
        self.created, self.made, self.asked = created, made, []

    def ping(self):
        self.asked.append("ping")
        return PING

    def register(self, name, system, version):
        self.asked.append(("register", name, system))
        return self.created, {"peerId": 7, "peerName": name, "config": CONFIG, "hash": _enrollment.digest(CONFIG)}

    def peer_info(self, peer_id):
        return {"createdAt": self.made}


def peer(api, texts):
    store = _enrollment.Texts(texts)
    return store, _peer.HostPeer(store, lambda token: api, "https://gate.example.com", TOKEN, "win1", server=PING, fingerprint=FINGERPRINT, system="windows")


def test_the_intent_lies_on_the_host_before_the_request():
    api = Api()
    store, ours = peer(api, {})
    ours.intend()
    assert set(store.changed) == {"intent"} and api.asked == []
    again, ours = peer(api, {})  # what lay there before this run: no intent
    result = ours.present()
    assert api.asked == [("register", "win1", "windows")] and result["created"]
    assert set(again.changed) == {"offered", "token", "enrollment", "intent"} and again.changed["intent"] is None
    assert again.load("enrollment")["fingerprint"] == FINGERPRINT


@pytest.mark.parametrize("before, created_at, ours", [
    (False, "2026-11-25 10:00:01", False), (True, "2026-11-25 10:00:01", True), (True, "2026-11-24 10:00:01", False)])
def test_a_peer_that_is_there_is_ours_only_by_an_intent_of_an_earlier_run(before, created_at, ours):
    store, first = peer(Api(), {})
    first.intend()
    store, second = peer(Api(created=False, made=created_at), dict(store.changed) if before else {})
    if ours:
        assert second.present()["peer"] == {"id": 7, "name": "win1"}
    else:
        with pytest.raises(_peer.PeerError, match="gatecontrol_adopt"):
            second.present()
        assert "enrollment" not in store.changed and store.changed.get("intent") is None


@pytest.mark.parametrize("given", [{"peer_id": 7}, {"issued": CONFIG, "peer_id": 7}, {"token": None}])
def test_who_does_not_register_intends_nothing(given):
    store = _enrollment.Texts({})
    options = dict({"token": TOKEN, "name": "win1", "server": PING, "fingerprint": FINGERPRINT}, **given)
    _peer.HostPeer(store, None, "https://gate.example.com", **options).intend()
    assert store.changed == {}


def test_a_release_that_cannot_register_is_said_before_anything_is_written():
    store = _enrollment.Texts({})
    broken = _peer.HostPeer(store, lambda token: None, "https://gate.example.com", TOKEN, "win1", fingerprint=FINGERPRINT,
                            server=dict(PING, version="1.118.2"))
    with pytest.raises(_api.ApiError, match="broken"):
        broken.intend()
    assert store.changed == {}


def test_the_agent_that_is_asked_is_the_collection_s():
    here = pathlib.Path(__file__).parents[4] / "roles/gatecontrol/files/gatecontrol_agent.ps1"
    assert _windows.agent_text().encode() == here.read_bytes()
    question = _verify.wanted({"launcher": "x", "settings": {}, "url": "https://Gate.example.com/"})
    assert _windows.wanted(question)["files"] == {_windows.AGENT: _enrollment.digest(_windows.agent_text())}
    assert _windows.wanted(_verify.wanted({}))["files"] == {}
    line, _blank, encoded = _windows.command("verify", "abc").rpartition(" ")
    assert line.startswith("powershell.exe ") and line.endswith(" -EncodedCommand")
    assert base64.b64decode(encoded).decode("utf-16-le") == '& "$env:ProgramData\\GateControl\\gatecontrol_agent.ps1" verify abc; exit $LASTEXITCODE'
    longest = dict(question, challenge="x" * 44, token="0" * 64, fields="0" * 64, settings="0" * 64, url="https://" + "x" * 253, interface="x" * 15)
    word = base64.b64encode(json.dumps(dict(_windows.wanted(longest))).encode()).decode()
    assert len(_windows.command("verify", word, "-WhatIf")) < 8191, "cmd.exe takes no longer line"
    assert "$Version = '%s'" % _verify.VERSION in _windows.agent_text()
