"""What a beat does about a tunnel that lost something: it says so, and has it put back by a unit of its own."""
from __future__ import annotations

import pathlib
import re

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _agent, _cli, _enrollment, _lock, _observe, _reach, _repair, _verify

FULL = {"allowed_ips": ["0.0.0.0/0", "::/0"], "dns": ["10.8.0.1"]}


@pytest.fixture
def full(gate, host):
    """An enrolled machine with all its traffic in the tunnel; nothing is wrong with it."""
    host.set(policy=FULL)
    agent = host.agent()
    agent.stage(agent.store.text("issued"))
    agent.launch("server", None)
    verdict = host.agent().apply()
    assert verdict["ok"], verdict
    host.started.clear()
    assert ills(host) == [] and host.beat()["beside_tunnel"] == [] and host.started == []
    return host


def ills(host):
    agent = host.agent()
    return _repair.ills(agent, agent.running())


def lose_rules(host):
    host.rules = {4: [], 6: []}


def lose_table(host):
    host.tables.clear()


def lose_name(host):
    host._resolvconf(["-d", "wg0"], None)


def lose_interface(host):
    host.links.clear()
    host.run(["ip", "-N", "-j", "rule", "show"])  # the traces below sys go with it
    lose_rules(host)


def lose_way(host):
    _reach.keep(host.run, host.services, host.store, "wg0", None)


@pytest.mark.parametrize("lose, beside", [(lose_rules, 2), (lose_table, 0), (lose_name, 0), (lose_interface, 1), (lose_way, 0)])
def test_what_is_lost_is_told_and_put_back(full, lose, beside):
    before = full.seen("wg0")
    lose(full)
    shown = full.beat()
    assert len(shown["beside_tunnel"]) == beside and full.started == [_repair.UNIT], "the beat's own unit changes nothing"
    assert 'gatecontrol_beside_tunnel{peer="%s",interface="wg0"} %d' % (full.peer, bool(beside)) in _cli.metrics(shown)
    assert ("traffic passes beside it: " in _cli.described(shown)) == bool(beside)
    done = _cli.WORK["repair"](full.agent())
    assert done[0] == 0 and done[1].startswith("put right: "), done
    assert full.seen("wg0") == before and ills(full) == []
    full.started.clear()
    assert full.beat()["beside_tunnel"] == [] and full.started == []


def test_what_somebody_did_on_purpose_is_left_to_a_play(full):
    full.services.stop("wg-quick@wg0.service")
    full.run(["ip", "-N", "-j", "rule", "show"])
    assert ills(full) == [] and full.beat()["beside_tunnel"] == ["the interface wg0 is not there"]
    full.services.start("wg-quick@wg0.service")
    pathlib.Path(_observe.config_path(full.store, "wg0")).write_text("[Interface]\n")
    lose_rules(full)
    assert ills(full) == [] and full.beat()["beside_tunnel"] is None and full.started == []


def test_while_a_change_is_under_way_nothing_is_repaired(full):
    lose_rules(full)
    full.store.save("pending", {"id": "x", "interface": "wg0", "armed": full.time, "deadline": full.time + 40})
    assert ills(full) == []


def switch(host, on):
    """IPv6 by sysctl, as the kernel shows it."""
    for path, text in (("proc/self/status", ""), ("proc/sys/net/ipv6/conf/default/disable_ipv6", "%d\n" % (not on))):
        file = pathlib.Path(host.root, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_ipv6_parts_go_and_come_with_ipv6(full):
    file = pathlib.Path(_observe.config_path(full.store, "wg0"))
    for on, allowed, left_out in ((False, "0.0.0.0/0", ["::/0"]), (True, "0.0.0.0/0, ::/0", [])):
        switch(full, on)
        full.started.clear()
        shown = full.beat()
        assert shown["left_out"] == left_out and _repair.UNIT in full.started
        assert "IPv6 was switched %s" % ("on" if on else "off") in _cli.WORK["repair"](full.agent())[1]
        assert full.agent().apply()["ok"] and "AllowedIPs = %s\n" % allowed in file.read_text()
        assert ills(full) == [] and ("these are left out: ::/0" in _cli.described(full.agent().show())) == (not on)


def test_a_config_of_ipv6_alone_is_refused_where_it_is_off(full):
    switch(full, False)
    full.set(policy={"allowed_ips": ["::/0"], "dns": []})
    agent = full.agent()
    with pytest.raises(Exception, match="IPv6 is switched off on this host, and nothing of the config is left without it"):
        agent.stage(agent.store.text("issued"))


@pytest.mark.parametrize("visible", [True, False], ids=["sysctl", "in the beat's sandbox"])
@pytest.mark.parametrize("on", [True, False])
def test_ipv6_is_seen_with_and_without_sysctl(tmp_path, visible, on):
    (tmp_path / "proc/self/net").mkdir(parents=True)
    if on:
        (tmp_path / "proc/self/net/if_inet6").write_text("00000000000000000000000000000001 01 80 10 80       lo\n")
    if visible:
        (tmp_path / "proc/sys/net/ipv6/conf/default").mkdir(parents=True)
        (tmp_path / "proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("0\n" if on else "1\n")
    assert _observe.ipv6(str(tmp_path)) == on


def test_a_resolver_that_was_switched_off_is_named_before_anything_is_touched(full):
    program = pathlib.Path(full.root, "sbin/resolvconf")
    program.unlink()
    pathlib.Path(full.root, "usr/bin").mkdir(parents=True)
    pathlib.Path(full.root, "usr/bin/resolvectl").touch()
    program.symlink_to("../usr/bin/resolvectl")
    before = full.seen("wg0")
    agent = full.agent()
    agent.stage(agent.store.text("issued"))
    with pytest.raises(Exception, match="systemd-resolved is switched off on this host, and .*sbin/resolvconf belongs to it"):
        agent.launch("server", None)
    assert full.seen("wg0") == before and full.store.load("pending") is None
    full.active.add("systemd-resolved.service")
    agent.launch("server", None)
    assert full.store.load("pending")


def test_a_change_armed_while_the_unit_of_the_one_before_ends_is_started_all_the_same(full, monkeypatch):
    """systemd takes a start for the one that is under way, whose process has looked for changes already."""
    states, agent = ["deactivating", "activating", "failed"], full.agent()
    agent.stage(agent.store.text("issued"))
    show = agent.services.show
    monkeypatch.setattr(agent.services, "show", lambda units, names: (
        {units[0]: {"ActiveState": states.pop(0)}} if units == [_agent.APPLY] else show(units, names)))
    full.started.clear()
    agent.launch("server", None)
    assert states == [] and full.started == [_agent.APPLY]


def test_a_repair_that_waits_is_not_ended_in_the_middle_of_its_work(full):
    """Its unit has a time limit, of which the wait for another must leave the work its share."""
    unit = _verify.role_file("units/etc/systemd/system/" + _repair.UNIT)
    lose_rules(full)
    begun = full.now()
    with _lock.held(_enrollment.Store(str(full.root))), pytest.raises(_lock.Busy):
        _cli.WORK["repair"](full.agent())
    assert full.now() - begun < int(re.search(r"^TimeoutStartSec=(\d+)$", unit, re.MULTILINE).group(1)) / 2
