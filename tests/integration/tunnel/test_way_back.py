# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Armed changes of a real tunnel: proven, confirmed, or gone back from; the controller's path kept open."""

from __future__ import annotations

import os
import threading
import time

import pytest

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _change, _enrollment, _observe, _plan, _reach, _repair, _wgconf

SSH = "198.18.3.10 40000 198.18.1.10 22"


def change(lab, config, timeout=20, confirm_by="server", kept=None, prove=None, accept=None):
    """Arm a change and run it; (verdict, seconds)."""
    lab.store.save("candidate", _wgconf.render(config))
    begin = time.monotonic()
    _change.arm(lab.store, lab.interface, confirm_by=confirm_by, timeout=timeout, kept=kept)
    verdict = _change.run_armed(lab.run, lab.services, lab.store, prove, accept, probe=lab.probe, sleep=lambda s: time.sleep(min(s, 0.1)))
    assert verdict == lab.store.load("verdict")
    assert not any(os.path.exists(lab.store.path(name)) for name in ("pending", "confirm", "candidate", "last_good"))
    return verdict, time.monotonic() - begin


def restarted(lab):
    """Restart the tunnel into lab.config(); the seconds that takes on this machine now."""
    lab.apply(lab.config("0.0.0.0/0"))
    begin = time.monotonic()
    assert lab.apply(lab.config()).action == "restart"
    return time.monotonic() - begin


def intact(lab, config, kept=None):
    """The tunnel runs a config, its file says so, and the hub answers through it."""
    assert lab.plan(config, kept).reasons == []
    assert _enrollment.read_text(_observe.config_path(lab.store, lab.interface)) == _wgconf.render(config)
    assert lab.answers()


def damaged(lab, allowed="10.88.0.0/24", **values):
    config = lab.config(allowed, peer="PersistentKeepalive = 1\n")
    config.peers[0].update(values)
    return config


def test_proven_changes_stay(lab):
    accepted = []
    first, second, third = lab.config(), lab.config("10.88.0.0/24, 10.88.7.0/24"), lab.config("0.0.0.0/0")
    for config, action in ((first, "up"), (second, "sync"), (third, "restart")):
        verdict, _seconds = change(lab, config, accept=lambda _change: accepted.append(1))
        assert (verdict["ok"], verdict["reason"], verdict["action"]) == (True, None, action)
        intact(lab, config)
    assert len(accepted) == 3


@pytest.mark.parametrize("allowed", ["10.88.0.0/24", "0.0.0.0/0"])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda: {"PublicKey": _wgconf.public_key(_wgconf.clamp("A" * 42 + "I="))},
        lambda: {"Endpoint": "198.18.2.77:51820"},
        lambda: {"Endpoint": "198.18.2.10:9"},
        lambda: {"PresharedKey": "B" * 42 + "I="},
    ],
    ids=["server key", "endpoint", "port", "preshared key"],
)
def test_a_change_that_cuts_the_tunnel_is_undone_in_time(lab, wrong, allowed):
    slow = restarted(lab)
    assert lab.answers()
    verdict, seconds = change(lab, damaged(lab, allowed, **wrong()), timeout=2)
    assert not verdict["ok"] and "no answer from the WireGuard peer" in verdict["reason"]
    assert verdict["action"] == ("sync" if allowed == "10.88.0.0/24" else "restart")
    assert seconds < 2 + 1 + 3 * slow
    intact(lab, lab.config())


def test_after_a_rollback_the_next_good_change_works(lab):
    lab.apply(lab.config())
    assert not change(lab, damaged(lab, Endpoint="198.18.2.77:51820"), timeout=2)[0]["ok"]
    assert change(lab, lab.config("0.0.0.0/0"))[0]["ok"]
    intact(lab, lab.config("0.0.0.0/0"))


def test_a_first_tunnel_that_fails_leaves_nothing(lab):
    verdict, _seconds = change(lab, damaged(lab, Endpoint="198.18.2.77:51820"), timeout=2)
    assert not verdict["ok"]
    assert lab.observe() is None and not lab.services.enabled
    assert not os.path.exists(_observe.config_path(lab.store, lab.interface))


