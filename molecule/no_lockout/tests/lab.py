# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests look through: hosts from inside and over SSH, packets through their tunnels, plays as processes, and the server's settings."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

FOLDER = pathlib.Path(__file__).resolve().parents[1]
CHECKOUT = FOLDER.parents[1]
sys.path[:0] = [str(FOLDER.parent / "shared"), str(CHECKOUT / "tests/hosts")]

import room  # noqa: E402
from scenario import Scenario  # noqa: E402

WITHIN = int(os.environ.get("WITHIN", "12"))  # seconds: gatecontrol_confirm_timeout; a machine that does much else needs more
PENDING = "/var/lib/gatecontrol/pending.json"
VOLATILE = {"port": 2, "handshake": 4, "rx": 5, "tx": 6}  # columns of `wg show dump`

# From a host: its network as wg and ip see it, what belongs to the tunnel on disk, and when its units last moved.
LOOK = """
echo "# dump"; wg show wg0 dump 2>/dev/null
echo "# network"
ip -N -o address show scope global | sed 's/^[0-9]*: //; s/ *valid_lft.*//'
ip -N route show table all | grep -v -e ' cache ' -e fe80: -e ff00: | sort
ip -4 rule; ip -6 rule; nft list tables | sort
echo "# files"
for file in /etc/wireguard/* /etc/resolv.conf /etc/systemd/system/wg-quick@*/*; do if [ -f "$file" ]; then sha256sum "$file"; fi; done
echo "# inodes"; stat -c '%n %i %y %a' /etc/wireguard/*
echo "# units"; systemctl show wg-quick@wg0 -p ActiveState -p UnitFileState
echo "# started"; systemctl show wg-quick@wg0 gatecontrol-apply gatecontrol-recover -p Id -p InvocationID -p StateChangeTimestampMonotonic
echo "# record"; ls -A /var/lib/gatecontrol
"""


class Host:
    """One host of the run."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, name
        self._net, self._host = lab.run.host(name)
        self.address, self.container = self._host.address, self._host.container

    def __repr__(self) -> str:
        return self.name

    def root(self, script: str, check: bool = True) -> str:
        """Run a script as root from inside, whatever the network does; its output."""
        return self.lab.scenario.on(self.name, script, check)

    def agent(self, words: str) -> str:
        """What the agent answers, whether all is well or not."""
        return self.root(f"gatecontrol-agent {words}", check=False)

    def show(self) -> dict:
        return json.loads(self.agent("show --json"))

    def reachable(self) -> bool:
        """Whether a new SSH connection from the controller's subnet comes through."""
        return self.lab.run.ssh(self._host, "true", timeout=8).returncode == 0

    def reboot(self, hard: bool = False, wait: bool = True) -> None:
        self.lab.run.reboot(self.name, hard=hard, wait=wait)

    def block(self, blocked: bool) -> None:
        """Drop new SSH connections on their way to the host; open ones live on."""
        self.lab.run.block(self.name, blocked)

    def look(self, *leave_out: str) -> dict[str, str]:
        """What runs and what lies there, by heading. leave_out: headings, or columns of the dump, that may differ."""
        found = {}
        for part in self.root(LOOK).split("# ")[1:]:
            name, _end, text = part.partition("\n")
            found[name] = text
        found["dump"] = "\n".join(self._dump_line(line, leave_out) for line in found["dump"].splitlines())
        return {name: text for name, text in found.items() if name not in leave_out}

    @staticmethod
    def _dump_line(line: str, leave_out: tuple[str, ...]) -> str:
        values = line.split("\t")
        for key in range(2):  # a key, and a second one: private and public, or public and preshared
            values[key] = hashlib.sha256(values[key].encode()).hexdigest()[:12]
        drop = {"handshake", "rx", "tx", *leave_out} - (set() if len(values) == 4 else {"port"})
        drop = drop & {"port"} if len(values) == 4 else drop
        return "\t".join(value for column, value in enumerate(values) if column not in {VOLATILE[name] for name in drop if name in VOLATILE})

    def as_before(self) -> dict[str, str]:
        """What a rollback has to bring back: everything but the interface's random port and the moments at which things were written and started."""
        return self.look("port", "inodes", "started", "record")

    def issued(self) -> str:
        """The text the server issued last."""
        return self.root("cat /var/lib/gatecontrol/issued.conf")

    def port(self) -> tuple[str, str]:
        """The tunnel's source port: as the host has it and as the hub sees its packets come."""
        key = self.root("wg show wg0 public-key").strip()
        ends = self.lab.hub("wg", "show", ("gw" + self.lab.scenario.mark)[:15], "endpoints")
        return self.root("wg show wg0 listen-port").strip(), next(line.split("\t")[1] for line in ends.splitlines() if line.startswith(key))

    def answered(self) -> bool:
        """Whether the hub answers through the tunnel."""
        command = ["ip", "netns", "exec", self.container, "ping", "-n", "-c", "1", "-i", "0.2", "-w", "12", self.lab.gateway]
        return "bytes from" in subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def rules(self) -> str:
        return self.root("ip rule; ip -6 rule")

    def pending(self) -> bool:
        """Whether a change is under way; looked at from outside, without a process on the host."""
        return self.lab.scenario.file(self.name, PENDING).exists()


