# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No change of a tunnel locks anybody out, and none drops more than it must. Every change has WITHIN seconds to be proven and confirmed."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shlex
import subprocess
import time

import machine
import pytest
import yaml
from lab import CHECKOUT, FOLDER, WITHIN, Change, Packets, changed, together, wait_until

SLACK = 3  # seconds: the way back on a machine whose two cores are shared by twenty hosts
LATE = 5  # seconds after its deadline at which a change is over, whatever happens
DARK = "198.51.100.9"  # answers nobody (RFC 5737)
FULL = "0.0.0.0/0"


@contextlib.contextmanager
def network_events(host):
    """What happens to links, addresses, routes and rules of a host meanwhile, as lines of text."""
    monitor = subprocess.Popen(["ip", "netns", "exec", host.container, "ip", "-o", "monitor", "link", "address", "route", "rule"],
                               stdout=subprocess.PIPE, text=True)
    time.sleep(0.2)
    seen = []
    try:
        yield seen
    finally:
        time.sleep(0.2)
        monitor.terminate()
        seen += monitor.communicate()[0].splitlines()


# --- a fleet


def test_twenty_hosts_changed_at_once_five_at_a_time_all_keep_their_change(lab):
    """Comes first: the hosts are as converge has left them, and the server has got another MTU since."""
    hosts = lab.hosts()
    assert len(hosts) == 20
    play = lab.play(*hosts, forks=5, gatecontrol_confirm_timeout=40).ok()
    for host, link in zip(hosts, together(lambda host: host.root("ip link show wg0"), hosts)):
        assert play.tunnel(host)["action"] == "restart" and play.tunnel(host)["changed"] and "mtu 1400" in link
    print(f"20 hosts, forks 5: {play.seconds:.0f} s, none rolled back")


# --- never more than it must


@pytest.mark.parametrize("tunnel", ["split", "full"])
def test_a_change_of_the_peer_only_loses_no_packet_and_keeps_the_source_port(lab, tunnel):
    first = {"split": lab.network, "full": FULL}[tunnel]
    lab.settings(allowed_ips=first)
    [host] = lab.enrolled("still")
    mark, port = host.root("wg show wg0 fwmark"), host.port()
    assert (mark.strip() == "off") == (tunnel == "split")
    lab.settings(allowed_ips=first + ", 10.99.0.0/16")
    lab.peer(host, persistent_keepalive={"split": 13, "full": 17}[tunnel])
    with Packets(host) as packets:
        play = lab.play(host).ok()
    assert play.tunnel(host)["action"] == "sync" and play.tunnel(host)["changed"]
    assert packets.sent >= 250 and packets.lost == 0, (packets.sent, packets.lost)
    assert host.port() == port and host.root("wg show wg0 fwmark") == mark
    assert "10.99.0.0/16 dev wg0" in host.root("ip route show table all")
    print(f"{tunnel}: {packets.lost} of {packets.sent} lost")


@pytest.mark.parametrize("tunnel", ["split", "full"])
def test_an_unchanged_run_touches_nothing(lab, tunnel):
    lab.settings(allowed_ips={"split": lab.network, "full": FULL}[tunnel])
    [host] = lab.enrolled("still")
    before = host.look()
    with network_events(host) as events:
        play = lab.play(host).ok()
        host.agent("sync")
    assert play.changed(host) == [] and play.run.seen(host.name)["in_sync"]
    assert events == [] and host.look() == before


def test_a_tunnel_taken_away_leaves_no_rule_behind(lab):
    lab.settings(allowed_ips=FULL)
    [host] = lab.enrolled("still")
    assert "lookup 51820" in host.rules()
    lab.play(host, gatecontrol_state="absent").ok()
    assert re.findall(r"lookup (\w+)", host.rules()) == ["local", "main", "default", "local", "main"]
    assert "wg0" not in host.root("ip link; nft list tables; ls /etc/gatecontrol 2>/dev/null; ls /etc/wireguard /etc/systemd/system")


