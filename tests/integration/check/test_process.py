"""A check that is cut off, wherever it is, leaves nothing on the server: its process outlives whoever began it for that long."""
from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from checked import Checked

CODE = """
import json, sys
sys.path[:0] = {path!r}
from ansible_collections.callmetechie.gatecontrol.plugins.plugin_utils import _apart
print(json.dumps(_apart.run(json.loads(sys.argv[1]))))
"""


@pytest.fixture(scope="module")
def slow():
    """A server whose answers take a moment each."""
    one = Checked("fixed")
    one.server.fault("delay", path="/api/*", seconds=0.1)
    yield one
    one.server.stop()


def begin(server: Checked, *secrets: str) -> subprocess.Popen:
    """A process that asks for a check, as a task's process does."""
    code = CODE.format(path=sys.path)
    return subprocess.Popen([sys.executable, "-c", code, json.dumps(server.given(*secrets))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def checks(process: subprocess.Popen) -> list[str]:
    """The numbers of the processes of their own that it began."""
    return subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout.split()


def goes_on(number: str) -> bool:
    """Whether a process is there; one that has ended and that nobody took note of is not."""
    try:
        return pathlib.Path("/proc", number, "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ended(numbers: list[str]) -> None:
    """Wait until they are gone."""
    end = time.monotonic() + 60
    while any(map(goes_on, numbers)):
        assert time.monotonic() < end, "the check goes on"
        time.sleep(0.05)


def heard(server: Checked, count: int) -> None:
    """Wait until the server has heard so many requests of a check."""
    end = time.monotonic() + 60
    while len([row for row in server.server.log() if row.get("method")]) < count and time.monotonic() < end:
        time.sleep(0.02)


def test_a_check_in_its_own_process_says_what_one_in_this_says(slow):
    process = begin(slow, "login", "peers", "client")
    out, err = process.communicate(timeout=60)
    report = json.loads(out)
    assert report["ok"] and err == "" and slow.peers() == [] and slow.minted() == []
    assert [point["name"] for point in report["points"]] == [point["name"] for point in slow.check("login", "peers", "client")["points"]]


def cut_off(server: Checked, after: int, number: int) -> list[str]:
    """Begin a check, end its beginner after so many requests, wait for the end of its processes; their numbers, none if it was over before."""
    server.server.ask("log", clear=True)
    process = begin(server, "login")
    heard(server, after)
    begun = checks(process)
    os.kill(process.pid, number)
    process.wait(10)
    process.stdout.close()
    process.stderr.close()
    ended(begun)
    return begun


CUTS = [*((after, signal.SIGKILL) for after in (9, 10, 11, 12, 14, 17, 20)), *((after, signal.SIGTERM) for after in (10, 12, 17))]


@pytest.mark.parametrize("after, number", CUTS,
                         ids=lambda value: value.name if isinstance(value, signal.Signals) else str(value))
def test_a_check_that_is_cut_off_leaves_nothing(slow, after, number):
    for seconds in (0.1, 0.5, 2.5):  # on a machine that has no time for this test a check may be over before it is cut off
        slow.server.no_faults()
        slow.server.fault("delay", path="/api/*", seconds=seconds)
        begun = cut_off(slow, after, number)
        if begun:
            break
    assert begun
    paths = [row["path"] for row in slow.server.log(method="POST")]
    assert slow.peers() == [] and slow.minted() == []
    assert after < 10 or "/api/v1/peers" in paths


def test_what_goes_wrong_in_the_process_is_told_in_a_sentence(slow, monkeypatch):
    from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api
    from ansible_collections.callmetechie.gatecontrol.plugins.plugin_utils import _apart
    monkeypatch.setattr(_apart, "BEGIN", "import sys; sys.exit('no memory is left')")
    with pytest.raises(_api.ApiError, match="^the check did not end: no memory is left; run it again$"):
        _apart.run(slow.given("login"))
