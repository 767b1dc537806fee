"""A small Windows as a directory tree: C: below it, and windows.json with what Windows keeps elsewhere (services, scheduled tasks, packages, the one ACL
that matters, the root store). Used by the stand-in's modules (as their module_utils) and by its agent.
"""
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys

TREE, AGENT = "GATECONTROL_TWIN", "GATECONTROL_TWIN_AGENT"  # variables that the connection sets
ENVIRONMENT = {"ProgramData": "C:\\ProgramData", "ProgramFiles": "C:\\Program Files"}  # what the real modules expand in a path
FRESH = {"machine_guid": "", "hostname": "", "root_store": None, "services": {}, "tasks": {}, "packages": [], "readers": {}, "peer_answers": True,
         "reachable": True, "breaks": []}


class Machine:
    """The machine in a folder."""

    def __init__(self, tree):
        self.tree = tree
        self.record = os.path.join(tree, "windows.json")
        with self.locked():
            self.state = self.read()

    def read(self):
        with open(self.record, encoding="utf-8") as handle:
            return dict(FRESH, **json.load(handle))

    @contextlib.contextmanager
    def locked(self):
        with open(self.record + ".lock", "w", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def change(self):
        """The state to change; written at the end."""
        with self.locked():
            self.state = self.read()
            yield self.state
            with open(self.record + ".new", "w", encoding="utf-8") as handle:
                json.dump(self.state, handle, indent=1, sort_keys=True)
            os.rename(self.record + ".new", self.record)

    def path(self, name):
        """The place in the tree of a path of Windows. Raises ValueError for one that is not absolute."""
        for variable, value in ENVIRONMENT.items():
            name = name.replace("%" + variable + "%", value)
        if name[1:3] not in (":\\", ":/"):
            raise ValueError("%r is no absolute path of Windows" % name)
        return os.path.join(self.tree, name[0].upper(), *name[3:].replace("\\", "/").split("/"))

    def breaks(self, what):
        """Whether this step is meant to fail (in "breaks")."""
        return what in self.state["breaks"]


def here():
    """The machine that the connection leads to."""
    return Machine(os.environ[TREE])


def powershell(verb, word="", texts=None, check=False):
    """What the stand-in of the agent says: (exit status, output)."""
    argv = [sys.executable, os.environ[AGENT], os.environ[TREE], verb] + [word] * bool(word) + ["-WhatIf"] * check
    done = subprocess.run(argv, input=texts, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout or done.stderr