class Change:
    """How long a change was under way on a host: from the moment its unit began until it was settled, in seconds, by this machine's clock."""

    def __init__(self, host: Host) -> None:
        self.host, self.armed, self.settled, self._end = host, None, None, threading.Event()
        self.deadline = self.begun = 0.0  # the change's own, by the same clock: hosts share this machine's
        self._path = host.lab.scenario.file(host.name, PENDING)
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._end.wait(0.02) and self.settled is None:
            there = self._path.exists()
            with contextlib.suppress(OSError, ValueError):
                pending = json.loads(self._path.read_text(encoding="utf-8"))
                self.deadline, self.begun = pending["deadline"], pending.get("begun", 0.0)
            if there and self.armed is None:
                self.armed = time.monotonic()
            elif not there and self.armed is not None:
                self.settled = time.monotonic()

    def __enter__(self) -> Change:
        self._thread.start()
        return self

    def __exit__(self, *_problem: object) -> None:
        self._end.set()
        self._thread.join()

    def wait_armed(self, limit: float = 60) -> None:
        wait_until(lambda: self.armed is not None, limit, f"no change was armed on {self.host}")

    def wait_settled(self, limit: float = 60 + 3 * WITHIN) -> float:
        """Wait for the end of the change; the seconds it took."""
        wait_until(lambda: self.settled is not None, limit, f"the change of {self.host} did not end")
        assert self.armed < self.begun < self.settled, (self.armed, self.begun, self.settled)
        return self.settled - self.begun

    @property
    def stepped(self) -> bool:
        """Whether the step is taken: the deadline is nearer than it was when the unit began (60 s for the step, and the time to prove it)."""
        return 0 < self.begun and self.deadline < self.begun + 59 + WITHIN

    @property
    def late(self) -> float:
        """Seconds by which the change was over after its deadline; less than nothing where it was before."""
        return self.settled - self.deadline


def wait_until(true, limit: float, otherwise: str, every: float = 0.05) -> None:
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, f"{otherwise} within {limit} s"
        time.sleep(every)


class Packets:
    """A packet every 20 ms through a host's tunnel, each asking for an answer; 250 at least are answered, however quick what happens meanwhile is."""

    LEAST = 250

    def __init__(self, host: Host) -> None:
        self._command = ["ip", "netns", "exec", host.container, "ping", "-n", "-i", "0.02", host.lab.gateway]
        self._answered, self._said = set(), ""

    def __enter__(self) -> Packets:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        try:
            wait_until(lambda: self._answered, 30, "no answer through the tunnel to begin with")
        except AssertionError:
            self._process.kill()
            raise
        return self

    def _read(self) -> None:
        for line in self._process.stdout:
            self._answered |= {int(number) for number in re.findall(r"icmp_seq=(\d+)", line)}
            self._said += line

    def __exit__(self, problem: object, *_rest: object) -> None:
        try:
            if problem is None:
                settled = len(self._answered) + 15  # 0.3 s after the last of what happened
                wait_until(lambda: len(self._answered) >= max(self.LEAST, settled), 60, "the answers through the tunnel came to an end")
        finally:
            self._process.send_signal(signal.SIGINT)
            self._thread.join()
            self._process.wait()
        self.sent = max(self._answered)  # those after the last answer may be under way still
        self.lost = len(set(range(min(self._answered), self.sent)) - self._answered)
        under_way = int(re.search(r"(\d+) packets transmitted", self._said)[1]) - self.sent
        assert under_way < 50, f"the last {under_way} packets were not answered"


