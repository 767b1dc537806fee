"""Changes and drift: taken with a way back, told by check mode, repaired without a second peer."""
from __future__ import annotations

import json

import pytest

from conftest import FOLDER, WINDOWS, settled
from gateserver import running


@pytest.fixture
def mtu(room):
    """Sets the MTU of the server's configs."""
    yield lambda value: room.ask("settings", values={"mtu": str(value)})
    for host in WINDOWS:
        room.set(host, peer_answers=True, reachable=True, breaks=[])
        settled(room, host, 60)


@pytest.fixture(scope="module")
def usual(room):
    """All as it was enrolled, after the changes."""
    room.ask("settings", values={"mtu": "1420"})
    room.play(limit="windows:!spare").ok()


def test_a_new_config_arrives(room, mtu):
    mtu(1380)
    checked = room.play("--check", "--diff", limit="win1").ok()
    assert "Run the tunnel" not in checked.changed("win1") and "Read the config" in checked.changed("win1") and "MTU = 1380" not in room.config("win1")
    run = room.play(limit="windows:!spare").ok()
    for host in WINDOWS:
        assert "Run the tunnel" in run.changed(host) and "MTU = 1380" in room.config(host)
        assert json.loads(room.agent(host, "show"))["verdict"]["ok"]
    assert not any(room.play(limit="windows:!spare").ok().changed(host) for host in WINDOWS)


def test_what_the_server_keeps_of_a_peer_follows_the_play(room):
    hosts, (user, password) = ["win1", room.mac], running.ADMIN.split(":")
    wish = {"gatecontrol_admin_user": user, "gatecontrol_admin_password": password, "gatecontrol_tags": ["desk"]}
    for kept in (True, False):
        run = room.play(limit=hosts, **wish).ok()
        assert [bool(run.changed(host)) for host in hosts] == [kept, kept], run.text
        assert sorted(name for name, peer in room.peers().items() if peer["tags"] == "desk") == sorted(hosts)
    room.play(limit=hosts, **dict(wish, gatecontrol_tags=["desktop-client"])).ok()  # as the server tags who registers


def test_what_does_not_work_is_taken_back(room, mtu):
    """win1's peer is silent, win2 cannot be reached by a new connection, win3's service does not start."""
    before, peers = {host: room.config(host) for host in WINDOWS}, room.numbers()
    mtu(1370)
    room.set("win1", peer_answers=False)
    room.set("win2", reachable="old")
    room.set("win3", breaks=["installtunnelservice"])
    run = room.play(limit="windows:!spare", gatecontrol_confirm_timeout=12)
    assert run.status != 0
    assert "rolled back" in run.error("win1") and "no answer" in run.error("win1")
    assert "rolled back" in run.error("win2") and "the controller did not come back over a new connection" in run.error("win2")
    assert "rolled back" in run.error("win3") and "installtunnelservice" in run.error("win3")
    for host in WINDOWS:
        shown = settled(room, host)
        assert room.config(host) == before[host] and room.file(host, "tunnel/wg0.conf").read_text() == before[host]
        assert not shown["verdict"]["ok"] and "\\GateControl\\restore" not in room.twin(host).state["tasks"]
    again = room.play("--check", limit="windows:!spare").ok()
    assert all("have not reached the tunnel" in " ".join(again.seen(host)["drift"]) for host in WINDOWS), "what was undone is forgotten"
    assert room.numbers() == peers


def test_a_change_that_was_interrupted_is_ended_by_its_task(room, mtu):
    before = room.config("win1")
    mtu(1360)
    room.set("win1", peer_answers=False)
    room.play(limit="win1", gatecontrol_confirm_timeout=8, kill="during Run the tunnel", delay=2)
    assert "\\GateControl\\restore" in room.twin("win1").state["tasks"] or not room.file("win1", "pending.json").exists()
    settled(room, "win1")
    room.agent("win1", "restore")
    assert room.config("win1") == before and not room.file("win1", "pending.json").exists()


