"""Enrolled hosts: traffic, beats, a run that finds everything in order, check mode."""
from __future__ import annotations

import json
import re


def test_traffic_goes_through_the_tunnel_and_is_counted_at_both_ends(room):
    size, mark = 25600, room.mark_log()
    before = room.peers()
    for host in room.hosts:
        assert room.echo(host, size) == size
    after = room.peers()
    echoes = {entry["peer_id"]: entry["body"]["bytes"] for entry in room.log(since=mark, event="echo")}
    for host in room.hosts:
        peer = after[host]
        assert echoes[peer["id"]] == size
        for side in ("transfer_rx", "transfer_tx"):
            assert peer[side] - before[host][side] >= size, (host, side)
        assert room.shown(host)["rx_bytes"] >= size and room.shown(host)["tx_bytes"] >= size


def test_the_enrollment_took_four_requests_and_both_beats_were_answered(room):
    """Register, the beat that proves the tunnel, and one in the timer's own unit, which asks for a new config too."""
    for host in room.hosts:
        asked = [(entry["event"], entry["status"], entry.get("body")) for entry in room.log(token=host)]
        begin = max(number for number, (event, _status, _body) in enumerate(asked) if event == "register")
        events = [entry[:2] for entry in asked[begin:begin + 4]]
        assert events == [("register", 201), ("heartbeat", 200), ("heartbeat", 200), ("config/check", 200)], host
        for _event, _status, beat in asked[begin + 1:begin + 3]:
            assert beat["connected"] is True and beat["hostname"] == host and beat["rxBytes"] > 0 and beat["txBytes"] > 0
        assert room.shown(host)["error"] is None and room.shown(host)["peer_enabled"] is True


def test_a_second_run_changes_nothing_asks_once_and_runs_no_module(room):
    room.ask_for_nothing()  # the first beats ask as well, and one of these could come now
    mark = room.mark_log()
    run = room.play("-vvv").ok()
    requests = [entry for entry in room.log(since=mark) if entry.get("method") and entry["event"] not in ("heartbeat", None)]
    for host, peer in room.peers().items():
        assert run.changed(host) == []
        assert [entry["event"] for entry in requests if entry.get("peer_id") == peer["id"]] == ["config/check"], host
        assert run.seen(host)["asked"] == "agent" and run.seen(host)["in_sync"] is True
    assert len(requests) == len(room.hosts)
    commands = [line for line in run.text.splitlines() if "SSH: EXEC" in line]
    assert len(commands) == len(room.hosts) and all("gatecontrol-agent verify" in line for line in commands), commands
    assert "AnsiballZ" not in run.text


def test_check_mode_on_an_enrolled_host_is_in_sync(room):
    run = room.play("--check", "--diff").ok()
    assert {host: run.changed(host) for host in room.hosts} == {host: [] for host in room.hosts}


def test_check_mode_tells_a_pending_change_and_makes_none(room):
    look = "wg showconf wg0; ip -br address show wg0; cat /etc/wireguard/wg0.conf /etc/gatecontrol/* /var/lib/gatecontrol/issued.conf"
    before = room.everywhere(look)
    peers = room.peers()
    room.ask_for_nothing()  # or the agent might be first to ask
    room.ask("settings", values={"mtu": "1380"})
    try:
        run = room.play("--check", "--diff").ok()
        for host in room.hosts:
            assert "the server has a new config" in run.seen(host)["drift"]
            assert "Read the config" in run.changed(host), run.text
        assert "+MTU = 1380" in run.text and "-MTU = 1420" in run.text
        assert room.everywhere(look) == before
        columns = ("id", "enabled", "description", "public_key")
        assert {name: [peer[key] for key in columns] for name, peer in room.peers().items()} == {
            name: [peer[key] for key in columns] for name, peer in peers.items()}
    finally:
        room.ask("settings", values={"mtu": "1420"})
    assert not any(room.play().ok().changed(host) for host in room.hosts)


def test_the_beats_unit_is_confined(room):
    words = "systemd-analyze security --no-pager gatecontrol-beat.service"
    rated = room.everywhere(words + " | sed -n 's/.*exposure level for [^:]*: \\([0-9.]*\\).*/\\1/p'")
    assert all(float(rating) <= 2.0 for rating in rated.values()), rated


def test_the_confined_unit_writes_the_metrics(room):
    host, folder = "deb12", "/var/lib/node_exporter"
    room.on(host, "mkdir %s && chmod 755 %s" % (folder, folder))
    try:
        room.play(limit=host, gatecontrol_textfile_dir=folder).ok()
        room.on(host, "rm -f %s/gatecontrol.prom; systemctl start gatecontrol-beat.service" % folder)
        assert room.on(host, "stat -c '%%a %%U' %s/*" % folder) == "644 root\n", "one file, which every exporter may read"
        lines = room.on(host, "cat %s/gatecontrol.prom" % folder).splitlines()
        labels = '{peer="%s",interface="wg0"}' % host
        assert "gatecontrol_beat_success%s 1" % labels in lines and "gatecontrol_peer_enabled%s 1" % labels in lines, lines
        assert not room.play(limit=host, gatecontrol_textfile_dir=folder).ok().changed(host)
    finally:
        room.play(limit=host).ok()
        room.on(host, "rm -r " + folder)


def test_a_file_that_the_confined_unit_does_not_see_fails_the_play(room):
    host, hidden = "deb12", "/tmp/ca.pem"
    room.on(host, "cp %s %s" % (room.known["gatecontrol_ca_path"], hidden))
    try:
        run = room.play(limit=host, gatecontrol_ca_path=hidden)
        assert run.status != 0 and "the agent's own unit does not work" in run.error(host) and "gatecontrol_ca_path" in run.error(host), run.text
    finally:
        room.play(limit=host).ok()
        room.on(host, "rm " + hidden)
    assert not room.play(limit=host).ok().changed(host)


def secrets_of(room) -> list:
    """Every private and preshared key on the hosts, and every token."""
    found = []
    for host in room.hosts:
        found += re.findall(r"(?:PrivateKey|PresharedKey) = (\S+)", room.on(host, "cat /etc/wireguard/wg0.conf"))
        found.append(room.on(host, "cat /etc/gatecontrol/token").strip())
    assert len(set(found)) == 3 * len(room.hosts)
    return found


def test_no_secret_is_in_output_logs_or_the_journal(room):
    room.on("deb11", "rm /etc/wireguard/wg0.conf; systemctl stop wg-quick@wg0")
    room.on("deb12", "sed -i 's/^PersistentKeepalive.*/PersistentKeepalive = 7/' /etc/wireguard/wg0.conf")
    room.on("deb13", "wg genkey | wg set wg0 private-key /dev/stdin")
    texts = {}
    checked = room.play("-vvv", "--check", "--diff")
    repaired = room.play("-vvv", "--diff").ok()
    assert "PrivateKey = " in repaired.text, "--diff showed no config"
    secrets = secrets_of(room)
    texts["check mode"], texts["repair"] = checked.text + json.dumps(checked.results), repaired.text + json.dumps(repaired.results)
    for host in room.hosts:
        texts["journal of " + host] = room.on(host, "journalctl --no-pager --output=verbose")
        texts["agent on " + host] = room.on(host, "gatecontrol-agent show; gatecontrol-agent show --json; gatecontrol-agent sync")
        texts["command lines on " + host] = room.on(host, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '")
    for place, text in texts.items():
        assert [secret for secret in secrets if secret in text] == [], place
