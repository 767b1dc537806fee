"""The hub: network namespaces that have only what the server gave them reach each other through it.

Needs root, iproute2, wireguard-tools and the kernel's WireGuard or wireguard-go.
"""
from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from gateserver.running import HERE, Refused, Server

CONNECT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as connection:
    connection.sendall(b"x" * 1000)
    connection.shutdown(socket.SHUT_WR)
    received = 0
    while data := connection.recv(65536):
        received += len(data)
print(received)
"""
LISTEN = """
import socket, sys
with socket.create_server((sys.argv[1], 0)) as server:
    print(server.getsockname()[1], flush=True)
    connection, _peer = server.accept()
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
"""
FETCH = """
import sys, urllib.request
url, token, *body = sys.argv[1:]
headers = {"X-API-Token": token, "Content-Type": "application/json"}
with urllib.request.urlopen(urllib.request.Request(url, body[0].encode() if body else None, headers), timeout=10) as answer:
    print(answer.read().decode())
"""


def run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, "%s: %s" % (" ".join(command), done.stderr.strip())
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def able():
    """Fails, with what to do, where namespaces and tunnels cannot be made."""
    missing = [tool for tool in ("ip", "wg") if not shutil.which(tool)]
    if os.geteuid():
        pytest.fail("the hub's tests make network namespaces and tunnels: run them as root")
    if missing:
        pytest.fail("the hub's tests need %s: install iproute2 and wireguard-tools" % " and ".join(missing))
    probe = "wgprobe%x" % (os.getpid() % 0xFFFF)
    if subprocess.run(["ip", "link", "add", probe, "type", "wireguard"], capture_output=True, check=False).returncode == 0:
        run("ip", "link", "del", probe)
    elif not shutil.which("wireguard-go"):
        pytest.fail("this kernel has no WireGuard: install wireguard-go")
    elif not os.path.exists("/dev/net/tun"):
        pytest.fail("wireguard-go needs /dev/net/tun, which is not there")


class Lab:
    """Three namespaces with names of this run's own: the hub, and two hosts, each on a wire to the hub."""

    def __init__(self, stack: contextlib.ExitStack):
        self.stack, self.mark = stack, "%x" % (os.getpid() % 0xFFFF)
        self.spaces = {name: "gs%s%s" % (name, self.mark) for name in ("hub", "a", "b")}
        for space in self.spaces.values():
            run("ip", "netns", "add", space)
            stack.callback(self.remove, space)
            run("ip", "-n", space, "link", "set", "lo", "up")
        for number, name in enumerate(("a", "b")):
            run("ip", "-n", self.spaces["hub"], "link", "add", "to" + name, "type", "veth", "peer", "name", "wire",
                "netns", self.spaces[name])
            for space, device, last in ((self.spaces["hub"], "to" + name, 1), (self.spaces[name], "wire", 2)):
                run("ip", "-n", space, "address", "add", "192.0.2.%d/30" % (4 * number + last), "dev", device)
                run("ip", "-n", space, "link", "set", device, "up")
        run("ip", "-n", self.spaces["b"], "route", "add", "192.0.2.0/30", "via", "192.0.2.5")

    @staticmethod
    def remove(space: str) -> None:
        for pid in run("ip", "netns", "pids", space).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 15)
        run("ip", "netns", "del", space)

    def inside(self, name: str) -> tuple:
        return "ip", "netns", "exec", self.spaces[name]

    def tunnel(self, name: str, config: str) -> None:
        """What wg-quick does with a config, without touching the machine's name servers."""
        interface = "gs%s%s" % (name, self.mark)
        if subprocess.run(["ip", "-n", self.spaces[name], "link", "add", interface, "type", "wireguard"],
                          capture_output=True, check=False).returncode:
            go = subprocess.Popen([*self.inside(name), "wireguard-go", "-f", interface], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, env={**os.environ, "LOG_LEVEL": "silent"})
            self.stack.callback(go.wait, 10)
            self.stack.callback(go.terminate)
            deadline = time.monotonic() + 5
            while subprocess.run([*self.inside(name), "wg", "show", interface], capture_output=True, check=False).returncode:
                assert time.monotonic() < deadline, "wireguard-go did not bring up " + interface
                time.sleep(0.05)
        stripped = "".join(line for line in config.splitlines(True) if not re.match("Address|DNS|MTU", line))
        run(*self.inside(name), "wg", "setconf", interface, "/dev/stdin", stdin=stripped)
        run("ip", "-n", self.spaces[name], "address", "add", re.search("Address = (.*)", config).group(1), "dev", interface)
        run("ip", "-n", self.spaces[name], "link", "set", interface, "mtu", "1420", "up")
        for network in re.search("AllowedIPs = (.*)", config).group(1).split(","):
            run("ip", "-n", self.spaces[name], "route", "add", network.strip(), "dev", interface)

    def exchange(self, name: str, address: str, port: int) -> int:
        """Sends 1,000 bytes over TCP from a host; how many came back."""
        return int(run(*self.inside(name), sys.executable, "-c", CONNECT, address, str(port)))


