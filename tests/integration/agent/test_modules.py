"""The modules gatecontrol_agent, gatecontrol_host_info and gatecontrol_tunnel on a made-up machine."""
from __future__ import annotations

import contextlib
import importlib
import io
import json
import pathlib

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import (
    _agent, _drift, _enrollment, _observe, _options, _reach, _verify)

from made_up_host import LAUNCHER, UNITS, enroll

MODULES = "ansible_collections.callmetechie.gatecontrol.plugins.modules.gatecontrol_"
SSH = "198.51.100.7 50022 198.51.100.1 22"


@pytest.fixture
def module(machine, monkeypatch):
    """Runs a module's main() on the machine; its result, invocation included."""
    monkeypatch.setattr(_options, "agent", lambda _module: machine.agent())

    def run(name, /, check=False, **args) -> dict:
        out = io.StringIO()
        with patch_module_args(dict(args, _ansible_check_mode=check, _ansible_diff=True)), contextlib.redirect_stdout(out), pytest.raises(SystemExit):
            importlib.import_module(MODULES + name).main()
        return json.loads(out.getvalue())
    return run


INSTALLATION = {"launcher": LAUNCHER, "units": UNITS, "settings": {"url": "https://gate.example.com", "proxy": "http://user:hidden-word@proxy:3128"}}


def test_the_agent_is_installed_once_and_its_timer_runs(machine, module):
    before = machine.files()
    assert module("agent", check=True, **INSTALLATION, enabled=True)["changed"] and machine.files() == before
    first = module("agent", **INSTALLATION, enabled=True)
    assert first["changed"] and "/usr/local/sbin/gatecontrol-agent" in first["files"] and _agent.TIMER in machine.active
    files = machine.files()
    second = module("agent", **INSTALLATION, enabled=True)
    assert not second["changed"] and second["files"] == [] and machine.files() == files
    assert not module("agent", enabled=True)["changed"]
    machine.active.discard(_agent.TIMER)
    assert module("agent", check=True, enabled=True)["changed"] and _agent.TIMER not in machine.active
    third = module("agent", enabled=True)
    assert third["changed"] and third["files"] == [] and third["diff"]["after"]["timer"] == "changed" and _agent.TIMER in machine.active
    assert module("agent", enabled=False)["changed"] and _agent.TIMER not in machine.active | machine.enabled


def test_no_secret_and_no_long_text_is_in_the_result(machine, module):
    result = module("agent", **INSTALLATION)
    text = json.dumps({key: value for key, value in result.items() if key != "_ansible_new_secrets"})
    assert "hidden-word" not in text and "import subprocess" not in text and "Description=A unit" not in text
    assert machine.store.load("settings")["proxy"] == INSTALLATION["settings"]["proxy"]
    assert pathlib.Path(machine.store.path("settings")).stat().st_mode & 0o777 == 0o600


def test_absent_takes_the_agent_away_and_says_what(machine, module, gate):
    enroll(machine, gate)
    module("agent", **dict(INSTALLATION, settings=machine.settings), enabled=True)
    files = machine.files()
    told = module("agent", check=True, state="absent")
    assert told["changed"] and machine.files() == files
    result = module("agent", state="absent")
    assert result["files"] == told["files"] and "/etc/gatecontrol" in result["files"]
    assert not module("agent", state="absent")["changed"]


def test_without_systemd_it_is_refused_in_one_sentence(machine, module, gate):
    enroll(machine, gate)
    pathlib.Path(machine.root, "run/systemd/system").rmdir()
    for name, args in (("agent", dict(INSTALLATION)), ("tunnel", {"interface": "wg0"})):
        result = module(name, **args)
        assert result["failed"] and result["msg"].startswith("systemd is not running on this host") and result["failure"]["kind"] == "settings"