def test_a_server_that_does_not_answer_undoes_the_change(lab):
    lab.apply(lab.config())
    verdict, _seconds = change(lab, lab.config("0.0.0.0/0"), prove=lambda _until: "the server said 502")
    assert not verdict["ok"] and verdict["reason"] == "the server said 502"
    intact(lab, lab.config())


def test_the_controller_confirms_or_the_change_is_undone(lab):
    slow = restarted(lab)
    verdict, seconds = change(lab, lab.config("0.0.0.0/0"), timeout=6, confirm_by="controller")
    assert not verdict["ok"] and "did not come back over a new connection within 6 s" in verdict["reason"]
    assert 3.6 <= seconds < 6 + 1 + 3 * slow
    intact(lab, lab.config())

    answers = []

    def come_back():
        while lab.store.load("pending") is None:
            time.sleep(0.05)
        name = lab.store.load("pending")["id"]
        assert _change.confirm(lab.store, "another change", wait=0.2)["reason"].startswith("this host knows nothing of the change")
        word = _change.confirm(lab.store, name, wait=10)["confirm"]
        assert lab.store.text("confirm") == name
        answers.append(_change.confirm(lab.store, word, wait=10))

    controller = threading.Thread(target=come_back)
    controller.start()
    verdict, seconds = change(lab, lab.config("0.0.0.0/0"), timeout=20, confirm_by="controller")
    controller.join()
    assert verdict["ok"] and answers == [verdict] and seconds < 10
    intact(lab, lab.config("0.0.0.0/0"))


def test_a_second_change_has_to_wait(lab):
    lab.store.save("candidate", _wgconf.render(lab.config()))
    _change.arm(lab.store, lab.interface)
    with pytest.raises(_observe.TunnelError, match="another change"):
        _change.arm(lab.store, lab.interface)


@pytest.mark.parametrize(
    "allowed, word", [("0.0.0.0/0", "fwmark"), ("198.18.0.0/16, 10.88.0.0/24", "route"), ("0.0.0.0/1, 128.0.0.0/1", "route")]
)
def test_the_controllers_path_stays_open(lab, allowed, word):
    lab.apply(lab.config())
    assert lab.reaches_host()
    config = lab.config(allowed)
    if word == "route":  # the hub itself must stay outside as well
        lab.must("host", "ip route replace 198.18.2.10/32 via 198.18.1.1")
    path = _reach.reachability(lab.run, config, lab.interface, SSH, lab.root)
    assert path["reason"] is None and not path["through"] and word in path["kept"][-1]
    kept = path["kept"]
    assert change(lab, config)[0]["ok"]
    assert not lab.reaches_host(), "without a kept path the host is cut off"
    verdict = change(lab, config, kept=kept)[0]
    assert verdict["ok"], verdict
    assert lab.reaches_host()
    intact(lab, config, kept)
    assert _reach.kept_path(lab.store, lab.interface) == kept
    again = _reach.reachability(lab.run, config, lab.interface, SSH, lab.root)
    assert again == {"kept": kept, "through": False, "reason": None}, "asked again, it says the same"

    lab.services.stop(_observe.unit_of(lab.interface))
    assert not traces(lab), "it goes away with the tunnel"
    lab.services.start(_observe.unit_of(lab.interface))
    assert lab.reaches_host(), "and it comes back with it, as at boot"
    for command in kept:
        lab.must("host", " ".join(_reach._opposite(command)))
        assert not lab.reaches_host()
        assert lab.apply(config, kept).action == "sync"
        assert lab.reaches_host(), "its drift is repaired"

    verdict, _seconds = change(lab, lab.config("10.88.0.0/24"), prove=lambda _until: "no")
    assert not verdict["ok"]
    assert lab.reaches_host() and _reach.kept_path(lab.store, lab.interface) == kept, "it comes back with the old config"
    assert change(lab, lab.config("10.88.0.0/24"))[0]["ok"]
    assert _reach.kept_path(lab.store, lab.interface) is None and not traces(lab)
    lab.in_namespace("host", "ip route delete 198.18.2.10/32".split())


