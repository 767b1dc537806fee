"""The agent's memory may be damaged in any way; and its small texts."""
from __future__ import annotations

import base64
import json
import time

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import (
    _agent, _api, _beat, _cli, _drift, _enrollment, _facts, _verify)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MEMORY = {"not_before": 0, "last_try": 1795450782.08, "last_beat": 1795450782.08, "last_check": 1795450489.4, "connected_since": 1795440000.5, "requests": 2,
          "peer_enabled": True, "reported": "connected", "error": {"kind": "server", "text": "no"},
          "refused": {"hash": "aa", "wait": 300, "again": 1795450999.0, "text": "refused"}}
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=True, allow_infinity=True), st.integers(10 ** 300, 10 ** 310), st.booleans())
VALUES = st.recursive(st.one_of(st.none(), NUMBERS, st.text(max_size=5)), lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["kind", "text", "hash", "wait", "again", "x"]), inner, max_size=5)), max_leaves=8)
OBJECTS = st.dictionaries(st.sampled_from([*MEMORY, "x"]), VALUES).map(lambda value: json.dumps(value).encode())
TRUNCATED = st.integers(0, 400).map(lambda size: json.dumps(MEMORY).encode()[:size])
FLIPPED = st.tuples(st.integers(0, len(json.dumps(MEMORY)) - 1), st.integers(0, 255)).map(
    lambda spot: json.dumps(MEMORY).encode()[:spot[0]] + bytes([spot[1]]) + json.dumps(MEMORY).encode()[spot[0] + 1:])
DAMAGED = st.one_of(OBJECTS, TRUNCATED, FLIPPED, st.binary(max_size=40), st.just(b"[" * 100000), VALUES.map(lambda value: json.dumps(value).encode()))


class Server:
    """A server that answers everything; config says what it offers."""

    max_wait, requests, date = 45, 0, None

    def __init__(self, offer=None, error=None):
        self.offer, self.error, self.clock, self.calls = offer, error, time.monotonic, []

    def heartbeat(self, peer_id, **values):
        self.calls.append("heartbeat")
        json.dumps(values, allow_nan=False)
        assert isinstance(values["uptime"], int) and values["uptime"] >= 0
        if self.error:
            raise self.error
        return True

    def status(self, peer_id, status, stamp):
        self.calls.append("status")

    def config_check(self, peer_id, known):
        self.calls.append("check")
        return self.offer


def stand(root, server=None):
    """An enrolled agent below root whose tunnel is away."""
    store = _enrollment.Store(str(root))
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/machine-id").write_text("0" * 32, encoding="ascii")
    store.save("enrollment", {"peer_id": 1, "peer_name": "web", "url": "https://gate.example.com", "interface": "wg0", "reporting": "full",
                              "fingerprint": _facts.machine_fingerprint(str(root))})
    agent = _agent.Agent(store, lambda argv, stdin=None: (127, "", "no"), now=lambda: 1795450800.0, sleep=lambda seconds: None)
    agent._api = server
    return agent


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged=DAMAGED, error=st.sampled_from([None, _api.ApiError("no", "server"), _api.ApiError("no", "rate_limited", retry_after=10 ** 6)]),
       offer=st.sampled_from([None, {"config": "no config", "hash": "aa"}]))
def test_a_damaged_memory_never_stops_the_agent(tmp_path, monkeypatch, damaged, error, offer):
    monkeypatch.setattr(_enrollment.os, "fsync", lambda handle: None)
    agent = stand(tmp_path, Server(offer, error))
    place = tmp_path / _enrollment.FILES["state"]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(damaged)
    for shown in (agent.show(), agent.beat(), agent.show(), agent.beat(now=True)):
        _cli.described(shown).encode("utf-8", "backslashreplace")
        _cli.metrics(shown)
        json.dumps(shown, allow_nan=False)
    remembered = agent.memory()
    assert all(_agent.sound(value, _agent.MEMORY[key]) for key, value in remembered.items())
    if agent._api.calls:  # else the rate limit in the file was to be believed
        assert remembered["last_try"] == 1795450800.0 and (error or remembered["last_beat"] == 1795450800.0)
    else:
        assert 0 < remembered["not_before"] - 1795450800.0 <= _beat.SILENT_MOST
    _drift.verify(agent, {})