def test_an_interpreter_that_does_not_work_is_refused(machine, module):
    machine_run = machine.run
    machine.run = lambda argv, stdin=None: (127, "", "") if argv[0] == "/opt/python" else machine_run(argv, stdin)
    before = machine.files()
    result = module("agent", **INSTALLATION, interpreter="/opt/python")
    assert result["failed"] and "no Python from 3.9 on was found at /opt/python (it is missing or does not run)" in result["msg"] and machine.files() == before


# --- host_info

def test_host_info_compares_with_what_the_action_sends(gate, machine, module):
    enroll(machine, gate)
    given = dict(INSTALLATION, settings=machine.settings)
    module("agent", **given, enabled=True)
    machine.beat()
    gate.seen()
    wanted = _verify.wanted(given)
    result = module("host_info", wanted=wanted)
    assert result["in_sync"] and result["asked"] == "module" and not result["changed"] and gate.calls() == ["config/check"]
    wanted["files"]["/etc/systemd/system/gatecontrol-beat.timer"] = "0"
    assert module("host_info", wanted=wanted)["drift"] == ["/etc/systemd/system/gatecontrol-beat.timer differs"] and gate.calls() == []
    assert machine.store.text("token").strip() not in json.dumps(result)


# --- tunnel

def staged(gate, machine, **values):
    """A new config of the server lies on the machine as the candidate."""
    gate.peer("set", machine.peer, **values)
    agent = machine.agent()
    agent.stage(agent.api().config(agent.enrollment["peer_id"])["config"])
    gate.seen()


@pytest.fixture
def tunnel(gate, machine, module):
    enroll(machine, gate)
    machine.install()
    return lambda **args: module("tunnel", interface="wg0", **args)


def test_what_runs_already_is_left_alone(machine, tunnel):
    before = machine.files()
    result = tunnel()
    assert not result["changed"] and result["action"] == "none" and machine.files() == before and "armed" not in result


def test_a_staged_config_is_applied_and_proven(gate, machine, tunnel):
    staged(gate, machine, persistent_keepalive=12)
    before = machine.files()
    assert tunnel(staged=True)["action"] == "sync"
    assert [peer["keepalive"] for peer in machine.links["wg0"]["peers"].values()] == [12] and gate.calls() == ["heartbeat"]
    assert machine.store.load("enrollment")["hash"] == _enrollment.digest(machine.store.text("issued")) and before != machine.files()
    assert not tunnel(staged=True)["changed"]


def test_check_mode_tells_and_changes_nothing(gate, machine, module, tunnel):
    staged(gate, machine, persistent_keepalive=13)
    before = machine.files()
    result = module("tunnel", check=True, interface="wg0", staged=True)
    assert result["changed"] and result["action"] == "sync" and machine.files() == before and gate.calls() == []
    assert "13" in result["diff"]["after"]
    text = json.dumps(result)
    for name in ("issued", "candidate"):
        for line in machine.store.text(name).splitlines():
            if "Key = " in line and not line.startswith("PublicKey"):
                assert line.split(" = ")[1] not in text


def test_a_change_that_is_not_proven_is_undone(gate, machine, tunnel):
    staged(gate, machine, persistent_keepalive=14)
    machine.silence()
    result = tunnel(staged=True)
    assert result["failed"] and result["rolled_back"] and result["failure"]["kind"] == "rolled_back" and "no answer from the WireGuard peer" in result["msg"]
    assert [peer["keepalive"] for peer in machine.links["wg0"]["peers"].values()] == [25] and machine.store.load("pending") is None


def test_over_ssh_it_is_only_armed(gate, machine, tunnel, monkeypatch):
    monkeypatch.setattr(_reach, "reachability", lambda run, config, interface, ssh, root: {"kept": None, "through": False, "reason": None})
    staged(gate, machine, persistent_keepalive=15)
    result = tunnel(staged=True, arm=True, ssh_connection=SSH)
    pending = machine.store.load("pending")
    assert result["armed"] == pending["id"] and pending["confirm_by"] == "controller" and machine.started[-1] == _agent.APPLY
    assert machine.store.load("enrollment")["controller"] == SSH
    assert [peer["keepalive"] for peer in machine.links["wg0"]["peers"].values()] == [25]


