"""Enrolled by the same play as a Linux host and a Mac: what lies there, what a steady run costs, what is shown."""
from __future__ import annotations

import hashlib
import json
import os
import subprocess

from conftest import CHECKOUT, FOLDER, WINDOWS


def test_all_are_enrolled_as_themselves(room):
    peers = room.peers()
    assert set(peers) == {room.linux, room.mac, *WINDOWS}
    for host in WINDOWS:
        twin, record = room.twin(host), json.loads(room.file(host, "enrollment.json").read_text())
        assert record["peer_id"] == peers[host]["id"] and record["reporting"] == "full"
        assert record["fingerprint"] == hashlib.sha256(twin.state["machine_guid"].encode()).hexdigest()
        assert hashlib.sha256(room.file(host, "tunnel/wg0.conf").read_bytes()).hexdigest() == record["file_hash"]
        assert twin.state["services"]["WireGuardTunnel$wg0"]["start"] == "automatic" and twin.state["packages"] == ["WireGuard"]
        assert twin.state["readers"] == {FOLDER.rstrip("\\"): ["SYSTEM", "Administrators"]}
        assert not room.file(host, "intent.json").exists() and not room.file(host, "candidate.conf").exists()
    for host in (room.linux, room.mac):
        assert room.shown(host)["status"] == "connected" and room.shown(host)["peer_id"] == peers[host]["id"]
    assert room.on(room.mac, "launchctl print system/com.callmetechie.gatecontrol-beat")


def test_the_server_binds_each_token_to_its_own_host(room):
    """In the mode "global" a beat with another fingerprint than the register's is a 403."""
    for host in WINDOWS:
        shown = json.loads(room.agent(host, "beat"))
        assert shown["error"] is None and shown["status"] == "connected"


def test_the_scheduled_tasks(room):
    starts = set()
    for host in WINDOWS:
        tasks = room.twin(host).state["tasks"]
        assert set(tasks) == {"\\GateControl\\beat", "\\GateControl\\apply"}
        beat = tasks["\\GateControl\\beat"]
        starts.add(beat["triggers"][0]["start_boundary"])
        assert beat["triggers"][0]["repetition"]["interval"] == "PT60S" and beat["enabled"] and beat["username"] == "SYSTEM"
        assert tasks["\\GateControl\\apply"]["triggers"][0]["type"] == "boot"
    assert len(starts) == len(WINDOWS), "they beat at once"


def test_a_steady_run_is_one_task_and_one_request(room):
    room.play().ok()  # an agent may just be applying what an earlier test has had the server offer
    before, mark = {host: room.look(host) for host in WINDOWS}, room.mark_log()
    run = room.play().ok()
    for host in (room.linux, room.mac, *WINDOWS):
        assert (run.changed(host), run.seen(host)["drift"]) == ([], []), run.text
    for host in WINDOWS:
        assert run.seen(host)["asked"] == "agent" and "stand_in" not in run.seen(host), "what the gate does not know passed it"
        assert [entry["action"] for entry in run.of(host)][-1].endswith("gatecontrol_host_info")
        peer = room.peers()[host]["id"]
        assert [entry["event"] for entry in room.log(since=mark, peer_id=peer)] == ["config/check"]
        assert room.look(host) == before[host]


def test_nothing_secret_is_shown(room):
    """A whole enrollment and a change, at a high verbosity, with diffs."""
    room.fresh("spare1")
    proxy = {"gatecontrol_proxy": "http://user:Pr0xyWord@127.0.0.1:1", "gatecontrol_no_proxy": "*"}
    texts = [room.play("-vvv", "--diff", playbook="spare.yml", limit="spare1", **proxy).ok()]
    room.ask("settings", values={"mtu": "1400"})
    texts.append(room.play("-vvv", "--diff", limit=["win1"]).ok())
    found = room.secrets() | {room.file("spare1", "token").read_text().strip()}
    found |= {line.partition(" = ")[2] for line in room.config("spare1").splitlines() if line.startswith(("PrivateKey", "PresharedKey"))}
    assert "Pr0xyWord" in room.file("spare1", "settings.json").read_text()
    for run in texts:
        said = run.text + json.dumps(run.results)
        assert "Pr0xyWord" not in said
        assert not [secret for secret in found if secret in said]
    for folder in ("/tmp", os.path.expanduser("~/.ansible")):
        grep = subprocess.run(["grep", "-rlF", "--exclude-dir=" + str(CHECKOUT), *[word for secret in found for word in ("-e", secret)], folder],
                              capture_output=True, text=True, check=False)
        assert [name for name in grep.stdout.splitlines() if not name.startswith(str(CHECKOUT))] == [], "left in a temporary file"
    room.play(playbook="spare.yml", limit="spare1", gatecontrol_state="absent", gatecontrol_peers_token=room.token("controller", "peers")).ok()


def test_a_play_for_linux_needs_no_collection_of_windows(room):
    twins, room.collections = room.collections, str(CHECKOUT / "build")
    try:
        doc = subprocess.run([str(CHECKOUT / ".venv/bin/ansible-doc"), "ansible.windows.win_copy"], capture_output=True, text=True, check=False,
                             env=dict(os.environ, ANSIBLE_COLLECTIONS_PATH=room.collections))
        assert "was not found" in doc.stdout + doc.stderr
        room.play(limit=room.linux).ok()
        run = room.play("--check", limit=room.linux, gatecontrol_heartbeat_interval=90).ok()
        assert "Install the agent" in run.changed(room.linux)
    finally:
        room.collections = twins
