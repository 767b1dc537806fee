# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What machines do to a tunnel: upgrades restart their services, leases change, IPv6 goes and comes. Each host comes back without a play."""

from __future__ import annotations

import base64
import json
import shlex
import time

import network
import pytest
from conftest import WITHIN
from scenario import until

UNIT = "/etc/systemd/system/gatecontrol-beat.service"
DROP_IN = "/etc/systemd/system/wg-quick@wg0.service.d/50-gatecontrol.conf"
NETWORKD = "/etc/systemd/networkd.conf.d/50-gatecontrol-wg0.conf"


STILL = """
systemctl stop gatecontrol-beat.timer
while systemctl list-units --no-legend --state=activating,deactivating 'gatecontrol-*' | grep -q .; do sleep 0.2; done
"""


def still(lab, hosts):
    """No beat and no repair begins on hosts until their timer is started, and none is under way: one that was killed would be drift."""
    lab.each(hosts, lambda host: lab.on(host, STILL))


def in_sandbox(lab, host, words):
    """Run the agent with nothing but what the beat's unit leaves it."""
    lines = lab.on(host, "sed -n '/^.Service.$/,$p' %s" % UNIT).splitlines()
    kept = [line for line in lines if line[:1].isupper() and not line.startswith(("Type=", "ExecStart=", "TimeoutStartSec="))]
    assert "CapabilityBoundingSet=CAP_NET_ADMIN" in kept and "ProtectSystem=strict" in kept and len(kept) > 25
    properties = " ".join("-p " + shlex.quote(line) for line in kept if not line.endswith("="))
    return lab.on(host, "systemd-run --quiet --wait --pipe %s /usr/local/sbin/gatecontrol-agent %s" % (properties, words))


def verified(lab, host):
    """What a play would find: in sync, drift, what is to be done."""
    wanted = base64.b64encode(json.dumps({"check": True}).encode()).decode()
    return json.loads(in_sandbox(lab, host, "verify " + wanted).split(":", 1)[1])


def test_all_that_a_beat_reads_can_be_read_in_its_sandbox(lab):
    still(lab, lab.names)

    def look(host):
        # The beat has 5 s, which a busy machine may need for less; what its sandbox refuses it refuses each time.
        assert until(lambda: json.loads(in_sandbox(lab, host, "beat --json"))["error"] is None, WITHIN), lab.show(host)
        assert json.loads(in_sandbox(lab, host, "show --json"))["beside_tunnel"] == []
        answer = verified(lab, host)
        # All it misses is the timer, which was stopped here.
        assert answer["drift"] == ["gatecontrol-beat.timer is inactive"] and answer["tunnel"]["action"] == "none", answer
        # The sandbox told what the resolver has: it is asked, not guessed.
        lab.on(host, "resolvectl revert wg0" if host in lab.cloud else "resolvconf -f -d wg0")
        answer = verified(lab, host)
        assert "DNS differs: + %s, + corp.test" % lab.scenario.gateway in answer["drift"], answer
        lab.on(host, "systemctl start gatecontrol-repair")

    lab.each(lab.names, look)


def test_a_beat_is_answered_soon_and_a_second_run_changes_nothing(lab):
    for host in lab.names:
        assert time.time() - lab.show(host)["last_beat"] < 75
    second = lab.scenario.play().ok()
    assert [second.changed(host) for host in lab.names] == [[]] * len(lab.names)
    assert all(second.seen(host)["in_sync"] and second.seen(host)["asked"] == "agent" for host in lab.names)


def starts(lab, hosts):
    """When the tunnel of each host was started."""
    return lab.each(hosts, lambda host: lab.on(host, "systemctl show -p ActiveEnterTimestampMonotonic wg-quick@wg0"))


def found_again(lab, hosts, before, started):
    """Let the beats go on, and wait."""
    lab.each(hosts, lambda host: lab.on(host, "systemctl start gatecontrol-beat.timer"))
    lab.comes_back(hosts, before)

    for host in hosts:
        assert lab.scenario.echo(host, 4096) == 4096 and lab.reachable(host), host
    assert starts(lab, hosts) == started, "it was put back live"


