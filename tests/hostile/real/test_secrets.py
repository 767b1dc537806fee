"""Secrets are looked for wherever they could be left, while a real host is enrolled, run again, changed, rotated, reported on, failed and retired."""
from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import threading
import typing as t

import pytest
import yaml

HOSTILE = pathlib.Path(__file__).resolve().parents[1]
CHECKOUT = HOSTILE.parents[1]
sys.path.insert(0, str(HOSTILE))

from lab import PASSWORD, Lab  # noqa: E402

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="real hosts need root")
RUN, PROXY_WORD = "hostile2", "ProxyWord-4711-secret"
PLACES = ("tmp", "var/tmp", "root/.ansible", "home/ops/.ansible", "run/user")
# How the server fails a step of an enrollment, and what a user mistyped: ten plays that fail.
FAULTS = [{"kind": "status", "status": 500, "path": "*"}, {"kind": "status", "status": 403, "path": "*"}, {"kind": "drop", "path": "*"},
          {"kind": "html", "path": "*"}, {"kind": "invalid-json", "path": "*"}, {"kind": "cut", "path": "*", "bytes": 20}]
MISTYPED = ["gatecontrol_url=https://user:%s@" % PROXY_WORD, "gatecontrol_mtu=5", "gatecontrol_allow_endpoints=192.0.2.0/24",
            "gatecontrol_confirm_timeout=soon"]


def hosts(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(CHECKOUT / "tests/hosts"), *arguments], check=True, capture_output=True, text=True)


