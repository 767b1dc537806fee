# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab of network namespaces: a host, a WireGuard hub and a controller, each on a subnet of its own behind one router.

Everything carries this run's own mark and is gone afterwards. wireguard-go does the work where the kernel has no WireGuard.
"""

from __future__ import annotations

import base64
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment, _observe, _plan, _services, _step, _wgconf

NETWORK = "198.18.%d.0/24"  # for benchmarks (RFC 2544); seen in the namespaces only
SIDES = {"host": 1, "hub": 2, "controller": 3}
PORT = 51820
ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 7))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(2000)
    s.sendto(data, peer)
"""
COUNT = """
import select, socket, sys, time
target, count, gap = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setblocking(False)
seen, begin = set(), time.monotonic()
print("begin", flush=True)
for number in range(count + 1):  # after the last datagram, half a second for stragglers
    if number < count:
        try:
            s.sendto(b"%d" % number, (target, 7))
        except OSError:
            pass
    end = begin + (number + 1) * gap + (0.5 if number == count else 0)
    while time.monotonic() < end:
        if select.select([s], [], [], max(0, end - time.monotonic()))[0]:
            try:
                seen.add(int(s.recv(2000)))
            except OSError:
                pass
print(count - len(seen), flush=True)
"""
ANSWER = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.1)
for number in range(20):
    try:
        s.sendto(b"?", (sys.argv[1], 7))
        s.recv(2000)
        sys.exit(0)
    except OSError:
        pass
sys.exit(1)
"""
PROBE = """
import sys
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _change, _observe, _plan, _step
_change._datagram(sys.argv[1], sys.argv[2], int(sys.argv[3]), bytes.fromhex(sys.argv[4]))
"""


def key():
    return base64.b64encode(os.urandom(32)).decode()


class WgQuick:
    """In place of systemd, which no namespace has: the unit's commands and those of its drop-in, run as systemd would."""

    def __init__(self, run, root):
        self.run, self.root = run, root
        self.enabled, self.active, self.calls = set(), set(), []

    def _hooks(self, unit, kind):
        for path in sorted(pathlib.Path(self.root, "etc/systemd/system", unit + ".d").glob("*.conf")):
            for dash, words in re.findall("^%s=(-?)(.*)$" % kind, path.read_text(), re.MULTILINE):
                rc, _out, err = self.run(words.split(), None)
                if rc and not dash:
                    raise _services.ServiceError("%s failed: %s" % (words, err))

    def _wg_quick(self, verb, unit):
        interface = unit[len("wg-quick@") : -len(".service")]
        return self.run(["wg-quick", verb, os.path.join(self.root, "etc/wireguard", interface + ".conf")], None)

    def start(self, unit, limit=30):
        self.calls.append("start")
        if unit in self.active:
            return
        rc, _out, err = self._wg_quick("up", unit)
        if rc:
            raise _services.ServiceError("start failed: " + " / ".join(line for line in err.splitlines() if not line.startswith("[#]")))
        self.active.add(unit)
        self._hooks(unit, "ExecStartPost")

    def stop(self, unit):
        self.calls.append("stop")
        if unit in self.active:
            self._wg_quick("down", unit)
            self.active.discard(unit)
            self._hooks(unit, "ExecStopPost")

    def show(self, units, properties):
        return {
            unit: {
                "UnitFileState": "enabled" if unit in self.enabled else "disabled",
                "ActiveState": "active" if unit in self.active else "inactive",
            }
            for unit in units
        }

    def enable(self, unit):
        self.enabled.add(unit)

    def disable(self, unit):
        self.enabled.discard(unit)

    def reset_failed(self, unit):
        pass

    def daemon_reload(self):
        pass


def sweep(mark):
    """Take away all namespaces of a run, with the processes in them: the wireguard-go that wg-quick left there among them."""
    for name in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split():
        if name.startswith(mark + "-"):
            for pid in subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", name], check=False)
    for path in pathlib.Path("/var/run/wireguard").glob(mark + "[hs].sock"):
        path.unlink()


