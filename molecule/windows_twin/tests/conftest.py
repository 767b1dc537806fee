"""The scenario as molecule has left it after converge: a Debian host, a stand-in of a Mac and three of Windows, enrolled."""
from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time

import pytest

HERE = pathlib.Path(__file__).resolve()
CHECKOUT = HERE.parents[3]
TWINS = CHECKOUT / "tests/twins/windows"
sys.path[:0] = [str(HERE.parents[2] / "shared"), str(TWINS)]

import machine  # noqa: E402
import new  # noqa: E402
from scenario import PYTHON, Scenario  # noqa: E402

FOLDER = "C:\\ProgramData\\GateControl\\"
WINDOWS = ("win1", "win2", "win3")
SPARE = ["spare%d" % number for number in range(1, 10)]


class Twins(Scenario):
    """The scenario, and its stand-ins."""

    def __init__(self):
        super().__init__("windows_twin")
        self.linux, self.mac, self.collections = *self.hosts, "%s/twins/windows:%s" % (CHECKOUT / "build", CHECKOUT / "build")

    def twin(self, host):
        """The machine that stands in for a host."""
        return machine.Machine(str(self.folder / host))

    def set(self, host, **values):
        """Change what Windows keeps there."""
        with self.twin(host).change() as state:
            state.update(values)

    def file(self, host, path):
        """A file of the agent's folder."""
        return pathlib.Path(self.twin(host).path(FOLDER + path))

    def config(self, host):
        """The config that the tunnel's service runs, None where there is none."""
        return self.twin(host).state["services"].get("WireGuardTunnel$wg0", {}).get("config")

    def agent(self, host, verb):
        """What the host's agent prints, run as a scheduled task would."""
        return subprocess.run([PYTHON, str(TWINS / "agent.py"), self.twin(host).tree, verb], capture_output=True, text=True, check=True).stdout

    def look(self, host):
        """All that is there: the tree's files and what Windows keeps, but for the beats."""
        tree = pathlib.Path(self.twin(host).tree)
        files = {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file() and not path.name.startswith("windows.json")
                 and path.name not in ("state.json", "verdict.json", "earlier.json")}
        return files, self.twin(host).state

    def fresh(self, host):
        """Make the host anew, with a token of its own."""
        new.make(self.twin(host).tree, host, self.known["gatecontrol_controller_ca_path"])
        return self.give(host)

    def secrets(self):
        """Every text that must not be shown."""
        found = set()
        for host in WINDOWS:
            found.add(self.file(host, "token").read_text().strip())
            for line in self.config(host).splitlines():
                if line.startswith(("PrivateKey", "PresharedKey")):
                    found.add(line.partition(" = ")[2])
        return found


@pytest.fixture(scope="session")
def room():
    """Hosts, stand-ins, server and plays."""
    return Twins()


def settled(room, host, seconds=20):
    """Wait until no change is under way there."""
    end = time.monotonic() + seconds
    while room.file(host, "pending.json").exists() and time.monotonic() < end:
        time.sleep(0.2)
    return json.loads(room.agent(host, "show"))
