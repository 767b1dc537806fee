"""An action with a connection whose far end is a real shell on this machine, where the agent is whatever script a test puts there."""
from __future__ import annotations

import subprocess
from unittest import mock

from ansible.errors import AnsibleConnectionFailure
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import become_loader, shell_loader
from ansible.template import Templar
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _verify

AGENT = "/" + _verify.LAUNCHER
HASH = "aa" * 32
# A whole answer to verify, of a host that is as it should be.
ANSWER = {
    "version": _verify.VERSION, "in_sync": True, "drift": [], "codes": [], "enrolled": True, "peer_id": 4, "peer_name": "web01", "reporting": "full",
    "url": "https://gate.example.com", "interface": "wg0", "hash": HASH, "status": "connected", "handshake_age": 12, "rx_bytes": 1, "tx_bytes": 2,
    "peer_enabled": True, "last_beat": 990.5, "last_try": 990.5, "last_check": None, "not_before": 0, "now": 1000.0, "error": None, "refused": None,
    "requests": 1, "verdict": None, "pending": False, "peer_fields": None, "server": {"asked": False}, "tunnel": {"action": "none", "reasons": []},
    "host": {"system": "linux", "distribution": "debian", "like": [], "version": "12", "service_manager": "systemd", "fingerprint": "ab" * 32,
             "hostname": "web01", "resolvectl": None, "homebrew": None, "needs": []}}


class Connection:
    """What an action needs of a connection. script: the agent there; lost: how many commands find nobody."""

    has_pipelining, allow_executable, become, has_tty = True, True, None, False

    def __init__(self, script=None, transport="ssh", become=None):
        self.script, self.transport, self.lost = script, transport, 0
        self.commands, self.resets, self.seen = [], 0, []
        self.options = {"timeout": 10, "ssh_extra_args": "-o Compression=no"} if transport == "ssh" else {}
        self._shell = shell_loader.get("sh")
        self._shell.set_options(var_options={}, direct={})
        if become:
            self.become = become_loader.get(become)
            self.become.set_options(direct={"become_user": "root"})

    def set_become_plugin(self, plugin):
        self.become = plugin

    def has_option(self, name):
        return name in self.options

    def get_option(self, name, hostvars=None):
        return self.options[name]

    def set_option(self, name, value):
        self.options[name] = value

    def get_option_and_origin(self, name, hostvars=None):
        return self.options[name], "here"

    def reset(self):
        self.resets += 1
        self.seen.append(dict(self.options))

    def exec_command(self, command, in_data=None, sudoable=True):
        self.commands.append(command)
        if self.lost:
            self.lost -= 1
            raise AnsibleConnectionFailure("Failed to connect to the host via ssh: No route to host")
        here = command.replace(AGENT, str(self.script or "/nonexistent/agent"))
        done = subprocess.run(["/bin/sh", "-c", here], capture_output=True, check=False, timeout=30)
        return done.returncode, done.stdout, done.stderr


def action(kind, connection, **args):
    """The action with these arguments; sent: what its module was sent, answer: what that answers."""
    task = mock.Mock(args=args, async_val=0, check_mode=False, environment=[], delegate_to=None, no_log=False, diff=False,
                     action="callmetechie.gatecontrol.gatecontrol_host_info", collections=[])
    loader = DataLoader()
    made = kind(task, connection, PlayContext(), loader, Templar(loader), mock.Mock())
    made.sent, made.answer = [], {}

    def execute(name, arguments, task_vars=None):
        made.sent.append((name, arguments))
        return dict(made.answer)
    made._execute_module = execute
    return made
