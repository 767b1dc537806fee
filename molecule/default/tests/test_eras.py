"""Releases of the server: a host enrolls where its release allows, and is told the way that works where it does not."""
from __future__ import annotations

import pytest
from gateserver.running import Server

ERAS = {"1.5.2": ("deb11", 2), "1.50.12": ("deb12", 3), "1.118.2": ("deb13", 4)}


@pytest.fixture(scope="module")
def servers(room):
    """A server of each era beside the scenario's own, and hosts that are not enrolled; afterwards they are enrolled as before."""
    room.play(gatecontrol_state="absent", gatecontrol_peers_token=room.token("controller", "peers")).ok()
    address, tls = room.known["room_address"], room.folder / "tls"
    begun = {}
    try:
        for era, (_host, number) in ERAS.items():
            begun[era] = Server(
                "--era", era, "--host", address, "--port", str(8450 + number), "--tls", str(tls / "server.pem"), str(tls / "server.key"),
                "--wireguard", "gw%sd%d" % (room.mark[:8], number), "--subnet", "10.86.%d.0/24" % number,
                "--endpoint", "%s:%d" % (address, 51830 + number), "--rate-limit", "10000", under=("ip", "netns", "exec", room.netns))
            begun[era].ask("settings", values={"allowed_ips": "10.86.%d.0/24" % number})
        yield begun
    finally:
        for server in begun.values():
            server.stop()
    for host in room.hosts:
        room.give(host)
    room.play(gatecontrol_move=True).ok()


def play(room, server, host, **variables):
    """A run for one host with a server of its own."""
    return room.play(limit=host, gatecontrol_url=server.url, **{"gatecontrol_token": "", **variables})


@pytest.mark.parametrize("era", ["1.5.2", "1.50.12"])
def test_a_client_token_enrolls(room, servers, era):
    server, host = servers[era], ERAS[era][0]
    token = server.token("peers" if era == "1.5.2" else "client", name=host)
    play(room, server, host, gatecontrol_token=token).ok()
    assert list(room.peers(server.url)) == [host]
    assert "heartbeat" in [entry["event"] for entry in server.log(token=host, status=200)]
    assert room.shown(host)["status"] == "connected" and room.shown(host)["reporting"] == "full"
    again = play(room, server, host).ok()
    assert not again.changed(host), again.text
    play(room, server, host, gatecontrol_state="absent").ok()


def test_1_118_2_names_the_ways_that_work(room, servers):
    server, host = servers["1.118.2"], "deb13"
    run = play(room, server, host, gatecontrol_token=server.token("client", name=host))
    assert run.status != 0
    words = run.error(host)
    assert "1.118.2" in words and "gatecontrol_peers_token" in words and "gatecontrol_peer_id" in words, words
    assert room.peers(server.url) == {} and server.log(event="register") == []


def test_1_118_2_with_a_peers_token(room, servers):
    server, host = servers["1.118.2"], "deb13"
    peers_token = server.token("peers", name="controller")
    run = play(room, server, host, gatecontrol_peers_token=peers_token).ok()
    assert list(room.peers(server.url)) == [host]
    shown = room.shown(host)
    assert shown["reporting"] == "none" and shown["status"] == "connected"
    timer = room.on(host, "systemctl is-enabled gatecontrol-beat.timer; systemctl is-active gatecontrol-beat.timer", check=False)
    assert timer.split() == ["disabled", "inactive"]
    assert room.on(host, "grep -rl '%s' /etc /var/lib/gatecontrol; echo none" % peers_token[3:]) == "none\n"
    assert peers_token not in run.text
    again = play(room, server, host, gatecontrol_peers_token=peers_token).ok()
    assert not again.changed(host) and again.seen(host)["in_sync"], again.text
    play(room, server, host, gatecontrol_peers_token=peers_token, gatecontrol_state="absent").ok()
    assert room.peers(server.url) == {}


def test_1_118_2_with_a_token_bound_in_advance(room, servers):
    server, host = servers["1.118.2"], "deb13"
    peer = server.ask("peer", action="add", peer="prepared")[0]
    token = server.token("client", name=host, peer_id=peer["id"])
    play(room, server, host, gatecontrol_token=token, gatecontrol_peer_id=peer["id"]).ok()
    shown = room.shown(host)
    assert (shown["peer_id"], shown["peer_name"], shown["reporting"], shown["status"]) == (peer["id"], "prepared", "full", "connected")
    assert room.on(host, "systemctl is-active gatecontrol-beat.timer") == "active\n"
    assert "heartbeat" in [entry["event"] for entry in server.log(token=host, status=200)]
    again = play(room, server, host).ok()
    assert not again.changed(host), again.text
    assert list(room.peers(server.url)) == ["prepared"]
    play(room, server, host, gatecontrol_state="absent").ok()


def test_a_host_without_systemd_is_refused(room, servers):
    host = "deb13"
    address = room.record["hosts"][host]["address"]
    # A second SSH server on the host, whose sessions see no systemd: sd_booted(3) looks for /run/systemd/system.
    room.on(host, "setsid unshare --mount sh -c 'mount -t tmpfs none /run/systemd && exec /usr/sbin/sshd -D -p 2222 -o PidFile=none'"
                  " >/dev/null 2>&1 </dev/null & sleep 1")
    before = room.on(host, "ls -la /etc /usr/local/sbin /usr/local/lib")
    try:
        run = room.play(limit=host, ansible_port=2222, ansible_ssh_extra_args="-o HostKeyAlias=" + address)
        assert run.status != 0
        assert "does not run systemd" in run.error(host) and "\n" not in run.error(host).strip(), run.error(host)
        assert not run.changed(host) and room.on(host, "ls -la /etc /usr/local/sbin /usr/local/lib") == before
    finally:
        room.on(host, "pkill -f 'sshd.* -p 2222'", check=False)