class Outcome:
    """What a play did; hosts: those it was for."""

    def __init__(self, run, hosts: list[Host]) -> None:
        self.run, self.hosts, self.text, self.seconds = run, hosts, run.text, run.seconds

    def ok(self) -> Outcome:
        assert self.run.status == 0 and all(self.run.of(host.name) for host in self.hosts), self.text
        return self

    def tunnel(self, host: Host) -> dict:
        """What came of the task that changes the tunnel."""
        found = [entry["result"] for entry in self.run.of(host.name, "Run the tunnel") if entry["action"].endswith("gatecontrol_tunnel")]
        assert found, f"{host}: the tunnel was left alone\n{self.text}"
        return found[0]

    def changed(self, host: Host) -> list[str]:
        return self.run.changed(host.name)

    def error(self, host: Host) -> str:
        assert self.run.status, self.text
        return self.run.error(host.name)

    def undone(self, host: Host) -> str:
        """The reason for which the change of a host was rolled back."""
        result = self.tunnel(host)
        assert result["rolled_back"] is True and result["failure"]["kind"] == "rolled_back", result
        words = "the change of wg0 was rolled back and the tunnel is as it was before: "
        assert result["msg"].startswith(words) and self.error(host) == result["msg"], result
        return result["msg"].removeprefix(words)


class Lab:
    """The scenario: its hosts, its server and its plays."""

    def __init__(self) -> None:
        self.scenario = Scenario("no_lockout")
        self.run = room.Room(self.scenario.mark, self.scenario.folder.parent)
        self.gateway, self.names = self.scenario.gateway, self.scenario.hosts
        self.network = self.gateway.rpartition(".")[0] + ".0/24"
        self.keepalives = itertools.count(30 + int(time.time()) % 30000)  # none twice
        self.controller, self.server = self.scenario.record["machine_address"], self.scenario.record["server"]["address"]

    def hosts(self, *names: str) -> list[Host]:
        return [Host(self, name) for name in names or self.names]

    def enrolled(self, *names: str) -> list[Host]:
        """Hosts as the server wants them now."""
        hosts = self.hosts(*names)
        self.play(*hosts, gatecontrol_adopt=True).ok()  # whatever an earlier test has left
        return hosts

    # -- the server

    def hub(self, *command: str) -> str:
        """Run a command where the server is."""
        return subprocess.run(["ip", "netns", "exec", self.scenario.netns, *command], capture_output=True, text=True, check=True).stdout

    def settings(self, **values: object) -> None:
        """What the server issues to every peer from now on."""
        self.scenario.ask("settings", values={name: str(value) for name, value in values.items()})

    def peer(self, host: Host, **values: object) -> None:
        """What the server keeps for one peer."""
        self.scenario.ask("peer", action="set", peer=host.name, values=values)

    def fault(self, kind: str, host: Host, **how: object) -> None:
        """Spoil the server's answers to one host."""
        self.scenario.fault(kind, token=host.name, **how)

    def offer(self, host: Host, text: str) -> None:
        """Issue a text of ours to one host. The server offers it because its own text changes too, in the keepalive."""
        self.peer(host, persistent_keepalive=next(self.keepalives))
        self.fault("config", host, text=text)

    # -- plays

    def start(self, *hosts: Host, check: bool = False, forks: int = 5, **variables: object):
        """Begin a play; finish() waits for it."""
        words = ["--forks", str(forks), *(["--check", "--diff"] if check else [])]
        return self.scenario.start(*words, limit=[host.name for host in hosts], **{"gatecontrol_confirm_timeout": WITHIN, **variables}), list(hosts)

    def finish(self, begun) -> Outcome:
        return Outcome(self.scenario.finish(begun[0], timeout=600), begun[1])

    def play(self, *hosts: Host, **how: object) -> Outcome:
        return self.finish(self.start(*hosts, **how))

    def kill(self, begun) -> None:
        """kill -9 of ansible-playbook and of all it has started."""
        self.scenario.kill(begun[0])


def together(work, hosts: list[Host]) -> list:
    """Do something on several hosts at once."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(work, hosts))


def changed(text: str, **values: str) -> str:
    """A config with other values for some of its keys, in place."""
    for key, value in values.items():
        text, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert count == 1, f"{key} occurs {count} times"
    return text
