# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunnel on a host made of dicts: plans, steps, armed changes and a crash at every point of them."""

from __future__ import annotations

import base64
import json
import os
import pathlib

import pytest
from fake_host import Crash, FakeHost

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _change, _observe, _plan, _reach, _repair, _services, _step, _wgconf

INTERFACE, UNIT = "wg0", "wg-quick@wg0.service"
PRIVATE, PUBLIC, OTHER = (base64.b64encode(os.urandom(32)).decode() for _number in range(3))
SSH = "203.0.113.5 40000 192.0.2.10 22"
RULE = ["ip", "-4", "rule", "add", "fwmark", "0x6763", "lookup", "main"]


def kept_on(host):
    """The commands of the kept path in a full tunnel for IPv4."""
    return [["nft", "-f", os.path.join(host.root, _reach.BESIDE % INTERFACE)], RULE]


def config(allowed="10.88.0.0/24", public=PUBLIC, endpoint="192.0.2.1:51820", interface="", peer=""):
    return _wgconf.parse(
        "[Interface]\nPrivateKey = %s\nAddress = 10.88.0.2/32\n%s[Peer]\nPublicKey = %s\nEndpoint = %s\nAllowedIPs = %s\n%s"
        % (PRIVATE, interface, public, endpoint, allowed, peer)
    )


@pytest.fixture
def host(tmp_path):
    with FakeHost(tmp_path) as fake:
        fake.answering = (PUBLIC, "192.0.2.1:51820")
        yield fake


def observe(host, kept=None):
    return _observe.observe(host.run, INTERFACE, host.root, kept)


def take(host, wanted, kept=None, applied=None):
    step = _plan.plan(wanted, observe(host, kept), applied, kept)
    _step.apply(host.run, host.services, host.store, INTERFACE, step, wanted, kept)
    return step


def file_text(host):
    path = pathlib.Path(_observe.config_path(host.store, INTERFACE))
    return path.read_text() if path.exists() else None


# --- plans


@pytest.mark.parametrize(
    "second, action, reason",
    [
        (config(), "none", None),
        (config("10.88.0.0/24, 10.9.0.0/16"), "sync", "allowed IPs differ: + 10.9.0.0/16"),
        (config("10.88.0.0/24, 10.9.0.0/16"), "sync", "route 10.9.0.0/16 in table 254 is missing"),
        (config(peer="PersistentKeepalive = 25\n"), "sync", "keepalive is 0 s, should be 25 s"),
        (config(peer="PresharedKey = %s\n" % OTHER), "sync", "the preshared key differs"),
        (config(endpoint="192.0.2.9:51820"), "sync", "endpoint 192.0.2.1:51820, should be 192.0.2.9:51820"),
        (config(public=OTHER), "sync", "is missing"),
        (config("0.0.0.0/0"), "restart", "the default route for IPv4 should go through the tunnel"),
        (config("10.88.0.0/24, ::/0"), "restart", "the default route for IPv6 should go through the tunnel"),
        (config(interface="MTU = 1280\n"), "restart", "MTU is 1420, should be 1280"),
        (config(interface="DNS = 10.88.0.1\n"), "restart", "DNS differs: + 10.88.0.1"),
        (config(interface="FwMark = 7\n"), "restart", "fwmark is off, should be 7"),
        (config(interface="ListenPort = 7\n"), "restart", "ListenPort is 40001, should be 7"),
        (config(interface="Table = off\n"), "restart", "Table changes"),
        (config(interface="Address = 10.88.0.3/32\n"), "restart", "addresses differ: + 10.88.0.3/32"),
    ],
)
def test_plan(host, second, action, reason):
    take(host, config())
    step = _plan.plan(second, observe(host), config())
    assert step.action == action
    assert reason is None and not step.reasons or any(reason in text for text in step.reasons), step.reasons
    _step.apply(host.run, host.services, host.store, INTERFACE, step, second)
    assert (host.log.count(("stop", UNIT)), file_text(host)) == (2 if action == "restart" else 1, _wgconf.render(second))


def test_hooks(host):
    hooked = _wgconf.parse(
        _wgconf.render(config()).replace("[Interface]", "[Interface]\nPostUp = ip route add 10.5.0.0/16 dev %i"), allow_hooks=True
    )
    take(host, hooked)
    host.links[INTERFACE]["routes"].append(["10.5.0.0/16", 254, "boot"])
    assert _plan.plan(hooked, observe(host)).action == "none", "a hook may have set it"
    assert _plan.plan(config(), observe(host), hooked).action == "restart"


def endpoint_plan(host, wanted, live, age, applied):
    take(host, config())
    running = observe(host)
    running.peers[PUBLIC].update(endpoint=live, handshake=1000 - age)
    return _plan.plan(config(endpoint=wanted), running, applied and config(endpoint=applied), now=1000).action