def test_a_good_memory_is_read_back_whole(tmp_path):
    agent = stand(tmp_path)
    agent.store.save("state", MEMORY)
    assert agent.memory() == MEMORY


@pytest.mark.parametrize("wrong", [{"not_before": 1e12}, {"last_check": 1.9e9}, {"connected_since": 1.9e9}, {"refused": dict(MEMORY["refused"], again=1.9e9)}])
def test_a_time_in_the_future_is_not_waited_for(tmp_path, wrong):
    """A clock that was wrong when the memory was written must not keep the agent silent for years."""
    server = Server({"config": "no config", "hash": "aa"})
    agent = stand(tmp_path, server)
    agent.store.save("state", dict(MEMORY, **dict({"last_check": 0}, **wrong)))
    agent.beat()
    # The state changed from connected to disconnected as well.
    assert server.calls == ["heartbeat", "status", "check"]
    refused = agent.memory()["refused"]
    assert refused["again"] == 1795450800.0 + refused["wait"] if "refused" in wrong else refused["again"] <= 1795450800.0 + _beat.REFUSED_WAIT[1]


@pytest.mark.parametrize("seconds,text", [
    (0, "1970-01-01T00:00:00.000Z"), (1795450782.0847, "2026-11-23T16:19:42.084Z"), (1795450782.9999, "2026-11-23T16:19:42.999Z")])
def test_timestamps_are_the_servers(seconds, text):
    assert _beat.timestamp(seconds) == text


def test_settings_are_the_same_whatever_is_not_given():
    assert _verify.settings_text({"a": None, "url": "x"}) == _verify.settings_text({"url": "x"})
    assert json.loads(_verify.settings_text({"b": 1, "a": [2]})) == {"a": [2], "b": 1}


def test_the_fingerprint_is_stable_and_does_not_tell_the_machine_id(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef" * 2 + "\n", encoding="ascii")
    first = _facts.machine_fingerprint(str(tmp_path))
    assert first == _facts.machine_fingerprint(str(tmp_path)) and len(first) == 64 and "0123456789abcdef" not in first
    (tmp_path / "etc/machine-id").write_text("f" * 32 + "\n", encoding="ascii")
    assert _facts.machine_fingerprint(str(tmp_path)) != first
    for text in ("", "uninitialized\n", "xyz"):
        (tmp_path / "etc/machine-id").write_text(text, encoding="ascii")
        with pytest.raises(_agent.AgentError, match="systemd-machine-id-setup"):
            _facts.machine_fingerprint(str(tmp_path))


def test_metrics_of_a_host_that_never_beat(tmp_path):
    text = _cli.metrics(stand(tmp_path).show())
    assert 'gatecontrol_beat_success{peer="web",interface="wg0"} 0' in text and "last_beat_timestamp" not in text and "peer_enabled" not in text


def test_lists_of_the_policy_may_be_given_as_text(tmp_path):
    key = base64.b64encode(bytes(range(1, 33))).decode()
    offered = "[Interface]\nPrivateKey = %s\nAddress = 10.8.0.2/32\nDNS = 10.8.0.1\n\n[Peer]\nPublicKey = %s\nEndpoint = 192.0.2.1:51820\n" \
              "AllowedIPs = 0.0.0.0/0\n" % (key, key)
    agent = stand(tmp_path)
    text = agent.rendered(offered, {"allowed_ips": "10.8.0.0/24, 10.9.0.0/16", "dns": "", "allow_endpoints": "192.0.2.0/24", "allow_allowed_ips": "10.0.0.0/8"})
    assert "AllowedIPs = 10.8.0.0/24, 10.9.0.0/16\n" in text and "DNS" not in text
    assert text == agent.rendered(offered, {"allowed_ips": ["10.8.0.0/24", "10.9.0.0/16"], "dns": []})
