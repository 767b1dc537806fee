"""The scenario "vm" as molecule has left it after converge: two enrolled virtual machines."""
from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "shared"))

from scenario import Scenario  # noqa: E402


@pytest.fixture(scope="session")
def room():
    """Machines, server and plays."""
    return Scenario("vm")