# --- a full tunnel keeps the controller's way open


def kept(host):
    """Whether what comes in beside the tunnel is answered beside it: by a mark, and not by a rule that names an address."""
    rules = host.rules()
    assert f"from {host.address}" not in rules, rules
    marked, table = rules.count("fwmark 0x6763 lookup main"), "table inet gatecontrol-wg0\n" in host.root("nft list tables")
    assert (marked == 1) == table and marked < 2, (rules, table)
    return table


def test_without_the_kept_path_a_full_tunnel_cuts_the_controller_off(lab):
    [host] = lab.enrolled("full")
    before = host.as_before()
    lab.settings(allowed_ips=FULL)
    with Change(host) as change:
        play = lab.play(host, gatecontrol_keep_reachable=False, gatecontrol_allow_full_tunnel=True)
        seconds = change.wait_settled()
    print(f"back after {seconds:.1f} s")
    assert change.late <= LATE and seconds <= 2 * WITHIN + SLACK
    assert "the controller did not come back" in play.undone(host)
    assert host.as_before() == before and host.reachable()


def test_a_full_tunnel_that_the_server_pushes_keeps_the_controllers_way_open_for_good(lab):
    [host] = lab.enrolled("full")
    rules = host.rules()
    assert not kept(host)
    lab.settings(allowed_ips=FULL)
    play = lab.play(host).ok()
    assert play.tunnel(host)["changed"] and kept(host)
    assert host.reachable() and host.answered()
    reboot(host)
    assert host.reachable() and host.answered() and kept(host)
    lab.settings(allowed_ips=lab.network)
    lab.play(host).ok()
    assert host.rules() == rules and not kept(host) and host.reachable() and host.answered()


def test_the_agent_alone_keeps_the_controllers_way_open_as_well(lab):
    [host] = lab.enrolled("agent")
    rules = host.rules()
    lab.settings(allowed_ips=FULL)
    take_offer(host)
    assert host.show()["verdict"]["ok"] and kept(host)
    assert host.reachable() and host.answered()
    reboot(host)
    assert host.reachable() and host.answered() and kept(host)
    lab.settings(allowed_ips=lab.network)
    take_offer(host)
    assert host.rules() == rules and not kept(host) and host.reachable() and host.answered()


def reboot(host):
    """Reboot a host and wait for its tunnel, without which it would be reached in any case."""
    host.reboot()
    wait_until(host.answered, 60, f"the tunnel of {host} did not come back")


def take_offer(host):
    """Have the agent ask for a new config and wait until it has settled the change; the seconds that took."""
    with Change(host) as change:
        host.agent("sync")
        return change.wait_settled()


# --- a config that cuts the host off

CUTTING = {  # by host: what is wrong, and what the reason has to name
    "endpoint": (lambda text: changed(text, Endpoint=DARK + ":51820", AllowedIPs=FULL), f"no answer from the WireGuard peer .* at {DARK}:51820"),
    "dns": (lambda text: changed(text, DNS=DARK), "gateway.test.*(not known|resol)"),
    "key": (lambda text: changed(text, PublicKey=other_key()), "no answer from the WireGuard peer"),
}


def other_key():
    """The public key of nobody."""
    return subprocess.run("wg genkey | wg pubkey", shell=True, capture_output=True, text=True, check=True).stdout.strip()


def push_cutting(lab, hosts):
    """Have the server issue each of these hosts a config that cuts it off, and return what they are like before."""
    for host in hosts:
        cut = {"powercut": "key"}.get(host.name, host.name)
        lab.offer(host, CUTTING.get(cut, CUTTING["endpoint"])[0](host.issued()))
    return dict(zip(hosts, together(lambda host: host.as_before(), hosts)))


