"""What only a kernel of one's own shows. Each test leaves the machines enrolled; they come in this order, since a boot costs most of the time."""
from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from scenario import PYTHON, CHECKOUT, until

SYNC = 20  # seconds between two syncs, as converge has it
SPLIT, FULL, BOTH = "10.86.9.0/24", "0.0.0.0/0", "0.0.0.0/0, ::/0"
BEAT = "systemctl show gatecontrol-beat.service --property=Result,ExecMainStatus,InvocationID"


def hosts_cli(*words):
    """A command of tests/hosts."""
    subprocess.run([PYTHON, str(CHECKOUT / "tests/hosts"), *words], check=True, capture_output=True, text=True)


def reboot(room, host, hard=False, **power):
    """Switch a machine off and on again; waits for it."""
    words = ["--hard"] * hard + (["--power", json.dumps(power)] if power else [])
    hosts_cli("reboot", *words, room.mark, host)


def shown(room, host):
    """What the agent shows, {} while the machine cannot be asked."""
    text = room.on(host, "gatecontrol-agent show --json", check=False)
    return json.loads(text) if text.startswith("{") else {}


def beaten(room, host, since, seconds=180):
    """Whether the server answered a beat of this host after `since` (Unix time of the machine)."""
    return until(lambda: (shown(room, host).get("last_beat") or 0) > since, seconds, 2)


def now(room, host):
    """The machine's own time."""
    return float(room.on(host, "date +%s"))


def all_at_once(room, work):
    """work(host) for both machines."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(room.hosts, pool.map(work, room.hosts)))


def serve(room, allowed):
    """Have the server issue these allowed IPs, and the machines apply them by themselves; they are there within two syncs of their own."""
    room.ask("settings", values={"allowed_ips": allowed})
    for host in room.hosts:
        want = ["%s" % network.strip() for network in allowed.split(",")]
        done = until(lambda host=host, want=want: all(network in room.on(host, "wg show wg0 allowed-ips", check=False) for network in want)
                     and not shown(room, host).get("pending", True), 2 * SYNC + 90, 2)
        assert done, "%s: %s\n%s" % (host, shown(room, host), room.on(host, "journalctl -u 'gatecontrol-*' -n 20 --no-pager -o cat", check=False))


def test_wireguard_is_in_the_kernel(room):
    for host in room.hosts:
        assert "wireguard" in room.on(host, "ip -d link show wg0")
        assert room.on(host, "pgrep -c wireguard-go", check=False).strip() == "0"
        assert room.echo(host, 65536) == 65536


def test_the_beat_works_in_its_sandbox(room):
    for host in room.hosts:
        begun = now(room, host)
        assert beaten(room, host, begun, 75), room.on(host, "journalctl -u gatecontrol-beat -n 5 --no-pager -o cat; " + BEAT, check=False)
        assert "Result=success" in room.on(host, BEAT)


def test_a_second_run_sends_no_module(room):
    run = room.play().ok()
    for host in room.hosts:
        assert [entry["task"] for entry in run.of(host)] and not run.changed(host), run.text
        assert run.seen(host)["asked"] == "agent"


def test_a_change_is_taken_live_where_wg_is_confined(room):
    ids = {host: room.on(host, "cat /sys/class/net/wg0/ifindex") for host in room.hosts}
    room.ask("settings", values={"allowed_ips": SPLIT + ", 192.0.2.0/24"})
    for host in room.hosts:
        assert until(lambda host=host: "192.0.2.0/24" in room.on(host, "wg show wg0 allowed-ips; ip route", check=False), 2 * SYNC + 90, 2), shown(room, host)
        assert room.on(host, "cat /sys/class/net/wg0/ifindex") == ids[host]
        assert "enforce" in room.on(host, "cat /sys/kernel/security/apparmor/profiles | grep -w wg")
        denied = room.on(host, "dmesg | grep 'apparmor=\"DENIED\"' | grep 'profile=\"wg\"'", check=False)
        assert not denied, denied


def test_a_full_tunnel_keeps_the_way_to_the_controller(room):
    serve(room, FULL)
    for host in room.hosts:
        assert "51820" in room.on(host, "ip rule"), host  # over a new connection from another subnet
        assert room.echo(host, 65536) == 65536


@pytest.mark.parametrize("what", ["systemctl restart systemd-networkd", "nft flush ruleset"])
def test_what_others_take_away_is_back_with_a_beat(room, what):
    """systemd-networkd takes rules that are not its own; a firewall's file begins with a flush."""
    before = {host: sorted(line.split(":", 1)[1] for line in room.on(host, "ip rule").splitlines()) for host in room.hosts}
    tables = {host: room.on(host, "nft list tables", check=False) for host in room.hosts}
    # It takes the connection's own way with it.
    room.everywhere("systemd-run --quiet --collect sh -c 'sleep 2; %s; touch /run/taken'" % what)
    time.sleep(3)

    def back(host):
        lines = room.on(host, "ls /run/taken; ip rule", check=False).splitlines()
        return (lines[:1] == ["/run/taken"] and sorted(line.split(":", 1)[1] for line in lines[1:] if ":" in line) == before[host]
                and set(tables[host].splitlines()) <= set(room.on(host, "nft list tables", check=False).splitlines()))

    for host in room.hosts:
        assert until(lambda host=host: back(host), 2 * SYNC + 60, 3), "%s\n%s\n%s" % (
            before[host], room.on(host, "ip rule; nft list tables", check=False), shown(room, host))
        assert room.echo(host, 4096) == 4096
    room.everywhere("rm /run/taken")


