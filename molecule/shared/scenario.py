"""A scenario that molecule has created, for its pytest files: plays, hosts and server from one object."""
from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time

import yaml

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path.insert(0, str(CHECKOUT / "tests"))

from gateserver import running  # noqa: E402

PYTHON = str(CHECKOUT / ".venv/bin/python")
OBSERVE = "Observe what is there"
# What the role puts on a Linux host, packages aside.
TRACES = ("/etc/gatecontrol /var/lib/gatecontrol /etc/wireguard/wg0.conf /usr/local/lib/gatecontrol /usr/local/sbin/gatecontrol-agent "
          "/etc/systemd/system/gatecontrol-* /etc/systemd/system/wg-quick@wg0.service.d")
# Takes it away again, and the tunnel. A change that is under way ends first, since it would undo this.
WIPE = """
systemctl stop 'gatecontrol-*'
systemctl stop wg-quick@wg0 2>/dev/null
ip link delete wg0 2>/dev/null
resolvconf -f -d wg0 2>/dev/null
rm -rf %(traces)s /etc/systemd/system/*.wants/gatecontrol-* /etc/systemd/system/*.wants/wg-quick@wg0.service
systemctl daemon-reload
systemctl reset-failed
! ls -d %(traces)s /sys/class/net/wg0 2>&1 | grep '^/'
""" % {"traces": TRACES}


def clean_environment() -> dict:
    """This process's environment without what molecule or a user has set for Ansible, colours among it, and without secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "GATECONTROL_"))}


class Run:
    """What an ansible-playbook run did. text: its output; results: each task's result on each host."""

    def __init__(self, status: int, text: str, results: list, seconds: float):
        self.status, self.text, self.results, self.seconds = status, text, results, seconds

    def of(self, host: str, task: str | None = None) -> list:
        """The host's results that were not skipped, of one task if named."""
        return [entry for entry in self.results if entry["host"] == host and entry["state"] != "skipped" and task in (None, entry["task"])]

    def changed(self, host: str) -> list:
        """Names of the tasks that changed this host, or would."""
        return [entry["task"] for entry in self.of(host) if entry["result"].get("changed")]

    def seen(self, host: str) -> dict:
        """What the role observed on the host before it did anything."""
        return self.of(host, OBSERVE)[0]["result"]

    def error(self, host: str) -> str:
        """The words with which the run failed on a host."""
        found = [entry["result"].get("msg", "") for entry in self.of(host) if entry["state"] in ("failed", "unreachable")]
        assert found, "%s did not fail:\n%s" % (host, self.text)
        return found[-1]

    def ok(self) -> Run:
        """This run, which must have succeeded on every host."""
        assert self.status == 0, self.text
        return self


