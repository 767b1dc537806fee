"""What enrolled hosts cost, measured on real hosts over SSH, HTTPS and a real tunnel; writes build/bench.json.
Ends with 1 where a figure misses its bar.

  .venv/bin/python tests/benchmark/bench.py [--rounds N] [--hosts 5 20] [--only PART ...] [--profile]

Root makes the hosts and the server. Ansible itself runs as `nobody`, logs in as `ops`, and both ping and play use sudo on the hosts. Where
nobody may not enter the folders of the checkout or of Python, it gets a mount namespace in which it may; nothing of the machine changes for
others, and nothing stays.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import platform
import pwd
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import yaml

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path[:0] = [str(CHECKOUT / "tests"), str(CHECKOUT / "tests" / "gateserver")]

import collection  # noqa: E402
from running import ADMIN, Server  # noqa: E402

RUN, SUBNET, INTERFACE = "bench", "10.86.200.0/24", "gwbench"
GATEWAY = "10.86.200.1"
CA = "/etc/ssl/gatecontrol-bench-ca.pem"
SUITES = ("bookworm", "trixie", "bullseye")
PARTS = ("enroll", "steady", "beat", "change")
LOGIN_PARTS = ("ephemeral", "fleet")  # with the administrator's login, on hosts of their own that are all of one release
FLEET = 40  # hosts
BOOK = "ansible_collections/callmetechie/gatecontrol/playbooks/ephemeral.yml"
DAY = 86400  # seconds: beats and checks of the timers stay out of what is counted
BARS = {  # what each figure may come to at most; that of ping_ratio is for every number of hosts
    "enroll.api_requests_per_host": 4, "steady.ping_ratio": 1.0, "steady.module_runs_per_host": 0, "steady.api_requests_per_host": 1,
    "steady.changed": 0, "beat.cpu_s": 0.15, "beat.rss_mb": 25, "beat.api_requests": 1, "change.packets_lost": 0,
    "after_login.ping_ratio": 1.0, "after_login.module_runs_per_host": 0, "after_login.api_requests_per_host": 1, "after_login.changed": 0,
    "fleet.enroll_40_s": 180, "ephemeral.to_handshake_s": 30}
SENT, GAP = 250, 0.02  # datagrams and seconds between them, while a peer changes

# Runs commands for the measurements in a process of its own (other user, own mount namespace): one JSON line in, one out.
RUNNER = """
import json, os, subprocess, sys, time
for line in sys.stdin:
    job = json.loads(line)
    begin, before = time.monotonic(), os.times()
    done = subprocess.run(job["argv"], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=job["cwd"], env=job["env"])
    after = os.times()
    print(json.dumps({"rc": done.returncode, "out": done.stdout, "err": done.stderr, "seconds": time.monotonic() - begin,
                      "cpu": after[2] + after[3] - before[2] - before[3]}), flush=True)
"""

# Runs the agent once on a host and says what it took, its children included.
USAGE = """
import json, os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
_child, status, usage = os.wait4(child, 0)
print(json.dumps({"rc": os.waitstatus_to_exitcode(status), "cpu_s": usage.ru_utime + usage.ru_stime, "rss_mb": usage.ru_maxrss / 1024}))
"""


class BenchError(Exception):
    """A measurement that could not be made. One sentence."""


def say(text: str) -> None:
    print("bench: " + text, file=sys.stderr, flush=True)


def run(*argv: str, check: bool = True) -> str:
    """Run a command as this process's user; returns its output. Raises BenchError with its words."""
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if check and done.returncode:
        raise BenchError("%s failed: %s" % (" ".join(argv[:4]), (done.stderr or done.stdout).strip()))
    return done.stdout


def closed_folders(paths: list) -> dict:
    """{folder that other users may not enter: [paths below it]}, for the outermost such folder of each path."""
    found: dict = {}
    for path in paths:
        for folder in reversed([path, *path.parents]):
            if not folder.stat().st_mode & 0o001:
                found.setdefault(folder, []).append(path)
                break
    return found