SPEAKER = """
import os, socket, sys, time
server = socket.create_server(('', 2223)); print('', flush=True)
one = server.accept()[0]
while not os.path.exists(sys.argv[1]): time.sleep(0.05)
one.sendall(b'the word')
"""
LISTENER = "import socket; s = socket.create_connection(('198.18.1.10', 2223), 10); print('', flush=True); print(s.recv(99).decode())"


def test_who_asks_before_the_step_and_then_is_silent_is_answered_after_it(lab, tmp_path):
    """As the controller, which waits for the word. An answer that went into the tunnel would have to wait for the other end's next packet."""
    lab.apply(lab.config())
    config, said, waiting = lab.config("0.0.0.0/0"), tmp_path / "said", []
    kept = _reach.reachability(lab.run, config, lab.interface, SSH, lab.root)["kept"]
    lab.spawn("host", SPEAKER, str(said))

    def sleep(seconds):
        if not waiting:
            waiting.append(lab.spawn("controller", LISTENER))
        time.sleep(min(seconds, 0.1))

    lab.store.save("candidate", _wgconf.render(config))
    _change.arm(lab.store, lab.interface, confirm_by="server", timeout=20, kept=kept)
    verdict = _change.run_armed(lab.run, lab.services, lab.store, lambda _until: said.touch(), probe=lab.probe, sleep=sleep)
    assert verdict["ok"], verdict
    assert waiting[0].stdout.read() == "the word\n"


def test_a_step_that_is_not_taken_leaves_no_marks(lab):
    lab.apply(lab.config())
    kept = _reach.reachability(lab.run, lab.config("0.0.0.0/0"), lab.interface, SSH, lab.root)["kept"]
    lab.store.save("candidate", _wgconf.render(lab.config("0.0.0.0/0")))
    _change.arm(lab.store, lab.interface, confirm_by="server", timeout=20, kept=kept)
    lab.store.save("candidate", _wgconf.render(lab.config("10.88.7.0/24")))
    verdict = _change.run_armed(lab.run, lab.services, lab.store, sleep=lambda s: time.sleep(min(s, 0.1)))
    assert not verdict["ok"] and "not the one that lies there now" in verdict["reason"]
    assert not traces(lab) and not os.path.exists(os.path.join(lab.root, _reach.BESIDE % lab.interface))
    intact(lab, lab.config())


def traces(lab):
    """What a kept path leaves in the kernel."""
    seen = lab.must("host", "ip route show") + lab.rules() + lab.must("host", "nft list tables")
    return [word for word in ("198.18.3.10", "0x6763", "gatecontrol-", "from 198.18.1.10") if word in seen]


@pytest.mark.parametrize("strict", [0, 1], ids=["no filter", "strict reverse path filter"])
def test_the_way_follows_the_machine(lab, strict):
    """Another address, another interface, and both at once: no command on the host says so."""
    config = lab.config("0.0.0.0/0")
    kept = _reach.reachability(lab.run, config, lab.interface, SSH, lab.root)["kept"]
    for device in ("all", "eth0"):
        lab.must("host", "sysctl -q net.ipv4.conf.%s.rp_filter=%d" % (device, strict))
    assert change(lab, config, kept=kept)[0]["ok"] and lab.reaches_host()
    try:
        lab.must("host", "ip address add 198.18.1.77/24 dev eth0")
        assert lab.reaches_host("198.18.1.77")
        assert lab.answers("192.0.2.1"), "what the host begins goes through the tunnel"
        lab.must("host", "ip address flush dev eth0 scope global")
        lab.must("host", "ip address add 198.18.1.77/24 dev eth0")
        lab.must("host", "ip route replace default via 198.18.1.1")
        assert lab.reaches_host("198.18.1.77") and not lab.reaches_host("198.18.1.10")
        assert "dev %s " % lab.interface in lab.must("host", "ip route get 198.18.3.10"), "what it begins itself still goes through the tunnel"
    finally:
        for device in ("all", "eth0"):
            lab.must("host", "sysctl -q net.ipv4.conf.%s.rp_filter=0" % device)
        lab.in_namespace("host", "ip address flush dev eth0 scope global".split())
        lab.must("host", "ip address add 198.18.1.10/24 dev eth0")
        lab.must("host", "ip route replace default via 198.18.1.1")


