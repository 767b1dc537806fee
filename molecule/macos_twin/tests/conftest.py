"""The scenario "macos_twin" as molecule has left it after converge: two stand-ins for Macs and a Linux host, enrolled."""
from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "shared"))

from scenario import Scenario  # noqa: E402


class Macs(Scenario):
    """The scenario, and how to ask its Macs."""

    macs = ("mac1", "mac2")

    def utun(self, host: str) -> str:
        """The real name of the tunnel's interface, "" where there is none."""
        return self.on(host, "cat /var/run/wireguard/wg0.name 2>/dev/null", check=False).strip()

    def mtu(self, host: str) -> int | None:
        """The MTU of the tunnel's interface, None where there is none."""
        return int(self.on(host, "cat /sys/class/net/$(cat /var/run/wireguard/wg0.name)/mtu 2>/dev/null", check=False) or 0) or None

    def job(self, host: str, name: str) -> dict:
        """What launchctl says of a job of the collection; {} where it is not loaded."""
        text = self.on(host, "launchctl print system/com.callmetechie.gatecontrol-%s" % name, check=False)
        return dict(line.strip().split(" = ", 1) for line in text.splitlines() if " = " in line and not line.endswith("{"))


@pytest.fixture(scope="session")
def room():
    """Hosts, server and plays."""
    print("mac1 and mac2 are no Macs: they stand in for them, see tests/twins/macos/README.md")
    return Macs("macos_twin")
