"""enroll.yml goes no further than its first unhealthy batch; sync.yml needs no secret and enrolls nobody."""
from __future__ import annotations


def enrolled(room) -> dict:
    """Which hosts hold an enrollment."""
    return {host: answer.strip() == "yes" for host, answer in room.everywhere("test -e /etc/gatecontrol/enrollment.json && echo yes || echo no").items()}


def test_sync_tells_and_repairs_drift_without_a_secret(room):
    host = room.hosts[1]
    room.on(host, "sed -i 's/^MTU.*/MTU = 1300/' /etc/wireguard/wg0.conf")
    mark, look = room.mark_log(), "cat /etc/wireguard/wg0.conf"
    broken = room.on(host, look)
    checked = room.run("sync", "--check", "--diff", **room.NO_SECRET).ok()
    assert {name for name in room.hosts if checked.changed(name)} == {host} and "-MTU = 1300" in checked.text and "+MTU = 1420" in checked.text
    assert room.on(host, look) == broken
    repaired = room.run("sync", **room.NO_SECRET).ok()
    assert {name for name in room.hosts if repaired.changed(name)} == {host} and "MTU = 1420" in room.on(host, look)
    again = room.run("sync", **room.NO_SECRET).ok()
    assert not any(again.changed(name) for name in room.hosts)
    assert not room.log(since=mark, event="login")


def test_a_steady_sync_is_one_task_of_each_host(room):
    run = room.run("sync", **room.NO_SECRET).ok()
    for host in room.hosts:
        assert [entry["action"].rpartition(".")[2] for entry in run.results if entry["host"] == host and entry["action"] != "meta"][-1] == (
            "gatecontrol_host_info" if host != room.hosts[0] else "debug")
    assert sum(entry["action"].endswith("debug") for entry in run.results) == 1


def test_enroll_stops_after_an_unhealthy_batch_and_goes_on_from_there(room):
    words = {"gatecontrol_batch": 3, "gatecontrol_confirm_timeout": 20}
    canary, one, broken, other, *later = room.hosts
    text = room.on(canary, "cat /var/lib/gatecontrol/issued.conf")
    room.unenroll()
    assert not any(enrolled(room).values()) and room.peers() == {}

    # The canary is healthy; a host of the next batch is rolled back, and the others of that batch are enrolled all the same.
    room.offer_dark(broken, text)
    mark = room.mark_log()
    run = room.run("enroll", **words)
    assert run.status == 2 and "rolled back" in run.error(broken) and broken + " failed, so the 4 hosts that follow were" in run.text
    assert all(room.shown(host)["status"] == "connected" for host in (canary, one, other))
    assert {entry["action"].rpartition(".")[2] for entry in run.results if entry["host"] in later} <= {"debug", "meta"}
    assert set(room.peers()) == {canary, one, broken, other} and not any(enrolled(room)[host] for host in later)
    assert len(room.log(since=mark, event="login")) == 1

    # Nothing is enrolled for the hosts that come first again; a sync leaves the others alone.
    room.no_faults()
    run = room.run("sync", **room.NO_SECRET, **words).ok()
    assert all("%s" % host in run.text for host in later) and "not enrolled and left alone" in run.text
    assert not any(enrolled(room)[host] for host in later)

    # A canary that cannot be reached ends the run before any other host is touched.
    room.room("block", later[0])
    try:
        run = room.run("enroll", *room.NEW_CONNECTION, limit=later, **words)
        assert run.status != 0 and {entry["host"] for entry in run.results} == {later[0]}
    finally:
        room.room("unblock", later[0])

    mark = room.mark_log()
    room.run("enroll", **words).ok()
    assert set(room.peers()) == set(room.hosts) and len(room.log(since=mark, event="login")) == 1
    mark = room.mark_log()
    run = room.run("enroll", **words).ok()
    assert not any(run.changed(host) for host in room.hosts) and not room.log(since=mark, event="login")
    room.play().ok()


def test_a_share_of_failures_can_be_accepted(room):
    gone = room.hosts[2]
    room.room("block", gone)
    try:
        run = room.run("enroll", *room.NEW_CONNECTION, gatecontrol_batch=3, gatecontrol_max_fail_percentage=40)
    finally:
        room.room("unblock", gone)
    assert run.status != 0 and all(run.seen(host)["in_sync"] for host in room.hosts if host != gone)
