"""The room of real hosts keeps its promises; each test looks at real hosts over SSH or from inside."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import network
import pytest

SUITES = {"eleven": "11", "twelve": "12", "thirteen": "13"}
every_suite = pytest.mark.parametrize("host", SUITES)


def output(*command: str, status: int = 0) -> str:
    """Run a command that must end with the status; return its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300)
    assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def wait_for(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something is true, which it has to be within so many seconds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


def listening(address: str, port: int) -> bool:
    """Whether somebody takes a TCP connection there."""
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True


def links(run: str) -> list[str]:
    """Names of the machine's network interfaces that are a run's."""
    names = [link["ifname"] for link in json.loads(output("ip", "-json", "link"))]
    return [name for name in names if name.startswith("gc" + network.mark_of(run))]


def traces(run: str) -> str:
    """All that the machine holds with a run's name in it."""
    asked = ("podman ps --all --format {{.Names}}", "ip netns", "iptables -S", "iptables -t nat -S")
    return "\n".join(line for command in asked for line in output(*command.split()).splitlines() if run in line)


def tunnel(run, one: str, other: str, allowed: str = "10.9.0.{}/32") -> None:
    """Join two hosts by wg-quick@wg0 at 10.9.0.1 and 10.9.0.2."""
    public = {}
    for host in (one, other):
        script = "umask 077; mkdir -p /etc/wireguard; wg genkey > /etc/wireguard/key; wg pubkey < /etc/wireguard/key"
        public[host] = run.root(host, script).stdout.strip()
    for number, (host, peer) in enumerate(((one, other), (other, one)), 1):
        allowed_ips = allowed.format(3 - number) if number == 1 else "10.9.0.1/32"
        text = (
            f"[Interface]\\nPrivateKey = $(cat /etc/wireguard/key)\\nAddress = 10.9.0.{number}/24\\nListenPort = 51820\\n\\n"
            f"[Peer]\\nPublicKey = {public[peer]}\\nAllowedIPs = {allowed_ips}\\nEndpoint = {run.address(peer)}:51820\\n"
        )
        run.root(host, f'umask 077; printf "{text}" > /etc/wireguard/wg0.conf; systemctl enable --now wg-quick@wg0')


def handshake(run, host: str, peer_address: str) -> int:
    """Time of a host's last handshake in seconds, after a connection through the tunnel."""
    run.root(host, f"ping -c 3 -i 0.2 -W 2 {peer_address}")
    return int(run.root(host, "wg show wg0 latest-handshakes").stdout.split()[1])


@every_suite
def test_host_is_the_suite_it_says_with_everything_started(flat, host):
    shown = output(*flat.ssh(host, "systemctl is-system-running; . /etc/os-release; echo $VERSION_ID; hostname; sudo -n id -u"))
    assert shown.split() == ["running", SUITES[host], host, "0"]


def test_ansible_reaches_every_host_through_the_inventory(flat):
    ansible = Path(sys.executable).with_name("ansible")
    environment = {**os.environ, "ANSIBLE_LOCALHOST_WARNING": "false"}
    command = [str(ansible), "--inventory", str(flat.folder / "inventory.yml"), "all", "--become", "--module-name", "ping"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0 and done.stdout.count("SUCCESS") == 3, done.stdout + done.stderr


@every_suite
def test_wireguard_is_not_there_and_installs_without_network(flat, host):
    flat.root(host, "! command -v wg && ! command -v wireguard-go && ! command -v nft")
    flat.root(host, "ip route del default")
    try:
        flat.root(
            host,
            "DEBIAN_FRONTEND=noninteractive apt-get -y install wireguard-tools wireguard-go openresolv && wg --version && nft --version",
        )
    finally:
        flat.root(host, f"ip route add default via {flat.record['gateway_address']}")
    flat.root(host, "apt-get update")


@every_suite
def test_units_timers_nftables_and_sysctl_work_inside(flat, host):
    flat.root(host, "systemd-run --on-active=1s --timer-property=AccuracySec=100ms touch /root/fired")
    hardened = "-p ProtectSystem=strict -p PrivateTmp=yes -p CapabilityBoundingSet=CAP_NET_ADMIN -p User=ops"
    flat.root(host, f"systemd-run --quiet --wait --pipe {hardened} true")
    flat.root(host, "systemd-analyze security ssh.service | grep -q exposure")
    chain = "nft add table inet probe; nft add chain inet probe c '{ type filter hook output priority 0; }'"
    flat.root(
        host,
        f"{chain}; nft add rule inet probe c meta mark set 7; nft list table inet probe | grep -q 0x00000007; nft delete table inet probe",
    )
    mark = "net.ipv4.conf.all.src_valid_mark"
    assert flat.root(host, f"sysctl -q {mark}=1; sysctl -n {mark}").stdout.strip() == "1"
    wait_for(lambda: flat.root(host, "test -e /root/fired", check=False).returncode == 0)


def test_a_host_cannot_change_the_machine(flat):
    before = Path("/proc/sys/kernel/pid_max").read_text()
    assert flat.root("twelve", "sysctl -w kernel.pid_max=4000", check=False).returncode != 0
    assert Path("/proc/sys/kernel/pid_max").read_text() == before
    assert Path("/proc/sys/net/ipv4/conf/all/src_valid_mark").read_text().strip() == "0"


def test_tunnel_carries_traffic_and_comes_back_after_a_reboot(flat):
    tunnel(flat, "eleven", "thirteen")
    first = handshake(flat, "eleven", "10.9.0.2")
    assert first > time.time() - 60
    flat.root("eleven", "ip rule add from 192.0.2.1 lookup main; echo kept > /root/kept")
    flat.root("eleven", "systemd-run --property='ExecStop=/bin/touch /root/stopped' sleep infinity")
    was = {what: flat.root("eleven", f"cat {what}").stdout for what in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id", "/root/kept")}
    flat.hosts("reboot", flat.name, "eleven")
    assert "192.0.2.1" not in flat.root("eleven", "ip rule").stdout, "what lived in the kernel is gone"
    now = {what: flat.root("eleven", f"cat {what}").stdout for what in was}
    assert now.pop("/proc/sys/kernel/random/boot_id") != was.pop("/proc/sys/kernel/random/boot_id")
    assert now == was
    assert output(*flat.ssh("eleven", "hostname", "-I")).split()[0] == flat.address("eleven")
    assert handshake(flat, "eleven", "10.9.0.2") >= first
    flat.root("eleven", "test -e /root/stopped")  # units were stopped in order


def test_hosts_differ(flat):
    for path in ("/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub", "/proc/sys/kernel/random/boot_id"):
        assert len({flat.root(host, f"cat {path}").stdout for host in SUITES}) == 3, path


def test_server_namespace_is_reached_by_hosts_and_machine_over_tls(flat):
    folder = Path(flat.hosts("ca", flat.name, "--client", "someone").stdout.strip())
    server = flat.record["server"]
    script = (
        "import http.server, ssl, sys\n"
        "httpd = http.server.HTTPServer((sys.argv[1], 8443), http.server.SimpleHTTPRequestHandler)\n"
        "context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile='ca.pem')\n"
        "context.load_cert_chain('server.pem', 'server.key')\n"
        "context.verify_mode = ssl.CERT_REQUIRED\n"
        "httpd.socket = context.wrap_socket(httpd.socket, server_side=True)\n"
        "httpd.serve_forever()\n"
    )
    with subprocess.Popen(["ip", "netns", "exec", server["netns"], sys.executable, "-c", script, server["address"]], cwd=folder) as process:
        try:
            wait_for(lambda: listening(server["address"], 8443))
            curl = "curl --silent --show-error --fail --noproxy * --cacert ca.pem --cert client.pem --key client.key"
            command = [*curl.split(), f"https://{server['address']}:8443/ca.pem"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert done.stdout == (folder / "ca.pem").read_text(), done.stderr
            for name in ("ca.pem", "client.pem", "client.key"):
                subprocess.run(["podman", "cp", str(folder / name), f"gc-{flat.name}-twelve:/root/{name}"], check=True)
            seen = flat.root("twelve", f"set -f; cd /root; {curl} https://gateway.test:8443/ca.pem")
            assert seen.stdout == done.stdout
        finally:
            process.kill()
    assert (folder / "server.key").stat().st_mode & 0o077 == 0


def test_routed_machine_is_on_another_subnet(routed):
    seen = output(*routed.ssh("far1", "echo $SSH_CONNECTION")).split()
    assert seen[0] == routed.record["machine_address"]
    assert seen[0].rpartition(".")[0] != routed.address("far1").rpartition(".")[0]
    assert f"via {routed.record['gateway_address']}" in routed.root("far1", f"ip route get {seen[0]}").stdout


def test_full_tunnel_on_a_routed_host_cuts_the_machine_off_until_it_is_down(routed):
    """The situation that the collection must master exists here for real."""
    tunnel(routed, "far1", "far2", allowed="0.0.0.0/0")
    assert "fwmark" in routed.root("far1", "ip rule; wg show wg0").stdout
    output(*routed.ssh("far1", "true", timeout=3), status=255)
    routed.root("far1", "systemctl disable --now wg-quick@wg0")
    output(*routed.ssh("far1", "true"))


@pytest.mark.parametrize("layout, host", [("flat", "twelve"), ("routed", "far2")])
def test_block_drops_new_connections_and_spares_open_ones(request, layout, host):
    run = request.getfixturevalue(layout)
    with subprocess.Popen(run.ssh(host, "cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as survivor:
        survivor.stdin.write("before\n")
        survivor.stdin.flush()
        assert survivor.stdout.readline() == "before\n"
        run.hosts("block", run.name, host)
        try:
            output(*run.ssh(host, "true", timeout=2), status=255)
            survivor.stdin.write("after\n")
            survivor.stdin.flush()
            assert survivor.stdout.readline() == "after\n"
        finally:
            run.hosts("unblock", run.name, host)
        output(*run.ssh(host, "true"))
        assert survivor.communicate("last\n", timeout=10)[0] == "last\n"


def test_power_cut_keeps_files_and_asks_nobody(routed):
    routed.root("far2", "echo kept > /etc/kept; systemd-run --property='ExecStop=/bin/touch /root/stopped' sleep infinity")
    routed.hosts("reboot", routed.name, "far2", "--hard")
    assert routed.root("far2", "cat /etc/kept").stdout == "kept\n"
    routed.root("far2", "! test -e /root/stopped")


def test_reboot_of_a_host_that_cannot_be_reached_need_not_wait(routed):
    before = routed.root("far2", "cat /proc/sys/kernel/random/boot_id").stdout
    routed.hosts("block", routed.name, "far2")
    try:
        routed.hosts("reboot", routed.name, "far2", "--no-wait")
    finally:
        routed.hosts("unblock", routed.name, "far2")
    assert routed.root("far2", "cat /proc/sys/kernel/random/boot_id").stdout != before


def test_routed_server_is_on_a_link_of_its_own(routed):
    server = routed.record["server"]
    script = (
        "import socket, sys\n"
        "server = socket.create_server((sys.argv[1], 7000))\n"
        "while True:\n"
        "    connection, peer = server.accept()\n"
        "    connection.sendall(peer[0].encode())\n"
        "    connection.close()\n"
    )
    with subprocess.Popen(["ip", "netns", "exec", server["netns"], sys.executable, "-c", script, server["address"]]) as process:
        try:
            wait_for(lambda: listening(server["address"], 7000))
            ask = f"import socket; print(socket.create_connection(('{server['address']}', 7000), 5).recv(99).decode())"
            assert output(sys.executable, "-c", ask).strip() == routed.record["machine_address"]
            assert routed.root("far1", f'python3 -c "{ask}"').stdout.strip() == routed.address("far1")
        finally:
            process.kill()
    assert f"via {routed.record['gateway_address']}" in routed.root("far1", f"ip route get {server['address']}").stdout


def test_down_leaves_nothing_even_when_half_is_missing(hosts, rooms):
    name = f"test_gone_{os.getpid()}"
    try:
        hosts("up", name, "--hosts", "one:bookworm", "two:bookworm", "--server", "--routed")
        assert name in traces(name) and links(name) and name in json.loads(hosts("list").stdout)
        output("podman", "rm", "--force", "--time", "0", f"gc-{name}-one")
        output("ip", "netns", "del", f"gc-{name}-two")
        (rooms / name / "run.json").unlink()
    finally:
        hosts("down", name)
    assert traces(name) == "" and not (rooms / name).exists()
    assert links(name) == []
    hosts("down", name)


def test_up_takes_the_place_of_a_run_of_that_name(hosts, rooms):
    name = f"test_again_{os.getpid()}"
    try:
        hosts("up", name, "--hosts", "one:bookworm")
        hosts("exec", name, "one", "--", "touch", "/root/old")
        hosts("up", name, "--hosts", "one:bookworm")
        assert hosts("exec", name, "one", "--", "test", "-e", "/root/old", check=False).returncode == 1
    finally:
        hosts("down", name)


def test_failed_start_leaves_nothing(hosts):
    name = f"test_bad_{os.getpid()}"
    done = hosts("up", name, "--hosts", "one:bookworm", "--subnet", "10.8.0.0/23", check=False)
    assert done.returncode == 1 and "10.8.0.0/23 will not do" in done.stderr
    assert traces(name) == ""


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["up", "a-b", "--hosts", "x:bookworm"], "cannot be a run's name"),
        (["up", "a", "--hosts", "x"], "is no host"),
        (["up", "a", "--hosts", "server:bookworm"], "cannot be a host's name"),
        (["up", "a", "--hosts", "x:bookworm", "x:trixie"], "Two hosts are called x"),
        (["up", "a", "--hosts", "x:warty"], "no suite 'warty'"),
        (["reboot", "none_such", "x"], "no run none_such"),
    ],
)
def test_wrong_words_are_refused_in_one_sentence(hosts, arguments, words):
    done = hosts(*arguments, check=False)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr


def test_missing_podman_is_said_with_the_way_to_get_it(hosts, tmp_path):
    done = hosts("up", "a", "--hosts", "x:bookworm", check=False, environment={"PATH": str(tmp_path)})
    assert done.returncode == 2 and "apt-get install" in done.stderr and "podman" in done.stderr


def test_mirror_is_the_machines_own_or_the_one_named(monkeypatch):
    import images
    from machine import MissingError

    monkeypatch.delenv(images.MIRROR_VARIABLE, raising=False)
    index = "Ubuntu|Ubuntu|http://one.example/ubuntu/\nDebian|Debian-Security|http://two.example/s/\nDebian|Debian|http://three.example/debian/\n"
    monkeypatch.setattr(images, "run", lambda *_command: subprocess.CompletedProcess((), 0, index, ""))
    assert images.mirror() == "http://three.example/debian"
    index = index.partition("\n")[0]
    with pytest.raises(MissingError, match=images.MIRROR_VARIABLE):
        images.mirror()
    monkeypatch.setenv(images.MIRROR_VARIABLE, "http://four.example/debian/")
    assert images.mirror() == "http://four.example/debian"


def test_without_root_hosts_are_refused_and_certificates_made(monkeypatch, tmp_path):
    import machine
    from room import Room

    monkeypatch.setattr(machine.os, "geteuid", lambda: 1000)
    room = Room("one", tmp_path)
    with pytest.raises(machine.MissingError, match="need root"):
        room.up(["a:bookworm"])
    assert (room.certificates([]) / "server.pem").exists()


def test_ranges_of_hosts():
    from room import parse_hosts

    names = [name for name, _suite, _kind in parse_hosts(["web[08:11]:trixie:ready"])]
    assert names == ["web08", "web09", "web10", "web11"]


def test_block_is_outside_routes_and_tunnels(monkeypatch):
    import ipaddress

    import network

    taken = [ipaddress.ip_network("10.213.0.0/17"), ipaddress.ip_network("10.213.129.7/32")]
    monkeypatch.setattr(network, "occupied", lambda: taken)
    for mark in ("000000", "00000a", "ffffff"):
        block = network.free_block(mark)
        assert block.prefixlen == 23 and not any(block.overlaps(network_) for network_ in taken)
