"""A host reboots: tunnel and timer come back by themselves."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from scenario import until


def test_tunnel_and_timer_come_back(room):
    peers, mark = room.numbers(), room.mark_log()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda words: room.room("reboot", *words), [("deb11",), ("deb12", "--hard"), ("deb13",)]))
    for host in room.hosts:
        assert until(lambda host=host: room.on(host, "wg show wg0 latest-handshakes | grep -v '\\s0$'", check=False), 180), host
        states = "systemctl is-active gatecontrol-beat.timer wg-quick@wg0"  # a handshake may come before wg-quick is done
        assert until(lambda host=host: room.on(host, states, check=False).split() == ["active", "active"], 60), room.on(host, states, check=False)
        beats = until(lambda host=host: room.log(since=mark, peer_id=peers[host], event="heartbeat", status=200), 270)
        assert beats, "%s does not beat" % host
    run = room.play().ok()
    assert not any(run.changed(host) for host in room.hosts), run.text
    assert room.numbers() == peers
