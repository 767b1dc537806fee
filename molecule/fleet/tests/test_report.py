"""report.yml: a fleet that is well, and one in which each host has something else."""
from __future__ import annotations

import json
import re

from scenario import until


def report(room, folder, *words, **variables):
    """A run of report.yml, its JSON and its page."""
    run = room.run("report", *words, gatecontrol_report_dir=str(folder), **variables)
    return run, json.loads((folder / "gatecontrol-report.json").read_text()), (folder / "gatecontrol-report.html").read_text()


def states(found) -> dict:
    return {host["host"]: host["state"] for host in found["hosts"]}


def test_a_fleet_that_is_well(room, tmp_path):
    room.ask("peer", action="add", peer="left-over")
    room.everywhere("gatecontrol-agent checked")  # or an agent might ask as well
    mark = room.mark_log()
    try:
        run, found, page = report(room, tmp_path)
    finally:
        room.ask("peer", action="delete", peer="left-over")
    run.ok()
    assert states(found) == dict.fromkeys(room.hosts, "enrolled") and found["failing"] == [] and found["attention"] == 0
    assert [peer["name"] for peer in found["peers_without_host"]] == ["left-over"] and found["servers"] == [room.url]
    peers = room.peers()
    for host in found["hosts"]:
        peer = peers[host["host"]]
        assert (host["peer_id"], host["peer_name"], host["address"]) == (peer["id"], host["host"], peer["allowed_ips"].partition("/")[0])
        assert host["rx_bytes"] > 0 and host["tx_bytes"] > 0 and 0 <= host["handshake_age"] < 300 and host["beat_age"] < 300
        assert (host["tunnel"], host["reporting"], host["system"]) == ("connected", "full", "debian 13")
        assert re.search(r'<th scope="row">%s<small>debian 13' % host["host"], page)
    # One login, one request for the list, one for each host; nothing is changed and no module sent to a host.
    asked = [entry for entry in room.log(since=mark) if entry.get("method") and entry.get("event") not in ("heartbeat", "status")]
    assert sum(entry.get("event") == "login" for entry in asked) == 1
    assert sum(entry["path"] == "/api/v1/peers" for entry in asked) == 1
    assert sum(entry.get("event") == "config/check" for entry in asked) == len(room.hosts)
    for host in room.hosts:
        assert run.changed(host) == [] and run.seen(host)["asked"] == "agent"
    for host, secrets in room.everywhere("cat /etc/gatecontrol/token; sed -n 's/^P[a-z]*Key = //p' /etc/wireguard/wg0.conf").items():
        for secret in secrets.split():
            if not secret.startswith(room.on(host, "wg show wg0 peers").strip()):
                assert secret not in page + json.dumps(found) + run.text + json.dumps(run.results)


def test_each_host_has_something_else(room, tmp_path):
    gone, drifted, disabled, rolled_back, stale, pending, *well = room.hosts
    room.ask("peer", action="set", peer=rolled_back, values={"persistent_keepalive": 31})
    room.offer_dark(rolled_back, room.on(rolled_back, "cat /var/lib/gatecontrol/issued.conf"))
    room.on(rolled_back, "gatecontrol-agent sync")
    room.play(limit=pending, gatecontrol_state="absent").ok()
    room.on(drifted, "sed -i 's/^MTU.*/MTU = 1300/' /etc/wireguard/wg0.conf")
    room.ask("peer", action="disable", peer=disabled)
    room.on(disabled, "gatecontrol-agent beat")
    # Its packets get lost, and it starts anew: nothing differs, but there is no handshake.
    room.on(stale, "nft add table inet lost && nft 'add chain inet lost out { type filter hook output priority 0; }' && "
                   "nft add rule inet lost out udp dport 51820 drop && systemctl restart wg-quick@wg0")
    assert until(lambda: (room.shown(rolled_back)["verdict"] or {}).get("ok") is False and not room.shown(rolled_back)["pending"], 90)
    room.room("block", gone)
    try:
        expected = {gone: "unreachable", drifted: "drifted", disabled: "disabled", rolled_back: "rolled_back", stale: "stale", pending: "pending",
                    **dict.fromkeys(well, "enrolled")}
        run, found, page = report(room, tmp_path, *room.NEW_CONNECTION, **room.NO_SECRET)
        assert states(found) == expected and run.status == 2 and found["peers_without_host"] is None
        assert [host["state"] for host in found["hosts"]] == ["unreachable", "rolled_back", "disabled", "drifted", "stale", "pending", "enrolled", "enrolled"]
        assert found["failing"] == [host["host"] for host in found["hosts"][:6]] and found["counts"]["enrolled"] == len(well)
        reasons = {host["host"]: " ".join(host["reasons"]) for host in found["hosts"]}
        for host, words in ((gone, "ssh"), (drifted, "/etc/wireguard/wg0.conf was changed"), (disabled, "disabled this peer"),
                            (rolled_back, "198.51.100.9"), (stale, "no handshake yet"), (pending, "is not enrolled")):
            assert words in reasons[host] and (host == gone or words in page), (host, reasons[host])
        assert "6 hosts need attention." in page and "6 of 8 hosts need attention" in run.text
        assert not any(run.changed(host) for host in room.hosts)
        # The server knows of a host that does not answer.
        run, found, _page = report(room, tmp_path, *room.NEW_CONNECTION, gatecontrol_report_fail_on=["absent"])
        run.ok()
        silent = next(host for host in found["hosts"] if host["host"] == gone)
        assert silent["state"] == "unreachable" and silent["peer_name"] == gone and silent["handshake_age"] < 300 and silent["rx_bytes"] > 0
    finally:
        room.no_faults()
        room.room("unblock", gone)
        room.ask("peer", action="enable", peer=disabled)
        room.on(stale, "nft delete table inet lost", check=False)
    room.run("enroll").ok()
    assert until(lambda: states(report(room, tmp_path)[1]) == dict.fromkeys(room.hosts, "enrolled"), 30, 3)


def test_a_server_that_is_silent_is_named(room, tmp_path):
    run, found, page = report(room, tmp_path, limit=room.hosts[:2], gatecontrol_admin_password="wrong")
    run.ok()
    assert len(found["hosts"]) == 2 and "does not accept this name and password" in found["server_error"] and "does not accept this name" in page