def test_a_play_waits_for_a_change_under_way(gate, machine, tunnel):
    """The agent's own change is half way when a play comes."""
    machine.beat()
    gate.peer("set", machine.peer, persistent_keepalive=16)
    machine.beat(now=True)
    assert machine.store.load("pending")
    plain, sleep = machine.sleep, []

    def work_on(seconds):
        plain(seconds)
        sleep.append(seconds)
        if len(sleep) == 3:
            machine.sleep = plain
            assert machine.agent().apply()["ok"]
    machine.sleep = work_on
    result = tunnel()
    assert not result["changed"] and len(sleep) == 3
    record = machine.store.load("enrollment")
    assert record["hash"] == _enrollment.digest(machine.store.text("issued"))


def test_a_change_that_would_cut_the_controller_off_is_refused(gate, machine, tunnel, monkeypatch):
    why = "AllowedIPs name the controller's address 198.51.100.7, which no route can keep outside the tunnel"
    monkeypatch.setattr(_reach, "reachability", lambda run, config, interface, ssh, root: {"kept": None, "through": False, "reason": why if ssh else None})
    staged(gate, machine, persistent_keepalive=18)
    before = {name: machine.store.text(name) for name in ("pending", "issued")}
    result = tunnel(staged=True, arm=True, ssh_connection=SSH)
    assert result["failed"] and result["failure"]["kind"] == "lockout" and why in result["msg"] and "gatecontrol_keep_reachable=false" in result["msg"]
    assert before == {name: machine.store.text(name) for name in ("pending", "issued")}
    assert tunnel(staged=True, keep_reachable=False, ssh_connection=SSH)["changed"]


@pytest.mark.parametrize("args", [{}, {"staged": True}])
@pytest.mark.parametrize("differs", [False, True])
def test_a_config_that_was_rolled_back_is_not_taken_for_what_runs(gate, machine, tunnel, args, differs):
    """Its text still lies there when the tunnel is asked for again without a new one."""
    staged(gate, machine, persistent_keepalive=31)
    machine.silence()
    assert tunnel(staged=True)["rolled_back"]
    machine.answering = None
    before = machine.store.load("enrollment")
    if differs:
        machine.links["wg0"]["routes"].clear()
    result = tunnel(**args)
    assert result["changed"] is differs and machine.store.load("enrollment") == before
    machine.beat(now=True)
    assert machine.store.load("pending") and machine.agent().apply()["ok"]  # so the server's config arrives in the end
    assert [peer["keepalive"] for peer in machine.links["wg0"]["peers"].values()] == [31]


@pytest.mark.parametrize("state", ["down", "absent"])
def test_down_and_absent(machine, module, tunnel, state):
    path = pathlib.Path(machine.root, "etc/wireguard/wg0.conf")
    before = machine.files()
    assert module("tunnel", check=True, interface="wg0", state=state)["changed"] and machine.files() == before
    result = tunnel(state=state)
    assert result["changed"] and result["action"] == "down" and "wg0" not in machine.links and path.exists() is (state == "down")
    assert "wg-quick@wg0.service" not in machine.enabled
    assert not tunnel(state=state)["changed"]


def test_a_config_that_is_missing_or_a_name_that_is_none(machine, module, tunnel):
    result = module("tunnel", interface="wg9")
    assert result["failed"] and "there is no" in result["msg"] and "gatecontrol_config" in result["msg"]
    result = module("tunnel", interface="no/name")
    assert result["failed"] and "no interface name" in result["msg"]


# --- what is not ours, and what is under way

