# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunnel on a Mac made of dicts: what is seen, plans, steps, the way back, a crash at every point, and the job that tends it."""

from __future__ import annotations

import base64
import os
import pathlib

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import (
    _agent, _change, _cli, _enrollment, _facts, _lock, _observe, _plan, _reach, _services, _step, _wgconf)
from fake_host import Crash
from fake_mac import FakeMac

INTERFACE, UNIT = "wg0", "wg-quick@wg0.service"
PRIVATE, PUBLIC, OTHER = (base64.b64encode(os.urandom(32)).decode() for _number in range(3))
SSH = "203.0.113.5 40000 192.0.2.10 22"
FAR = "   route to: 203.0.113.5\ndestination: default\n       mask: default\n    gateway: 192.0.2.1\n  interface: %s\n      flags: <UP,GATEWAY,DONE>\n"
NEAR = "   route to: 192.0.2.77\ndestination: 192.0.2.77\n  interface: en0\n      flags: <UP,HOST,DONE,LLINFO,WASCLONED,IFSCOPE,IFREF>\n"


def config(allowed="10.88.0.0/24", endpoint="192.0.2.1:51820", interface="", peer="PersistentKeepalive = 25\n", address="10.88.0.2/32"):
    return _wgconf.parse("[Interface]\nPrivateKey = %s\nAddress = %s\n%s[Peer]\nPublicKey = %s\nEndpoint = %s\nAllowedIPs = %s\n%s" % (
        PRIVATE, address, interface, PUBLIC, endpoint, allowed, peer), allow_hooks=True)


@pytest.fixture
def mac(tmp_path):
    with FakeMac(tmp_path) as fake:
        fake.answering = (PUBLIC, "192.0.2.1:51820")
        yield fake


def observe(mac):
    return _observe.observe(mac.run, INTERFACE, mac.root)


def take(mac, wanted, applied=None):
    step = _plan.plan(wanted, observe(mac), applied, now=mac.time)
    _step.apply(mac.run, mac.services, mac.store, INTERFACE, step, wanted)
    return step


def file_text(mac):
    return _enrollment.read_text(_observe.config_path(mac.store, INTERFACE))


def tend(mac):
    return _change.tend(mac.run, mac.services, mac.store, INTERFACE, now=mac.clock, sleep=mac.sleep, clock=mac.clock)


# --- what is seen


def test_what_runs_is_found_by_its_real_name(mac):
    assert observe(mac) is None and not _observe.present(mac.root, INTERFACE)
    take(mac, config(address="10.88.0.2/24, fd00::2/64", interface="MTU = 1380\n"))
    running = observe(mac)
    assert mac.real(INTERFACE) == "utun4" and _observe.present(mac.root, INTERFACE)
    assert (running.mtu, running.up, running.unseen) == (1380, True, ("routes", "DNS"))
    assert running.addresses == {"10.88.0.2/24", "fd00::2/64", "fe80::aede:48ff:fe00:1122/64"}


@pytest.mark.parametrize("name_too", [False, True])
def test_an_interface_that_goes_while_it_is_looked_at_is_none(mac, name_too):
    take(mac, config())

    def goes(argv, stdin=None):
        answer = mac.run(argv, stdin)
        mac.links.clear()
        if name_too:
            (mac.folder / (INTERFACE + ".name")).unlink()
        return answer

    assert _observe.observe(goes, INTERFACE, mac.root) is None


def test_what_a_dead_wireguard_go_left_behind_is_no_interface(mac):
    take(mac, config())

    def refused(argv, stdin=None):
        return 1, "", "Unable to access interface: Connection refused\n"
    assert _observe.observe(refused, INTERFACE, mac.root) is None
    mac.links.clear()
    assert observe(mac) is None


# --- plans and steps


@pytest.mark.parametrize("second, reason", [
    (config("10.88.0.0/24, 10.9.0.0/16"), "allowed IPs differ"), (config(peer="PersistentKeepalive = 7\n"), "keepalive is 25 s"),
    (config(endpoint="192.0.2.9:51820"), "endpoint 192.0.2.1:51820"), (config(interface="MTU = 1280\n"), "MTU is 1420"),
    (config(address="10.88.0.3/32"), "addresses differ"), (config("0.0.0.0/0, ::/0"), "the default route for IPv4"),
    (config(interface="DNS = 10.88.0.1\n"), "DNS changes"), (config(interface="Table = off\n"), "Table changes"),
    (config(interface="FwMark = 7\n"), "FwMark changes"), (config(interface="PostUp = true\n"), "PostUp changes")])
def test_every_change_is_a_restart_and_is_settled_by_it(mac, second, reason):
    first = config()
    assert take(mac, first).action == "up"
    step = take(mac, second, first)
    assert step.action == "restart" and any(reason in said for said in step.reasons)
    assert mac.real(INTERFACE) == "utun5" and list(mac.links) == [INTERFACE] and UNIT in mac.active
    again = _plan.plan(second, observe(mac), second, now=mac.time)
    assert (again.action, again.reasons) == ("none", [])


