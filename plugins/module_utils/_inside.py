# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module's work in the process of its action, for hosts that it is not to run on: no shell, no interpreter and no folder that a variable could name.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import typing as t

from . import _options


class _Failed(Exception):
    """fail_json was called; the result is its argument."""


class _Module:
    """What work() has of an AnsibleModule."""

    def __init__(self, params: dict, check_mode: bool):
        self.params, self.check_mode, self.no_log_values = params, check_mode, set()

    def fail_json(self, msg: str, **details: t.Any) -> t.NoReturn:
        raise _Failed(dict(details, failed=True, msg=msg))


def run(action: t.Any, module: t.Any) -> dict:
    """The result of a module of the collection (its Python module: work, SPEC, REQUIRED_BY) with an action's arguments.

    Raises AnsibleActionFail for wrong ones.
    """
    _checked, params = action.validate_argument_spec(argument_spec=module.SPEC, required_by=module.REQUIRED_BY)
    try:
        return _options.outcome(module.work, _Module(params, action._task.check_mode))
    except _Failed as err:
        return err.args[0]