def test_absent_passes_by_a_tunnel_of_somebody_else(machine):
    """A host that was never enrolled and has a wg0 of its own."""
    agent = machine.agent()
    agent.running = _observe.Running
    answer = _drift.verify(agent, {"state": "absent"})
    assert answer["in_sync"] and answer["drift"] == []


def test_taking_another_tunnel_away_leaves_the_agent_alone(machine, module, tunnel):
    config = pathlib.Path(machine.root, "etc/wireguard/wg1.conf")
    config.write_text("[Interface]\n")
    assert module("tunnel", interface="wg1", state="absent")["changed"] and not config.exists()
    assert _agent.TIMER in machine.active and "wg0" in machine.links


@pytest.mark.parametrize("state", ["down", "absent"])
def test_taking_the_tunnel_away_waits_for_a_change_under_way(gate, machine, tunnel, state):
    staged(gate, machine, persistent_keepalive=19)
    machine.agent().arm("server", None)
    plain = machine.sleep

    def the_unit_works(seconds):
        machine.sleep = plain
        assert machine.agent().apply()["ok"]
    machine.sleep = the_unit_works
    assert tunnel(state=state)["changed"] and "wg0" not in machine.links
    assert machine.agent().apply() is None and "wg0" not in machine.links and "wg-quick@wg0.service" not in machine.enabled


def test_the_last_beat_brings_nothing_back_that_is_taken_away(gate, machine, tunnel):
    """A new config comes with it, just when the tunnel is taken away."""
    plain, applied = machine.systemctl, []

    def beat_then_stop(words):
        if words[0] == "stop" and _agent.TIMER in words:
            machine.systemctl = plain
            staged(gate, machine, persistent_keepalive=20)
            machine.agent().arm("server", None)
        return plain(words)

    def the_unit_works(seconds):
        machine.time += seconds
        if not applied:
            applied.append(True)
            applied.append(machine.agent().apply())
    machine.systemctl, machine.sleep = beat_then_stop, the_unit_works
    assert tunnel(state="absent")["changed"]
    assert applied[1]["ok"] and _agent.TIMER not in machine.active and machine.agent().apply() is None
    assert "wg0" not in machine.links and not pathlib.Path(machine.root, "etc/wireguard/wg0.conf").exists()
    assert not tunnel(state="absent")["changed"]


def without(machine, *programs, unit=True):
    """Take programs away from a machine, and with unit=False what wg-quick's package has in systemd."""
    plain = machine.run

    def run(argv, stdin=None):
        words = argv[2:] if argv[0] == "timeout" else argv
        if words[0] in programs:
            return 127, "", "%s: No such file or directory" % words[0]
        if not unit and words[0] == "systemctl" and any("wg-quick@" in word for word in words):
            if "show" in words:
                return 0, "ActiveState=inactive\nUnitFileState=\nLoadState=not-found\n", ""
            return 5, "", "Failed to stop wg-quick@wg0.service: Unit wg-quick@wg0.service not loaded."
        return plain(argv, stdin)
    machine.run = run


@pytest.mark.parametrize("programs, unit, runs", [
    (("wg", "wg-quick"), False, True), (("wg", "wg-quick"), False, False), (("wg", "wg-quick", "ip", "nft", "resolvconf"), False, True),
    (("ip",), True, True), (("ip",), True, False), ((), False, True)])
def test_a_host_whose_packages_are_gone_is_retired_all_the_same(machine, module, tunnel, monkeypatch, programs, unit, runs):
    warned = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, warning: warned.append(warning))
    if not runs:
        machine.services.stop("wg-quick@wg0.service")
    token = machine.store.text("token").strip()
    without(machine, *programs, unit=unit)
    if programs and runs:
        assert "tool_missing" in _drift.verify(machine.agent(), {"state": "absent"})["codes"]
    assert module("tunnel", interface="wg0", state="absent")["changed"] and not pathlib.Path(machine.root, "etc/wireguard/wg0.conf").exists()
    stays = runs and "ip" in programs and "wg" in programs
    assert pathlib.Path(machine.root, "sys/class/net/wg0").exists() is stays
    assert ["it goes with the next boot" in warning for warning in warned] == [True] * stays
    assert "/etc/gatecontrol" in module("agent", state="absent")["files"]
    left = [path.read_text("utf-8", "replace") for path in pathlib.Path(machine.root).rglob("*") if path.is_file()]
    assert not [text for text in left if token in text or "PrivateKey" in text]
    assert not module("agent", state="absent")["changed"]