class Controller:
    """Runs Ansible as nobody."""

    def __init__(self, folder: pathlib.Path):
        self.user = pwd.getpwnam("nobody")
        self.folder = folder
        steps = []
        needed = {pathlib.Path(path).resolve() for path in (sys.base_prefix, sys.prefix, CHECKOUT)}
        for number, (closed, paths) in enumerate(closed_folders(sorted(needed)).items()):
            stage = folder / "open" / str(number)
            for path in paths:
                place = stage / path.relative_to(closed)
                place.mkdir(parents=True)
                steps.append("mount --rbind %s %s" % (path, place))
            steps.append("mount --rbind %s %s" % (stage, closed))
        words = ["setpriv", "--reuid", str(self.user.pw_uid), "--regid", str(self.user.pw_gid), "--clear-groups", "--inh-caps=-all",
                 "--no-new-privs", sys.executable, "-c", RUNNER]
        if steps:
            words = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", "; ".join(steps + ['exec "$@"']), "sh", *words]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
        self.environment = {
            "HOME": str(folder / "home"), "PATH": "%s:/usr/bin:/bin:/usr/sbin:/sbin" % pathlib.Path(sys.executable).parent,
            "LC_ALL": "C.UTF-8", "ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}

    def owns(self, *paths: pathlib.Path) -> None:
        for path in paths:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def run(self, *argv: str, **environment: str) -> dict:
        """One command over cold connections: {"out", "seconds", "cpu"}. Raises BenchError where it fails."""
        self.disconnect()
        self.process.stdin.write(json.dumps({"argv": argv, "cwd": str(self.folder), "env": {**self.environment, **environment}}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise BenchError("the process that runs Ansible as %s ended" % self.user.pw_name)
        done = json.loads(line)
        if done["rc"]:
            raise BenchError("%s ended with %d: %s" % (" ".join(argv[:3]), done["rc"], (done["out"] + done["err"])[-3000:]))
        return done

    def disconnect(self) -> None:
        """Close the SSH connections that wait for the next play."""
        for socket in (self.folder / "cp").glob("*"):
            run("ssh", "-F", "/dev/null", "-O", "exit", "-o", "ControlPath=%s" % socket, "host", check=False)

    def close(self) -> None:
        self.disconnect()
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Room:
    """Hosts, the server with its hub, and the controller's folder; gone at the end."""

    def __init__(self, count: int, era: str = "fixed", suites: tuple = SUITES, login: bool = False):
        self.names = ["h%02d" % number for number in range(1, count + 1)]
        self.era, self.suites, self.login = era, suites, login
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> Room:
        try:
            self._make()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_problem) -> None:
        self.stack.close()

    def hosts(self, *words: str) -> str:
        return run(sys.executable, str(CHECKOUT / "tests" / "hosts"), *words)

    def _make(self) -> None:
        self.stack.callback(self.hosts, "down", RUN)
        say("starting %d hosts" % len(self.names))
        suites = ["%s:%s:ready" % (name, self.suites[number % len(self.suites)]) for number, name in enumerate(self.names)]
        self.hosts("up", RUN, "--server", "--hosts", *suites)
        tls = pathlib.Path(self.hosts("ca", RUN).strip())
        record = json.loads((tls.parent / "run.json").read_text("utf-8"))
        self.containers = {name: host["container"] for name, host in record["hosts"].items()}
        address = record["server"]["address"]
        self.server = Server(
            "--host", address, "--port", "8443", "--era", self.era, "--tls", str(tls / "server.pem"), str(tls / "server.key"),
            "--wireguard", INTERFACE, "--subnet", SUBNET, "--endpoint", address + ":51820", "--rate-limit", "1000000",
            under=("ip", "netns", "exec", record["server"]["netns"]))
        self.stack.callback(self.server.stop)
        self.server.ask("settings", values={"allowed_ips": SUBNET})
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="gatecontrol-bench-"))
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.folder.chmod(0o755)
        self.controller = Controller(self.folder)
        self.stack.callback(self.controller.close)
        for name, container in self.containers.items():
            run("podman", "cp", str(tls / "ca.pem"), "%s:%s" % (container, CA))
        self._write(tls.parent)

    def _write(self, source: pathlib.Path) -> None:
        """The controller's configuration, inventory and SSH files."""
        for name in ("home", "cp"):
            (self.folder / name).mkdir(mode=0o700)
            self.controller.owns(self.folder / name)
        for name in ("id_ed25519", "known_hosts"):
            shutil.copy(source / name, self.folder / name)
            (self.folder / name).chmod(0o600)
            self.controller.owns(self.folder / name)
        for name in ("site.yml", "plain.yml", "profile_play.py"):
            shutil.copy(HERE / name, self.folder / name)
        (self.folder / "callbacks").mkdir()
        shutil.copy(HERE / "counting.py", self.folder / "callbacks")
        text = (source / "inventory.yml").read_text("utf-8").replace(str(source), str(self.folder))
        self.inventory = yaml.safe_load(text)["all"]
        self.inventory.pop("children", None)
        self.inventory["vars"].update(
            gatecontrol_url=self.server.url, gatecontrol_ca_path=CA, gatecontrol_heartbeat_interval=DAY, gatecontrol_sync_interval=DAY)
        if self.login:
            shutil.copy(source / "tls" / "ca.pem", self.folder / "ca.pem")
            self.controller.owns(self.folder / "ca.pem")
            # The modules that run here would have nobody's home, which does not exist.
            self.controller.environment["ANSIBLE_REMOTE_TMP"] = str(self.folder / "home" / "tmp")
            user, _colon, password = ADMIN.partition(":")
            self.inventory["vars"].update(
                gatecontrol_admin_user=user, gatecontrol_admin_password=password, gatecontrol_controller_ca_path=str(self.folder / "ca.pem"))
        for name in self.names if not self.login else ():
            self.inventory["hosts"][name]["gatecontrol_token"] = self.server.token("client", name)
        self.save_inventory()
        (self.folder / "ansible.cfg").write_text(
            "[defaults]\ninventory={0}/inventory.yml\ncollections_path={0}\nforks=20\n"
            "[ssh_connection]\npipelining=True\ncontrol_path_dir={0}/cp\n".format(self.folder), "utf-8")
        collection.copy(self.folder)  # what is measured stays the same, whatever happens to the checkout meanwhile

    def forget_login(self) -> None:
        """From now on the controller has no secret."""
        for name in ("gatecontrol_admin_user", "gatecontrol_admin_password"):
            del self.inventory["vars"][name]
        self.save_inventory()

    def save_inventory(self) -> None:
        path = self.folder / "inventory.yml"
        path.write_text(yaml.safe_dump({"all": self.inventory}), "utf-8")
        path.chmod(0o600)
        self.controller.owns(path)

    # -- what is measured

    def ping(self, hosts: list, *words: str, **environment: str) -> dict:
        return self.controller.run("ansible", ",".join(hosts), "-b", "-m", "ansible.builtin.ping", *words, **environment)

    def play(self, book: str, hosts: list, *words: str, **environment: str) -> dict:
        done = self.controller.run("ansible-playbook", str(self.folder / book), "-l", ",".join(hosts), *words, **environment)
        recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", done["out"], re.MULTILINE)
        if sorted(name for name, _changed in recap) != sorted(hosts):
            raise BenchError("%s did not reach its end on every host: %s" % (book, done["out"][-2000:]))
        return dict(done, changed=sum(int(changed) for _name, changed in recap))

    def requests(self) -> list:
        """What the server's API received since the last call, oldest first."""
        entries = [entry for entry in self.server.log(since=getattr(self, "seen", 0)) if "id" in entry]
        self.seen = max([entry["id"] for entry in entries] + [getattr(self, "seen", 0)])
        return [entry for entry in entries if entry.get("path", "").startswith("/api/")]

    def used(self, hosts: list) -> float:
        """Seconds of CPU that these hosts and the server have used so far."""
        words = run("podman", "stats", "--no-stream", "--format", "{{.CPUNano}}", *[self.containers[name] for name in hosts]).split()
        fields = pathlib.Path("/proc/%d/stat" % self.server.process.pid).read_text("utf-8").rpartition(")")[2].split()
        return sum(map(int, words)) / 1e9 + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def on(self, name: str, *argv: str) -> str:
        return run("podman", "exec", self.containers[name], *argv)


