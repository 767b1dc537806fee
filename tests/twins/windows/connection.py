"""A connection to a stand-in of Windows: this machine, told which tree is meant. powershell.exe is the stand-in's agent.

A tree whose "reachable" is false cannot be reached, and with {"reachable": "old"} only by a connection that was there before.
"""
from __future__ import annotations

import base64
import os
import pathlib
import re
import shlex
import subprocess
import sys

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local
from ansible_collections.ansible.windows.plugins.module_utils import machine

DOCUMENTATION = r"""
name: twin
short_description: A stand-in of Windows
description: For the tests of callmetechie.gatecontrol.
options:
  tree:
    description: The folder that is the machine.
    type: path
    required: true
    vars:
      - name: twin_tree
  pipelining:
    type: boolean
    default: true
    description: As in the local connection.
  become_success_timeout:
    type: int
    default: 10
    description: As in the local connection.
  become_strip_preamble:
    type: bool
    default: true
    description: As in the local connection.
"""
STAND_IN = pathlib.Path(__file__).resolve().with_name("agent.py")
SOURCE = STAND_IN.parents[3] / "roles/gatecontrol/files/gatecontrol_agent.ps1"


class Connection(Local):
    """Local, with the variables of the stand-in."""

    transport = "ansible.windows.twin"
    again = False

    def exec_command(self, cmd, in_data=None, sudoable=True):
        tree = self.get_option("tree")
        windows = machine.Machine(tree)
        reachable = windows.state["reachable"]
        if not reachable or reachable == "old" and self.again:
            raise AnsibleConnectionFailure("the stand-in %s does not answer" % tree)
        words = shlex.split(cmd)
        inner = words[2] if words[1:2] == ["-c"] else cmd
        found = re.search(r"^powershell\.exe .*-EncodedCommand ([A-Za-z0-9+/=]+)$", inner)
        if found:
            script = re.fullmatch(r'& "([^"]+)" (.*); exit \$LASTEXITCODE', base64.b64decode(found.group(1)).decode("utf-16-le"))
            return self._powershell(windows, script.group(1).replace("$env:ProgramData", "C:\\ProgramData"), script.group(2).split())
        exports = "export %s=%s %s=%s; " % (machine.TREE, shlex.quote(tree), machine.AGENT, shlex.quote(str(STAND_IN)))
        return super().exec_command("/bin/sh -c " + shlex.quote(exports + inner), in_data, sudoable)

    @staticmethod
    def _powershell(windows, path, words):
        """A file that is not there, or that PowerShell could not parse, is an error on stderr and no answer. One with more at its end still works."""
        place = windows.path(path)
        text = pathlib.Path(place).read_bytes() if os.path.isfile(place) else None
        if text is None or not text.startswith(SOURCE.read_bytes()):
            return 1, b"", b"The argument to -File cannot be run."
        done = subprocess.run([sys.executable, str(STAND_IN), windows.tree, *words], capture_output=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def reset(self):
        self.again = True
