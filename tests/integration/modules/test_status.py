"""gatecontrol_status: heartbeats and status events, on demand."""
from __future__ import annotations

import pytest

ALL = pytest.mark.parametrize("gate", ["1.5.2", "1.50.12", "1.118.2", "fixed"], indirect=True)


@pytest.fixture
def peer(gate, host) -> dict:
    """The peer of the host, which is enrolled."""
    made = gate.add(gate.name())
    host.ok("peer", url=gate.url, token=gate.token(peer_id=made["id"]), peer_id=made["id"])
    gate.seen()
    return made


@ALL
def test_an_enrolled_host_beats_without_a_secret(gate, host, peer):
    for _run in range(2):
        result = host.ok("status")
        assert not result["changed"] and not result["reported"] and result["status"] == "disconnected" and result["handshake_age"] is None
        assert result["peer_enabled"] is (None if gate.era == "1.5.2" else True)
        entry, = gate.seen()
        assert entry["path"] == "/api/v1/client/heartbeat" and entry["status"] == 200
        assert len(entry["headers"]["X-Machine-Fingerprint"]) == 64
        body = entry["body"]
        assert body["peerId"] == peer["id"] and body["connected"] is False and body["rxBytes"] == body["txBytes"] == body["uptime"] == 0
    if gate.era != "1.5.2":
        gate.ask("peer", action="disable", peer=str(peer["id"]))
        assert host.ok("status")["peer_enabled"] is False


def test_a_state_that_changed_is_reported_once(gate, host, peer):
    host.ok("status")
    host.store.save("state", dict(host.store.load("state"), reported="connected"))
    gate.seen()
    checked = host.ok("status", check=True)
    assert checked["changed"] and not checked["reported"] and gate.calls() == []
    result = host.ok("status")
    assert result["changed"] and result["reported"]
    assert result["diff"] == {"before": {"reported": "connected"}, "after": {"reported": "disconnected"}}
    entries = gate.seen()
    assert [entry["path"][15:] for entry in entries] == ["heartbeat", "status"]
    assert entries[1]["body"]["status"] == "disconnected" and entries[1]["body"]["peerId"] == peer["id"]
    assert entries[1]["body"]["timestamp"].endswith("Z")
    assert not host.ok("status")["changed"] and gate.calls() == ["POST heartbeat 200"]


def test_a_description_is_not_overwritten_where_the_version_is_not_sent(gate, host, peer):
    gate.ask("reset")
    gate.set(peer["id"], description="Rack 4")
    host.ok("status", send_version=False)
    assert "X-Client-Version" not in gate.seen()[0]["headers"] and gate.peers(peer["name"])[0]["description"] == "Rack 4"
    host.ok("status")
    assert gate.peers(peer["name"])[0]["description"].startswith("Client (linux, v")


def test_a_host_that_is_not_enrolled_reports_with_a_token(gate, host):
    made = gate.add(gate.name())
    result = host.ok("status", url=gate.url, token=gate.token(peer_id=made["id"]), peer_id=made["id"], interface="wg7")
    assert result["peer_enabled"] is True and gate.calls() == ["POST heartbeat 200"] and not host.record


def test_another_peers_heartbeat_leaves_the_hosts_own_memory_alone(gate, host, peer):
    host.ok("status")
    host.store.save("state", dict(host.store.load("state"), reported="connected"))
    before, other = host.store.text("state"), gate.add(gate.name())
    token = gate.token(peer_id=other["id"])
    for _run in range(2):
        assert not host.ok("status", token=token, peer_id=other["id"], interface="wg7")["changed"]
    assert host.store.text("state") == before
    memory = host.root / "var/lib/gatecontrol" / ("state-%d.json" % other["id"])
    memory.write_text(memory.read_text().replace('"disconnected"', '"connected"'))
    assert host.ok("status", token=token, peer_id=other["id"], interface="wg7")["changed"]  # it has a memory of its own
    assert host.store.text("state") == before and host.ok("status")["changed"]


def test_what_keeps_a_host_from_reporting_is_told(gate, host, peer, new_host, waits):
    assert "not enrolled" in new_host().fails("status", "not_enrolled", url=gate.url)
    assert "token" in new_host().fails("status", "options", url=gate.url, peer_id=peer["id"])
    host.store.save("enrollment", dict(host.record, reporting="none"))
    assert "no token of its own" in host.fails("status", "settings")
    host.store.save("enrollment", dict(host.record, reporting="full"))
    gate.seen()
    gate.fault("status", path="*/heartbeat", status=429, retry_after=840, count=1)
    assert "come back in 840 s" in host.fails("status", "rate_limited")
    assert "come back in 8" in host.fails("status", "rate_limited") and len(gate.seen()) == 1  # the second did not ask
    host.store.drop("state")
    gate.delete(peer["id"])
    assert "the peer was deleted" in host.fails("status", "unbound") and waits == []