NOWHERE = "UNKNOWN 65535 UNKNOWN 65535"  # SSH_CONNECTION of sshd on a socket of Unix, vsock or a pipe


def test_a_connection_without_an_address_enrolls_and_retires(gate, machine, module, tunnel):
    staged(gate, machine, persistent_keepalive=24)
    assert tunnel(staged=True, arm=True, ssh_connection=NOWHERE)["armed"] == machine.store.load("pending")["id"]
    machine.store.drop("pending")
    assert not tunnel(staged=True, ssh_connection=NOWHERE).get("failed")
    machine.install()
    assert _drift.verify(machine.agent(), {"check": False})["codes"] == []
    assert tunnel(state="absent", ssh_connection=NOWHERE)["changed"] and "wg0" not in machine.links


def routed(machine, **route):
    """Answer `ip route get` for the controller with this route; none: the host has lost the address it was asked from."""
    plain = machine.run

    def run(argv, stdin=None):
        if argv[:1] == ["ip"] and "get" in argv:
            return (0, json.dumps([route]), "") if route else (2, "", "RTNETLINK answers: Network is unreachable")
        return plain(argv, stdin)
    machine.run = run


@pytest.mark.parametrize("state", ["down", "absent"])
def test_a_play_through_the_tunnel_does_not_take_it_away(machine, module, tunnel, state):
    routed(machine, dev="wg0")
    before = machine.files()
    for check in (True, False):
        result = module("tunnel", check=check, interface="wg0", state=state, ssh_connection=SSH)
        assert result["failed"] and result["failure"]["kind"] == "lockout" and "runs through" not in result["msg"] and "another address" in result["msg"]
    assert machine.files() == before and "wg0" in machine.links
    routed(machine, dev="eth0")
    assert tunnel(state=state, ssh_connection=SSH)["changed"]


def test_a_connection_whose_address_is_gone_stops_no_change(gate, machine, tunnel):
    routed(machine)
    machine.agent().note(controller=SSH)
    gate.peer("set", machine.peer, persistent_keepalive=21)
    machine.beat(now=True)
    assert machine.store.load("pending") and machine.agent().apply()["ok"]
    assert [peer["keepalive"] for peer in machine.links["wg0"]["peers"].values()] == [21]


KEPT = [["ip", "-4", "route", "replace", "198.51.100.1/32", "via", "192.0.2.1", "dev", "eth0"]]


def test_the_kept_path_stays_with_a_change_through_the_tunnel_and_goes_when_it_is_not_wanted(gate, machine, tunnel):
    agent = machine.agent()
    _reach.keep(machine.run, agent.services, machine.store, "wg0", KEPT)
    routed(machine, dev="wg0")
    staged(gate, machine, persistent_keepalive=22)
    assert tunnel(staged=True, ssh_connection=SSH)["changed"] and _reach.kept_path(machine.store, "wg0") == KEPT
    gone = tunnel(keep_reachable=False, ssh_connection=SSH)
    assert gone["changed"] and _reach.kept_path(machine.store, "wg0") is None
    assert not tunnel(keep_reachable=False, ssh_connection=SSH)["changed"]


def test_a_rate_limit_of_before_is_no_proof(gate, machine, tunnel):
    staged(gate, machine, persistent_keepalive=23)
    machine.store.save("state", {"not_before": machine.now() + 600})
    assert tunnel(staged=True)["changed"] and gate.calls() == ["heartbeat"]
