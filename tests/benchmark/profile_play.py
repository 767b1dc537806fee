"""Where the controller's time goes in a play: runs ansible-playbook and notes the CPU time of what each task does on each host.

  profile_play.py FILE ARGUMENTS...   appends lines of JSON to FILE: [task, {what: seconds of CPU}]; "(main)" is the play's own process

What is noted is what Ansible 2.19 to 2.21 has; times overlap where one contains the other. bench.py --profile runs it and takes medians.
"""
from __future__ import annotations

import json
import sys
import time

from ansible.cli.playbook import PlaybookCLI
from ansible.executor.process.worker import WorkerProcess
from ansible.executor.task_executor import TaskExecutor
from ansible.executor.task_queue_manager import FinalQueue
from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase

FILE = sys.argv[1]
spent: dict = {}


def noted(what, function, *arguments, **options):
    begin = time.process_time()
    try:
        return function(*arguments, **options)
    finally:
        spent[what] = spent.get(what, 0) + time.process_time() - begin


def note(kind: type, name: str, what: str) -> None:
    """Have the time of a method noted."""
    original = getattr(kind, name)
    setattr(kind, name, lambda *arguments, **options: noted(what, original, *arguments, **options))


def write(task: str) -> None:
    with open(FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps([task, spent]) + "\n")


def in_worker(self):
    spent.clear()
    try:
        return noted("all", run_worker, self)
    finally:
        write(self._task.get_name())


run_worker = WorkerProcess._run
WorkerProcess._run = in_worker
note(Task, "post_validate", "the task's words, options included")
note(TaskExecutor, "_get_connection", "connection: plugin and options")
note(ActionBase, "_low_level_execute_command", "command on the host: this side's part")
note(ActionBase, "validate_argument_spec", "options checked by the action")
note(FinalQueue, "send_task_result", "result to the play's own process")
if hasattr(ActionBase, "finalize_task_arg"):
    finalize = ActionBase.finalize_task_arg.__func__
    ActionBase.finalize_task_arg = classmethod(
        lambda cls, name, value, *arguments, **options: noted("option %s" % name, finalize, cls, name, value, *arguments, **options))
try:
    PlaybookCLI.cli_executor(["ansible-playbook", *sys.argv[2:]])
finally:
    spent = {"all": time.process_time()}
    write("(main)")
