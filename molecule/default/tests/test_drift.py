"""What differs on a host is told by check mode, which leaves it so, and repaired by the next run; nothing else is touched."""
from __future__ import annotations

import pytest

# One row, one run: each host gets a drift of its own. A drift is what breaks it, and what observe says of it.
ROWS = {
    "peer, address, route": (
        ("wg set wg0 peer $(wg show wg0 peers) remove", "peer"),
        ("ip address flush dev wg0; ip address add 10.99.9.9/32 dev wg0", "10.99.9.9"),
        ("ip route del 10.86.1.0/24 dev wg0", "10.86.1.0/24"),
    ),
    "file, key, interface": (
        ("sed -i 's/^MTU.*/MTU = 1300/' /etc/wireguard/wg0.conf", "/etc/wireguard/wg0.conf was changed"),
        ("wg genkey | wg set wg0 private-key /dev/stdin", "key"),
        ("systemctl stop wg-quick@wg0", "wg0"),
    ),
    "no file, allowed networks, MTU": (
        ("rm /etc/wireguard/wg0.conf", "/etc/wireguard/wg0.conf is missing"),
        ("wg set wg0 peer $(wg show wg0 peers) allowed-ips 10.86.1.0/25", "allowed"),
        ("ip link set wg0 mtu 1280", "MTU"),
    ),
    "timer stopped, timer and tunnel not enabled": (
        ("systemctl stop gatecontrol-beat.timer", "gatecontrol-beat.timer is inactive"),
        ("systemctl disable -q gatecontrol-beat.timer", "gatecontrol-beat.timer is not enabled"),
        ("systemctl disable -q wg-quick@wg0", "wg-quick@wg0.service is not enabled"),
    ),
    "agent's code, launcher, unit": (
        ("echo '# more' >>/usr/local/lib/gatecontrol/gatecontrol/_plan.py", "_plan.py differs"),
        ("rm /usr/local/sbin/gatecontrol-agent", None),
        ("sed -i 's/^OnUnitActiveSec.*/OnUnitActiveSec=1d/' /etc/systemd/system/gatecontrol-beat.timer; systemctl daemon-reload",
         "gatecontrol-beat.timer differs"),
    ),
    "settings, token, unit that is gone": (
        ("sed -i 's/\"heartbeat_interval\": 60/\"heartbeat_interval\": 6000/' /etc/gatecontrol/settings.json", "settings differ"),
        ("echo changed >/etc/gatecontrol/token", "token file was changed"),
        ("rm /etc/systemd/system/gatecontrol-recover.service", "gatecontrol-recover.service is missing"),
    ),
}
# What of a host must be the same after the repair as before the break.
LOOK = """
wg showconf wg0 | grep -v ListenPort
ip -oneline -4 address show wg0 | sed 's/^[0-9]*: //'
ip -oneline link show wg0 | sed 's/^[0-9]*: //'
ip route show dev wg0
ip rule
cat /etc/wireguard/wg0.conf /etc/gatecontrol/*.json /etc/gatecontrol/token | grep -v '"controller":'
cat /usr/local/sbin/gatecontrol-agent /usr/local/lib/gatecontrol/gatecontrol/*.py /etc/systemd/system/gatecontrol-* | sha256sum
systemctl is-active wg-quick@wg0.service gatecontrol-beat.timer
systemctl is-enabled wg-quick@wg0.service gatecontrol-beat.timer
"""


@pytest.mark.parametrize("row", ROWS)
def test_drift(room, quiet, row):
    good, peers = room.everywhere(LOOK + "true"), room.numbers()
    for host, (command, _words) in zip(room.hosts, ROWS[row]):
        room.on(host, command)
    broken = room.everywhere(LOOK + "true", check=False)
    assert all(broken[host] != good[host] for host in room.hosts), "nothing was broken"
    checked = room.play("--check", "--diff").ok()
    assert difference(broken, room.everywhere(LOOK + "true", check=False)) == {}, "check mode changed something"
    repaired = room.play().ok()
    for host, (_command, words) in zip(room.hosts, ROWS[row]):
        for run in (checked, repaired):
            seen = run.seen(host)
            assert seen["in_sync"] is False and any((words or "") in text for text in seen["drift"]), (host, seen["drift"])
        assert checked.changed(host), "%s: check mode told no change\n%s" % (host, checked.text)
    assert difference(good, room.everywhere(LOOK + "true")) == {}
    again = room.play().ok()
    assert {host: again.changed(host) + again.seen(host)["drift"] for host in room.hosts} == {host: [] for host in room.hosts}
    assert room.numbers() == peers


def difference(before: dict, after: dict) -> dict:
    """The lines of each host that are in one of the two only."""
    found = {host: sorted(set(before[host].splitlines()) ^ set(after[host].splitlines())) for host in before}
    return {host: lines for host, lines in found.items() if lines}


def rules(room, host):
    """The host's ip rules in their order; one that was put back has another number."""
    return [line.split(":", 1)[1] for line in room.on(host, "ip rule").splitlines()]


def test_the_rules_of_a_full_tunnel(room, quiet):
    host, full = "deb13", {"gatecontrol_allowed_ips": ["0.0.0.0/0"]}
    try:
        room.play(limit=host, **full).ok()
        good = rules(room, host)
        assert any("suppress_prefixlength" in rule for rule in good)
        room.on(host, "ip rule del table main suppress_prefixlength 0")
        checked = room.play("--check", limit=host, **full).ok()
        assert any("rule" in text for text in checked.seen(host)["drift"]) and checked.changed(host)
        assert "suppress_prefixlength" not in room.on(host, "ip rule")
        room.play(limit=host, **full).ok()
        assert rules(room, host) == good
        assert not room.play(limit=host, **full).ok().changed(host)
    finally:
        room.play(limit=host).ok()
    assert "suppress_prefixlength" not in room.on(host, "ip rule")


def test_a_lost_enrollment_is_not_taken_for_a_new_host(room):
    host, peers = "deb12", room.numbers()
    room.on(host, "rm -r /etc/gatecontrol/enrollment.json /var/lib/gatecontrol")
    before = room.on(host, "wg showconf wg0")
    run = room.play(limit=host)
    assert run.status != 0 and "gatecontrol_adopt" in run.error(host)
    assert room.on(host, "wg showconf wg0") == before
    room.play(limit=host, gatecontrol_adopt=True).ok()
    assert not room.play(limit=host).ok().changed(host)
    assert room.numbers() == peers