@pytest.mark.parametrize(
    "wanted, live, age, applied, action",
    [
        ("192.0.2.1:51820", "192.0.2.1:51820", 9999, None, "none"),
        ("192.0.2.1:51820", "198.51.100.1:51820", 10, "192.0.2.1:51820", "none"),  # it roamed
        ("192.0.2.1:51820", "198.51.100.1:51820", 999, "192.0.2.1:51820", "sync"),  # and died
        ("192.0.2.1:51820", "198.51.100.1:51820", 10, None, "sync"),
        ("192.0.2.1:51820", "198.51.100.1:51820", 10, "198.51.100.1:51820", "sync"),
        ("gate.example:51820", "198.51.100.1:51820", 10, None, "none"),
        ("gate.example:51820", "198.51.100.1:51820", 10, "gate.example:51820", "none"),
        ("gate.example:51820", "198.51.100.1:51820", 10, "old.example:51820", "sync"),
        ("gate.example:51820", "198.51.100.1:40000", 10, None, "sync"),
        ("gate.example:51820", None, 10, "gate.example:51820", "sync"),
        ("[2001:db8::1]:51820", "[2001:db8:0::1]:51820", 999, None, "none"),
    ],
)
def test_endpoints(host, wanted, live, age, applied, action):
    assert endpoint_plan(host, wanted, live, age, applied) == action


def answering(*addresses, asked=None):
    def resolve(name):
        if asked is not None:
            asked.append(name)
        return list(addresses)

    return resolve


@pytest.mark.parametrize(
    "age, answers, moved",
    [
        (10, ["192.0.2.9"], None),  # it lives
        (179, ["192.0.2.9"], None),
        (181, ["192.0.2.9"], "192.0.2.9:51820"),
        (1000, ["192.0.2.9"], "192.0.2.9:51820"),  # there was no handshake
        (-5000, ["192.0.2.9"], "192.0.2.9:51820"),  # the clock went back
        (-5, ["192.0.2.9"], None),
        (999, [], None),
        (999, ["192.0.2.9", "198.51.100.1"], None),  # the live one is still good
        (999, ["2001:db8::9", "192.0.2.9"], "192.0.2.9:51820"),  # of the family that works here
        (999, ["2001:db8::9"], "[2001:db8::9]:51820"),
    ],
)
def test_a_dead_endpoint_follows_its_name(host, age, answers, moved):
    take(host, config())
    running, asked = observe(host), []
    running.peers[PUBLIC].update(endpoint="198.51.100.1:40000", handshake=1000 - age)
    named = config(endpoint="gate.example:51820")
    assert _plan.moved_endpoints(named, running, 1000, answering(*answers, asked=asked)) == ([(PUBLIC, moved)] if moved else [])
    assert bool(asked) == (age > 180 or age < -60), "no name is asked for while the session lives"
    assert _plan.moved_endpoints(config(endpoint="192.0.2.1:51820"), running, 1000, answering("192.0.2.9")) == [], "an address stays"
    assert _plan.moved_endpoints(named, running, None, answering("192.0.2.9")) == [(PUBLIC, "192.0.2.9:51820")], "known to be dead"
    assert _plan.moved_endpoints(named, None, 1000, answering("192.0.2.9")) == []


def test_wg_is_given_addresses_and_names_that_nobody_knows(host):
    take(host, config())
    running, named = observe(host), config(endpoint="gate.example:51820")
    running.peers[PUBLIC].update(endpoint="198.51.100.1:40000")
    assert _plan.with_addresses(named, running, answering("198.51.100.1", "192.0.2.9")).peers[0]["Endpoint"] == "198.51.100.1:51820"
    assert _plan.with_addresses(named, running, answering("2001:db8::9")).peers[0]["Endpoint"] == "[2001:db8::9]:51820"
    assert _plan.with_addresses(named, None, answering("192.0.2.9")).peers[0]["Endpoint"] == "192.0.2.9:51820"
    assert _plan.with_addresses(named, running, answering()) == named
    assert _plan.with_addresses(config(), running, answering("192.0.2.9")) == config()


def test_no_tunnel(host):
    assert _plan.plan(None, None).action == "none"
    assert _plan.plan(config(), None).action == "up"
    take(host, config())
    assert _plan.plan(None, observe(host)).action == "down"


# --- steps


def test_a_steady_look_costs_three_processes(host):
    take(host, config())
    calls = []
    _observe.observe(lambda argv, stdin=None: calls.append(argv) or host.run(argv, stdin), INTERFACE, host.root)
    assert len(calls) == 3