def per_host(entries: list, hosts: list, aside: tuple = ()) -> dict:
    """{host: [method and path of each request with its token]}, without the paths in `aside`. Raises BenchError for requests of others."""
    found: dict = {name: [] for name in hosts}
    for entry in entries:
        shown = "%s %s" % (entry["method"], entry["path"])
        if entry["path"] not in aside:
            name = (entry.get("token") or "").removeprefix("ansible: ")  # as a token that a play has minted is called
            if name not in found:
                raise BenchError("the server's log has a request of another host: %s" % entry)
            found[name].append(shown)
    return found


def whole(value: float) -> float:
    """An int where nothing is lost by it."""
    return int(value) if value == int(value) else round(value, 2)


def enroll(room: Room, options: argparse.Namespace) -> dict:
    """The first hosts are the measured ones, the others follow."""
    first, others = room.names[:options.hosts[0]], room.names[options.hosts[0]:]
    room.requests()
    done = room.play("site.yml", first)
    found = per_host(room.requests(), first, aside=("/api/v1/client/ping",))
    say("enrolled %d hosts in %.1f s: %s" % (len(first), done["seconds"], ", ".join(found[first[0]])))
    if others:
        say("enrolled %d more in %.1f s" % (len(others), room.play("site.yml", others)["seconds"]))
    peers = {peer["name"]: peer["id"] for peer in room.server.ask("peer", action="list")}
    for name in room.names:
        room.inventory["hosts"][name]["plain_peer_id"] = peers[name]
    room.save_inventory()
    return {"api_requests_per_host": whole(statistics.mean(len(requests) for requests in found.values())),
            "seconds": round(done["seconds"], 2), "hosts": len(first)}