def test_a_full_tunnel_is_refused_and_halved_when_accepted(room, mtu):
    full = {"gatecontrol_allowed_ips": ["0.0.0.0/0"], "gatecontrol_dns": []}
    refused = room.play(limit="win1", **full)
    assert refused.status != 0 and "gatecontrol_allow_full_tunnel" in refused.error("win1") and "AllowedIPs = 10.86.14.0/24" in room.config("win1")
    room.play(limit="win1", gatecontrol_allow_full_tunnel=True, **full).ok()
    assert "AllowedIPs = 0.0.0.0/1, 128.0.0.0/1" in room.config("win1") and "DNS" not in room.config("win1")
    assert room.play(limit="win1", gatecontrol_allow_full_tunnel=True, **full).ok().changed("win1") == []
    room.play(limit="win1", gatecontrol_allow_full_tunnel=True, gatecontrol_kill_switch=True, **full).ok()
    assert "AllowedIPs = 0.0.0.0/0" in room.config("win1")


def drop(path):
    path.unlink()


def append(text):
    return lambda path: path.write_text(path.read_text() + text)


def cut(path):
    path.write_text(path.read_text()[:5000])


# One row, one run: each stand-in gets a drift of its own: what breaks it (a file and how, or what Windows keeps), and what observe says of it.
ROWS = {
    "agent": (("gatecontrol_agent.ps1", append("# more\n"), "gatecontrol_agent.ps1 differs"),
              ("gatecontrol_agent.ps1", drop, "gatecontrol_agent.ps1 is missing"),
              ("gatecontrol_agent.ps1", cut, "gatecontrol_agent.ps1 differs")),
    "files": (("settings.json", append("\n"), "settings differ"), ("token", append("x"), "token file was changed"),
              ("tunnel/wg0.conf", append("# more\n"), "wg0.conf was changed")),
    "no config, tasks": (("tunnel/wg0.conf", drop, "wg0.conf is missing"), (None, lambda state: state["tasks"].pop("\\GateControl\\beat"), "beat is missing"),
                         (None, lambda state: state["tasks"]["\\GateControl\\apply"].update(enabled=False), "apply is disabled")),
    "service, ACL": ((None, lambda state: state["services"].clear(), "is missing"),
                     (None, lambda state: state["services"]["WireGuardTunnel$wg0"].update(start="manual"), "does not start at boot"),
                     (None, lambda state: state["readers"].update({FOLDER.rstrip("\\"): ["SYSTEM", "Administrators", "Users"]}), "can be read by others")),
}


@pytest.mark.parametrize("row", ROWS)
def test_drift(room, usual, row):
    good, peers = {host: room.look(host) for host in WINDOWS}, room.numbers()
    for host, (name, how, _words) in zip(WINDOWS, ROWS[row]):
        if name:
            how(room.file(host, name))
        else:
            with room.twin(host).change() as state:
                how(state)
    broken = {host: room.look(host) for host in WINDOWS}
    assert all(broken[host] != good[host] for host in WINDOWS), "nothing was broken"
    checked = room.play("--check", limit="windows:!spare").ok()
    assert {host: room.look(host) for host in WINDOWS} == broken, "check mode changed something"
    repaired = room.play(limit="windows:!spare").ok()
    for host, (_name, _how, words) in zip(WINDOWS, ROWS[row]):
        for run in (checked, repaired):
            assert any(words in text for text in run.seen(host)["drift"]), (host, run.seen(host)["drift"])
        assert checked.changed(host), "%s: check mode told no change\n%s" % (host, checked.text)
        assert room.look(host) == good[host]
    if row == "agent":
        assert [repaired.seen(host)["asked"] for host in WINDOWS] == ["agent", "module", "module"]
    assert room.numbers() == peers


def test_no_answer_at_all_is_not_a_host_without_enrollment(room, usual):
    before, peers = room.look("win1"), room.numbers()
    agent = room.file("win1", "gatecontrol_agent.ps1")
    text = agent.read_text()
    agent.unlink()
    room.set("win1", breaks=["win_powershell verify"])
    run = room.play(limit="win1")
    assert run.status != 0 and "could not be asked" in run.error("win1") and len(run.changed("win1")) == 0
    room.set("win1", breaks=[])
    agent.write_text(text)
    assert room.look("win1") == before and room.numbers() == peers
