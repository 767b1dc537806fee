# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties of the planner over generated configs and drift: a step taken always ends in what was desired."""

from __future__ import annotations

import base64
import tempfile

from fake_host import FakeHost
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _observe, _plan, _step, _wgconf

INTERFACE = "wg0"
PATH = "etc/wireguard/wg0.conf"
unhurried = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
KEYS = [base64.b64encode(bytes([number] * 32)).decode() for number in range(1, 8)]
networks = st.sampled_from(
    [
        "10.88.0.0/24",
        "10.88.0.0/16",
        "10.9.0.0/16",
        "10.9.1.0/24",
        "198.51.100.7/32",
        "0.0.0.0/1",
        "128.0.0.0/1",
        "0.0.0.0/0",
        "::/0",
        "fd00::/8",
        "fd88::/64",
    ]
)
interfaces = st.fixed_dictionaries(
    {
        "PrivateKey": st.sampled_from(KEYS[:2]),
        "Address": st.sampled_from([["10.88.0.2/32"], ["10.88.0.2/24"], ["10.88.0.3/32", "fd88::2/64"]]),
    },
    optional={
        "DNS": st.sampled_from([["10.88.0.1"], ["10.88.0.1", "corp.example"]]),
        "MTU": st.sampled_from([1280, 1420]),
        "Table": st.sampled_from(["off", 1234, 4321]),
        "ListenPort": st.sampled_from([51820, 51821]),
        "FwMark": st.sampled_from([77, 78]),
    },
)
peers = st.fixed_dictionaries(
    {"PublicKey": st.sampled_from(KEYS[2:5]), "AllowedIPs": st.lists(networks, min_size=1, max_size=4, unique=True)},
    optional={
        "PresharedKey": st.sampled_from(KEYS[5:]),
        "Endpoint": st.sampled_from(["192.0.2.1:51820", "192.0.2.2:51820", "[2001:db8::1]:51820"]),
        "PersistentKeepalive": st.sampled_from([21, 25]),
    },
)


def complete(config):
    try:
        return _wgconf._complete(config) is config
    except _wgconf.ConfigError:
        return False


configs = st.builds(_wgconf.Config, interfaces, st.lists(peers, min_size=1, max_size=2)).filter(complete)


def take(host, config, kept=None):
    old = _observe.applied("%s/%s" % (host.root, PATH))
    step = _plan.plan(config, _observe.observe(host.run, INTERFACE, host.root, kept), old, kept)
    _step.apply(host.run, host.services, host.store, INTERFACE, step, config, kept)
    return step


def fresh(config):
    """What wg-quick makes of a config on a host without a tunnel."""
    with tempfile.TemporaryDirectory() as root, FakeHost(root) as host:
        take(host, config)
        return host.seen(INTERFACE)


def settled(host, config):
    again = _plan.plan(config, _observe.observe(host.run, INTERFACE, host.root), config)
    assert (again.action, again.reasons) == ("none", [])
    seen, wanted = host.seen(INTERFACE), fresh(config)
    if "ListenPort" not in config.interface:  # the live one is kept
        seen[0]["port"] = 0
    for peer in config.peers:
        if "Endpoint" not in peer:  # it may have been learnt
            seen[0]["peers"][peer["PublicKey"]]["endpoint"] = None
    assert seen == wanted
    assert (host.enabled, host.active) == ({"wg-quick@wg0.service"}, {"wg-quick@wg0.service"})


@unhurried
@given(configs, configs)
def test_a_plan_applied_to_what_runs_gives_what_is_desired(first, second):
    with tempfile.TemporaryDirectory() as root, FakeHost(root) as host:
        assert take(host, first).action == "up"
        settled(host, first)
        port, mark = host.links[INTERFACE]["port"], host.links[INTERFACE]["mark"]
        step = take(host, second)
        settled(host, second)
        assert first != second or step.action == "none"
        if step.action == "sync":
            assert host.links[INTERFACE]["port"] == port and host.links[INTERFACE]["mark"] == mark


@unhurried
@given(configs)
def test_nothing_runs_when_nothing_differs(config):
    with tempfile.TemporaryDirectory() as root, FakeHost(root) as host:
        take(host, config)
        host.log.clear()
        assert take(host, config).action == "none"
        assert host.log == []


@unhurried
@given(configs, st.data())
def test_any_drift_is_repaired(config, data):
    with tempfile.TemporaryDirectory() as root, FakeHost(root) as host:
        take(host, config)
        link, before = host.links[INTERFACE], host.seen(INTERFACE)
        peer = link["peers"][data.draw(st.sampled_from(sorted(link["peers"])))]
        drift = data.draw(
            st.sampled_from(
                [
                    "mark",
                    "port",
                    "key",
                    "psk",
                    "keepalive",
                    "allowed",
                    "peer",
                    "address",
                    "mtu",
                    "down",
                    "route",
                    "routes",
                    "rules",
                    "rule",
                    "dns",
                    "gone",
                    "stranger",
                ]
            )
        )
        if drift == "mark":
            link["mark"] = 0
        elif drift == "port":
            link["port"] = 12345
        elif drift == "key":
            link["private"] = None
        elif drift == "psk":
            peer["psk"] = KEYS[0]
        elif drift == "keepalive":
            peer["keepalive"] = 3
        elif drift == "allowed":
            peer["allowed"] = peer["allowed"][1:]
        elif drift == "peer":
            link["peers"].popitem()
        elif drift == "address":
            link["addresses"].pop()
        elif drift == "mtu":
            link["mtu"] = 1300
        elif drift == "down":
            link["up"], link["routes"] = False, []
        elif drift == "route":
            link["routes"].append(["203.0.113.0/24", 254, "boot"])
        elif drift == "routes":
            link["routes"] = [route for route in link["routes"] if route[2] == "kernel"]
        elif drift == "rules":
            host.rules = {4: [], 6: []}
        elif drift == "rule":
            for family in (4, 6):
                host.rules[family] = host.rules[family][1:]
        elif drift == "dns":
            host._resolvconf(["-d", INTERFACE], None)
        elif drift == "gone":
            del host.links[INTERFACE]
        else:
            link["peers"][KEYS[6]] = dict(peer, allowed=["203.0.113.0/24"])
        assume(host.seen(INTERFACE) != before)
        assume(drift != "port" or "ListenPort" in config.interface)  # a port that nobody chose may be any
        assume(drift != "mtu" or "MTU" in config.interface)
        # With the interface gone nothing tells wg-quick's rules from others; the next `down` takes all of them.
        assume(drift != "gone" or not host.rules[4] + host.rules[6])
        assert take(host, config).action != "none"
        settled(host, config)


@unhurried
@given(configs, configs)
def test_down_leaves_nothing(first, second):
    with tempfile.TemporaryDirectory() as root, FakeHost(root) as host:
        take(host, first)
        take(host, second)
        assert _step.remove(host.run, host.services, host.store, INTERFACE)
        assert (host.links, host.rules, host.enabled, host.active) == ({}, {4: [], 6: []}, set(), set())
        assert host.seen(INTERFACE) is None and _observe._dns(host.run, host.root, INTERFACE, 9) == set()
        assert not _step.remove(host.run, host.services, host.store, INTERFACE)


@unhurried
@given(configs, configs, st.text(max_size=5))
def test_no_reason_shows_a_secret(first, second, _noise):
    with tempfile.TemporaryDirectory() as root, FakeHost(root) as host:
        take(host, first)
        shown = " ".join(_plan.plan(second, _observe.observe(host.run, INTERFACE, host.root), first).reasons)
        assert not any(secret in shown for secret in KEYS)
