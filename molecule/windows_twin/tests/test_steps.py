"""An enrollment that fails at any step leaves nothing half, is gone on with, and makes one peer; and the way out."""
from __future__ import annotations

import json

from conftest import SPARE, WINDOWS

STEPS = {
    "spare1": ["win_powershell protect"], "spare2": ["win_copy gatecontrol_agent.ps1"], "spare3": ["win_copy settings.json"],
    "spare4": ["schedule apply"], "spare5": ["win_package"], "spare6": ["win_powershell read"], "spare7": ["store"],
    "spare8": ["installtunnelservice"], "spare9": ["schedule beat"],
}


def test_check_mode_on_fresh_hosts_takes_nothing(room):
    for host in SPARE:
        room.fresh(host)
    before, peers = {host: room.look(host) for host in SPARE}, room.numbers()
    run = room.play("--check", "--diff", playbook="spare.yml", limit="spare1").ok()
    assert "Have a peer" in run.changed("spare1")
    assert {host: room.look(host) for host in SPARE} == before and room.numbers() == peers


def test_each_step_may_fail(room):
    for host, broken in STEPS.items():
        room.set(host, breaks=broken)
    failed = room.play(playbook="spare.yml", gatecontrol_confirm_timeout=15)
    assert failed.status != 0
    for host in SPARE:
        assert failed.error(host), host
        room.set(host, breaks=[])
    assert "rolled back" in failed.error("spare8") and room.config("spare8") is None
    assert not room.file("spare8", "tunnel/wg0.conf").exists()
    made = room.peers()
    assert set(SPARE) & set(made) == {"spare8", "spare9"}
    healed = room.play(playbook="spare.yml").ok()
    for host in SPARE:
        assert "Run the heartbeat" in healed.changed(host), host
        assert json.loads(room.agent(host, "show"))["enrolled"]
    peers = room.peers()
    assert set(peers) == {room.linux, room.mac, *WINDOWS, *SPARE} and all(peers[name]["id"] == peer["id"] for name, peer in made.items())
    again = room.play(playbook="spare.yml").ok()
    assert not any(again.changed(host) for host in SPARE)


def test_a_controller_that_dies_after_the_register_finds_its_peer_again(room):
    room.play(playbook="spare.yml", limit="spare1", gatecontrol_state="absent", gatecontrol_peers_token=room.token("controller", "peers")).ok()
    room.fresh("spare1")
    room.play(playbook="spare.yml", limit="spare1", kill="after Have a peer")
    made = room.numbers()["spare1"]
    assert room.file("spare1", "intent.json").exists() and not room.file("spare1", "enrollment.json").exists()
    room.play(playbook="spare.yml", limit="spare1").ok()
    assert {name: number for name, number in room.numbers().items() if name.startswith("spare1")} == {"spare1": made}


def test_a_peer_that_was_there_before_is_not_taken(room):
    token = room.fresh("spare2")  # the machine is another one, and its old peer is still there
    room.ask("peer", action="delete", peer="spare2")
    theirs = room.ask("peer", action="add", peer="spare2")[0]
    run = room.play(playbook="spare.yml", limit="spare2", gatecontrol_token=room.token("spare2", "client", peer_id=theirs["id"]))
    assert token and run.status != 0 and "gatecontrol_adopt" in run.error("spare2")
    assert not room.file("spare2", "enrollment.json").exists() and not room.file("spare2", "intent.json").exists()


def test_one_login_serves_all_three_systems(room):
    room.play(gatecontrol_state="absent", gatecontrol_peers_token=room.token("controller", "peers")).ok()
    assert not {room.linux, room.mac, *WINDOWS} & set(room.peers())
    given = {"gatecontrol_admin_user": "admin", "gatecontrol_admin_password": "LoopbackTest123!", "gatecontrol_token": ""}
    mark = room.mark_log()
    room.play(**given).ok()
    assert len([entry for entry in room.log(since=mark) if entry.get("path") == "/login" and entry.get("method") == "POST"]) <= 1
    for host in WINDOWS:
        assert json.loads(room.agent(host, "beat"))["error"] is None, "its token was revoked by another system's turn"
    assert room.shown(room.linux)["error"] is None
    again = room.play(gatecontrol_token="").ok()
    assert not any(again.changed(host) for host in (room.linux, room.mac, *WINDOWS))


def test_absent_leaves_packages_and_names_the_peer(room):
    checked = room.play("--check", limit="win1", gatecontrol_state="absent").ok()
    assert checked.changed("win1") and room.config("win1")
    run = room.play(limit="win1", gatecontrol_state="absent").ok()
    assert any("stays on" in str(entry["result"].get("msg")) for entry in run.of("win1")) and "win1" in room.peers()
    files, state = room.look("win1")
    assert state["services"] == {} and state["tasks"] == {} and state["readers"] == {} and state["packages"] == ["WireGuard"]
    assert sorted(files) == ["C/Program Files/WireGuard/wireguard.exe", "C/Users/Public/wireguard.msi"]
    assert room.play(limit="win1", gatecontrol_state="absent").ok().changed("win1") == []