def sweep_the_dead():
    """What earlier runs left that were killed: their mark is the number of a process that is gone."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for pid in set(re.findall("^gct([0-9a-f]+)-", listed, re.MULTILINE)):
        if not os.path.exists("/proc/%d" % int(pid, 16)):
            sweep("gct" + pid)


class Lab:
    """Namespaces "<mark>-host" and so on; the host's files lie below root."""

    def __init__(self, root):
        self.mark = "gct%x" % os.getpid()
        self.root, self.children = str(root), []
        self.interface, self.hub_interface = self.mark + "h", self.mark + "s"
        self.store = _enrollment.Store(self.root)
        self.host_key, self.hub_key = key(), key()
        self.services = WgQuick(self.run, self.root)

    def in_namespace(self, side, argv, stdin=None):
        done = subprocess.run(
            ["ip", "netns", "exec", "%s-%s" % (self.mark, side), *argv], input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def run(self, argv, stdin=None):
        return self.in_namespace("host", argv, stdin)

    def must(self, side, command, stdin=None):
        rc, out, err = self.in_namespace(side, command.split(), stdin)
        assert rc == 0, "%s: %s" % (command, err)
        return out

    def build(self):
        def ip(command):
            subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True)

        ip("netns add %s-router" % self.mark)
        for side, number in SIDES.items():
            ip("netns add %s-%s" % (self.mark, side))
            ip("link add eth0 netns {0}-{1} type veth peer name to-{1} netns {0}-router".format(self.mark, side))
            for where, device, last in ((side, "eth0", 10), ("router", "to-" + side, 1)):
                self.must(where, "ip address add 198.18.%d.%d/24 dev %s" % (number, last, device))
                self.must(where, "ip link set %s up" % device)
                self.must(where, "ip link set lo up")
            self.must(side, "ip route add default via 198.18.%d.1" % number)
        self.must("router", "sysctl -q net.ipv4.ip_forward=1")
        rc = self.in_namespace("hub", ["ip", "link", "add", self.hub_interface, "type", "wireguard"])[0]
        if rc:
            self.must("hub", "wireguard-go " + self.hub_interface)
        self.hub_conf()
        for address in ("10.88.0.1/24", "10.88.7.1/32", "192.0.2.1/32"):
            self.must("hub", "ip address add %s dev %s" % (address, self.hub_interface))
        self.must("hub", "ip link set %s up" % self.hub_interface)
        self.spawn("hub", ECHO)

    def hub_conf(self, **changes):
        values = dict({"key": self.hub_key, "peer": _wgconf.public_key(self.host_key), "psk": None}, **changes)
        text = "[Interface]\nPrivateKey = %(key)s\nListenPort = 51820\n[Peer]\nPublicKey = %(peer)s\nAllowedIPs = 10.88.0.2/32\n" % values
        if values["psk"]:
            text += "PresharedKey = %s\n" % values["psk"]
        self.must("hub", "wg syncconf %s /dev/stdin" % self.hub_interface, text)

    def spawn(self, side, program, *words):
        child = subprocess.Popen(
            ["ip", "netns", "exec", "%s-%s" % (self.mark, side), sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True
        )
        self.children.append(child)
        child.stdout.readline()
        return child

    def close(self):
        for child in self.children:
            child.kill()
            child.wait()
        sweep(self.mark)

    # what tests do with it

    def config(self, allowed="10.88.0.0/24", interface="", peer=""):
        return _wgconf.parse(
            "[Interface]\nPrivateKey = %s\nAddress = 10.88.0.2/32\nMTU = 1380\n%s[Peer]\nPublicKey = %s\nEndpoint = 198.18.2.10:51820\n"
            "AllowedIPs = %s\n%s" % (self.host_key, interface, _wgconf.public_key(self.hub_key), allowed, peer)
        )

    def observe(self, kept=None):
        return _observe.observe(self.run, self.interface, self.root, kept)

    def plan(self, config, kept=None):
        return _plan.plan(config, self.observe(kept), kept=kept)

    def apply(self, config, kept=None):
        step = self.plan(config, kept)
        _step.apply(self.run, self.services, self.store, self.interface, step, config, kept)
        return step

    def rules(self):
        return self.must("host", "ip -4 rule show") + self.must("host", "ip -6 rule show")

    def counting(self, target="10.88.0.1", count=250, gap=0.02):
        """Starts datagrams at a fixed gap; lost(child) is how many were not echoed."""
        return self.spawn("host", COUNT, target, str(count), str(gap))

    def lost(self, child):
        answer = child.stdout.read()
        child.wait()
        return int(answer)

    def answers(self, target="10.88.0.1"):
        """Whether the hub answers the host within two seconds."""
        return self.in_namespace("host", [sys.executable, "-c", ANSWER, target])[0] == 0

    def probe(self, interface, address, port, payload):
        subprocess.run(
            ["ip", "netns", "exec", self.mark + "-host", sys.executable, "-c", PROBE, interface, address, str(port), payload.hex()],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
            check=True,
        )

    def port_at_hub(self):
        return self.must("hub", "wg show %s endpoints" % self.hub_interface).split()[1]

    def reaches_host(self, address="198.18.1.10"):
        """Whether the controller, on another subnet, can open a TCP connection to the host's own address."""
        if not getattr(self, "listening", None):
            self.listening = self.spawn(
                "host", "import socket; s = socket.create_server(('', 2222)); print('', flush=True)\nwhile True: s.accept()[0].close()"
            )
        program = "import socket; socket.create_connection(('%s', 2222), 0.7)" % address
        return self.in_namespace("controller", [sys.executable, "-c", program])[0] == 0


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.fail("the tunnel lab makes network namespaces: run it as root")
    for program in ("ip", "wg", "wg-quick", "sysctl"):
        if not shutil.which(program):
            pytest.fail(
                "the tunnel lab needs %s: install iproute2, wireguard-tools, procps, and wireguard-go or a kernel with WireGuard" % program
            )
    lab = Lab(tmp_path_factory.mktemp("host"))
    sweep_the_dead()
    try:
        lab.build()
        yield lab
    finally:
        lab.close()


@pytest.fixture
def lab(built):
    """The lab with no tunnel on the host and a hub that knows the host."""
    built.hub_conf()
    yield built
    _step.remove(built.run, built.services, built.store, built.interface)
    built.store.drop(*_enrollment.FILES)
    assert built.observe() is None
    assert "lookup 51820" not in built.rules() and "suppress_prefixlength" not in built.rules()
    built.services.calls.clear()


def wait_for(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