def intact(lab, before):
    """The hosts are as they were, reachable, connected, and the next good change works."""
    hosts = list(before)
    assert dict(zip(hosts, together(lambda host: host.as_before(), hosts))) == before
    assert together(lambda host: (host.reachable(), host.answered()), hosts) == [(True, True)] * len(hosts)
    lab.scenario.no_faults()
    lab.settings(allowed_ips=lab.network + ", 10.98.0.0/16")
    play = lab.play(*hosts).ok()
    for host in hosts:
        assert play.tunnel(host)["changed"] and "10.98.0.0/16" in host.root("wg show wg0 allowed-ips")


def test_a_config_that_cuts_the_host_off_is_undone_in_time_and_the_play_says_why(lab):
    hosts = lab.enrolled(*CUTTING)
    before = push_cutting(lab, hosts)
    for host in hosts:  # one after another: the seconds are to be the host's own
        with Change(host) as change:
            play = lab.play(host)
            seconds = change.wait_settled()
        print(f"{host}: back after {seconds:.1f} s; {play.undone(host)}")
        assert seconds <= WITHIN + SLACK and re.search(CUTTING[host.name][1], play.undone(host))
    intact(lab, before)


def test_the_controller_may_die_in_the_middle(lab):
    hosts = lab.enrolled(*CUTTING, "good")
    before = push_cutting(lab, hosts[:-1])
    before[hosts[-1]] = hosts[-1].as_before()
    slow_proof(lab, hosts[-1])
    lab.offer(hosts[-1], changed(hosts[-1].issued(), MTU="1380"))
    for host in hosts:
        with Change(host) as change:
            begun = lab.start(host)
            change.wait_armed()
            lab.kill(begun)
            seconds = change.wait_settled()
        print(f"{host}: back after {seconds:.1f} s; {host.show()['verdict']['reason']}")
        assert change.late <= LATE and seconds <= (2 if host is hosts[-1] else 1) * WITHIN + SLACK and not host.show()["verdict"]["ok"]
    assert "the controller did not come back" in hosts[-1].show()["verdict"]["reason"]
    intact(lab, before)


def slow_proof(lab, host):
    """Have a change proven, and so ready to be confirmed, 3 s later than it would be: time to get in between. Comes before an offer."""
    lab.fault("delay", host, path="*/heartbeat", seconds=3)


def test_the_host_may_be_rebooted_or_lose_its_power_in_the_middle(lab):
    hosts = lab.enrolled("reboot", "powercut")
    before = push_cutting(lab, hosts)
    peers = {host: host.root("wg show wg0 endpoints") for host in hosts}

    def interrupt(host):
        wait_until(lambda: host.root("wg show wg0 endpoints", check=False) not in ("", peers[host]), 60, f"{host} did not begin its change")
        host.reboot(hard=host.name == "powercut")

    begun = lab.start(*hosts, gatecontrol_confirm_timeout=30)
    together(interrupt, hosts)
    play = lab.finish(begun)
    for host in hosts:
        print(f"{host}: {play.undone(host)}")
        assert "the host was rebooted in the middle of the change" in play.undone(host)
        assert not host.pending()
    intact(lab, before)


def test_the_agent_alone_undoes_a_config_that_cuts_the_host_off(lab):
    [host] = lab.enrolled("agent")
    before = push_cutting(lab, [host])
    seconds = take_offer(host)
    assert seconds <= WITHIN + SLACK and "no answer from the WireGuard peer" in host.show()["verdict"]["reason"]
    assert "the last change was rolled back" in host.agent("show")
    assert host.as_before() == before[host] and host.reachable() and host.answered()
    host.agent("beat")
    assert not host.pending(), "the same config was tried again at once"
    lab.scenario.no_faults()
    lab.settings(mtu=1390)
    take_offer(host)
    assert host.show()["verdict"]["ok"] and "MTU = 1390" in host.root("cat /etc/wireguard/wg0.conf")


# --- a server that is no help, a unit that hangs or dies