class Scenario:
    """A created scenario: its run's folder is build/hosts/mNAME."""

    def __init__(self, name: str):
        self.name, self.mark, self.folder = name, "m" + name, CHECKOUT / "build/hosts" / ("m" + name)
        self.known = yaml.safe_load((self.folder / "group_vars/all.yml").read_text())
        self.record = json.loads((self.folder / "run.json").read_text())
        self.described = yaml.safe_load((HERE.parent / name / "inventory.yml").read_text())["all"]["vars"]
        self.hosts = list(self.record["hosts"])
        self.words: dict = {}
        self.collections = str(CHECKOUT / "build")  # a value for ANSIBLE_COLLECTIONS_PATH
        self.url, self.gateway, self.netns = self.known["room_url"], self.known["room_gateway"], self.known["room_netns"]

    # -- plays

    def start(self, *words: str, playbook: str | pathlib.Path = "converge.yml", limit=None, kill: str | None = None, delay: float = 0.5,
              **variables):
        """Begin a run; finish() waits for it. kill: where it kills itself (see callback/trace.py)."""
        trace = tempfile.NamedTemporaryFile("r", encoding="utf-8", suffix=".jsonl")
        environment = clean_environment()
        environment.update(
            ANSIBLE_CONFIG=str(HERE / "ansible.cfg"), ANSIBLE_COLLECTIONS_PATH=self.collections, ANSIBLE_NOCOLOR="1",
            ANSIBLE_CALLBACK_PLUGINS=str(HERE / "callback"), ANSIBLE_CALLBACKS_ENABLED="trace", TRACE_FILE=trace.name,
            MOLECULE_SCENARIO_NAME=self.name, MOLECULE_PROJECT_DIRECTORY=str(CHECKOUT),
            PATH="%s:%s" % (CHECKOUT / ".venv/bin", os.environ["PATH"]))
        if kill:
            environment.update(TRACE_KILL=kill, TRACE_KILL_DELAY=str(delay))
        command = [str(CHECKOUT / ".venv/bin/ansible-playbook")]
        for inventory in (HERE.parent / self.name, self.folder):
            command += ["-i", str(inventory / "inventory.yml")]
        if limit:
            command += ["--limit", limit if isinstance(limit, str) else ",".join(limit)]
        if variables:
            command += ["-e", json.dumps(variables)]
        process = subprocess.Popen([*command, *words, str(HERE.parent / self.name / playbook)], env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        return process, trace, time.monotonic()

    @staticmethod
    def finish(begun, timeout: float = 600) -> Run:
        """The Run that start() began."""
        process, trace, started = begun
        try:
            text = process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            text = process.communicate()[0]
            raise AssertionError("the run took longer than %d s:\n%s" % (timeout, text)) from None
        with trace:
            results = [json.loads(line) for line in trace if line.endswith("\n")]
        return Run(process.returncode, text, results, time.monotonic() - started)

    @staticmethod
    def kill(begun) -> None:
        """kill -9 of the run that start() began, with all that it has started, as when its machine dies."""
        process, trace, _started = begun
        family = [process.pid]
        for pid in family:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGSTOP)  # so that none begets another meanwhile
                family += [int(word) for task in pathlib.Path("/proc/%d/task" % pid).iterdir() for word in (task / "children").read_text().split()]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
        trace.close()
        assert process.returncode == -signal.SIGKILL, "the run was over before it was killed"

    def play(self, *words: str, **options) -> Run:
        """A whole run; options as for start()."""
        return self.finish(self.start(*words, **options))

    # -- hosts

    def inspect(self, host: str, field: str) -> str:
        """What podman knows of a host's container, "" where it has none."""
        return subprocess.run(["podman", "inspect", "--format", "{{.%s}}" % field, self.record["hosts"][host]["container"]],
                              capture_output=True, text=True, check=False).stdout.strip()

    def inside(self, host: str) -> list:
        """The words before a command that is to run on a host as root: its container's runtime, which podman would take five times as long to call.

        A virtual machine is asked over SSH, one connection for all.
        """
        record = self.record["hosts"][host]
        if host not in self.words and record["kind"] == "vm":
            trusted = ["-F", "/dev/null", "-o", 'UserKnownHostsFile="%s"' % (self.folder / "known_hosts"), "-i", str(self.folder / "id_ed25519")]
            quick = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
            self.words[host] = ["ssh", *trusted, *quick, "ops@" + record["address"], "sudo"]
        if host not in self.words:
            runtime, number = self.inspect(host, "OCIRuntime"), self.inspect(host, "Id")
            assert runtime and number, "%s has no container" % host
            self.words[host] = [runtime, "exec", number]
        return self.words[host]

    def on(self, host: str, command: str, check: bool = True, timeout: float = 60) -> str:
        """Run a shell command on a host as root; returns its output once nothing that it began holds that any more."""
        words = ["timeout", str(timeout), "sh", "-c", command]
        if self.record["hosts"][host]["kind"] == "vm":
            words = [shlex.join(words)]
        done = subprocess.run([*self.inside(host), *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)
        assert not check or done.returncode == 0, "%s: %s\n%s%s" % (host, command, done.stdout, done.stderr)
        return done.stdout

    def everywhere(self, command: str, check: bool = True) -> dict:
        """The same on all hosts at once."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            return dict(zip(self.hosts, pool.map(lambda host: self.on(host, command, check), self.hosts)))

    def wipe(self, url: str | None = None, check: bool = True) -> None:
        """No enrollment on the Linux hosts and no peer on the server, whatever state they are in; by hand, since a play would take ten times as long."""
        self.everywhere(WIPE, check)
        for name in self.peers(url):
            self.ask("peer", url, action="delete", peer=name)

    def room(self, verb: str, *words: str) -> None:
        """A command of tests/hosts for this run, such as reboot HOST."""
        subprocess.run([PYTHON, str(CHECKOUT / "tests/hosts"), verb, self.mark, *words], check=True, capture_output=True, text=True)

    def file(self, host: str, path: str) -> pathlib.Path:
        """A file of a host as this machine sees it, without a process on the host. A reboot makes it another one."""
        return pathlib.Path("/proc", self.inspect(host, "State.Pid"), "root", path.lstrip("/"))

    def ask_for_nothing(self) -> None:
        """No agent asks for a config in the next minutes, unless it is told to; a beat that is under way is waited for."""
        self.everywhere("systemctl start gatecontrol-beat.service; gatecontrol-agent checked")

    def echo(self, host: str, size: int) -> int | None:
        """Send bytes from a host through the tunnel to the hub's echo service; how many came back as they were, None where there is no way."""
        program = ("import socket; s = socket.create_connection(('%s', 7), 30); data = bytes(range(256)) * %d; s.sendall(data)\n"
                   "s.shutdown(socket.SHUT_WR); got = b''.join(iter(lambda: s.recv(65536), b''))\n"
                   "print(len(got) if got == data[:len(got)] else -1)" % (self.gateway, size // 256))
        answer = self.on(host, "python3 -c \"%s\"" % program, check=False).strip()
        return int(answer) if answer else None

    def shown(self, host: str) -> dict:
        """What the host's agent shows."""
        return json.loads(self.on(host, "gatecontrol-agent show --json"))

    # -- the server

    def ask(self, verb: str, url: str | None = None, **given):
        """Has a running server's administration do a verb (tests/gateserver)."""
        return running.ask(url or self.url, verb, given)

    def peers(self, url: str | None = None) -> dict:
        """The server's peers by name."""
        return {peer["name"]: peer for peer in self.ask("peer", url, action="list")}

    def numbers(self) -> dict:
        """The numbers of the server's peers by name; the rest of a peer changes with every packet."""
        return {name: peer["id"] for name, peer in self.peers().items()}

    def log(self, url: str | None = None, **filters) -> list:
        """The server's log."""
        return self.ask("log", url, **filters)

    def mark_log(self, url: str | None = None) -> int:
        """The number of the log's last entry, for log(since=...)."""
        return max([entry["id"] for entry in self.log(url, limit=1)] or [0])

    def asked_by(self, host: str, since: int = 0, **filters) -> list:
        """A host's entries in the log, by its address: a request that a fault answers is logged without its token."""
        address = self.record["hosts"][host]["address"]
        return [entry for entry in self.log(since=since, **filters) if entry.get("address") == address]

    def fault(self, kind: str, **how):
        """Switches a fault on."""
        return self.ask("fault", action="on", fault=dict(how, kind=kind))

    def no_faults(self) -> None:
        """Switches all faults off."""
        self.ask("fault", action="off")

    def token(self, host: str, scopes: str = "client", peer_id=None, url: str | None = None) -> str:
        """A new token."""
        return self.ask("token", url, name=host, scopes=scopes, peer_id=peer_id)["token"]

    def give(self, host: str) -> str:
        """A new client token for a host, kept as its gatecontrol_token in the run's host_vars."""
        token = self.token(host)
        (self.folder / "host_vars" / (host + ".yml")).write_text("gatecontrol_token: %s\n" % token)
        return token

    def unenroll(self, check: bool = True) -> None:
        """No host and no peer is enrolled, and each host has a new token."""
        self.wipe(check=check)
        for host in self.hosts:
            self.give(host)

    def server(self, task: str) -> None:
        """Run server_start.yml or server_stop.yml."""
        self.play(playbook=HERE / "server_power.yml", server_task=task).ok()


def until(probe, seconds: float, pause: float = 1.5):
    """The first true answer of probe() within so many seconds, else the last one."""
    end = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer or time.monotonic() > end:
            return answer
        time.sleep(pause)