def counted(room: Room, hosts: list, play) -> dict:
    """Module runs, commands over SSH and who answered, of one run: counted in Ansible's own trace and results."""
    results = room.folder / "home" / "results.json"
    done = play("-vvv", ANSIBLE_LOAD_CALLBACK_PLUGINS="1", ANSIBLE_CALLBACK_PLUGINS=str(room.folder / "callbacks"),
                ANSIBLE_CALLBACKS_ENABLED="counting", COUNTING_FILE=str(results))
    answers = json.loads(results.read_text("utf-8"))
    return {"module_runs": done["out"].count("Using module file "),
            "ssh_commands": len(re.findall(r"^<[^>]+> SSH: EXEC ", done["out"], re.MULTILINE)),
            "asked": {name: [answer["asked"] for answer in answers if answer["host"] == name and answer["asked"]] for name in hosts}}


def steady(room: Room, options: argparse.Namespace) -> dict:
    found: dict = {"seconds": {}, "controller_cpu_s": {}, "cpu_s": {}}
    hosts = room.names[:options.hosts[0]]
    room.ping(room.names)  # not counted: byte code, caches, plain0.conf
    room.play("site.yml", room.names)
    if not room.login:
        room.play("plain.yml", hosts)
    pinged = counted(room, hosts, lambda *words, **environment: room.ping(hosts, *words, **environment))
    if pinged["module_runs"] != len(hosts):
        raise BenchError("%d module runs counted for a ping of %d hosts: Ansible's trace has changed" % (pinged["module_runs"], len(hosts)))
    played = counted(room, hosts, lambda *words, **environment: room.play("site.yml", hosts, *words, **environment))
    if any(asked not in (["agent"], ["module"]) for asked in played["asked"].values()):
        raise BenchError("not every host told who answered: %s" % played["asked"])
    by_module = sum(asked == ["module"] for asked in played["asked"].values())
    if by_module > played["module_runs"]:
        raise BenchError("%d hosts were asked by module, %d module runs were counted" % (by_module, played["module_runs"]))
    requests, changed = set(), 0
    for number in range(options.rounds):
        for count in options.hosts:
            hosts = room.names[:count]
            kinds = {"ping": lambda: room.ping(hosts), "play": lambda: room.play("site.yml", hosts)}
            if count == options.hosts[0] and not room.login:
                kinds["plain"] = lambda: room.play("plain.yml", hosts)
            order = list(kinds)[number % 2::] + list(kinds)[:number % 2]  # who comes first changes
            for kind in order:
                room.requests()
                before = room.used(hosts)
                done = kinds[kind]()
                elsewhere = room.used(hosts) - before
                seen = per_host(room.requests(), hosts)
                for figure, value in (("seconds", done["seconds"]), ("controller_cpu_s", done["cpu"]), ("cpu_s", done["cpu"] + elsewhere)):
                    found[figure].setdefault(str(count), {}).setdefault(kind, []).append(round(value, 3))
                if kind == "play":
                    requests.update(len(made) for made in seen.values())
                    changed += done["changed"]
        shown = ["%s hosts: %s" % (count, ", ".join("%s %.2f s" % (kind, values[-1]) for kind, values in kinds.items()))
                 for count, kinds in found["seconds"].items()]
        say("round %d: %s; load %.1f" % (number + 1, "; ".join(shown), os.getloadavg()[0]))
    few = options.hosts[0]

    def ratio(count: int, to: str, figure: str = "seconds") -> float:
        values = found[figure][str(count)]
        return round(statistics.median(values["play"]) / statistics.median(values[to]), 3)

    found.update(module_runs_per_host=whole(played["module_runs"] / few), ssh_commands_per_host=whole(played["ssh_commands"] / few),
                 api_requests_per_host=max(requests), changed=changed, ping_ratio=ratio(few, "ping"), cpu_ratio=ratio(few, "ping", "cpu_s"))
    if not room.login:
        found["plain_ratio"] = ratio(few, "plain")
    for count in options.hosts[1:]:
        found["ping_ratio_%d" % count] = ratio(count, "ping")
        found["cpu_ratio_%d" % count] = ratio(count, "ping", "cpu_s")
    if options.profile and not room.login:
        found["controller_ms"] = profile(room, hosts, options.rounds)
    return found


