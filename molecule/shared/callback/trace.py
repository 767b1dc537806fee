"""Writes each task's result as a line of JSON into $TRACE_FILE, and kills this run where $TRACE_KILL says so.

TRACE_KILL: "after TASK" kills as soon as that task has an answer, "during TASK" $TRACE_KILL_DELAY seconds (0.5) after it began.
"""
from __future__ import annotations

import json
import os
import signal
import threading

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: trace
type: notification
short_description: Results as lines of JSON, and a run that is killed
description: For the tests of this collection.
"""


def kill() -> None:
    """End this process and what it started, as a power cut at the controller would."""
    os.killpg(os.getpgid(0), signal.SIGKILL)


class CallbackModule(CallbackBase):
    """For a run that leads a process group of its own."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "trace"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.file = open(os.environ["TRACE_FILE"], "a", encoding="utf-8", buffering=1)  # noqa: SIM115  open as long as the run
        self.when, _space, self.task = os.environ.get("TRACE_KILL", "").partition(" ")

    @staticmethod
    def name(task) -> str:
        return task.get_name().rpartition(" : ")[2]

    def meant(self, task) -> bool:
        """Whether TRACE_KILL names this task; an include of that name is none."""
        return self.name(task) == self.task and not task.action.endswith("include_tasks")

    def v2_playbook_on_task_start(self, task, is_conditional) -> None:
        if self.when == "during" and self.meant(task):
            threading.Timer(float(os.environ.get("TRACE_KILL_DELAY", "0.5")), kill).start()

    v2_playbook_on_handler_task_start = v2_playbook_on_task_start

    def keep(self, result, state: str) -> None:
        name = self.name(result.task)
        self.file.write(json.dumps({"host": result.host.get_name(), "task": name, "action": result.task.action, "state": state,
                                    "result": result.result}, default=str) + "\n")
        if self.when == "after" and self.meant(result.task):
            kill()

    def v2_runner_on_ok(self, result) -> None:
        self.keep(result, "ok")

    def v2_runner_on_failed(self, result, ignore_errors=False) -> None:
        self.keep(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_skipped(self, result) -> None:
        self.keep(result, "skipped")

    def v2_runner_on_unreachable(self, result) -> None:
        self.keep(result, "unreachable")
