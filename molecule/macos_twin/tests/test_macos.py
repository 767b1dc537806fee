"""Macs, as far as stand-ins can show them: each test finds the hosts enrolled and leaves them so; the last one takes all of it away."""
from __future__ import annotations

import plistlib
import re
import subprocess

import pytest
from scenario import until

JOBS = ("beat", "tunnel", "apply", "recover")
DARK = "192.0.2.1:51820"  # an endpoint where nobody answers


@pytest.fixture
def settings(room):
    """Changes the server's settings for the length of a test."""
    changed = {}

    def change(**values):
        changed.update(dict.fromkeys(values))
        room.everywhere("gatecontrol-agent checked")  # or the agent might be first to ask
        room.ask("settings", values=values)
    endpoint = "%s:51820" % room.record["server"]["address"]
    yield change
    if changed:
        room.ask("settings", values={name: {"endpoint": endpoint, "mtu": "1420"}[name] for name in changed})
        room.play().ok()


def settled(room, host) -> bool:
    """Whether no change is under way any more."""
    return not room.shown(host)["pending"]


def test_each_host_is_enrolled_in_the_manner_of_its_system(room):
    for host in room.macs:
        assert re.fullmatch(r"utun\d+", room.utun(host)) and "wg0" not in room.on(host, "ls /sys/class/net")
        assert {name: bool(room.job(host, name)) for name in JOBS} == dict.fromkeys(JOBS, True)
        left = room.on(host, "stat -c '%a %U %n' /etc/wireguard/wg0.conf /etc/wireguard /etc/gatecontrol /var/lib/gatecontrol /etc/gatecontrol/*")
        assert [line for line in left.splitlines() if not re.match("(600|700) root ", line)] == []
        assert room.on(host, "stat -c %U /opt/homebrew/bin/wg-quick") == "mara\n", "Homebrew's owner installed it"
        assert room.on(host, "head -n 1 /usr/local/sbin/gatecontrol-agent") == "#!/usr/bin/python3 -IS\n"
    assert room.on("linux1", "systemctl is-active gatecontrol-beat.timer wg-quick@wg0").split() == ["active", "active"]
    assert not room.on("linux1", "find / -xdev -path '*callmetechie*' -o -name gatecontrol.conf -path '*newsyslog*'")
    for host in room.hosts:
        assert room.echo(host, 25600) == 25600 and room.shown(host)["status"] == "connected"


def test_plists_are_valid_for_two_readers_and_each_host_beats_at_its_own_time(room, tmp_path):
    offsets = {}
    for host in room.macs:
        for name in JOBS:
            path = "/Library/LaunchDaemons/com.callmetechie.gatecontrol-%s.plist" % name
            text = room.on(host, "cat " + path)
            known = plistlib.loads(text.encode())
            assert known["Label"] == "com.callmetechie.gatecontrol-" + name and room.on(host, "plutil -lint " + path) == path + ": OK\n"
            assert ("AbandonProcessGroup" in known) == (name in ("tunnel", "apply"))
            (tmp_path / "in.plist").write_text(text)
            subprocess.run(["plistutil", "-i", tmp_path / "in.plist", "-o", tmp_path / "out.plist", "-f", "bin"], check=True)
            assert plistlib.loads((tmp_path / "out.plist").read_bytes()) == known
            offsets[host, name] = known["ProgramArguments"][-1]
    assert 0 <= int(offsets["mac1", "beat"]) < 15 and offsets["mac1", "beat"] != offsets["mac2", "beat"]


def test_a_second_run_is_one_task_and_one_request_on_every_system(room):
    room.everywhere("gatecontrol-agent checked")  # or an agent's own question might fall into the run
    mark = room.mark_log()
    run = room.play("-vvv").ok()
    requests = [entry for entry in room.log(since=mark) if entry.get("method") and entry["event"] not in ("heartbeat", None)]
    for host, peer in room.peers().items():
        assert [entry["task"] for entry in run.of(host) if not entry["task"].startswith("Validating arguments")] == ["Observe what is there"]
        assert run.seen(host)["asked"] == "agent" and run.seen(host)["in_sync"] is True
        assert [entry["event"] for entry in requests if entry.get("peer_id") == peer["id"]] == ["config/check"]
        unseen = {"unseen": ["routes", "DNS"]} if host in room.macs else {}
        assert run.seen(host)["tunnel"] == dict({"action": "none", "reasons": []}, **unseen)
    commands = [line for line in run.text.splitlines() if "SSH: EXEC" in line]
    assert len(commands) == len(room.hosts) and "AnsiballZ" not in run.text
    checked = room.play("--check", "--diff").ok()
    assert not any(checked.changed(host) for host in room.hosts)


