"""What an administrator does to a peer, and a server that is away, overloaded or counting requests."""
from __future__ import annotations

import datetime
import time
from concurrent.futures import ThreadPoolExecutor

from scenario import until


def error_of(room, host: str, word: str, seconds: float = 120):
    """The error that the host's agent shows, once it holds a word."""
    return until(lambda: word in ((room.shown(host)["error"] or {}).get("text") or "") and room.shown(host)["error"]["text"], seconds)


def test_a_disabled_peer_is_shown_and_not_fought(room, restless):
    host = "deb11"
    room.ask("peer", action="disable", peer=host)
    try:
        assert until(lambda: room.shown(host)["peer_enabled"] is False, 90)
        assert "disabled" in room.on(host, "gatecontrol-agent show")
        run = room.play(limit=host, **restless).ok()
        assert run.changed(host) == [] and run.seen(host)["peer_enabled"] is False
        assert room.peers()[host]["enabled"] == 0
        assert room.on(host, "systemctl is-active wg-quick@wg0").strip() == "active"
    finally:
        room.ask("peer", action="enable", peer=host)
    assert until(lambda: room.shown(host)["peer_enabled"] is True, 90)


def test_a_deleted_peer_is_told_by_the_agent_and_made_again_by_the_play(room, restless):
    host, old = "deb12", room.peers()["deb12"]
    room.ask("peer", action="delete", peer=host)
    assert error_of(room, host, "the peer was deleted"), room.shown(host)["error"]
    assert room.on(host, "systemctl is-active wg-quick@wg0").strip() == "active", "the tunnel was taken down"
    assert host not in room.peers(), "the agent enrolled by itself"
    run = room.play(limit=host, **restless).ok()
    assert "Have a peer" in run.changed(host)
    new = room.peers()
    assert new[host]["id"] != old["id"] and len(new) == len(room.hosts)
    assert until(lambda: room.shown(host)["error"] is None and room.shown(host)["status"] == "connected", 90)
    assert not room.play(limit=host, **restless).ok().changed(host)


def test_a_deleted_peer_whose_token_was_revoked_needs_a_new_token(room, restless):
    host = "deb12"
    room.ask("peer", action="delete", peer=host)
    wrong = "gc_" + "0" * 96
    run = room.play(limit=host, gatecontrol_token=wrong, **restless)
    assert run.status != 0 and "401" in run.error(host) and wrong not in run.text, run.text
    assert host not in room.peers()
    room.give(host)
    room.play(limit=host, **restless).ok()
    assert len(room.peers()) == len(room.hosts)
    assert not room.play(limit=host, **restless).ok().changed(host)


def test_the_server_goes_away_and_comes_back(room, restless):
    before = room.everywhere("wg showconf wg0; ip -br address show wg0; ip route show dev wg0")
    room.server("server_stop.yml")
    try:
        texts = {host: error_of(room, host, "no answer") for host in room.hosts}
        assert all(room.url in str(text) for text in texts.values()), texts
        run = room.play(gatecontrol_max_wait=3, **restless)
        assert run.status != 0
        for host in room.hosts:
            assert room.url in run.error(host) and "refused" in run.error(host).lower(), run.error(host)
        assert room.everywhere("wg showconf wg0; ip -br address show wg0; ip route show dev wg0") == before
    finally:
        room.server("server_start.yml")
    assert until(lambda: all(room.shown(host)["error"] is None for host in room.hosts), 180)
    run = room.play(**restless).ok()
    assert len(room.peers()) == len(room.hosts)
    # The gateway has forgotten its sessions: traffic makes WireGuard itself begin a new one.
    with ThreadPoolExecutor() as pool:
        assert all(pool.map(lambda host: until(lambda: room.echo(host, 25600) == 25600, 180), room.hosts))


def test_server_errors_are_waited_for(room, restless):
    mark = room.mark_log()
    room.fault("status", status=503, path="*/heartbeat", token="deb11", count=2)

    def beats() -> list:
        found = [entry["status"] for entry in room.asked_by("deb11", mark, event="heartbeat")]
        return found[found.index(503):] if 503 in found else []

    until(lambda: len(beats()) >= 3, 120)
    assert beats()[:3] == [503, 503, 200]
    assert until(lambda: room.shown("deb11")["error"] is None, 30)


def test_the_rate_limit_silences_the_agent_until_it_is_over(room, restless):
    host, silence = "deb13", 90
    mark = room.mark_log()
    room.fault("status", status=429, retry_after=silence, path="*/client/*", token=host, count=1)
    limited = until(lambda: room.asked_by(host, mark, status=429), 60)
    assert limited
    shown = until(lambda: (room.shown(host)["not_before"] or 0) > time.time() and room.shown(host), 30)
    assert shown and shown["error"]["kind"] == "rate_limited"
    assert "rate limit" in room.on(host, "gatecontrol-agent show")
    run = room.play(limit=host, **restless).ok()
    assert run.changed(host) == [] and run.seen(host)["server"]["asked"] is False
    after = until(lambda: room.asked_by(host, limited[0]["id"]), silence + 90)
    assert after, "it did not ask again"
    refused, asked = (datetime.datetime.fromisoformat(entry["time"]) for entry in (limited[0], after[0]))
    assert (asked - refused).total_seconds() >= silence - 2, "it asked again before its time"
    assert until(lambda: room.shown(host)["error"] is None, 60)