SERVERS = {  # by host: how the server answers the heartbeat that is to prove a change whose tunnel works
    "good": {"kind": "drip", "seconds": 2}, "agent": {"kind": "delay", "seconds": 600}, "web1": {"kind": "cut"}, "web4": {"kind": "drop"},
    "web2": {"kind": "html"}, "web5": {"kind": "invalid-json"}, "web7": {"kind": "status", "status": 500},
    "web8": {"kind": "redirect", "url": "https://192.0.2.1/"}}


def test_whatever_the_server_does_the_host_is_back_at_its_deadline(lab):
    """It drips, is silent, cuts its answers off, restarts for ever, lies or errs: a host for each, all of them in one play."""
    hosts = lab.enrolled(*SERVERS)
    before = {host: host.as_before() for host in hosts}
    for host in hosts:
        lab.fault(host=host, path="*/heartbeat", **SERVERS[host.name])
        lab.offer(host, changed(host.issued(), MTU="1380"))
    with contextlib.ExitStack() as watched:
        changes = {host: watched.enter_context(Change(host)) for host in hosts}
        play = lab.play(*hosts)
        for host, change in changes.items():
            seconds = change.wait_settled()
            print(f"{SERVERS[host.name]['kind']}: back after {seconds:.1f} s, {change.late:.1f} s after the deadline; {play.undone(host)}")
            assert change.late <= LATE and not host.show()["verdict"]["ok"]
    intact(lab, before)


def test_a_unit_that_is_killed_or_hangs_is_gone_back_from(lab):
    """Killed, systemd's stop command goes back; hanging, the next beat stops the unit after its deadline."""
    signals = {"good": "KILL", "agent": "STOP"}
    killed, stopped = hosts = lab.enrolled(*signals)
    before = {host: host.as_before() for host in hosts}
    for host in hosts:
        lab.fault("delay", host, path="*/heartbeat", seconds=5)  # time to get in between
        lab.offer(host, changed(host.issued(), MTU="1380"))

    def strike(host):
        wait_until(lambda: changes[host].stepped, 120, f"{host} did not take its step")
        host.root(f"kill -{signals[host.name]} $(systemctl show --property=MainPID --value gatecontrol-apply)")

    with Change(killed) as first, Change(stopped) as second:
        changes = {killed: first, stopped: second}
        begun = lab.start(*hosts)
        together(strike, hosts)
        first.wait_settled()
        wait_until(lambda: time.monotonic() > second.deadline + 21, 3 * WITHIN + 120, "the deadline did not come")
        assert second.settled is None and "mtu 1380" in stopped.root("ip link show wg0")
        stopped.root("systemctl start --no-block gatecontrol-beat")
        second.wait_settled()
    play = lab.finish(begun)
    for host, change in changes.items():
        print(f"{signals[host.name]}: {change.late:.1f} s after the deadline; {play.undone(host)}")
        assert "the change was interrupted" in play.undone(host)
    assert first.late <= LATE and second.late <= 21 + 20
    intact(lab, before)


# --- the confirmation comes over a new connection


