"""A run of hosts for the tests of the room itself."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT / "tests" / "hosts"))

Done = subprocess.CompletedProcess
Command = Callable[..., Done]


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Folder in which the tests' runs keep theirs."""
    return tmp_path_factory.mktemp("rooms")


@pytest.fixture(scope="session")
def hosts(rooms: pathlib.Path) -> Command:
    """Run the room's command line; a failure fails the test unless check=False."""

    def call(*arguments: str, check: bool = True, environment: dict[str, str] | None = None) -> Done:
        command = [sys.executable, str(CHECKOUT / "tests" / "hosts"), "--dir", str(rooms), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment)
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


class Run:
    """One run as its tests see it."""

    def __init__(self, name: str, folder: pathlib.Path, hosts: Command) -> None:
        self.name, self.folder, self.hosts = name, folder, hosts
        self.record = json.loads((folder / "run.json").read_text("utf-8"))

    def root(self, host: str, script: str, check: bool = True) -> Done:
        """Run a shell script on a host as root."""
        return self.hosts("exec", self.name, host, "--", "sh", "-ec", script, check=check)

    def ssh(self, host: str, *command: str, timeout: int = 5) -> list[str]:
        """The ssh command line that reaches a host as ops."""
        options = ["-F", "/dev/null", "-i", str(self.folder / "id_ed25519"), "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}"]
        options += ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={timeout}"]
        return ["ssh", *options, f"ops@{self.record['hosts'][host]['address']}", *command]

    def address(self, host: str) -> str:
        """A host's address."""
        return self.record["hosts"][host]["address"]


def start(hosts: Command, rooms: pathlib.Path, kind: str, *arguments: str) -> Iterator[Run]:
    """Start a run with a name of this test process's own, remove it afterwards."""
    name = f"test_{kind}_{os.getpid()}"
    try:
        hosts("up", name, *arguments)
        yield Run(name, rooms / name, hosts)
    finally:
        hosts("down", name)


@pytest.fixture(scope="session")
def flat(hosts: Command, rooms: pathlib.Path) -> Iterator[Run]:
    """Three plain hosts, one of each suite, and a namespace for a server."""
    yield from start(hosts, rooms, "flat", "--hosts", "eleven:bullseye", "twelve:bookworm", "thirteen:trixie", "--server")


@pytest.fixture(scope="session")
def routed(hosts: Command, rooms: pathlib.Path) -> Iterator[Run]:
    """Two ready hosts behind a router."""
    yield from start(hosts, rooms, "routed", "--hosts", "far[1:2]:bookworm:ready", "--routed", "--server")