def test_a_change_by_the_play_is_a_restart_and_check_mode_tells_it_before(room):
    room.everywhere("gatecontrol-agent checked")  # or the agent might be first to ask
    room.ask("settings", values={"mtu": "1380"})
    before = {host: room.utun(host) for host in room.macs}
    checked = room.play("--check", "--diff", limit="macs").ok()
    assert "+MTU = 1380" in checked.text and all("Read the config" in checked.changed(host) for host in room.macs)
    assert {host: room.utun(host) for host in room.macs} == before
    run = room.play().ok()
    for host in room.macs:
        assert "Run the tunnel" in run.changed(host) and run.of(host, "Run the tunnel")[-1]["result"]["action"] == "restart"
        assert room.mtu(host) == 1380 and room.utun(host) != before[host] and room.echo(host, 2560) == 2560


def test_a_change_by_the_agent_alone(room):
    room.ask("settings", values={"mtu": "1420"})
    room.everywhere("gatecontrol-agent sync")
    assert until(lambda: all(room.mtu(host) == 1420 and settled(room, host) for host in room.macs), 90)
    assert until(lambda: all(room.shown(host)["verdict"]["ok"] and settled(room, host) for host in room.hosts), 90)
    run = room.play().ok()
    assert not any(run.changed(host) for host in room.hosts), run.text


def test_what_wg_quick_leaves_running_outlives_the_job_that_started_it(room):
    """The route and DNS monitor lives in the job's process group, which launchd ends without AbandonProcessGroup."""
    for host in room.macs:
        room.on(host, "PATH=/opt/homebrew/bin:$PATH wg-quick down wg0; sleep 1")
    for host in room.macs:
        assert until(lambda host=host: room.utun(host) and room.shown(host)["status"] == "connected", 60), "the job brought it up again"
        assert room.job(host, "tunnel")["state"] == "not running"
        assert room.on(host, "pgrep -f 'wg-quick up wg0'").strip()
        assert room.on(host, "networksetup -getdnsservers Ethernet") != "There aren't any DNS Servers set on Ethernet.\n"


def test_drift_is_seen_and_repaired(room):
    room.on("mac1", "launchctl bootout system/com.callmetechie.gatecontrol-beat; launchctl disable system/com.callmetechie.gatecontrol-tunnel")
    room.on("mac1", "echo '<!-- mine -->' >> /Library/LaunchDaemons/com.callmetechie.gatecontrol-apply.plist; rm /etc/newsyslog.d/gatecontrol.conf")
    room.on("mac2", "sed -i 's/^PersistentKeepalive.*/PersistentKeepalive = 7/' /etc/wireguard/wg0.conf")
    run = room.play("--diff").ok()
    drift = {host: " / ".join(run.seen(host)["drift"]) for host in room.macs}
    for words in ("gatecontrol-apply.plist differs", "newsyslog.d/gatecontrol.conf is missing", "gatecontrol-beat is inactive",
                  "gatecontrol-tunnel is not enabled"):
        assert words in drift["mac1"]
    assert "wg0.conf was changed" in drift["mac2"]
    again = room.play().ok()
    assert not any(again.changed(host) for host in room.hosts) and all(again.seen(host)["in_sync"] for host in room.hosts)


