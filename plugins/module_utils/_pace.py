# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a beat and a change of the tunnel may take: for the host that makes it, its service manager, and whoever waits for it.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

START = 60  # seconds within which the unit of an armed change begins, on a machine that is busy too
STEP = 60  # seconds that a step may take; its own time is no part of the time to confirm
LATE = 5  # seconds after its deadline at which a change is over
TURN = 30  # seconds that a repair waits for whoever else is at work; its unit is ended after 90, and the next beat starts it again
UNIT = 60  # the shortest confirm_timeout that the unit is made for


def beat(interval: float | None) -> float:
    """Seconds after which the service manager ends the unit of a beat. interval: heartbeat_interval."""
    return max(interval or 0, 60) + 30


def working(timeout: float) -> float:
    """Seconds that a change takes at most from its beginning: step, proof, confirmation with two slow logins, way back. timeout: confirm_timeout."""
    return STEP + timeout + 2 * timeout + STEP + LATE


def longest(timeout: float) -> float:
    """Seconds from the arming within which a change is over, whatever happens."""
    return START + working(timeout)


def unit(timeout: float | None) -> float:
    """Seconds after which the service manager ends the unit of a change, and takes the way back by its stop command."""
    return working(max(timeout or 0, UNIT)) + START
