# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run that molecule made, with the server back at its settings before each test."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import lab as laboratory  # noqa: E402


@pytest.fixture(scope="session")
def whole_lab():
    return laboratory.Lab()


@pytest.fixture
def lab(whole_lab):
    """The lab, with a server that issues split tunnels with an MTU of 1400 and has no faults."""
    whole_lab.scenario.no_faults()
    whole_lab.settings(allowed_ips=whole_lab.network, mtu=1400)
    return whole_lab
