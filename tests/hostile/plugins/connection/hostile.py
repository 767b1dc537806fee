"""A connection at whose far end an attacker answers: the agent, the modules, the shell. Nothing leaves this process."""

from __future__ import annotations

DOCUMENTATION = """
name: hostile
short_description: An attacker answers
description: For tests. What is answered stands in the file that HOSTILE_LAB names.
options:
  attacker:
    description: The host that this is.
    type: str
    vars:
      - name: hostile_host
extends_documentation_fragment:
  - connection_pipelining
"""

import base64
import hashlib
import json
import os
import re
import sys

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import attacks  # noqa: E402

MODULE = re.compile(rb"ansible(?:_collections\.(?:callmetechie\.gatecontrol|ansible\.windows)\.plugins)?\.modules\.(\w+)")
TOKEN = re.compile(r"gc_[0-9a-f]{96}")


class Connection(ConnectionBase):
    """Commands are answered from the table of attacks, and noted."""

    transport = "ssh"  # as which the tunnel's action confirms a change
    has_pipelining = True

    def _connect(self):
        return self

    def close(self):
        pass

    def reset(self):
        pass

    def put_file(self, in_path, out_path):
        with open(in_path, "rb") as handle:
            self._note("put", handle.read())

    def fetch_file(self, in_path, out_path):
        raise AssertionError("the role fetches no file")

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        with open(os.environ["HOSTILE_LAB"], encoding="utf-8") as handle:
            self.lab = json.load(handle)
        self.name = self.get_option("attacker")
        names = self.lab["hosts"].get(self.name)
        self.attack = attacks.together(names) if names else attacks.Attack()
        text = cmd if isinstance(cmd, str) else cmd.decode()
        spoken = re.search(r"-EncodedCommand ([A-Za-z0-9+/=]+)", text)
        kind, answer = self._answer(base64.b64decode(spoken[1]).decode("utf-16-le") if spoken else text, in_data or b"")
        self._note(kind, text.encode() + (in_data or b""))
        if self.attack.lost:
            raise AnsibleConnectionFailure("Failed to connect to the host via ssh: " + self.attack.lost)
        marks = dict(self.lab["marks"], CANARY="%s/%s" % (self.lab["canaries"], self.name))
        answer = answer.replace('"@OTHER_ID@"', str(self.lab["other_id"]))
        return 0, attacks.filled(answer, marks).encode("utf-8", "surrogatepass"), b""

    def _note(self, kind, data):
        """What came to this host: kinds of commands, tokens, digests of what else could be a secret."""
        words = data.decode("utf-8", "replace")
        for part in re.findall(r"[A-Za-z0-9+/=]{200,}", words):  # a module's payload
            try:
                words += base64.b64decode(part).decode("utf-8", "replace")
            except ValueError:
                pass
        with open("%s/%s.jsonl" % (self.lab["notes"], self.name), "a", encoding="utf-8") as handle:
            json.dump(
                {"kind": kind, "tokens": sorted(set(TOKEN.findall(words))), "secrets": [secret for secret in self.lab["secrets"] if secret in words]},
                handle,
            )
            handle.write("\n")

    def _answer(self, cmd, in_data):
        if " verify " in cmd:
            return "verify", attacks.agent_says(self.attack, self._whole(), self.lab["marker"])
        if " confirm " in cmd:
            verdict = {"id": "7", "ok": True, "reason": None}
            return "confirm", attacks.agent_says(self.attack._replace(answer={}), verdict, self.lab["marker"])
        if " change " in cmd:
            return "change", attacks.agent_says(self.attack._replace(answer={}), dict(self._result("gatecontrol_tunnel"), armed=None), self.lab["marker"])
        found = MODULE.findall(in_data)
        name = found[-1].decode() if found else None
        if name:
            return name, attacks.module_says(self.attack, self._result(name), name == "gatecontrol_host_info")
        if "SSH_CONNECTION" in cmd:
            return "shell", "192.0.2.1 50000 192.0.2.2 22\n"
        if "mkdir" in cmd:
            return "shell", re.search(r"ansible-tmp-[\w.-]+", cmd)[0] + "=/root/.ansible/tmp/x\n"
        return "shell", "/root\n"

    def _whole(self):
        """An answer to verify of a host that is new, or as it should be."""
        answer = json.loads(json.dumps(self.lab["whole"]))
        answer["host"].update(hostname=self.name, fingerprint=hashlib.sha256(self.name.encode()).hexdigest(), needs=["wg", "wg-quick"])
        if not self.attack.steady:
            answer.update(
                in_sync=False,
                drift=[],
                codes=["not_enrolled"],
                enrolled=False,
                peer_id=None,
                peer_name=None,
                reporting=None,
                url=None,
                interface=None,
                hash=None,
            )
        return answer

    def _result(self, name):
        results = {
            "gatecontrol_host_info": self._whole,
            "gatecontrol_agent": lambda: {"changed": True, "files": ["/etc/gatecontrol"]},
            "gatecontrol_peer": lambda: {
                "changed": True,
                "peer": {"id": 99, "name": self.name},
                "created": False,
                "adopted": True,
                "reporting": "full",
                "hash": "ab" * 32,
            },
            "gatecontrol_config": lambda: {"changed": True, "hash": "ab" * 32, "updated": True, "needs": [], "full_tunnel": False},
            "gatecontrol_tunnel": lambda: {"changed": True, "action": "up", "reasons": [], "kept": None, "armed": "7"},
        }
        return results.get(name, lambda: {"changed": True})()
