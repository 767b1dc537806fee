"""A change made on the server arrives: by the play, and by the agent alone."""
from __future__ import annotations

from scenario import until
from test_server import error_of


def mtu(room) -> set:
    """The MTUs of the interface on all hosts; None where there is none at the moment."""
    return {int(answer or 0) or None for answer in room.everywhere("cat /sys/class/net/wg0/mtu", check=False).values()}


def kept(room) -> bool:
    """Whether the last change of every host is over and was kept."""
    shown = [room.shown(host) for host in room.hosts]
    return all((one["verdict"] or {}).get("ok") and not one["pending"] for one in shown)


def test_by_the_play(room):
    room.ask_for_nothing()  # or the agent might be first to ask
    room.ask("settings", values={"mtu": "1390"})
    run = room.play().ok()
    assert all("Run the tunnel" in run.changed(host) for host in room.hosts)
    assert mtu(room) == {1390}
    assert not any(room.play().ok().changed(host) for host in room.hosts)


def test_by_the_agent_alone_when_it_is_told_to(room):
    room.ask("settings", values={"mtu": "1400"})
    room.everywhere("gatecontrol-agent sync")
    assert until(lambda: mtu(room) == {1400}, 90)
    assert until(lambda: kept(room), 90)
    run = room.play().ok()
    assert not any(run.changed(host) for host in room.hosts), run.text


def test_by_the_agent_alone_with_its_timer(room, restless):
    mark = room.mark_log()
    room.ask("settings", values={"mtu": "1420"})
    assert until(lambda: mtu(room) == {1420}, 120)
    for peer in room.peers().values():
        assert {"heartbeat", "config/check"} <= {entry["event"] for entry in room.log(since=mark, peer_id=peer["id"])}
    assert until(lambda: kept(room), 90)


def test_a_config_with_hooks_is_refused_and_the_tunnel_left_as_it_is(room, restless):
    host = "deb12"
    before = room.on(host, "cat /etc/wireguard/wg0.conf; wg showconf wg0")
    room.fault("config", how="hooks", token=host)
    room.ask("settings", values={"mtu": "1410"})
    try:
        error = error_of(room, host, "PostUp", 90)
        assert error and "left as it is" in error, room.shown(host)["error"]
        run = room.play(limit=host, **restless)
        assert run.status != 0 and "PostUp" in run.error(host)
        assert room.on(host, "cat /etc/wireguard/wg0.conf; wg showconf wg0") == before
        assert room.on(host, "ls /tmp/gatecontrol-hook-ran 2>/dev/null || echo none") == "none\n"
    finally:
        room.no_faults()
        room.ask("settings", values={"mtu": "1420"})
    assert until(lambda: mtu(room) == {1420} and not any(room.shown(host)["error"] for host in room.hosts), 180)