def profile(room: Room, hosts: list, rounds: int) -> dict:
    """{task: {what: milliseconds of the controller's CPU for one host}}, medians; printed too."""
    notes = room.folder / "home" / "profile"
    for _round in range(rounds):
        room.controller.run(
            sys.executable, str(room.folder / "profile_play.py"), str(notes), str(room.folder / "site.yml"), "-l", ",".join(hosts))
    spent: dict = {}
    for line in notes.read_text("utf-8").splitlines():
        task, parts = json.loads(line)
        for what, seconds in parts.items():
            spent.setdefault(task, {}).setdefault(what, []).append(1000 * seconds)
    medians = {task: {what: round(statistics.median(times), 1) for what, times in parts.items()} for task, parts in spent.items()}
    for task, parts in medians.items():
        print(task)
        for what, milliseconds in sorted(parts.items(), key=lambda item: -item[1]):
            if milliseconds >= 0.5:
                print("%10.1f ms  %s" % (milliseconds, what))
    return medians


def beat(room: Room, options: argparse.Namespace) -> dict:
    """Beats of one host of each Debian release, each a new process with a new connection; the slowest release counts."""
    found, requests = {}, set()
    for name in room.names[:len(SUITES)]:
        runs = []
        room.on(name, "/usr/local/sbin/gatecontrol-agent", "sync")  # the next one asks for no config
        for _round in range(options.rounds):
            room.requests()
            runs.append(json.loads(room.on(name, "/usr/bin/python3", "-c", USAGE, "/usr/local/sbin/gatecontrol-agent", "beat")))
            made = per_host(room.requests(), [name])[name]
            if runs[-1]["rc"] or "POST /api/v1/client/heartbeat" not in made:
                raise BenchError("the beat of %s ended with %d and made the requests %s" % (name, runs[-1]["rc"], made))
            requests.add(len(made))
        found[SUITES[room.names.index(name)]] = {
            key: round(statistics.median(one[key] for one in runs), digits) for key, digits in (("cpu_s", 3), ("rss_mb", 1))}
    return {"cpu_s": max(one["cpu_s"] for one in found.values()), "rss_mb": max(one["rss_mb"] for one in found.values()),
            "api_requests": max(requests), "by_release": found}


