"""The modules' real main(), in this process, against running servers of every era; hosts are folders with a machine id."""
from __future__ import annotations

import contextlib
import importlib
import io
import json
import pathlib
import uuid

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _agent, _api, _enrollment

from gateserver.running import Server

ERAS = ("1.5.2", "1.50.12", "1.118.2", "fixed")
MODULES = "ansible_collections.callmetechie.gatecontrol.plugins.modules."
STORE = _enrollment.Store.__init__


class Gate:
    """A running server and what it has seen since the last look."""

    def __init__(self, era: str, *arguments: str):
        self.era = era
        self.server = Server("--era", era, *arguments)
        self.url, self.ask, self.fault = self.server.url, self.server.ask, self.server.fault
        self.number = self.mark = 0
        self.peers_token = self.server.token("peers", name="peers")

    def name(self, prefix: str = "web") -> str:
        """A name no other test uses."""
        self.number += 1
        return "%s%d" % (prefix, self.number)

    def token(self, scopes: str | None = None, peer_id=None) -> str:
        """A client token, as its era has it."""
        return self.server.token(scopes or ("peers" if self.era == "1.5.2" else "client"), name=self.name("token"), peer_id=peer_id)

    def add(self, name: str, **values) -> dict:
        """A peer the administrator made: {"id", "name", "address"}."""
        return self.ask("peer", action="add", peer=name, values=values)[0]

    def set(self, peer, **values):
        return self.ask("peer", action="set", peer=str(peer), values=values)

    def delete(self, peer) -> None:
        self.ask("peer", action="delete", peer=str(peer))

    def peers(self, prefix: str) -> list:
        """The peers whose names begin so."""
        return [peer for peer in self.ask("peer", action="list") if peer["name"].startswith(prefix)]

    def seen(self) -> list:
        """What was received since the last call of this, as log entries."""
        entries = [entry for entry in self.ask("log", since=self.mark) if "method" in entry]
        self.mark = max([entry["id"] for entry in entries] or [self.mark])
        return entries

    def calls(self) -> list:
        """The same as ["GET ping 200", …]."""
        return ["%s %s %d" % (entry["method"], entry["path"].replace("/api/v1/client/", "").replace("/api/v1/", "/"), entry["status"])
                for entry in self.seen()]


class Host:
    """A machine: its files lie below root."""

    def __init__(self, root: pathlib.Path, machine_id: str | None = None):
        self.root = root
        (root / "etc").mkdir(parents=True, exist_ok=True)
        (root / "etc/machine-id").write_text((machine_id or uuid.uuid4().hex) + "\n", encoding="ascii")
        self.store = _enrollment.Store(str(root))

    def module(self, name: str, /, check: bool = False, **args) -> dict:
        """Run a module here; its result."""
        out = io.StringIO()
        main = importlib.import_module(MODULES + "gatecontrol_" + name).main
        before, STORE.__defaults__ = STORE.__defaults__, (str(self.root),)
        try:
            with patch_module_args(dict(args, _ansible_check_mode=check, _ansible_diff=True)), contextlib.redirect_stdout(out), \
                    pytest.raises(SystemExit):
                main()
        finally:
            STORE.__defaults__ = before
        result = json.loads(out.getvalue())
        result.pop("_ansible_new_secrets", None)
        result.pop("invocation", None)
        return result

    def ok(self, name: str, /, check: bool = False, **args) -> dict:
        result = self.module(name, check, **args)
        assert not result.get("failed"), result["msg"]
        return result

    def fails(self, name: str, kind: str, /, check: bool = False, **args) -> str:
        """Run a module that has to fail in this way; its text, which is one line that says what to do."""
        result = self.module(name, check, **args)
        assert result.get("failed"), result
        assert result["failure"]["kind"] == kind, result
        assert "\n" not in result["msg"] and "Traceback" not in result["msg"]
        self.failure = result["failure"]
        return result["msg"]

    def files(self) -> dict:
        """Everything that lies here, machine id aside: path -> text."""
        return {str(path.relative_to(self.root)): path.read_text(encoding="utf-8") for path in sorted(self.root.rglob("*"))
                if path.is_file() and path.name != "machine-id"}

    @property
    def record(self) -> dict:
        return self.store.load("enrollment")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("GATECONTROL_URL", "GATECONTROL_TOKEN", "GATECONTROL_PEERS_TOKEN", "http_proxy", "https_proxy", "HTTP_PROXY",
                 "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def gates():
    """A server by era, and by further arguments; it runs until all tests are over."""
    made = {}

    def gate(era: str, *arguments: str) -> Gate:
        if (era, arguments) not in made:
            made[era, arguments] = Gate(era, *arguments)
        return made[era, arguments]
    yield gate
    for one in made.values():
        one.server.stop()


@pytest.fixture
def gate(request, gates) -> Gate:
    """The server of the era the test is parametrized with, the repaired release otherwise."""
    one = gates(getattr(request, "param", "fixed"))
    one.seen()
    yield one
    one.server.no_faults()


@pytest.fixture
def new_host(tmp_path_factory):
    """Makes machines."""
    return lambda machine_id=None: Host(tmp_path_factory.mktemp("host"), machine_id)


@pytest.fixture
def host(new_host) -> Host:
    return new_host()


@pytest.fixture
def waits(monkeypatch) -> list:
    """Every wait of the client, in seconds; none is waited for: the clock is set forward instead. Jitter is left out."""
    slept = []

    def sleep(seconds):
        slept.append(round(seconds, 2))
    middle = {(0.8, 1.2): 1.0, (0, 1): 0.5}
    monkeypatch.setattr(_api.Api.__init__, "__defaults__", (None, None, sleep, lambda: sum(slept), lambda low, high: middle[low, high]))
    services, clock = _agent.Agent.__init__.__defaults__[:2]
    monkeypatch.setattr(_agent.Agent.__init__, "__defaults__", (services, clock, sleep))
    return slept
