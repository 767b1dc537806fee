"""The agent on a made-up machine against a running server: real files below a folder, a real HTTP client, no real interface."""
from __future__ import annotations

import hashlib
import pathlib
import sys
import time
import uuid

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import (
    _agent, _api, _cli, _enrollment, _facts, _install, _plan, _step, _verify, _wgconf)

from gateserver.running import Server

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT / "tests/unit/plugins/module_utils"))
from fake_host import FakeHost  # noqa: E402

LAUNCHER = (CHECKOUT / "roles/gatecontrol/files/gatecontrol_agent.py").read_text(encoding="utf-8")
UNIT_NAMES = ("gatecontrol-beat.service", _agent.TIMER, _agent.APPLY, _agent.RECOVER)
UNITS = {"/etc/systemd/system/" + name: "# %s\n[Unit]\nDescription=A unit\n" % name for name in UNIT_NAMES}
ERAS = ("1.5.2", "1.50.12", "1.118.2", "fixed")
QUIET = {"allowed_ips": ["10.8.0.0/24"], "dns": []}


class Gate:
    """A running server and what it received since the last look."""

    def __init__(self, era: str):
        self.server = Server("--era", era, "--rate-limit", "100000")
        self.era, self.url, self.ask = era, self.server.url, self.server.ask
        self.mark = 0

    def fault(self, kind: str, verb: str = "*", **how) -> None:
        self.server.fault(kind, path="/api/v1/client/" + verb, **how)

    def peer(self, action: str, peer, **values):
        return self.ask("peer", action=action, peer=str(peer), values=values)

    def seen(self) -> list:
        entries = [entry for entry in self.ask("log", since=self.mark) if "method" in entry]
        self.mark = max([entry["id"] for entry in entries] or [self.mark])
        return entries

    def calls(self) -> list:
        """What was received since the last look, as "heartbeat" or, if it was no success, "heartbeat 503"."""
        return [entry["path"].replace("/api/v1/client/", "") + ("" if entry["status"] == 200 else " %d" % entry["status"]) for entry in self.seen()]


class Machine(FakeHost):
    """A machine with systemd's and the kernel's traces below root; now() is its clock, which sleep() moves."""

    def __init__(self, root: pathlib.Path, peer: str = ""):
        super().__init__(root)
        for folder in ("etc/systemd/system", "run/systemd/system", "sys/class/net"):
            (root / folder).mkdir(parents=True)
        (root / "etc/machine-id").write_text(uuid.uuid4().hex + "\n", encoding="ascii")
        (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n', encoding="ascii")
        self.time = float(int(time.time()))
        self.handshakes = int(self.time)
        self.slept, self.started, self.peer = [], [], peer

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 2))
        self.time += seconds

    def run(self, argv, stdin=None):
        if argv[:1] == ["timeout"]:
            argv = argv[2:]
        if argv[0] == "systemctl":
            return self.systemctl([word for word in argv[1:] if word not in ("--", "--no-ask-password", "--quiet", "--no-block")])
        if argv[0] == "journalctl":
            return 0, "", ""
        if argv[0] == "wireguard-go" or argv[:3] == ["ip", "link", "add"]:
            return 127, "", "not found"
        if argv[0].startswith("/") or argv[0].endswith(_verify.LAUNCHER):
            return 0, "", ""
        answer = super().run(argv, stdin)
        folder = pathlib.Path(self.root, "sys/class/net")
        for there in folder.iterdir():
            there.rmdir()
        for link in self.links:
            (folder / link).mkdir()
        return answer

    def systemctl(self, words):
        verb, units = words[0], [word for word in words[1:] if not word.startswith("--")]
        if verb == "show":
            return 0, "\n\n".join("ActiveState=%s\nUnitFileState=%s\nLoadState=loaded" % (
                "active" if unit in self.active else "inactive", "enabled" if unit in self.enabled else "disabled") for unit in units), ""
        if verb in ("start", "restart"):
            self.started += units
        for unit in units:
            if unit.startswith("wg-quick@") and verb in ("start", "stop"):
                getattr(self.services, verb)(unit)
            elif verb in ("start", "restart") and unit != _agent.APPLY:
                self.active.add(unit)
            elif verb == "stop":
                self.active.discard(unit)
            elif verb in ("enable", "disable"):
                getattr(self.enabled, "add" if verb == "enable" else "discard")(unit)
        return 0, "", ""

    def agent(self) -> _agent.Agent:
        return _agent.Agent(self.store, self.run, now=self.now, sleep=self.sleep, clock=self.now)

    def beat(self, **how) -> dict:
        return self.agent().beat(**how)

    def publish(self) -> None:
        agent = self.agent()
        _cli.publish(agent, agent.beat())

    def pass_by(self, seconds: float, handshake: bool = True) -> None:
        """Time passes; with or without handshakes meanwhile."""
        self.time += seconds
        if handshake:
            self.handshakes = int(self.time)

    def silence(self) -> None:
        """From now on no peer answers any more."""
        self.answering = ("nobody", "")

    def installation(self, **settings) -> _install.Installation:
        return _install.Installation(self.agent(), LAUNCHER, UNITS, dict(self.settings, **settings))

    def install(self, **settings) -> None:
        installed = self.installation(**settings)
        installed.write(installed.differences())
        _install.set_timer(self.agent(), True)

    def set(self, **settings) -> None:
        self.store.save("settings", dict(self.store.load("settings"), **settings))

    def files(self) -> dict:
        """Digest and mode of everything below root."""
        return {str(path.relative_to(self.root)): (oct(path.stat().st_mode), path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest())
                for path in sorted(pathlib.Path(self.root).rglob("*"))}


def enroll(machine: Machine, gate: Gate, reporting: str = "full") -> None:
    """What gatecontrol_peer, _config and _tunnel leave on a host, its tunnel running."""
    machine.peer = "host-" + uuid.uuid4().hex[:8]
    made = gate.peer("add", machine.peer)[0]
    token = gate.server.token("peers" if gate.era == "1.5.2" else "client", peer_id=made["id"])
    machine.settings = {"url": gate.url, "interface": "wg0", "heartbeat_interval": 60, "sync_interval": 300, "policy": QUIET}
    machine.store.save("settings", _verify.settings_text(machine.settings))
    if reporting == "full":
        machine.store.save("token", token + "\n")
    issued = _api.Api({"url": gate.url, "token": token}).config(made["id"])["config"]
    machine.store.save("enrollment", {
        "peer_id": made["id"], "peer_name": machine.peer, "url": gate.url, "interface": "wg0", "reporting": reporting,
        "token_digest": _enrollment.digest(token), "fingerprint": _facts.machine_fingerprint(machine.root)})
    agent = machine.agent()
    config = _wgconf.parse(agent.stage(issued))
    _step.apply(machine.run, agent.services, machine.store, "wg0", _plan.plan(config, None), config)
    agent.accept()
    machine.store.drop("candidate")
    gate.seen()