def test_an_old_connection_that_survives_confirms_nothing(lab):
    [host] = lab.enrolled("blocked")
    before = host.as_before()
    slow_proof(lab, host)
    lab.settings(mtu=1381)
    options = [*lab.run.ssh_options(), "-i", str(lab.run.key), f"ops@{host.address}"]
    old = subprocess.Popen(["ssh", *options, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    try:
        assert echoed(old, "before")
        with Change(host) as change:
            begun = lab.start(host)
            change.wait_armed()
            host.block(True)
            seconds = change.wait_settled()
            assert echoed(old, "after"), "the old connection was to survive"
            assert not host.reachable()
            host.block(False)
        play = lab.finish(begun)
    finally:
        host.block(False)
        old.kill()
        old.communicate()
    print(f"back after {seconds:.1f} s")
    assert "the controller did not come back over a new connection" in play.undone(host)
    assert change.late <= LATE and seconds <= 2 * WITHIN + SLACK and host.as_before() == before


def echoed(connection, word):
    connection.stdin.write(word + "\n")
    return connection.stdout.readline() == word + "\n"


# --- what is refused touches nothing

HOOK = "touch /tmp/hook-ran"
SPELLINGS = [f"PostUp = {HOOK}", f"postup={HOOK}", f"POSTUP   =   {HOOK}", f"\t PreDown\t=\t{HOOK}", f"PostDown = {HOOK}\r", f"  pReUp = {HOOK}  "]
REFUSED = {
    **{f"hook {line!r}": lambda text, line=line: text.replace("\n\n[Peer]", f"\n{line}\n\n[Peer]", 1) for line in SPELLINGS},
    "hook under [interface]": lambda text: text.replace("[Interface]", "[interface]").replace("\n\n[Peer]", f"\npostUp = {HOOK}\n\n[Peer]", 1),
    "hook in a second [INTERFACE]": lambda text: text + f"\n[INTERFACE]\nPostUp = {HOOK}\n",
    "SaveConfig": lambda text: text.replace("\n\n[Peer]", "\nSaveConfig = true\n\n[Peer]", 1),
    "no PrivateKey": lambda text: re.sub("PrivateKey = .*\n", "", text),
    "PrivateKey of zeros": lambda text: changed(text, PrivateKey="A" * 43 + "="),
    "empty": lambda text: "",
    "truncated": lambda text: text[:-9],
    "truncated at a line's end": lambda text: text[:text.index("AllowedIPs")],
}


def test_what_is_refused_leaves_file_interface_and_key_alone(lab):
    hosts = lab.enrolled(*lab.names[:len(REFUSED)])
    assert len(hosts) == len(REFUSED)
    for host, spoil in zip(hosts, REFUSED.values()):
        text = host.issued()
        assert spoil(text) != text
        lab.offer(host, spoil(text))
    before = together(lambda host: host.look("record"), hosts)
    play = lab.play(*hosts, forks=10)
    for host, what in zip(hosts, REFUSED):
        assert play.error(host), what
    together(lambda host: host.agent("sync"), hosts)
    for host, what, seen, after in zip(hosts, REFUSED, before, together(lambda host: host.look("record"), hosts)):
        assert after == seen, what
        assert not {"candidate.conf", "pending.json"} & set(host.root("ls /var/lib/gatecontrol").split()), what
        shown = host.show()
        words = "the answer has no valid config" if what == "empty" else "the server's config was refused and the tunnel left as it is"
        assert words in shown["error"]["text"], (what, shown["error"])
        assert "hook" not in host.root("ls /tmp") and host.root("wg show wg0 private-key").strip() != "(none)", what
        print(f"{what}: {play.error(host)}")


# --- what else is promised


def test_check_mode_arms_nothing(lab):
    [host] = lab.enrolled("still")
    before = host.look()
    lab.settings(mtu=1370)
    play = lab.play(host, check=True).ok()
    assert "Read the config" in play.changed(host)
    assert host.look() == before and not host.pending()


def test_a_path_that_cannot_be_kept_is_refused(lab):
    hosts = lab.enrolled("full", "agent")
    before = together(lambda host: host.look("record"), hosts)
    for host in hosts:
        lab.offer(host, changed(host.issued(), AllowedIPs=f"{lab.network}, {lab.controller}/32"))
    play = lab.play(hosts[0])
    assert "would cut the controller off, so nothing was changed" in play.error(hosts[0]) and lab.controller in play.error(hosts[0])
    hosts[1].agent("sync")
    assert "would cut the controller off" in hosts[1].show()["error"]["text"]
    assert together(lambda host: host.look("record"), hosts) == before


def test_a_network_that_holds_the_controller_is_led_around_the_tunnel(lab):
    [host] = lab.enrolled("full")
    lab.settings(allowed_ips=f"{lab.network}, {lab.controller.rpartition('.')[0]}.0/25")  # the server is in the other half
    play = lab.play(host).ok()
    assert f"{lab.controller} via" in host.root("ip route") and play.tunnel(host)["changed"]
    assert host.reachable() and host.answered()


def test_without_keep_reachable_a_full_tunnel_is_refused_unless_accepted(lab):
    [host] = lab.enrolled("full")
    before = host.look("record")
    lab.settings(allowed_ips=FULL)
    error = lab.play(host, gatecontrol_keep_reachable=False).error(host)
    assert "routes all traffic (/0) into the tunnel" in error and "gatecontrol_allow_full_tunnel=true" in error
    assert host.look("record") == before


def test_a_play_through_the_tunnel_itself_is_warned_and_comes_back_through_it(lab):
    [host] = lab.enrolled("web1")
    lab.settings(mtu=1381)
    address = host.root("ip -o -4 address show dev wg0").split()[3].split("/")[0]
    through = f"ip netns exec {lab.scenario.netns} bash -c 'exec 3<>/dev/tcp/{address}/22; cat <&3 & cat >&3'"
    play = lab.play(host, ansible_host=address, ansible_ssh_extra_args=f'-o HostKeyAlias={host.address} -o ProxyCommand="{through}"').ok()
    assert play.tunnel(host)["action"] == "restart" and "mtu 1381" in host.root("ip link show wg0")
    assert "this play reaches the host through wg0 itself" in " ".join(play.text.split())


CORE = re.compile("(ansible|ansible_core|jinja2|yaml|pyyaml|markupsafe|packaging|resolvelib)(-.*info)?", re.IGNORECASE)


def control_from_itself(lab, host):
    """Give a host ansible-core as plain Python and the collection, so that it is its own controller."""
    packages = pathlib.Path(yaml.__file__).parents[1]
    core = [path.name for path in packages.iterdir() if CORE.fullmatch(path.name)]
    parts = [f"ansible_collections/callmetechie/gatecontrol/{part}" for part in ("galaxy.yml", "meta", "plugins", "roles")]
    command = ["tar", "-ch", "--exclude=*.so", "--exclude=__pycache__", "-C", str(packages), *core, "-C", str(CHECKOUT / "build"), *parts]
    archive = subprocess.Popen([*command, "-C", str(FOLDER), "converge.yml"], stdout=subprocess.PIPE)
    machine.podman("exec", "-i", host.container, "sh", "-c", "mkdir -p /opt/controller && tar -x -C /opt/controller", stdin=archive.stdout)
    assert archive.wait() == 0


def test_a_host_that_controls_itself_takes_the_servers_answer_for_proof(lab):
    [host] = lab.enrolled("local")
    control_from_itself(lab, host)
    values = {**lab.scenario.known, "ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3", "gatecontrol_confirm_timeout": WITHIN}
    play = ("cd /opt/controller && PYTHONPATH=. ANSIBLE_COLLECTIONS_PATH=. LC_ALL=C.UTF-8 "
            f"python3 -m ansible.cli.playbook -i local, -e {shlex.quote(json.dumps(values))} converge.yml 2>&1")

    lab.settings(mtu=1381)
    assert "failed=0" in host.root(play) and "mtu 1381" in host.root("ip link show wg0")
    assert host.show()["verdict"]["ok"] and lab.scenario.log(event="heartbeat", token="local")

    before = push_cutting(lab, [host])
    said = host.root(play, check=False)
    assert "rolled back" in said and f"at {DARK}:51820" in said and host.as_before() == before[host]

    lab.scenario.no_faults()
    lab.settings(mtu=1390)
    lab.fault("status", host, path="*/heartbeat", status=502)
    said = host.root(play, check=False)
    assert "rolled back" in said and "502" in said and host.as_before() == before[host]
    lab.scenario.no_faults()
    assert "failed=0" in host.root(play) and "mtu 1390" in host.root("ip link show wg0")