def test_an_interface_that_goes_while_it_is_looked_at_is_none(host):
    take(host, config())

    def goes(argv, stdin=None):
        if argv[0] == "ip":
            host.links.clear()
        return host.run(argv, stdin)

    assert _observe.observe(goes, INTERFACE, host.root) is None and not host.links


def test_interface_names_are_checked():
    for name in ("wg0/../x", "a" * 16, "wg=0", "wg 0", ""):
        with pytest.raises(_observe.TunnelError):
            _observe.unit_of(name)
    assert _observe.unit_of("wg-0.a_b") == "wg-quick@wg-0.a_b.service"


def test_missing_programs_are_named(host):
    def missing(argv, stdin=None):
        raise FileNotFoundError(2, "No such file or directory")

    for run in (missing, lambda argv, stdin=None: (127, "", "")):
        with pytest.raises(_observe.TunnelError, match="wireguard-tools"):
            _observe.observe(run, INTERFACE)
        assert _observe.backend(run) is None


@pytest.mark.parametrize("program", ["wg", "ip"])
@pytest.mark.parametrize("said, words", [("", "wrote nothing"), ("\n", "wrote nothing"), ("BusyBox v1.36.1 multi-call binary.\n", "wrote what cannot be read"),
                                         ("a\tb\n", "wrote what cannot be read")])
def test_a_program_that_writes_something_else_is_named(host, program, said, words):
    take(host, config())

    def other(argv, stdin=None):
        return (0, said, "") if argv[0] == program else host.run(argv, stdin)

    with pytest.raises(_observe.TunnelError, match="^%s .*%s; install wireguard-tools and iproute2" % (program, words)):
        _observe.observe(other, INTERFACE, host.root)


def test_errors_hold_no_key():
    with pytest.raises(_observe.TunnelError) as caught:
        _observe.observe(lambda argv, stdin=None: (1, "", "Line unrecognized: `PrivateKey=%s'" % PRIVATE), INTERFACE)
    assert PRIVATE not in str(caught.value) and "(masked)" in str(caught.value)


def test_a_stranger_in_the_key_is_an_error(host):
    take(host, config())
    host._setconf = lambda link, text, sync=False: link.update(private=None)
    with pytest.raises(_observe.TunnelError, match="does not have the key of its config"):
        take(host, config(peer="PersistentKeepalive = 25\n"))


def test_a_tunnel_that_does_not_start_is_put_back(host):
    take(host, config())
    begin = host.services.start

    def fail_once(unit, limit=30):
        host.services.start = begin
        raise _services.ServiceError("no")

    host.services.start = fail_once
    before = host.seen(INTERFACE)
    with pytest.raises(_observe.TunnelError, match="as it was before: no"):
        take(host, config("0.0.0.0/0"))
    assert host.seen(INTERFACE) == before and file_text(host) == _wgconf.render(config())


@pytest.mark.parametrize("answers, found", [((0, 0, 0), "kernel"), ((1, 1, 0), "wireguard-go"), ((1, 1, 1), None)])
def test_backend(answers, found):
    calls = []

    def run(argv, stdin=None):
        calls.append(argv)
        return answers[0 if argv[2] == "add" else 1] if argv[0] == "ip" else answers[2], "", "no"

    assert _observe.backend(run) == found
    made = [argv[3] for argv in calls if argv[:3] == ["ip", "link", "add"]]
    assert (["ip", "link", "delete", "dev", made[0]] in calls) == (found == "kernel") and len(made[0]) <= 15


@pytest.mark.parametrize(
    "files, expected",
    [
        ({}, None),
        ({"usr/sbin/resolvconf": ""}, None),
        (
            {"sbin/resolvconf": "", "run/resolvconf/interfaces/wg0": "# x\nnameserver 10.88.0.1\nsearch a.example b.example\n"},
            {"10.88.0.1", "a.example", "b.example"},
        ),
        ({"sbin/resolvconf": "", "run/resolvconf/interfaces/eth0": "nameserver 192.0.2.1\n"}, set()),
        (
            {
                "sbin/resolvconf": "",
                "etc/resolvconf/interface-order": "lo.inet\nlo\ntun*\n",
                "run/resolvconf/interface/tun.wg0": "nameserver 10.88.0.1\n",
            },
            {"10.88.0.1"},
        ),
    ],
    ids=[
        "no resolvconf",
        "unknown",
        "openresolv",
        "openresolv, none",
        "resolvconf of Debian",
    ],
)
def test_dns_as_each_resolver_keeps_it(tmp_path, files, expected):
    lay_out(tmp_path, files)
    assert _observe._dns(None, str(tmp_path), "wg0", 9) == expected