def test_a_route_to_the_controller_follows_the_gateway(lab):
    """Kept by the gateway of before, it is another command now, which is what a beat finds."""
    config = lab.config("198.18.3.0/24, 10.88.0.0/24")
    first = _reach.reachability(lab.run, config, lab.interface, SSH, lab.root)["kept"]
    assert first == [["ip", "-4", "route", "replace", "198.18.3.10/32", "via", "198.18.1.1", "dev", "eth0"]]
    assert change(lab, config, kept=first)[0]["ok"] and lab.reaches_host()
    lab.must("router", "ip address add 198.18.1.254/24 dev to-host")
    lab.must("host", "ip route replace default via 198.18.1.254")
    try:
        second = _reach.reachability(lab.run, config, lab.interface, SSH, lab.root)["kept"]
        assert second == [["ip", "-4", "route", "replace", "198.18.3.10/32", "via", "198.18.1.254", "dev", "eth0"]]
        assert _reach.keep(lab.run, lab.services, lab.store, lab.interface, second)
        assert lab.apply(config, second).action == "sync" and lab.reaches_host()
        assert "198.18.3.10 via 198.18.1.254" in lab.must("host", "ip route show")
    finally:
        lab.must("host", "ip route replace default via 198.18.1.1")
        lab.must("router", "ip address delete 198.18.1.254/24 dev to-host")


LOSSES = {
    "rules": [
        "ip -4 rule delete fwmark 0x6763 lookup main",
        "ip -4 rule delete not fwmark 51820 table 51820",
        "ip -4 rule delete table main suppress_prefixlength 0",
    ],
    "one rule": ["ip -4 rule delete table main suppress_prefixlength 0"],
    "route": ["ip route delete default table 51820"],
    "tables": ["nft flush ruleset"],
}


@pytest.mark.parametrize("what", LOSSES)
def test_what_a_tunnel_has_lost_is_put_back_live(lab, what):
    """As systemd-networkd and nftables.service take it when they start. It is the table of wg-quick itself that comes back, line by line."""
    config = lab.config("0.0.0.0/0")
    kept = _reach.reachability(lab.run, config, lab.interface, SSH, lab.root)["kept"]
    assert change(lab, config, kept=kept)[0]["ok"]
    before, rules, port = lab.must("host", "nft list ruleset"), lab.rules(), lab.port_at_hub()
    for command in LOSSES[what]:
        lab.must("host", command)
    running = lab.observe(kept)
    lost = _plan.lost(config, running, config, kept)
    assert lost and any(entry.beside for entry in lost) == (what != "tables"), [entry.text for entry in lost]
    _repair.put_back(lab.run, lab.store, lab.interface, config, running, lost, kept)
    intact(lab, config, kept)
    assert by_table(lab.must("host", "nft list ruleset")) == by_table(before)
    assert [line.split(":", 1)[1] for line in lab.rules().splitlines()] == [line.split(":", 1)[1] for line in rules.splitlines()]
    assert lab.answers("192.0.2.1") and lab.reaches_host() and lab.port_at_hub() == port


def by_table(text):
    """A ruleset's tables in any order."""
    return sorted(part.strip() for part in text.split("table ")[1:])


@pytest.mark.parametrize(
    "allowed, ssh, kept, reason",
    [
        ("10.88.0.0/24", SSH, None, None),
        ("10.88.0.0/24, 198.18.0.0/16", "", None, None),
        ("198.18.0.0/16", "127.0.0.1 1 127.0.0.1 22", None, None),
        ("10.88.0.0/16", "10.88.0.1 1 10.88.0.2 22", None, "runs through"),
        ("198.18.3.10/32", SSH, None, "no route can keep"),
        ("198.18.0.0/16", "198.18.1.1 1 198.18.1.10 22", None, None),
    ],
    ids=["not captured", "no ssh", "loopback", "through the tunnel", "its own address", "a nearer route wins"],
)
def test_when_no_path_needs_or_can_be_kept(lab, allowed, ssh, kept, reason):
    lab.apply(lab.config())
    path = _reach.reachability(lab.run, lab.config(allowed), lab.interface, ssh)
    assert path["kept"] == kept
    assert reason in path["reason"] if reason else path["reason"] is None
    assert path["through"] == (reason == "runs through")