def change(room: Room, _options: argparse.Namespace) -> dict:
    """The server changes a peer's keepalive; the host takes it over while datagrams pass the tunnel."""
    name, lost = room.names[0], []
    for seconds in (17, 21):
        room.server.ask("peer", action="set", peer=name, values={"persistent_keepalive": seconds})
        counter = subprocess.Popen(["ip", "netns", "exec", room.containers[name], "ping", "-q", "-i", str(GAP), "-c", str(SENT), GATEWAY],
                                   stdout=subprocess.PIPE, text=True)
        try:
            time.sleep(0.5)
            room.on(name, "/usr/local/sbin/gatecontrol-agent", "sync")
            end = time.monotonic() + SENT * GAP
            while "\t%d\n" % seconds not in room.on(name, "wg", "show", "wg0", "persistent-keepalive"):
                if time.monotonic() > end:
                    raise BenchError("%s did not take over the new keepalive" % name)
                time.sleep(0.05)
            if counter.poll() is not None:
                raise BenchError("the change took longer than the packets that were to count it")
            said = counter.communicate(timeout=60)[0]
        finally:
            counter.kill()
        sent, received = map(int, re.search(r"(\d+) packets transmitted, (\d+) received", said).groups())
        if sent != SENT:
            raise BenchError("ping sent %d packets, not %d" % (sent, SENT))
        lost.append(sent - received)
        shown = json.loads(room.on(name, "/usr/local/sbin/gatecontrol-agent", "show", "--json"))
        deadline = time.monotonic() + 60
        while shown["pending"] and time.monotonic() < deadline:
            time.sleep(0.2)
            shown = json.loads(room.on(name, "/usr/local/sbin/gatecontrol-agent", "show", "--json"))
        if shown["pending"] or not shown["verdict"]["ok"]:
            raise BenchError("the change of %s was not kept: %s" % (name, shown["verdict"]))
    return {"packets_lost": max(lost), "packets_sent": SENT, "gap_s": GAP, "changes": len(lost)}


def ephemeral(room: Room, options: argparse.Namespace) -> dict:
    """From nothing but packages to a handshake and the job's first task, and until all is gone again; one host at a time."""
    name, started, ended = room.names[0], [], []
    (room.folder / "job.yml").write_text(
        "- name: Say when\n  ansible.builtin.shell: wg show wg0 latest-handshakes | awk '$2 == 0 {exit 1}' && date +%s.%N >/tmp/began\n"
        "  become: true\n", "utf-8")
    for _round in range(options.rounds):
        room.server.ask("reset")
        begun = time.time()
        done = room.play(BOOK, [name], "-e", "gatecontrol_hosts=all", "-e", "gatecontrol_ephemeral_tasks=%s" % (room.folder / "job.yml"))
        started.append(float(room.on(name, "cat", "/tmp/began")) - begun)
        ended.append(done["seconds"])
        if room.server.ask("peer", action="list"):
            raise BenchError("the ephemeral host left a peer")
        say("ephemeral: at work after %.1f s, gone after %.1f s" % (started[-1], ended[-1]))
    return {"to_handshake_s": round(statistics.median(started), 1), "whole_s": round(statistics.median(ended), 1)}


def fleet(room: Room, _options: argparse.Namespace) -> dict:
    """All hosts in one play with one login, forks 20; then every peer has a token and a handshake."""
    room.server.ask("reset")
    room.server.ask("log", clear=True)
    done = room.play("site.yml", room.names)
    entries = [entry for entry in room.server.log() if "path" in entry]
    peers = room.server.ask("peer", action="list")
    found = {
        "hosts": len(room.names), "enroll_%d_s" % len(room.names): round(done["seconds"], 1), "peers": len(peers),
        "tokens": sum(entry["method"] == "POST" and entry["path"].endswith("/tokens") and entry["status"] == 201 for entry in entries),
        "logins": sum(entry["method"] == "POST" and entry["path"] == "/login" for entry in entries),
        "orphans": len({peer["name"] for peer in peers} ^ set(room.names)) + sum(not peer["latest_handshake"] for peer in peers)}
    say("fleet: %s" % found)
    if (found["peers"], found["tokens"], found["logins"], found["orphans"]) != (len(room.names), len(room.names), 1, 0):
        raise BenchError("not one peer and one token a host from one login: %s" % found)
    return found


