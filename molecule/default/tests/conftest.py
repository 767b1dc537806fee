"""The scenario "default" as molecule has left it after converge: three enrolled hosts."""
from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "shared"))

from scenario import Scenario  # noqa: E402


@pytest.fixture(scope="session")
def room():
    """Hosts, server and plays."""
    return Scenario("default")


@pytest.fixture(autouse=True)
def _each_test_finds_enrolled_hosts(request, room):
    """A test leaves the hosts enrolled and in sync; where one failed, they are brought there again for the next one."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        start_over(room)


def start_over(room) -> None:
    """All hosts enrolled anew, whatever state they and the server are in."""
    room.server("server_stop.yml")
    room.server("server_start.yml")
    room.unenroll(check=False)
    room.play()


@pytest.fixture(scope="module")
def restless(room):
    """Hosts whose agent beats and asks for a new config every 5 seconds."""
    room.play(gatecontrol_heartbeat_interval=5, gatecontrol_sync_interval=5).ok()
    yield {"gatecontrol_heartbeat_interval": 5, "gatecontrol_sync_interval": 5}
    room.no_faults()
    room.play().ok()


@pytest.fixture
def quiet(room):
    """No beat puts right what a test breaks before the play has seen it: the timer goes on, and what it starts does nothing."""
    place = "/run/systemd/system/gatecontrol-beat.service.d"
    room.everywhere("systemctl start gatecontrol-beat.service && mkdir -p %s && printf '[Unit]\\nConditionPathExists=/nowhere\\n' >%s/quiet.conf"
                    " && systemctl daemon-reload" % (place, place))
    yield
    room.everywhere("rm -r %s; systemctl daemon-reload" % place)