@pytest.fixture
def lab():
    with contextlib.ExitStack() as stack:
        made = Lab(stack)
        network = "10.%d.%d.0/24" % (64 + os.getpid() % 64, os.getpid() // 64 % 256)
        server = stack.enter_context(Server(
            "--era", "1.50.12", "--host", "192.0.2.1", "--wireguard", "gsw" + made.mark, "--subnet", network,
            "--endpoint", "192.0.2.1:51999", "--echo", "7000", under=made.inside("hub")))
        made.server, made.network = server, network
        yield made


def ask_inside(lab, verb: str, *arguments: str) -> str:
    """One of the server's verbs, from inside the hub's namespace: its address is reached from nowhere else."""
    return run(*lab.inside("hub"), sys.executable, HERE, verb, "--url", lab.server.url, *arguments)


def register(lab, name: str) -> dict:
    """Registers a host over its own wire, as an agent would. Returns the answer."""
    token = ask_inside(lab, "token", name, "client").strip()
    answer = run(*lab.inside(name), sys.executable, "-c", FETCH, lab.server.url + "/api/v1/client/register", token,
                 json.dumps({"hostname": name}))
    return dict(json.loads(answer), token=token)


def test_two_hosts_reach_each_other_and_the_log_shows_it(lab):
    ask_inside(lab, "settings", "allowed_ips=" + lab.network)
    hosts = {name: register(lab, name) for name in ("a", "b")}
    for name, host in hosts.items():
        lab.tunnel(name, host["config"])
    addresses = {name: re.search(r"Address = (.*)/32", host["config"]).group(1) for name, host in hosts.items()}
    gateway = lab.network.replace("0/24", "1")

    assert lab.exchange("a", gateway, 7000) == 1000
    listener = subprocess.Popen([*lab.inside("b"), sys.executable, "-c", LISTEN, addresses["b"]], stdout=subprocess.PIPE, text=True)
    lab.stack.callback(listener.wait, 10)
    lab.stack.callback(listener.terminate)
    # b has sent nothing yet, so the hub does not know where it is: its first packet is what makes the way back.
    assert lab.exchange("b", gateway, 7000) == 1000
    assert lab.exchange("a", addresses["b"], int(listener.stdout.readline())) == 1000

    peers = {peer["name"]: peer for peer in json.loads(ask_inside(lab, "peer", "list"))}
    assert all(peers[name]["transfer_rx"] > 1000 and peers[name]["transfer_tx"] > 1000 for name in hosts)
    assert abs(peers["a"]["latest_handshake"] - time.time()) < 60 and peers["a"]["endpoint"].startswith("192.0.2.2:")
    log = json.loads(ask_inside(lab, "log"))
    seen = {row["body"]["name"]: row["body"] for row in log if row.get("event") == "transfer"}
    assert set(seen) == {"a", "b"} and seen["b"]["rx"] > 1000 and seen["b"]["online"]
    assert [(row["address"], row["body"]["bytes"]) for row in log if row.get("event") == "echo"] == [
        (addresses["a"], 1000), (addresses["b"], 1000)]

    admin = ask_inside(lab, "token", "admin", "peers").strip()
    listed = json.loads(run(*lab.inside("hub"), sys.executable, "-c", FETCH, lab.server.url + "/api/v1/peers", admin))["peers"]
    assert all(peer["isOnline"] and peer["transferRx"] > 1000 and peer["latestHandshake"] for peer in listed)

    ask_inside(lab, "peer", "disable", "b")
    interface = "gsw" + lab.mark
    assert addresses["b"] not in run(*lab.inside("hub"), "wg", "show", interface, "allowed-ips")
    ask_inside(lab, "peer", "enable", "b")
    assert addresses["b"] in run(*lab.inside("hub"), "wg", "show", interface, "allowed-ips")
    ask_inside(lab, "peer", "delete", "b")
    assert addresses["b"] not in run(*lab.inside("hub"), "wg", "show", interface, "allowed-ips")


def test_a_new_server_key_is_the_hubs_too(lab):
    before = run(*lab.inside("hub"), "wg", "show", "gsw" + lab.mark, "public-key")
    told = json.loads(ask_inside(lab, "settings", "server_key=new"))["public_key"]
    assert run(*lab.inside("hub"), "wg", "show", "gsw" + lab.mark, "public-key").strip() == told != before.strip()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_interface_goes_with_the_server(lab, how):
    def links():
        return run("ip", "-n", lab.spaces["hub"], "-brief", "link")
    assert "gsw" + lab.mark in links()
    getattr(lab.server, how)()
    deadline = time.monotonic() + 5
    while how == "kill" and "gsw" in links() and time.monotonic() < deadline:
        time.sleep(0.05)
    if "gsw" in links():  # the kernel's own interface outlives a killed server, which takes it over again
        lab.server.start()
        lab.server.stop()
    assert "gsw" not in links()


def test_a_hub_that_is_gone_is_told_in_the_log_and_the_api_goes_on(lab):
    run("ip", "-n", lab.spaces["hub"], "link", "del", "gsw" + lab.mark)
    assert json.loads(ask_inside(lab, "peer", "add", "late"))[0]["name"] == "late"
    assert json.loads(ask_inside(lab, "sweep")) == {"expired": 0}
    assert len(json.loads(ask_inside(lab, "log", "--event", "hub-error"))) >= 2


def test_an_interface_that_is_somebody_elses_is_left_alone(lab):
    with pytest.raises(Refused, match="there is already an interface tob, and it is not this server's"):
        Server("--wireguard", "tob", "--subnet", "10.99.99.0/24", "--endpoint", "192.0.2.1:51998", under=lab.inside("hub"))
    assert "tob" in run("ip", "-n", lab.spaces["hub"], "-brief", "link")