RULES = "for f in 4 6; do ip -$f rule del not fwmark 51820; ip -$f rule del suppress_prefixlength 0 table main; done"
BESIDE = {"cloud12": RULES, "cloud13": "ip rule del suppress_prefixlength 0 table main", "plain12": "ip route del default table 51820", "plain13": RULES}
INSIDE = "systemctl restart nftables; ! nft list tables | grep wg0; if [ -d /run/resolvconf ]; then resolvconf -f -d wg0; else resolvectl revert wg0; fi"


@pytest.mark.parametrize("beside", [True, False], ids=["rules and routes", "firewall and names"])
def test_what_is_gone_comes_back_with_the_next_beat(lab, beside):
    before, started = lab.each(lab.names, lab.state), starts(lab, lab.names)
    still(lab, lab.names)

    def lose(host):
        lab.on(host, BESIDE[host] if beside else INSIDE)
        said = lab.show(host)
        assert bool(said["beside_tunnel"]) == beside and said["status"] == "connected", said
        assert ("traffic passes beside it" in lab.on(host, "gatecontrol-agent show")) == beside
        lab.on(host, "systemctl start gatecontrol-beat.service || true")  # it tells of what it found, and has it put back
        assert lab.metric(host, "beside_tunnel") == str(int(beside))

    lab.each(lab.names, lose)
    found_again(lab, lab.names, before, started)
    lab.each(lab.names, lambda host: lab.on(host, "systemctl start gatecontrol-beat.service || true"))
    assert {lab.metric(host, "beside_tunnel") for host in lab.names} == {"0"}


def test_networkd_leaves_a_tunnel_alone_and_what_it_took_comes_back(lab):
    before, started = lab.each(lab.cloud, lab.state), starts(lab, lab.cloud)

    def left_alone(host):
        assert "ManageForeignRoutingPolicyRules=no" in lab.on(host, "cat " + NETWORKD)
        lab.on(host, "systemctl restart systemd-networkd; networkctl reconfigure eth0; sleep 2")
        assert lab.state(host) == before[host] and lab.show(host)["beside_tunnel"] == []

    lab.each(lab.cloud, left_alone)
    still(lab, lab.cloud)

    def taken(host):
        lab.on(host, "rm %s; systemctl restart systemd-networkd; networkctl reconfigure eth0" % NETWORKD)
        assert until(lambda: any("ip rules" in reason for reason in lab.show(host)["beside_tunnel"]), 20), lab.show(host)

    lab.each(lab.cloud, taken)
    found_again(lab, lab.cloud, before, started)
    for host in lab.names:
        if host not in lab.cloud:  # who may get networkd one day
            assert ("No such file" in lab.state(host)) == (lab.on(host, "ls /lib/systemd/system/systemd-networkd.service", check=False) == "")


def test_the_controller_finds_a_host_at_its_new_address(lab):
    """A new lease, and the machine starts elsewhere: no beat and no play comes between."""
    name = lab.cloud[-1]
    net, known = lab.run.host(name)
    old, new = known.address, str(net.hosts[77])
    leases = {lab.run.host(host)[1].address: lab.run.host(host)[1].address for host in lab.cloud}
    lab.on(name, "systemctl restart systemd-networkd")  # as at a boot: it was told of the tunnel when it ran already
    net.lease(lab.run.folder, dict(leases, **{old: new}))
    lab.on(name, "systemctl stop gatecontrol-beat.timer; networkctl reconfigure eth0")
    try:
        assert until(lambda: new in lab.on(name, "ip -4 -o address show eth0"), 20)
        assert until(lambda: lab.reachable(name, new), 20) and not lab.reachable(name)
        lab.on(name, "systemctl start gatecontrol-beat.timer")
        play = lab.scenario.play(limit=[name], ansible_host=new).ok()
        assert play.changed(name) == [], play.seen(name)["drift"]
    finally:
        net.lease(lab.run.folder, leases)
        lab.on(name, "systemctl start gatecontrol-beat.timer; networkctl reconfigure eth0")
    assert until(lambda: lab.reachable(name), 30)