def lay_out(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(text) if text.startswith("..") else path.write_text(text)


RESOLVED = {"usr/bin/resolvectl": "", "sbin/resolvconf": "../usr/bin/resolvectl"}
SAID = (  # by systemd 252 and 257 of a link that wg-quick told "nameserver 10.8.0.1, nameserver fd00::1, search corp.test"
    '{"type":"a(iay)","data":[[2,[10,8,0,1]],[10,[253,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1]]]}\n'
    '{"type":"a(sb)","data":[["corp.test",false],[".",true]]}\n'
)


@pytest.mark.parametrize(
    "file, rc, out, expected, asked",
    [
        ("DNS = 10.8.0.1\n", 0, SAID, {"10.8.0.1", "fd00::1", "corp.test"}, 1),
        ("dns=10.8.0.1\n", 0, '{"type":"a(iay)","data":[]}\n{"type":"a(sb)","data":[]}\n', set(), 1),
        (None, 0, SAID, {"10.8.0.1", "fd00::1", "corp.test"}, 1),
        ("MTU = 1400\n", 0, SAID, None, 0),
        ("DNS = 10.8.0.1\n", 1, "", None, 1),  # switched off
        ("DNS = 10.8.0.1\n", 124, "", None, 1),  # a bus that does not answer
        ("DNS = 10.8.0.1\n", 0, '{"type":"a(iay)","data":[[2,[10,8,0]]]}\n{"type":"a(sb)","data":[]}\n', None, 1),
        ("DNS = 10.8.0.1\n", 0, "nonsense", None, 1),
    ],
    ids=["set", "none", "no file", "not in question", "off", "silent", "no address", "nonsense"],
)
def test_dns_as_systemd_resolved_tells_it(tmp_path, file, rc, out, expected, asked):
    """Its own files, below /run/systemd/resolve/netif, can be read by itself alone."""
    lay_out(tmp_path, dict(RESOLVED, **({"etc/wireguard/wg0.conf": "[Interface]\n" + file} if file else {})))
    calls = []

    def run(argv, stdin=None):
        calls.append(argv)
        return rc, out, "no" if rc else ""

    assert _observe._dns(run, str(tmp_path), "wg0", 12) == expected
    assert [argv[2:6] for argv in calls] == asked * [["busctl", "--json=short", "get-property", "org.freedesktop.resolve1"]]
    assert all(argv[:2] == ["timeout", "5"] and "/org/freedesktop/resolve1/link/_312" in argv for argv in calls)


# --- armed changes


def armed(host, wanted, confirm_by="server", **values):
    host.store.save("candidate", _wgconf.render(wanted))
    return _change.arm(host.store, INTERFACE, confirm_by=confirm_by, clock=host.clock, **values)


def run_armed(host, **values):
    return _change.run_armed(host.run, host.services, host.store, sleep=host.sleep, clock=host.clock, probe=lambda *words: None, **values)


def test_arming_touches_nothing_of_the_tunnel(host):
    take(host, config())
    before, text = host.seen(INTERFACE), file_text(host)
    armed(host, config("0.0.0.0/0"))
    assert (host.seen(INTERFACE), file_text(host)) == (before, text)
    with pytest.raises(_observe.TunnelError, match="another change of wg0 is under way"):
        armed(host, config())
    host.store.save("candidate", "[Interface]\n")
    with pytest.raises(_wgconf.ConfigError):
        _change.arm(host.store, INTERFACE)


def test_it_works_with_the_old_file_until_the_tunnel_is_down(host):
    take(host, config())
    armed(host, config("0.0.0.0/0"))
    host.log.clear()
    assert run_armed(host)["ok"]
    order = [what for what in host.log if what in (("stop", UNIT), ("start", UNIT)) or what[0] == "write" and what[1].endswith("wg0.conf")]
    assert [what[0] for what in order] == ["stop", "write", "start"]


@pytest.mark.parametrize("failure", ["prove", "raise", "peer", "controller", "candidate"])
def test_every_failure_leads_back(host, failure):
    take(host, config())
    before, accepted = host.seen(INTERFACE), []
    identity = armed(
        host,
        config("0.0.0.0/0", public=OTHER if failure == "peer" else PUBLIC),
        confirm_by="controller" if failure == "controller" else "server",
    )
    if failure == "candidate":
        host.store.save("candidate", "nonsense")

    def prove(_until):
        if failure == "raise":
            raise RuntimeError("a bug")
        return "the server said 502" if failure == "prove" else None

    begin = host.time
    verdict = run_armed(host, prove=prove, accept=lambda _change: accepted.append(1))
    assert (verdict["id"], verdict["ok"]) == (identity, False)
    assert {"prove": "502", "raise": "a bug", "peer": "no answer", "controller": "within 40 s", "candidate": "is not the one that lies there now"}[
        failure
    ] in verdict["reason"]
    assert (host.seen(INTERFACE), file_text(host), accepted) == (before, _wgconf.render(config()), [])
    assert host.time - begin < 45
    assert host.store.load("pending") is None and host.store.load("verdict") == verdict


@pytest.mark.parametrize("good", [True, False])
def test_what_a_second_play_stores_meanwhile_stays(host, good):
    take(host, config())
    armed(host, config("0.0.0.0/0"))
    newer = _wgconf.render(config("10.9.0.0/16"))

    def prove(_until):
        host.store.save("candidate", newer)
        return None if good else "no"

    assert run_armed(host, prove=prove)["ok"] is good
    assert host.store.text("candidate") == newer and host.store.load("pending") is None
    _change.arm(host.store, INTERFACE, confirm_by="server", clock=host.clock)
    assert run_armed(host)["ok"] and file_text(host) == newer and host.store.text("candidate") is None


def test_confirmation_counts_only_with_the_word_given_after_the_step(host):
    take(host, config())
    identity, words, early = armed(host, config("0.0.0.0/0"), confirm_by="controller"), [], []

    def confirm(word, wait=0):
        return _change.confirm(host.store, word, wait, host.sleep, host.clock)

    def sleep(seconds):
        host.sleep(seconds)
        if host.links[INTERFACE]["mark"] == 0:
            early.append(confirm(identity))
        elif not words and host.time > host.store.load("pending")["armed"] + 10:
            assert "knows nothing of the change" in confirm("an earlier change")["reason"]
            words.append(confirm(identity)["confirm"])
        elif words and host.time > host.store.load("pending")["armed"] + 20:
            assert confirm(words[0]) is None, "the verdict is not there yet"

    verdict = _change.run_armed(host.run, host.services, host.store, sleep=sleep, clock=host.clock, probe=lambda *what: None)
    assert verdict["ok"] and early and not any(early)
    assert confirm(identity) == confirm(words[0]) == verdict
    assert run_armed(host) is None


def test_a_controller_that_asks_late_is_told_of_its_own_change(host):
    """The agent, or another play, has armed the next one meanwhile, and may have ended it."""
    def confirm(word):
        return _change.confirm(host.store, word, 0, host.sleep, host.clock)

    take(host, config())
    first = armed(host, config("0.0.0.0/0"))
    ended = run_armed(host)
    second = armed(host, config("10.9.0.0/16"))
    assert confirm(first) == ended and confirm(second) is None
    assert run_armed(host)["ok"]
    assert confirm(first) == ended and confirm(second)["id"] == second
    third = armed(host, config("10.8.0.0/16"))
    assert "knows nothing of the change" in confirm(first)["reason"] and confirm(second)["ok"]
    host.time += 61
    assert "did not begin within 60 s" in confirm(third)["reason"]


@pytest.mark.parametrize("said", ["", "an earlier change", "id"])
def test_without_the_word_it_goes_back(host, said):
    take(host, config())
    identity = armed(host, config("0.0.0.0/0"), confirm_by="controller")
    host.store.save("confirm", identity if said == "id" else said)
    assert run_armed(host)["ok"] is False


def test_a_tunnel_that_was_down_stays_down(host):
    take(host, config())
    host.services.stop(UNIT)
    armed(host, config("0.0.0.0/0"))
    assert not run_armed(host, prove=lambda _until: "no")["ok"]
    assert observe(host) is None and file_text(host) == _wgconf.render(config())


def test_a_file_that_is_not_ours_comes_back_as_it_was(host):
    take(host, config())
    text = "# by hand\n" + _wgconf.render(config()).replace("[Peer]", "SaveConfig = false\n\n[Peer]")
    pathlib.Path(_observe.config_path(host.store, INTERFACE)).write_text(text)
    started, parse = [], host._wg_quick
    host._wg_quick = lambda words, stdin: (
        started.append(words) if "SaveConfig" in file_text(host) and words[0] == "up" else parse(words, stdin)
    )
    host._down = lambda interface, wanted: host.links.pop(interface)
    armed(host, config("0.0.0.0/0"))
    host.services.stop = lambda unit: host.links.pop(INTERFACE, None) and host.active.clear()
    assert not run_armed(host, prove=lambda _until: "no")["ok"]
    assert file_text(host) == text and started == [["up", INTERFACE]]


def test_an_interrupted_change_is_taken_over_with_its_way_back(host):
    take(host, config())
    armed(host, config("0.0.0.0/0"))
    host.crash_at = host.steps + 5
    with pytest.raises(Crash):
        run_armed(host)
    host.crash_at = None
    assert host.store.load("verdict") is None and ("stop", UNIT) in host.log[-3:]
    host.time += 200
    armed(host, config("10.9.0.0/16"))
    assert not run_armed(host, prove=lambda _until: "no")["ok"]
    assert file_text(host) == _wgconf.render(config()) and _plan.plan(config(), observe(host)).action == "none"


def story(host, good):
    """One change from its arming to its verdict; the accepted texts."""
    accepted = []
    try:
        armed(host, config("0.0.0.0/0"), kept=kept_on(host))
        run_armed(host, prove=lambda _until: None if good else "no", accept=lambda _change: accepted.append(file_text(host)))
    except Crash:
        pass
    return accepted


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("had", [True, False])
@pytest.mark.parametrize("reboot", [True, False])
def test_a_crash_at_any_point_is_recovered_from(tmp_path, good, had, reboot):
    """Killed before each single step, then rebooted or not: the old tunnel or the proven new one, file, interface and rules alike."""
    old, new, points = config(), config("0.0.0.0/0"), 0
    crash_at = 0
    while True:
        with FakeHost(tmp_path / str(crash_at)) as host:
            host.answering = (PUBLIC, "192.0.2.1:51820")
            if had:
                take(host, old)
            host.steps, host.crash_at = 0, crash_at or None
            accepted = story(host, good)
            if crash_at and host.steps < crash_at:
                break
            began, host.crash_at = host.store.text("pending") is not None, None
            if reboot:
                host.reboot()
            host.time += 0 if reboot else 61  # until then the unit might only just begin
            verdict = _change.recover(host.run, host.services, host.store, live=not reboot, clock=host.clock,
                                      accept=lambda _change: accepted.append(file_text(host)))
            if reboot:
                host.boot()
            assert (verdict is not None) == began
            final = host.store.load("verdict")
            ok = bool(final and final["ok"])
            assert ok <= good and bool(accepted) == ok and set(accepted) <= {_wgconf.render(new)}
            wanted = new if ok else old if had else None
            kept = kept_on(host) if ok else None
            assert file_text(host) == (_wgconf.render(wanted) if wanted else None)
            running = observe(host, kept)
            assert _plan.plan(wanted, running, wanted, kept).reasons == []
            assert host.enabled == ({UNIT} if wanted else set())
            assert _reach.kept_path(host.store, INTERFACE) == kept
            assert ok or not (host.rules[4] or host.rules[6])
            assert not any(os.path.exists(host.store.path(name)) for name in ("pending", "confirm", "last_good")) or not began
            points += 1
        crash_at += 1
    assert points > 15


# --- the controller's path


def test_kept_path_comes_and_goes_with_its_drop_in(host):
    take(host, config())
    kept, path = kept_on(host), os.path.join(host.root, _reach.DROP_IN % INTERFACE)
    assert _reach.keep(host.run, host.services, host.store, INTERFACE, kept)
    assert not _reach.keep(host.run, host.services, host.store, INTERFACE, kept)
    assert os.stat(path).st_mode & 0o777 == 0o644
    assert _reach.kept_path(host.store, INTERFACE) == kept
    assert take(host, config("0.0.0.0/0"), kept).action == "restart"
    assert host.rules[4][0]["fwmark"] == "0x6763" and "inet gatecontrol-wg0" in host.tables
    host.rules[4].append(host.rules[4].pop(0))
    host.rules[4][-1]["priority"] = 32766
    assert _plan.plan(config("0.0.0.0/0"), observe(host), kept=kept).action == "sync", "behind the tunnel's rules it has no effect"
    assert _reach.keep(host.run, host.services, host.store, INTERFACE, None)
    assert not os.path.exists(os.path.dirname(path)) and not os.path.exists(os.path.join(host.root, _reach.BESIDE % INTERFACE))
    assert not any(rule.get("fwmark") == "0x6763" for rule in host.rules[4]) and "inet gatecontrol-wg0" not in host.tables


OLD_DROP_IN = """# Keeps the way to the machine that manages this host outside the tunnel.
[Service]
ExecStartPost=-/sbin/ip -4 rule delete from 192.0.2.10 lookup main
ExecStartPost=/sbin/ip -4 rule add from 192.0.2.10 lookup main
ExecStopPost=-/sbin/ip -4 rule delete from 192.0.2.10 lookup main
"""


def test_the_kept_path_of_release_1_0_becomes_a_new_one(host):
    path = pathlib.Path(host.root, _reach.DROP_IN % INTERFACE)
    path.parent.mkdir(parents=True)
    path.write_text(OLD_DROP_IN)
    take(host, config("0.0.0.0/0"), _reach.kept_path(host.store, INTERFACE))
    assert host.rules[4][0]["src"] == "192.0.2.10"
    kept = _reach.reachability(host.run, config("0.0.0.0/0"), INTERFACE, None, host.root)["kept"]
    assert kept == kept_on(host) != _reach.kept_path(host.store, INTERFACE) == [["ip", *"-4 rule add from 192.0.2.10 lookup main".split()]]
    assert _reach.keep(host.run, host.services, host.store, INTERFACE, kept)
    assert take(host, config("0.0.0.0/0"), kept, config("0.0.0.0/0")).action == "sync"
    assert host.rules[4][0]["fwmark"] == "0x6763" and all(rule["src"] == "all" for rule in host.rules[4])


def lose(host, what):
    if what == "rules":
        host.rules = {4: [], 6: []}
    elif what == "suppress":
        host.rules[4] = [rule for rule in host.rules[4] if "suppress_prefixlen" not in rule]
    elif what == "route":
        host.links[INTERFACE]["routes"] = [route for route in host.links[INTERFACE]["routes"] if route[2] == "kernel"]
    elif what == "table":
        host.tables.clear()
    elif what == "dns":
        host._resolvconf(["-d", INTERFACE], None)
    else:
        host.rules, host.links[INTERFACE]["routes"] = {4: [], 6: []}, []
        host.tables.clear()
        host._resolvconf(["-d", INTERFACE], None)


@pytest.mark.parametrize(
    "what, beside", [("rules", True), ("suppress", True), ("route", True), ("table", False), ("dns", False), ("all", True)]
)
def test_what_is_lost_is_told_and_put_back_live(host, what, beside):
    full, kept = config("0.0.0.0/0, ::/0", interface="DNS = 10.88.0.1\n"), kept_on(host)
    _reach.keep(host.run, host.services, host.store, INTERFACE, kept)
    take(host, full, kept)
    before, handshake = host.seen(INTERFACE), observe(host).peers[PUBLIC]["handshake"]
    assert _plan.lost(full, observe(host, kept), full, kept) == []
    lose(host, what)
    running = observe(host, kept)
    lost = _plan.lost(full, running, full, kept)
    assert lost and any(entry.beside for entry in lost) == beside
    plan = _plan.plan(full, running, full, kept)
    assert plan.action == "sync" and plan.reasons == [entry.text for entry in lost]
    host.log.clear()
    _repair.put_back(host.run, host.store, INTERFACE, full, running, lost, kept)
    assert host.seen(INTERFACE) == before and _plan.lost(full, observe(host, kept), full, kept) == []
    assert not {"stop", "start"} & {step[0] for step in host.log} and not any("syncconf" in step for step in host.log)
    assert observe(host).peers[PUBLIC]["handshake"] > handshake


def test_another_tunnels_rules_stay_in_a_repair(host):
    full = config("0.0.0.0/0")
    take(host, full)
    other = [
        {"priority": 32700, "src": "all", "not": None, "fwmark": "0x1", "table": "1"},
        {"priority": 32699, "src": "all", "table": "254", "suppress_prefixlen": 0},
    ]
    host.rules[4] = list(other)
    running = observe(host)
    _repair.put_back(host.run, host.store, INTERFACE, full, running, _plan.lost(full, running, full))
    assert all(rule in host.rules[4] for rule in other) and _plan.lost(full, observe(host), full) == []


def test_networkd_is_told_to_leave_a_full_tunnel_alone_and_no_longer(host):
    path = pathlib.Path(host.root, _reach.NETWORKD % INTERFACE)
    take(host, config("0.0.0.0/0"))
    assert not path.exists(), "there is no networkd"
    networkd = pathlib.Path(host.root, "usr/lib/systemd/system/systemd-networkd.service")
    networkd.parent.mkdir(parents=True)
    networkd.touch()
    assert not _reach.spared(host.store, config("0.0.0.0/0"), None, INTERFACE)
    take(host, config("0.0.0.0/0"))
    assert "[Network]\nManageForeignRoutingPolicyRules=no\nManageForeignRoutes=no\n" in path.read_text() and path.stat().st_mode & 0o777 == 0o644
    take(host, config())
    assert not path.parent.exists(), "a split tunnel has no rules"
    take(host, config("0.0.0.0/0"))
    assert path.exists() and _step.remove(host.run, host.services, host.store, INTERFACE) and not path.parent.exists()


def route_answers(gateway="192.0.2.254", match=(), nft=0, addresses=()):
    def run(argv, stdin=None):
        if argv[0] == "nft":
            assert argv[1:] == ["-c", "-f", "-"] and "table inet gatecontrol-wg0" in stdin
            return nft, "", ""
        if "get" in argv:
            return 0, '[{"dst": "x", "gateway": "%s", "dev": "eth0"}]' % gateway, ""
        if "address" in argv:
            return 0, json.dumps(addresses), ""
        routes = [
            {"dst": "default", "gateway": "192.0.2.1", "dev": "eth1", "metric": 200},
            {"dst": "default", "gateway": gateway, "dev": "eth0", "metric": 100},
            {"dst": "10.88.0.0/24", "dev": INTERFACE},
        ] + [{"dst": network, "dev": "eth0"} for network in match]
        return 0, json.dumps(routes), ""

    return run


MARKS = [["nft", "-f", "/etc/gatecontrol/beside-wg0.nft"]]
RULE6 = [word.replace("-4", "-6") for word in RULE]
ROUTE = ["ip", "-4", "route", "replace", "203.0.113.5/32", "via", "192.0.2.254", "dev", "eth0"]


@pytest.mark.parametrize(
    "allowed, ssh, match, kept",
    [
        ("0.0.0.0/0", SSH, (), MARKS + [RULE]),
        ("0.0.0.0/0", None, (), MARKS + [RULE]),
        ("0.0.0.0/0", "127.0.0.1 1 127.0.0.1 22", (), MARKS + [RULE]),
        ("::/0", SSH, (), MARKS + [RULE6]),
        ("0.0.0.0/0, ::/0", SSH, (), MARKS + [RULE, RULE6]),
        ("0.0.0.0/0, 203.0.0.0/8", SSH, (), MARKS + [RULE, ROUTE]),
        ("203.0.0.0/8", SSH, (), [ROUTE]),
        ("203.0.0.0/8", "::ffff:203.0.113.5 1 ::ffff:192.0.2.10 22", (), [ROUTE]),
        ("203.0.0.0/8", SSH, ("203.0.113.0/24",), None),
        ("203.0.113.0/24", SSH, ("203.0.0.0/16", "203.0.113.5"), [[*ROUTE[:5], "dev", "eth0"]]),
        ("10.0.0.0/8", SSH, (), None),
        ("10.0.0.0/8", None, (), None),
    ],
)
def test_reachability(allowed, ssh, match, kept):
    assert _reach.reachability(route_answers(match=match), config(allowed), INTERFACE, ssh) == {
        "kept": kept,
        "through": False,
        "reason": None,
    }


# What sshd tells where there is no network: a socket of Unix, vsock, a pipe; and what is no such line at all.
NOWHERE = ["UNKNOWN 65535 UNKNOWN 65535", "UNKNOWN 65535 192.0.2.10 22", "", None, "x", "203.0.113.5 1 192.0.2.10", "fe80::1%eth0 1 fe80::2%eth0 22",
           "2001:db8::1 1 192.0.2.10 22"]


@pytest.mark.parametrize("ssh", NOWHERE)
def test_a_connection_without_addresses_is_none_that_has_to_be_kept(ssh):
    for allowed, kept in (("0.0.0.0/0", MARKS + [RULE]), ("203.0.0.0/8", None), ("203.0.113.5/32", None)):
        assert _reach.reachability(route_answers(), config(allowed), INTERFACE, ssh) == {"kept": kept, "through": False, "reason": None}
        assert _reach.captures(config(allowed), ssh) is allowed.endswith("/0")
        assert _reach.reachability_on_mac(route_answers(), config(allowed), "utun4", ssh)["reason"] is None
    assert not _reach.runs_through(route_answers(), INTERFACE, ssh)


def test_where_nft_or_the_kernel_knows_no_marks_each_address_has_a_rule():
    addresses = [
        {"ifname": "eth0", "addr_info": [{"local": "192.0.2.10", "prefixlen": 24}, {"local": "2001:db8::10", "prefixlen": 64}]},
        {"ifname": "eth1", "addr_info": [{"local": "198.51.100.7", "prefixlen": 24}, {"local": "2001:db8::77", "prefixlen": 64, "temporary": True}]},
        {"ifname": INTERFACE, "addr_info": [{"local": "10.88.0.2", "prefixlen": 32}]},
    ]
    kept = _reach.reachability(route_answers(nft=1, addresses=addresses), config("0.0.0.0/0, ::/0"), INTERFACE, SSH)["kept"]
    assert [(words[1], *words[4:6]) for words in kept] == [
        ("-4", "from", "192.0.2.10"),
        ("-4", "from", "198.51.100.7"),
        ("-6", "from", "2001:db8::10"),
    ]


@pytest.mark.parametrize("table", ["off", "1234"])
def test_other_tables_capture_nothing(table):
    assert _reach.reachability(route_answers(), config("0.0.0.0/0", interface="Table = %s\n" % table), INTERFACE, SSH)["kept"] is None
