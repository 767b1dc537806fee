"""One secret enrolls a fleet: one login, a peer and a token for each host, no orphan, whatever cuts the run off."""
from __future__ import annotations


def absent(room) -> None:
    room.ask("reset")
    room.play(gatecontrol_state="absent").ok()


def logins(room, since: int) -> int:
    return len(room.log(since=since, event="login"))


# --- one login, no orphans


def test_converge_took_one_login_for_all(room):
    assert len(room.hosts) == 8
    assert logins(room, 0) == 1
    room.settled()


def test_a_steady_run_needs_neither_secret_nor_login(room):
    room.ask_for_nothing()
    mark = room.mark_log()
    run = room.play(**room.NO_SECRET).ok()
    assert {host: (run.changed(host), run.seen(host)["in_sync"], len(run.of(host))) for host in room.hosts} == {
        host: ([], True, 2) for host in room.hosts}  # the options' validation and the one question
    asked = [entry for entry in room.log(since=mark) if entry["event"] not in ("heartbeat", "transfer")]
    assert sorted(entry["event"] for entry in asked) == ["config/check"] * 8 and logins(room, mark) == 0


def test_what_the_server_keeps_of_a_peer_follows_the_play(room):
    hosts = room.hosts[:2]
    tokens = [token["id"] for token in room.tokens()]
    wish = {"gatecontrol_tags": ["web", "blue"], "gatecontrol_peer_keepalive": 17, "gatecontrol_description": "rack 4"}
    checked = room.play("--check", limit=hosts, **wish).ok()
    assert all(checked.changed(host) for host in hosts)
    mark = room.mark_log()
    room.play(limit=hosts, **room.NO_SECRET, **wish).ok()
    assert not any(peer["tags"] for peer in room.peers().values()) and logins(room, mark) == 0, "nobody could tell the server"
    run = room.play(limit=hosts, **wish).ok()
    for host, peer in room.peers().items():
        kept = (peer["tags"], peer["persistent_keepalive"], peer["description"])
        assert kept == ("blue,web", 17, "rack 4") if host in hosts else not kept[0], (host, kept)
    assert all(run.changed(host) and "\t17" in room.on(host, "wg show wg0 persistent-keepalive") for host in hosts)
    assert logins(room, mark) == 1 and [token["id"] for token in room.tokens()] == tokens, "the hosts keep their tokens"
    mark = room.mark_log()
    again = room.play(limit=hosts, **wish).ok()
    assert not any(again.changed(host) for host in hosts) and logins(room, mark) == 0
    # Who may not tell the server repairs the hosts all the same.
    room.ask("reset")
    room.on(hosts[0], "systemctl stop gatecontrol-beat.timer")
    run = room.play(limit=hosts, **dict(wish, gatecontrol_tags=["green"], gatecontrol_admin_password="wrong"))
    assert run.status != 0 and all("The host is looked after" in run.error(host) for host in hosts)
    assert room.on(hosts[0], "systemctl is-active gatecontrol-beat.timer").strip() == "active"
    room.ask("reset")
    run = room.play(limit=hosts, gatecontrol_tags=[], gatecontrol_peer_keepalive=25).ok()
    assert all(run.changed(host) for host in hosts)
    room.settled()


def test_retired_with_the_administrators_login_nothing_stays(room):
    absent(room)
    assert room.peers() == {} and room.tokens() == []
    assert {host: room.left(host) for host in room.hosts} == dict.fromkeys(room.hosts, "")


def test_three_batches_take_one_login(room):
    absent(room)
    room.ask("reset")
    mark = room.mark_log()
    run = room.play(fleet_serial=3, ansible_remote_tmp="/dev/null/none").ok()  # where a module's arguments would lie in a file, it fails
    assert logins(room, mark) == 1 and "LoopbackTest123!" not in run.text
    room.settled()


# --- cut off


def test_killed_at_five_random_moments_and_run_again(room, whole):
    room.killed_at_random_moments(whole, 5)


def test_a_clones_agent_falls_silent_by_itself(room):
    first, second = room.hosts[:2]
    files = "/etc/gatecontrol/enrollment.json /etc/gatecontrol/token"
    archive = room.on(first, "tar -cP %s | base64 -w0" % files)
    room.on(second, "mkdir -p /root/own && cp -a /etc/gatecontrol/. /root/own/ && echo %s | base64 -d | tar -xP" % archive.strip())
    try:
        mark = room.mark_log()
        said = room.on(second, "gatecontrol-agent beat; true")
        assert "clone" in said and "f1" in said
        assert room.asked_by(second, since=mark) == []
    finally:
        room.on(second, "cp -a /root/own/. /etc/gatecontrol/ && rm -r /root/own && gatecontrol-agent beat")
    room.settled()
