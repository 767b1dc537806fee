"""Enrollments that are cut off and run again: always one peer for each host, and a host in sync."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from scenario import until

# Where the controller's process is killed, one row for three hosts. Every task that changes a host is there, cut off in the middle and when
# it is done; of apt's own work nothing, which goes on without the controller.
CUTS = [
    ("after Install the packages",),
    ("during Install the agent", "after Install the agent", "during Have a peer"),
    ("after Have a peer", "during Read the config", "after Read the config"),
    ("during Run the tunnel", "after Run the tunnel", "during Run the heartbeat's timer"),
]


def fresh(room) -> None:
    """Hosts without enrollment, the first one without WireGuard, a server without peers, new tokens."""
    room.unenroll()
    room.on(room.hosts[0], "DEBIAN_FRONTEND=noninteractive apt-get -qq -y purge wireguard-tools wireguard-go openresolv", timeout=120)


def finish(room) -> None:
    """Run again, and look that all is well."""
    room.play().ok()
    again = room.play().ok()
    assert {host: again.changed(host) + again.seen(host)["drift"] for host in room.hosts} == {host: [] for host in room.hosts}
    assert sorted(room.peers()) == sorted(room.hosts)
    for host in room.hosts:
        assert room.shown(host)["status"] == "connected" and not room.shown(host)["pending"]


@pytest.mark.parametrize("cuts", CUTS, ids=" / ".join)
def test_the_controller_is_killed(room, cuts):
    fresh(room)
    delays = {"during Run the heartbeat's timer": 0.2}  # seconds: the last task, after which there is nothing left to kill
    begun = {host: room.start(limit=host, kill=cut, delay=delays.get(cut, 0.5)) for host, cut in zip(room.hosts, cuts)}
    for host, cut in zip(room.hosts, cuts):
        run = room.finish(begun[host])
        assert run.status == -9, "%s: %r was never reached, or too late\n%s" % (host, cut, run.text)
    finish(room)


def test_every_step_of_an_enrollment_is_among_the_cuts(room):
    fresh(room)
    run = room.play().ok()
    steps = {task for host in room.hosts for task in run.changed(host)}
    assert steps and steps <= {cut.partition(" ")[2] for row in CUTS for cut in row}


def test_power_is_cut_and_answers_are_lost(room):
    fresh(room)
    mark = room.mark_log()

    def power_cut_after_the_peer_was_made(host):
        room.fault("delay", path="*/register", token=host, seconds=20, when="after", count=1)
        begun = room.start("-e", "ansible_ssh_timeout=3", limit=host)
        assert until(lambda: room.peers().get(host), 180), "it never registered"
        room.room("reboot", host, "--hard")
        return room.finish(begun)

    def answer_lost_after_the_peer_was_made(host):
        room.fault("drop", path="*/register", token=host, when="after", count=1)
        return room.play(limit=host)

    def power_cut_while_the_tunnel_is_changed(host):
        begun = room.start("-e", "ansible_ssh_timeout=3", limit=host, gatecontrol_confirm_timeout=10)
        assert until(room.file(host, "/var/lib/gatecontrol/pending.json").exists, 90, 0.05), "no change was ever armed"
        room.room("reboot", host, "--hard")
        return room.finish(begun)

    accidents = (power_cut_after_the_peer_was_made, answer_lost_after_the_peer_was_made, power_cut_while_the_tunnel_is_changed)
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda accident, host: accident(host), accidents, room.hosts))
    room.no_faults()
    assert runs[0].status != 0
    assert [entry["fault"] for entry in room.log(since=mark, token="deb12", event="register")][:1] == ["drop"]
    finish(room)
