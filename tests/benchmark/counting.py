"""Callback that writes what each host answered to COUNTING_FILE: [{"host", "action", "changed", "asked"}]."""
from __future__ import annotations

import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: counting
type: aggregate
short_description: Writes what each host answered to a file
description: For the benchmark alone.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "counting"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self.answers = []

    def v2_runner_on_ok(self, result):
        answer = result._result
        self.answers.append({"host": result._host.get_name(), "action": result._task.action,
                             "changed": answer.get("changed"), "asked": answer.get("asked")})
        with open(os.environ["COUNTING_FILE"], "w", encoding="utf-8") as file:
            json.dump(self.answers, file)
