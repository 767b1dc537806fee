"""Notes every result as a callback sees it, whole: what a log collector would get. Not the task's arguments, which Ansible hands to callbacks as they are."""
from __future__ import annotations

DOCUMENTATION = """
name: hostile_results
type: notification
short_description: Every result as JSON
description: For tests.
"""

import json
import os

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "notification", "hostile_results"

    def _note(self, result, *_more, **_how):
        if "HOSTILE_RESULTS" not in os.environ:
            return
        with open(os.environ["HOSTILE_RESULTS"], "a", encoding="utf-8") as handle:
            json.dump({"task": result._task.get_name(), "result": result._result}, handle, default=str)
            handle.write("\n")

    v2_runner_on_ok = v2_runner_on_failed = v2_runner_on_unreachable = v2_runner_on_skipped = v2_runner_item_on_ok = v2_runner_item_on_failed = _note
    v2_runner_retry = v2_on_file_diff = _note