class Sampler:
    """Command lines and environments of the plays' processes and of all of the host's, and small files in temporary folders, again and again.

    mark: stands in the environment of what the plays begin. init: the host's first process. server: it was given the password by its test.
    """

    def __init__(self, folders: list[pathlib.Path], mark: str, init: str, server: int):
        self.folders, self.mark, self.seen, self.over = folders, mark.encode(), {}, threading.Event()
        self.space, self.not_looked_at = os.readlink("/proc/%s/ns/mnt" % init), {os.getpid(), server}
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.rounds = 0

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_problem):
        self.over.set()
        self.thread.join()

    def _run(self) -> None:
        while not self.over.wait(0.15):
            self.rounds += 1
            for process in self._ours():
                for name in ("cmdline", "environ"):
                    self._keep(process / name)
            for folder in self.folders:
                for place, _folders, names in os.walk(folder):
                    for name in names:
                        self._keep(pathlib.Path(place) / name)

    def _ours(self) -> t.Iterator[pathlib.Path]:
        """The processes of the plays and of the host; another test's have the same password."""
        parents, ours = {}, {os.getpid()}
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                parents[int(process.name)] = int((process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
                if os.readlink(process / "ns/mnt") == self.space or self.mark in (process / "environ").read_bytes():
                    ours.add(int(process.name))
            except OSError:
                continue
        for number in sorted(parents):  # a parent is older than its children
            if parents[number] in ours:
                ours.add(number)
        yield from (pathlib.Path("/proc", str(number)) for number in ours - self.not_looked_at)

    def _keep(self, path: pathlib.Path) -> None:
        try:
            with open(path, "rb") as handle:
                text = handle.read(400_000).decode("utf-8", "replace")
        except OSError:
            return
        self.seen.setdefault(text, str(path))


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """(lab with a hub, the host's inventory)."""
    hosts("up", RUN, "--hosts", "web1:bookworm:ready", "--server")
    folder = CHECKOUT / "build/hosts" / RUN
    try:
        run = json.loads((folder / "run.json").read_text())
        address = run["server"]["address"]
        lab = Lab(tmp_path_factory.mktemp("secrets") / "lab", {"web1": []}, "--host", address, "--wireguard", "gwhostile2", "--subnet", "10.94.0.0/24",
                  "--endpoint", address + ":51820", "--rate-limit", "100000", "--echo", "7", "--login-limit", "1000",
                  under=("ip", "netns", "exec", run["server"]["netns"]))
        made = yaml.safe_load((folder / "inventory.yml").read_text())
        made["all"]["vars"].update({
            "gatecontrol_url": lab.server.url, "gatecontrol_allow_http": True, "gatecontrol_admin_user": "admin", "gatecontrol_admin_password": PASSWORD,
            "gatecontrol_allowed_ips": ["10.94.0.0/24"], "gatecontrol_dns": [], "gatecontrol_proxy": "http://user:%s@192.0.2.1:3128" % PROXY_WORD,
            "gatecontrol_no_proxy": address, "gatecontrol_report_dir": str(lab.place)})
        inventory = lab.place / "inventory.yml"
        inventory.write_text(yaml.safe_dump(made), encoding="utf-8")
        (lab.place / "lab.json").write_text("{}")
        yield lab, inventory, run
        lab.close()
    finally:
        hosts("down", RUN)


def secrets(lab: Lab) -> dict[str, str]:
    """Every secret there is now, by what it is."""
    found = {"the password": PASSWORD, "the proxy's password": PROXY_WORD}
    for number, (private, preshared) in enumerate(lab.database("SELECT private_key, preshared_key FROM peers")):
        found.update({"private key %d" % number: private, "preshared key %d" % number: preshared})
    for number, (cookie, csrf) in enumerate(lab.database("SELECT id, csrf FROM sessions")):
        found.update({"session %d" % number: cookie, "CSRF word %d" % number: csrf})
    return {what: word for what, word in found.items() if word and len(word) > 7}


def test_no_secret_is_left_anywhere(room):
    lab, inventory, run = room
    log, results = lab.place / "ansible.log", lab.place / "results.jsonl"
    environment = {"ANSIBLE_CALLBACKS_ENABLED": "hostile_results,hostile_vars", "HOSTILE_RESULTS": str(results), "ANSIBLE_CACHE_PLUGIN": "jsonfile",
                   "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(lab.place / "cache"), "ANSIBLE_PIPELINING": "1", "ANSIBLE_CONNECTION_PLUGINS": ""}
    pid = subprocess.run(["podman", "inspect", "-f", "{{.State.Pid}}", run["hosts"]["web1"]["container"]], capture_output=True, text=True, check=True)
    root = pathlib.Path("/proc") / pid.stdout.strip() / "root"
    output, tokens, statuses = [], set(), []
    known: dict[str, str] = {}

    def play(*words: str, playbook: str | None = None, fine: bool = True) -> None:
        done = lab.play(inventory, "-vvvv", "--diff", *words, environment=environment, playbook=playbook)
        output.append(done.stdout + done.stderr)
        known.update({word: what for what, word in secrets(lab).items()})
        token = subprocess.run(["cat", str(root / "etc/gatecontrol/token")], capture_output=True, text=True, check=False).stdout.strip()
        tokens.update({token} - {""})
        statuses.append((words, playbook, done.returncode))
        assert (done.returncode == 0) is fine, done.stdout[-6000:] + done.stderr[-3000:]

    def extra(name: str, setting: str) -> str:
        """A file of extra variables: Ansible shows those of its command line, at -vvvv."""
        path, (option, _equals, value) = lab.place / (name + ".yml"), setting.partition("=")
        path.write_text(yaml.safe_dump({option: value}), encoding="utf-8")
        return "@" + str(path)

    playbooks = str(CHECKOUT / "playbooks")
    with Sampler([lab.place / "tmp", lab.place / "home", *(root / place for place in PLACES)], str(results), pid.stdout.strip(),
                 lab.server.process.pid) as sampler:
        play()
        play()
        lab.server.ask("peer", action="set", peer="web1", values={"persistent_keepalive": 17})
        play()
        play(playbook=playbooks + "/report.yml")
        play(playbook=playbooks + "/rotate.yml")
        for fault in FAULTS:
            subprocess.run(["rm", "-f", str(root / "etc/gatecontrol/settings.json")], check=True)
            lab.server.fault(**fault)
            play("-e", "gatecontrol_max_wait=1", fine=False)
            lab.server.no_faults()
        play("-e", extra("wrong", "gatecontrol_admin_password=Wrong" + PASSWORD), "-e", "gatecontrol_adopt=true")
        for number, wrong in enumerate(MISTYPED):
            play("-e", extra("mistyped%d" % number, wrong), fine=False)
        journal = hosts("exec", RUN, "web1", "--", "journalctl", "--no-pager", "-o", "cat").stdout
        play("-e", "gatecontrol_state=absent")
    assert tokens and len(known) >= 6 and sampler.rounds > 20, (tokens, known, sampler.rounds)
    words = dict(known, **{token: "a client token" for token in tokens})
    texts = {"output": "".join(output), "log": log.read_text("utf-8", "replace"), "callback": results.read_text("utf-8", "replace"), "journal": journal}
    texts.update({"fact cache " + path.name: path.read_text() for path in (lab.place / "cache").glob("*")})
    found = ["%s stands in %s" % (what, where) for word, what in words.items() for where, text in texts.items() if word in text]
    found += ["%s stands in %s" % (what, where) for word, what in words.items() for text, where in sampler.seen.items() if word in text]
    assert not found, "\n".join(found)
