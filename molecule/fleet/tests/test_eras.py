"""Servers of other eras and profiles beside the scenario's own. Comes last: it leaves the hosts with no enrollment."""
from __future__ import annotations

import pytest
from gateserver.running import Server

ERAS = ("1.5.2", "1.50.12", "1.118.2", "fixed")


def beside(room, number: int, *words: str) -> Server:
    """A server beside the scenario's own, of an era or a profile."""
    address, tls = room.known["room_address"], room.folder / "tls"
    server = Server(
        *words, "--host", address, "--port", str(8400 + number), "--tls", str(tls / "server.pem"), str(tls / "server.key"),
        "--wireguard", "gwfleet%d" % number, "--subnet", "10.86.%d.0/24" % number, "--endpoint", "%s:%d" % (address, 51800 + number),
        "--rate-limit", "10000", "--login-limit", "1000", under=("ip", "netns", "exec", room.netns))
    server.ask("settings", values={"allowed_ips": "10.86.%d.0/24" % number})
    return server


@pytest.fixture(autouse=True)
def _each_test_finds_an_enrolled_fleet(request, room):
    """It finds hosts with no enrollment instead, whatever one that failed has left."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        room.unenroll(check=False)


@pytest.fixture(scope="module")
def eras(room):
    """{era: a server of it}; the hosts are enrolled with none while a test uses them."""
    begun = {}
    try:
        for number, era in enumerate(ERAS, 60):
            begun[era] = beside(room, number, "--era", era)
        room.unenroll()
        yield begun
    finally:
        for server in begun.values():
            server.stop()


@pytest.mark.parametrize("era", ["1.5.2", "1.118.2"])
def test_a_peers_token_enrolls_the_fleet(room, whole, eras, era):
    server = eras[era]
    token = server.token("peers", name="controller")
    given = dict(room.NO_SECRET, gatecontrol_url=server.url, gatecontrol_peers_token=token)
    room.killed_at_random_moments(whole, 1, server.url, False, **given)
    again = room.play(**given).ok()
    assert not any(again.changed(host) for host in room.hosts)
    room.play(gatecontrol_state="absent", **given).ok()
    assert room.peers(server.url) == {}


def test_on_the_oldest_era_the_peers_token_can_be_the_host_s_too(room, eras):
    server, host = eras["1.5.2"], room.hosts[0]
    given = dict(room.NO_SECRET, gatecontrol_url=server.url, gatecontrol_peers_token=server.token("peers", name="everywhere"),
                 gatecontrol_peers_token_on_host=True)
    room.play(limit=host, **given).ok()
    shown = room.shown(host)
    assert (shown["reporting"], shown["status"], list(room.peers(server.url))) == ("full", "connected", [host])
    assert shown["last_beat"], "the server has answered a beat with it"
    again = room.play(limit=host, **given).ok()
    assert again.seen(host)["in_sync"] and not again.changed(host)
    room.play(gatecontrol_state="absent", limit=host, **given).ok()
    assert room.peers(server.url) == {}


def test_the_licence_stops_at_the_fourth_host_and_leaves_no_half_one(room, eras):
    with beside(room, 60 + len(ERAS), "--era", "fixed", "--profile", "community") as server:
        given = {"gatecontrol_url": server.url}
        run = room.play(**given)
        assert run.status != 0
        enrolled = sorted(room.peers(server.url))
        assert len(enrolled) == 3
        for host in sorted(set(room.hosts) - set(enrolled)):
            assert "3 of 3" in run.error(host), run.error(host)
            assert room.left(host) == "", "the agent went as it had come"
        room.settled(enrolled, server.url)
        room.play(gatecontrol_state="absent", **given).ok()
        assert room.peers(server.url) == {}


# --- who is who


@pytest.mark.parametrize("era", ERAS)
def test_one_token_for_two_hosts_is_caught(room, eras, era):
    server, pair = eras[era], room.hosts[:2]
    token = server.token("peers" if era == "1.5.2" else "client", name="shared")
    run = room.play(limit=pair, gatecontrol_url=server.url, gatecontrol_token=token, **room.NO_SECRET)
    assert run.status != 0 and room.peers(server.url) == {} and server.log(event="register") == []
    for host in pair:
        assert "f1 and f2 were given the same client token" in run.error(host)


@pytest.mark.parametrize("era", ERAS)
def test_a_cloned_image_is_caught(room, eras, era):
    server, (first, second) = eras[era], room.hosts[:2]
    own = room.on(second, "cat /etc/machine-id")
    room.on(second, "echo %s > /etc/machine-id" % room.on(first, "cat /etc/machine-id").strip())
    given = {"gatecontrol_url": server.url}
    if era == "1.5.2":  # before tokens could be bound
        given.update(room.NO_SECRET, gatecontrol_peers_token=server.token("peers", name="controller"))
    try:
        for serial in ("100%", 1) if era == "fixed" else (1,):
            run = room.play(limit=[first, second], fleet_serial=serial, **given)
            assert run.status != 0 and second not in room.peers(server.url)
            assert "same machine id" in run.error(second), run.error(second)
    finally:
        room.on(second, "echo %s > /etc/machine-id" % own.strip())
    room.play(gatecontrol_state="absent", **given).ok()
    for name in room.peers(server.url):
        server.ask("peer", action="delete", peer=name)
