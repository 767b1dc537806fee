# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a real tunnel: what they cost in packets, what they leave behind."""

from __future__ import annotations

import pytest

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _observe, _plan, _step, _wgconf


def test_up_then_nothing_to_do(lab):
    config = lab.config()
    assert lab.observe() is None
    assert lab.apply(config).action == "up"
    assert lab.answers()
    assert lab.plan(config).action == "none", lab.plan(config).reasons
    before, calls = vars(lab.observe()), list(lab.services.calls)
    assert lab.apply(config).action == "none"
    after = vars(lab.observe())
    for seen in (before, after):
        for peer in seen["peers"].values():
            del peer["rx"], peer["tx"]
    assert after == before and lab.services.calls == calls
    assert lab.services.enabled


def test_a_change_of_peers_loses_nothing_and_keeps_the_source_port(lab):
    lab.apply(lab.config())
    assert lab.answers()
    port, counted = lab.port_at_hub(), lab.counting()
    changed = lab.config(allowed="10.88.0.0/24, 10.88.7.0/24", peer="PersistentKeepalive = 21\n")
    step = lab.apply(changed)
    assert step.action == "sync"
    assert "route 10.88.7.0/24 in table 254 is missing" in step.reasons
    assert lab.lost(counted) == 0
    assert lab.port_at_hub() == port
    assert lab.answers("10.88.7.1")
    step = lab.apply(lab.config())
    assert step.action == "sync" and "route 10.88.7.0/24 in table 254 should not be there" in step.reasons
    assert not any(network == "10.88.7.0/24" for network, _table in lab.observe().routes)
    assert lab.services.calls == ["stop", "start"], "it was started once and never restarted"


def test_full_tunnel_keeps_its_mark_and_loses_nothing(lab):
    lab.apply(lab.config("0.0.0.0/0"))
    assert lab.answers("192.0.2.1")
    assert lab.observe().fwmark == 51820
    counted = lab.counting("192.0.2.1")
    assert lab.apply(lab.config("0.0.0.0/0", peer="PersistentKeepalive = 21\n")).action == "sync"
    assert lab.observe().fwmark == 51820
    assert lab.lost(counted) == 0
    _step.apply(lab.run, lab.services, lab.store, lab.interface, _plan.Plan("down"), None)
    assert "51820" not in lab.rules() and "suppress" not in lab.rules()


@pytest.mark.parametrize("allowed", [("10.88.0.0/24", "0.0.0.0/0"), ("0.0.0.0/0", "10.88.0.0/24"), ("10.88.0.0/24", "0.0.0.0/0, ::/0")])
def test_default_route_in_or_out_is_a_restart(lab, allowed):
    lab.apply(lab.config(allowed[0]))
    assert lab.apply(lab.config(allowed[1])).action == "restart"
    assert lab.plan(lab.config(allowed[1])).action == "none"
    assert lab.answers()
    assert ("suppress" in lab.rules()) == ("0.0.0.0/0" in allowed[1])


@pytest.mark.parametrize(
    "drift, action",
    [
        ("wg set {0} fwmark 0", "restart"),
        ("ip -4 rule delete not fwmark 51820 table 51820", "sync"),
        ("ip -4 rule delete table main suppress_prefixlength 0", "sync"),
        ("ip route delete default dev {0} table 51820", "sync"),
        ("ip address delete 10.88.0.2/32 dev {0}", "restart"),
        ("ip link set {0} mtu 1300", "restart"),
        ("ip link set {0} down", "restart"),
        ("ip route add 203.0.113.0/24 dev {0}", "sync"),
        ("wg set {0} peer {1} persistent-keepalive 5", "sync"),
        ("wg set {0} peer {1} remove", "restart"),
        ("ip link delete {0}", "up"),
    ],
)
def test_drift_is_seen_and_repaired(lab, drift, action):
    config = lab.config("0.0.0.0/0")
    lab.apply(config)
    lab.must("host", drift.format(lab.interface, _wgconf.public_key(lab.hub_key)))
    step = lab.plan(config)
    assert step.action == action, step.reasons
    lab.apply(config)
    assert lab.plan(config).action == "none", lab.plan(config).reasons


def test_tables(lab):
    for table, routes in (("off", set()), ("1234", {("10.88.0.0/24", 1234)}), ("auto", {("10.88.0.0/24", 254)})):
        config = lab.config(interface="Table = %s\n" % table)
        lab.apply(config)
        assert lab.observe().routes == routes
        assert lab.plan(config).action == "none"


def test_a_config_without_private_key_never_reaches_wg(lab):
    lab.apply(lab.config())
    broken = lab.config(peer="PersistentKeepalive = 5\n")
    del broken.interface["PrivateKey"]
    with pytest.raises(_wgconf.ConfigError):
        _step.apply(lab.run, lab.services, lab.store, lab.interface, _plan.Plan("sync"), broken)
    assert lab.observe().public_key == _wgconf.public_key(lab.host_key)
    assert lab.answers()


def test_an_interface_that_was_brought_up_by_hand_is_taken_over(lab):
    config = lab.config()
    lab.apply(config)
    lab.services.active.clear()  # as after `wg-quick up` in a shell
    assert lab.apply(lab.config(interface="ListenPort = 40123\n")).action == "restart"
    assert lab.observe().listen_port == 40123


def test_a_tunnel_that_does_not_start_is_put_back(lab):
    lab.apply(lab.config())
    lab.must("host", "ip route add 203.0.113.0/24 dev eth0")
    clash = lab.config("10.88.0.0/24, 203.0.113.0/24", interface="Table = 254\n")
    with pytest.raises(_observe.TunnelError) as caught:
        _step.apply(lab.run, lab.services, lab.store, lab.interface, _plan.Plan("restart"), clash)
    lab.must("host", "ip route delete 203.0.113.0/24 dev eth0")
    assert "File exists" in str(caught.value) and "as it was before" in str(caught.value)
    assert lab.plan(lab.config()).action == "none" and lab.answers()


def test_a_steady_look_is_cheap(lab):
    lab.apply(lab.config())
    calls = []
    running = _observe.observe(lambda argv, stdin=None: calls.append(argv) or lab.run(argv, stdin), lab.interface, lab.root)
    assert _plan.plan(lab.config(), running).action == "none"
    assert len(calls) <= 4


def test_backend_is_told_and_leaves_nothing(lab):
    before = lab.must("host", "ip -o link").count("\n")
    assert _observe.backend(lab.run) in ("kernel", "wireguard-go")
    assert lab.must("host", "ip -o link").count("\n") == before