def table(found: dict) -> None:
    """The figures for a person."""
    rows = []
    names = {"ping": "ansible -b -m ping", "play": "the role", "plain": "uri, copy, systemd"}
    for part, words in (("steady", "steady"), ("after_login", "after one login")):
        if part not in found:
            continue
        for count, kinds in found[part]["seconds"].items():
            cpu = {kind: statistics.median(values) for kind, values in found[part]["cpu_s"][count].items()}
            seconds = {kind: statistics.median(values) for kind, values in kinds.items()}
            rows += [("%s, %s hosts: %s" % (words, count, name), "%.2f s" % seconds[kind], "%.2f x ping" % (seconds[kind] / seconds["ping"]),
                      "%.2f s CPU, %.2f x ping" % (cpu[kind], cpu[kind] / cpu["ping"]))
                     for kind, name in names.items() if kind in kinds]
        steadily = found[part]
        rows.append((words + ", per host", "%g module runs" % steadily["module_runs_per_host"],
                     "%g API requests" % steadily["api_requests_per_host"], "%d changed" % steadily["changed"]))
    if "enroll" in found:
        rows.append(("enrollment, %d hosts" % found["enroll"]["hosts"], "%.1f s" % found["enroll"]["seconds"],
                     "%g API requests" % found["enroll"]["api_requests_per_host"], ""))
    if "beat" in found:
        rows.append(("beat", "%.3f s CPU" % found["beat"]["cpu_s"], "%.1f MB" % found["beat"]["rss_mb"],
                     "%d API request" % found["beat"]["api_requests"]))
    if "change" in found:
        rows.append(("change of a peer", "%d of %d packets lost" % (found["change"]["packets_lost"], SENT), "", ""))
    if "ephemeral" in found:
        rows.append(("ephemeral host", "%.1f s to a handshake" % found["ephemeral"]["to_handshake_s"], "%.1f s in all" % found["ephemeral"]["whole_s"], ""))
    if "fleet" in found:
        count = found["fleet"]["hosts"]
        rows.append(("one login, %d hosts" % count, "%.1f s" % found["fleet"]["enroll_%d_s" % count], "%d peers" % found["fleet"]["peers"],
                     "%(tokens)d tokens, %(logins)d login, %(orphans)d orphans" % found["fleet"]))
    for row in rows:
        print(("%-40s %22s %16s  %s" % row).rstrip())


def judged(found: dict) -> bool:
    """Whether every figure that was measured is within its bar; says so of each."""
    fine = True
    for name, limit in BARS.items():
        part, figure = name.split(".")
        if part not in found:
            continue
        for key in [figure, *[key for key in found[part] if re.fullmatch(figure + r"_\d+", key)]]:
            value, kept = found[part][key], found[part][key] <= limit
            fine = fine and kept
            print("%-52s %8g  %s" % ("%s.%s (bar %g)" % (part, key, limit), value, "ok" if kept else "MISSED"))
    return fine


def versions() -> dict:
    from ansible.release import __version__
    return {"ansible_core": __version__, "python": platform.python_version(), "kernel": platform.release(),
            "cores": len(os.sched_getaffinity(0)), "load": [round(value, 2) for value in os.getloadavg()],
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement; medians are taken (default: %(default)s)")
    parser.add_argument("--hosts", type=int, nargs="+", default=[5, 20], metavar="N", help="how many at a time (default: 5 20)")
    parser.add_argument("--only", nargs="+", choices=PARTS + LOGIN_PARTS, default=list(PARTS + LOGIN_PARTS), metavar="PART",
                        help="of %s; the enrollment happens for all but the last two" % ", ".join(PARTS + LOGIN_PARTS))
    parser.add_argument("--profile", action="store_true", help="also print where the controller's time goes in a steady run")
    parser.add_argument("--output", type=pathlib.Path, default=CHECKOUT / "build" / "bench.json")
    options = parser.parse_args()
    if os.geteuid() != 0:
        say("hosts, tunnels and namespaces need root: run it with sudo")
        return 2
    signal.signal(signal.SIGTERM, lambda *_words: sys.exit(143))
    try:
        found = {"versions": versions(), "rounds": options.rounds}
        if set(options.only) & set(PARTS):
            with Room(max(options.hosts)) as room:
                found["enroll"] = enroll(room, options)
                for name, part in (("steady", steady), ("beat", beat), ("change", change)):
                    if name in options.only:
                        found[name] = part(room, options)
        if set(options.only) & set(LOGIN_PARTS):
            with Room(FLEET if "fleet" in options.only else 1, era="1.118.2", suites=("trixie",), login=True) as room:
                for name, part in (("ephemeral", ephemeral), ("fleet", fleet)):
                    if name in options.only:
                        found[name] = part(room, options)
                if "fleet" in options.only:
                    room.forget_login()
                    found["after_login"] = steady(room, options)
    except BenchError as err:
        say(str(err))
        return 1
    if "enroll" not in options.only:
        found.pop("enroll", None)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    table(found)
    say("written to %s" % options.output)
    return 0 if judged(found) else 1


if __name__ == "__main__":
    sys.exit(main())
