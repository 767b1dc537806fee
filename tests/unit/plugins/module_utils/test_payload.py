# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rooms that the agent is made of reach a host in the payload of a module, which holds what is imported and nothing else."""

from __future__ import annotations

import ast
import pathlib

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _verify

CHECKOUT = pathlib.Path(__file__).resolve().parents[4]
ROOMS = CHECKOUT / "plugins/module_utils"


def imported(path: pathlib.Path) -> set[str]:
    """The rooms that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {alias.name for alias in node.names}
    return {name for name in found if (ROOMS / (name + ".py")).exists()}


def closure(path: pathlib.Path) -> set[str]:
    seen: set[str] = set()
    new = imported(path)
    while new - seen:
        name = (new - seen).pop()
        seen.add(name)
        new |= imported(ROOMS / (name + ".py"))
    return seen


def test_the_module_that_installs_the_agent_carries_all_of_it():
    assert set(_verify.MODULES) <= closure(CHECKOUT / "plugins/modules/gatecontrol_agent.py")


def test_the_agent_is_made_of_what_its_launcher_needs_and_of_nothing_else():
    assert closure(CHECKOUT / "roles/gatecontrol/files/gatecontrol_agent.py") == set(_verify.MODULES)