def test_a_tunnel_that_does_not_start_is_put_back(mac):
    take(mac, config())
    begin = mac._up

    def fail(interface, wanted):
        if wanted.interface.get("MTU"):
            raise LookupError("[#] wg addconf utun5 /dev/fd/63\nDarwin only supports TABLE=auto|main|off")
        begin(interface, wanted)
    mac._up = fail
    with pytest.raises(_observe.TunnelError, match="is as it was before: .*failed: Darwin only supports TABLE"):
        take(mac, config(interface="MTU = 1280\n"), config())
    assert file_text(mac) == _wgconf.render(config()) and mac.links[INTERFACE]["mtu"] == 1420 and UNIT in mac.active


def test_down_leaves_nothing_and_waits_for_what_wg_quick_does_afterwards(mac):
    take(mac, config())
    before = mac.time
    assert _step.remove(mac.run, mac.services, mac.store, INTERFACE)
    assert mac.time - before >= 2 and not mac.links and file_text(mac) is None and UNIT not in mac.active
    assert not _step.remove(mac.run, mac.services, mac.store, INTERFACE)


def test_an_interface_whose_config_is_gone_goes_with_its_socket(mac):
    take(mac, config())
    os.unlink(_observe.config_path(mac.store, INTERFACE))
    _step.remove(mac.run, mac.services, mac.store, INTERFACE)
    assert list(mac.folder.iterdir()) == []


def test_dns_that_a_power_cut_left_behind_is_taken_back(mac):
    wanted = config(interface="DNS = 10.88.0.1\n")
    take(mac, wanted)
    assert mac.dns == {"Wi-Fi": ["10.88.0.1"], "*Thunderbolt Bridge": ["10.88.0.1"]}
    _step.apply(mac.run, mac.services, mac.store, INTERFACE, _plan.plan(None, observe(mac)), None)
    assert mac.dns == {"Wi-Fi": [], "*Thunderbolt Bridge": ["9.9.9.9"]}, "a service of before is not touched"
    take(mac, wanted)
    mac.reboot()
    mac.booted()
    assert mac.dns["Wi-Fi"] == ["10.88.0.1"] and "was started" in tend(mac)
    _step.remove(mac.run, mac.services, mac.store, INTERFACE)
    assert mac.dns == {"Wi-Fi": [], "*Thunderbolt Bridge": []}


# --- the way back


def change(mac, wanted, **how):
    mac.store.save("candidate", _wgconf.render(wanted))
    _change.arm(mac.store, INTERFACE, confirm_by="server", clock=mac.clock, **how)
    return _change.run_armed(mac.run, mac.services, mac.store, sleep=mac.sleep, clock=mac.clock, probe=lambda *_datagram: None)


def test_a_change_that_is_proven_stays_and_another_is_undone(mac):
    take(mac, config())
    assert change(mac, config(interface="MTU = 1280\n"))["ok"]
    verdict = change(mac, config(endpoint="192.0.2.9:51820"))
    assert not verdict["ok"] and "no answer from the WireGuard peer" in verdict["reason"] and verdict["action"] == "restart"
    assert file_text(mac) == _wgconf.render(config(interface="MTU = 1280\n")) and mac.links[INTERFACE]["mtu"] == 1280


@pytest.mark.parametrize("first", [config(), None], ids=["a change", "the first tunnel"])
def test_a_reboot_at_any_point_of_a_change_leads_to_a_config_that_works(tmp_path, first):
    crash = 0
    while True:
        crash += 1
        with FakeMac(tmp_path / str(crash)) as mac:
            if first:
                take(mac, first)
            mac.booted()
            mac.steps, mac.crash_at = 0, crash
            try:
                change(mac, config(interface="MTU = 1280\n"))
                break
            except Crash:
                pass
            mac.reboot()
            _change.recover(mac.run, mac.services, mac.store)
            mac.booted()
            tend(mac)
            assert mac.store.load("pending") is None
            assert file_text(mac) in [first and _wgconf.render(first), _wgconf.render(config(interface="MTU = 1280\n"))]
            assert (file_text(mac) is None) == (not mac.links)
    assert crash > 10, "it crashed nowhere"


# --- the job that tends the tunnel


def test_it_waits_for_what_ends_interrupted_changes(mac):
    with pytest.raises(_observe.TunnelError, match="gatecontrol-recover has not run"):
        tend(mac)


def test_it_brings_the_tunnel_up_and_leaves_one_that_works_alone(mac):
    mac.booted()
    assert tend(mac) is None and not mac.links, "without a config there is nothing to do"
    _enrollment.write_text(_observe.config_path(mac.store, INTERFACE), _wgconf.render(config()))
    assert "it was not there" in tend(mac) and mac.real(INTERFACE) == "utun4"
    mac.handshakes = int(mac.time)
    steps = mac.steps
    assert tend(mac) is None and mac.steps == steps + 1, "it only looked"


def test_a_tunnel_that_a_sleep_left_dead_is_started_anew_and_not_again_and_again(mac):
    mac.booted()
    take(mac, config())
    mac.answering, mac.time = ("nobody", ""), mac.time + _change.SILENT - 1
    assert tend(mac) is None
    mac.time += 2
    assert "no peer had answered for 301 s" in tend(mac) and mac.real(INTERFACE) == "utun5"
    mac.time += 60
    assert tend(mac) is None