def test_a_kept_way_of_before_becomes_one_that_follows(lab):
    host = next(name for name in lab.names if name not in lab.cloud)
    before = {host: lab.state(host)}
    address = lab.run.host(host)[1].address
    old = "\\n".join(["[Service]", "ExecStartPost=-/sbin/ip -4 rule delete from {0} lookup main", "ExecStartPost=/sbin/ip -4 rule add from {0} lookup main",
                      "ExecStopPost=-/sbin/ip -4 rule delete from {0} lookup main", ""]).format(address)
    still(lab, [host])
    lab.on(host, "systemctl stop wg-quick@wg0; printf '%s' > %s; systemctl daemon-reload; systemctl start wg-quick@wg0" % (old, DROP_IN))
    assert "from %s lookup main" % address in lab.state(host) and lab.reachable(host)
    found_again(lab, [host], before, starts(lab, [host]))
    assert "from %s" % address not in lab.on(host, "ip rule; cat " + DROP_IN)


def ipv6(lab, host, on):
    lab.on(host, "for where in all default; do sysctl -qw net.ipv6.conf.$where.disable_ipv6=%d; done" % (not on))


def test_ipv6_goes_and_comes_and_the_tunnel_with_it(lab):
    hosts = [lab.cloud[0], lab.names[-1]]
    before = {host: lab.state(host) for host in hosts}
    try:
        for host in hosts:
            ipv6(lab, host, False)
        for host in hosts:
            assert until(lambda name=host: "::/0" not in lab.on(name, "cat /etc/wireguard/wg0.conf") and not lab.show(name)["pending"], WITHIN + 20), lab.on(
                host, "gatecontrol-agent show; journalctl -n 40 --no-pager -u gatecontrol-apply -u gatecontrol-repair", check=False)
            shown = lab.show(host)
            assert shown["left_out"] == ["::/0"] and shown["beside_tunnel"] == [] and shown["verdict"]["ok"], shown
            assert "IPv6 is switched off on this host, so these are left out: ::/0" in lab.on(host, "gatecontrol-agent show")
            answer = verified(lab, host)
            assert answer["in_sync"] and answer["tunnel"]["action"] == "none", answer
        lab.scenario.play(limit=hosts, gatecontrol_state="absent").ok()
        enrolled = lab.scenario.play(limit=hosts, gatecontrol_adopt=True).ok()  # by the same token: it is the same peer
        assert enrolled.text.count("IPv6 is switched off on this host, so ::/0 is left out") >= 1, enrolled.text
    finally:
        for host in hosts:
            ipv6(lab, host, True)
    lab.comes_back(hosts, before, WITHIN + 20)


def test_a_resolver_that_was_switched_off_is_named(lab):
    """It is the one that resolvconf belongs to: wg-quick could not start the tunnel any more, and would not say why."""
    host = lab.cloud[0]
    before = {host: lab.state(host)}
    lab.on(host, "systemctl disable --quiet --now systemd-resolved")
    try:
        play = lab.scenario.play(limit=[host], gatecontrol_persistent_keepalive=11)
        assert play.status and "systemd-resolved is switched off on this host" in play.error(host), play.text
        assert lab.show(host)["status"] == "connected", "nothing was touched"
        lab.scenario.room("reboot", host)
        assert until(lambda: "systemd-resolved is switched off" in lab.on(host, "journalctl --no-pager -u gatecontrol-repair", check=False), WITHIN)
        assert lab.show(host)["status"] == "disconnected" and lab.reachable(host)
    finally:
        lab.on(host, "systemctl enable --quiet --now systemd-resolved")
    lab.comes_back([host], before, WITHIN + 20)
    lab.scenario.play(limit=[host]).ok()  # what the play that was refused wanted is not wanted any more


def test_at_the_end_all_is_as_the_play_wants_it(lab):
    last = lab.scenario.play().ok()
    assert all(last.seen(host)["in_sync"] for host in lab.names), [last.seen(host)["drift"] for host in lab.names]
    assert network.namespaces(lab.scenario.mark)