def test_a_change_that_nobody_proves_is_undone(room, settings):
    before = {host: room.on(host, "cat /etc/wireguard/wg0.conf") for host in room.macs}
    settings(endpoint=DARK)
    run = room.play(gatecontrol_confirm_timeout=12)
    assert run.status != 0
    for host in room.macs:
        assert "rolled back" in run.error(host) and DARK in run.error(host)
        assert room.on(host, "cat /etc/wireguard/wg0.conf") == before[host] and settled(room, host)
        assert until(lambda host=host: room.shown(host)["status"] == "connected", 30) and room.echo(host, 2560) == 2560


def test_a_controller_that_does_not_come_back_has_the_change_undone(room, settings):
    before = room.on("mac1", "cat /etc/wireguard/wg0.conf")
    settings(mtu="1370")
    begun = room.start(limit="mac1", gatecontrol_confirm_timeout=15)
    assert until(lambda: room.on("mac1", "cat /var/lib/gatecontrol/pending.json 2>/dev/null", check=False), 60, 0.1)
    room.room("block", "mac1")
    try:
        assert until(lambda: settled(room, "mac1"), 60)
        assert room.on("mac1", "cat /etc/wireguard/wg0.conf") == before and room.mtu("mac1") == 1420
    finally:
        room.room("unblock", "mac1")
    assert "rolled back" in room.finish(begun).error("mac1")


def test_reboots_even_in_the_middle_of_a_change(room, settings):
    before, mark = room.on("mac2", "cat /etc/wireguard/wg0.conf"), room.mark_log()
    settings(endpoint=DARK)
    room.on("mac2", "gatecontrol-agent sync")
    assert until(lambda: DARK in room.on("mac2", "cat /etc/wireguard/wg0.conf"), 30, 0.1)
    room.room("reboot", "mac2", "--hard")
    room.room("reboot", "mac1")
    assert until(lambda: settled(room, "mac2"), 60) and room.on("mac2", "cat /etc/wireguard/wg0.conf") == before
    assert "rebooted in the middle" in room.shown("mac2")["verdict"]["reason"]
    for host in room.macs:
        assert until(lambda host=host: room.shown(host)["status"] == "connected", 60), host
        assert until(lambda host=host: room.asked_by(host, since=mark, event="heartbeat", status=200), 100), "%s does not beat" % host


def test_no_secret_is_in_the_log_and_no_tool_of_linux_was_used(room):
    for host in room.macs:
        secrets = re.findall(r"(?:PrivateKey|PresharedKey) = (\S+)", room.on(host, "cat /etc/wireguard/wg0.conf"))
        secrets.append(room.on(host, "cat /etc/gatecontrol/token").strip())
        log = room.on(host, "cat /var/log/gatecontrol.log")
        assert len(secrets) == 3 and "beat" in log and not [secret for secret in secrets if secret in log]
        assert room.on(host, "cat /var/log/used-of-linux.log 2>/dev/null", check=False) == ""


def test_retired_hosts_keep_nothing_but_packages(room):
    checked = room.play("--check", gatecontrol_state="absent").ok()
    assert all(checked.changed(host) for host in room.hosts) and all(room.shown(host)["enrolled"] for host in room.hosts)
    room.play(gatecontrol_state="absent").ok()
    for host in room.macs:
        left = room.on(host, "find /etc /Library /usr/local /var/lib /var/db /var/run/wireguard -xdev -name '*gatecontrol*' -o -name '*wg0*'").split()
        assert [path for path in left if "gatecontrol-test-ca" not in path] == []
        assert room.on(host, "launchctl list").count("callmetechie") == 0 and "=> disabled" not in room.on(host, "launchctl print-disabled system")
        assert until(lambda host=host: "utun" not in room.on(host, "ls /sys/class/net"), 10)
        assert room.on(host, "networksetup -getdnsservers Ethernet") == "There aren't any DNS Servers set on Ethernet.\n"
        assert room.on(host, "ls /opt/homebrew/bin/wg-quick")
    again = room.play(gatecontrol_state="absent").ok()
    assert not any(again.changed(host) for host in room.hosts)
    for name in room.peers():  # which a client token cannot delete, and which is not taken over unasked
        room.ask("peer", action="delete", peer=name)
    for host in room.hosts:
        room.give(host)
    room.play().ok()
    assert not any(room.play().ok().changed(host) for host in room.hosts)