def test_power_is_cut_in_the_middle_of_a_change(room):
    """And IPv6 is off after the boot, while the server issues a config with it."""
    peers = room.numbers()
    room.ask("settings", values={"allowed_ips": BOTH})

    def cut(host):
        until(lambda: shown(room, host).get("pending"), 2 * SYNC + 90, 0.5)
        reboot(room, host, hard=True, append="ipv6.disable=1")

    all_at_once(room, cut)
    for host in room.hosts:
        there = until(lambda host=host: room.on(host, "wg show wg0 allowed-ips", check=False).count("/0"), 2 * SYNC + 120, 3)
        assert there, shown(room, host)
        assert until(lambda host=host: not shown(room, host).get("pending", True), 150, 3), shown(room, host)
        assert room.echo(host, 4096) == 4096
        # What is left of the config is what ran before, so the verdict stays; nothing was undone for another reason.
        assert (shown(room, host)["verdict"] or {}).get("reason") in (None, "the host was rebooted in the middle of the change"), shown(room, host)
    run = room.play().ok()
    assert not any(run.changed(host) for host in room.hosts), run.text
    assert room.numbers() == peers


def test_a_clock_in_the_past_and_another_address(room):
    """No battery on vm12, and it has a full tunnel; vm13 has moved. Both are reached from another subnet, and beat."""
    power = {"vm12": {"rtc": "2020-01-01T00:00:00"}, "vm13": {}}
    all_at_once(room, lambda host: reboot(room, host, hard=True, **power[host]))
    for host in room.hosts:
        begun = now(room, host)
        assert beaten(room, host, begun, 2 * SYNC + 120), "%s: %s" % (host, shown(room, host))
        assert room.echo(host, 4096) == 4096
        assert "-" not in room.on(host, "gatecontrol-agent show | grep -o 'answered -*[0-9]*'")


def test_a_machine_that_was_suspended_goes_on(room):
    all_at_once(room, lambda host: hosts_cli("monitor", room.mark, host, "stop"))
    time.sleep(45)
    all_at_once(room, lambda host: hosts_cli("monitor", room.mark, host, "cont"))
    for host in room.hosts:
        begun = now(room, host)
        assert beaten(room, host, begun, 2 * SYNC + 60), shown(room, host)
        assert room.echo(host, 4096) == 4096


def test_a_machine_is_retired(room):
    run = room.play(gatecontrol_state="absent").ok()
    assert run
    for host in room.hosts:
        assert "gone" in room.on(host, "ls -d /etc/gatecontrol /sys/class/net/wg0 /usr/local/sbin/gatecontrol-agent 2>/dev/null || echo gone")