def test_a_tunnel_without_keepalive_may_be_silent(mac):
    mac.booted()
    take(mac, config(peer=""))
    mac.answering, mac.time = ("nobody", ""), mac.time + 10000
    assert tend(mac) is None and mac.real(INTERFACE) == "utun4"


def test_a_change_under_way_is_left_alone_and_a_dead_one_undone(mac):
    take(mac, config())
    mac.booted()
    mac.store.save("candidate", _wgconf.render(config(interface="MTU = 1280\n")))
    _change.arm(mac.store, INTERFACE, confirm_by="controller", timeout=40, clock=mac.clock)
    mac.crash_at = mac.steps + 8
    with pytest.raises(Crash):
        _change.run_armed(mac.run, mac.services, mac.store, sleep=mac.sleep, clock=mac.clock, probe=lambda *_datagram: None)
    mac.crash_at, before = None, mac.real(INTERFACE)
    with _lock.held(_enrollment.Store(mac.root)):  # as the job that is at it does
        assert tend(mac) is None and mac.real(INTERFACE) == before
    assert "was rolled back" in tend(mac) and "the change was interrupted" in mac.store.load("verdict")["reason"]
    assert file_text(mac) == _wgconf.render(config()) and mac.links[INTERFACE]["mtu"] == 1420


def test_recover_ends_a_change_once_in_a_boot_and_not_when_its_job_is_loaded_anew(mac):
    for there in (False, True):
        mac.store.save("candidate", _wgconf.render(config()))
        _change.arm(mac.store, INTERFACE, clock=mac.clock)
        assert _cli.command(mac.store, mac.run, "recover", [])[0] == 0
        assert os.path.exists(os.path.join(mac.root, _change.BOOTED)) and (mac.store.load("pending") is not None) == there


# --- the controller


@pytest.mark.parametrize("allowed, ssh, route, reason", [
    ("10.88.0.0/24", SSH, FAR % "en0", None), ("0.0.0.0/0", SSH, FAR % "en0", "203.0.113.5 into the tunnel"),
    ("203.0.113.0/24", SSH, FAR % "en0", "203.0.113.5 into the tunnel"), ("0.0.0.0/0", "192.0.2.77 40000 192.0.2.10 22", NEAR, None),
    ("192.0.2.64/26", "192.0.2.77 40000 192.0.2.10 22", NEAR, "192.0.2.77 into the tunnel"), ("0.0.0.0/0", "127.0.0.1 1 127.0.0.1 22", "", None),
    ("0.0.0.0/0", None, "", None)])
def test_a_config_that_would_capture_the_controller_is_told(mac, allowed, ssh, route, reason):
    mac.route = route
    found = _reach.reachability_on_mac(mac.run, config(allowed), None, ssh)
    assert found["kept"] is None and found["through"] is False
    assert found["reason"] is None if reason is None else reason in found["reason"]


def test_a_controller_that_comes_through_the_tunnel_is_told(mac):
    take(mac, config())
    mac.route = FAR % "utun4"
    assert _reach.reachability_on_mac(mac.run, config(), mac.real(INTERFACE), SSH)["through"] is True


# --- what the agent knows of a Mac


def test_facts_needs_and_the_machine_s_own_id(tmp_path, monkeypatch):
    mac = FakeMac(tmp_path)
    uuid = "4C4C4544-0051-3510-8052-B4C04F564433"
    asked = []

    def run(argv, stdin=None):
        asked.append(argv[0])
        return 0, '    "IOPlatformUUID" = "%s"\n' % uuid if argv == ["ioreg", "-rd1", "-c", "IOPlatformExpertDevice"] else "", ""
    agent = _agent.Agent(mac.store, run)
    assert isinstance(agent.services, _services.Launchd)
    facts = agent.host.facts()
    assert (facts["system"], facts["distribution"], facts["version"], facts["service_manager"]) == ("macos", "macos", "14.7.1", "launchd")
    assert facts["fingerprint"] == _enrollment.digest("gatecontrol machine " + uuid.lower()) and facts["homebrew"] is None
    for prefix in ("usr/local", "opt/homebrew"):  # Apple Silicon's counts where both are there
        brew = pathlib.Path(tmp_path, prefix, "bin/brew")
        brew.parent.mkdir(parents=True)
        brew.touch()
        assert agent.host.facts()["homebrew"]["prefix"] == "/" + prefix
    monkeypatch.setattr(_facts, "PATH", str(tmp_path))
    assert (
        agent.host.needs() == ["wg", "wg-quick", "wireguard-go"]
        and agent.host.needs(config("0.0.0.0/0", interface="DNS = 10.88.0.1\n")) == agent.host.needs()
    )
    assert set(asked) == {"launchctl", "ioreg"}


def test_without_an_id_a_mac_is_told_so(tmp_path):
    FakeMac(tmp_path)
    with pytest.raises(_agent.AgentError, match="names no IOPlatformUUID"):
        _facts.machine_fingerprint(str(tmp_path), lambda argv, stdin=None: (127, "", ""))
