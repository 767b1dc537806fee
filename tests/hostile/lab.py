"""A controller under attack: its server, a server that nobody must ask, files that must not be touched, and what is looked at in the end."""
from __future__ import annotations

import json
import os
import pathlib
import socket
import sqlite3
import subprocess
import sys
import threading
import typing as t

import yaml

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent)]

import attacks  # noqa: E402
import collection  # noqa: E402
from gateserver.running import Server  # noqa: E402

PASSWORD = "LoopbackTest123!"
SECRET = "the-controllers-own-secret-file"
FORKS = 16
FILE_TASK = "- name: Run a task of the attacker's\n  ansible.builtin.command: touch %s/included\n  delegate_to: localhost\n"


class Trap:
    """A server that nobody must ask: counts who connects."""

    def __init__(self):
        self.seen: list[str] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                try:
                    self.seen.append(connection.recv(4096).decode("utf-8", "replace"))
                except OSError:
                    self.seen.append("")

    def close(self) -> None:
        self.socket.close()


class Lab:
    """One run's place. hosts: inventory name -> names of its attacks, none for a host that is honest."""

    def __init__(self, place: pathlib.Path, hosts: dict[str, list[str]], *server: str, under: tuple[str, ...] = ()):
        self.place, self.hosts, self.trap = place, hosts, Trap()
        for folder in ("canaries", "notes", "tasks", "tmp"):
            (place / folder).mkdir(parents=True)
        self.secret = place / "secret"
        self.secret.write_text(SECRET, encoding="ascii")
        for name in ("present.yml", "absent.yml", "install.yml", "tasks/fleet.yml", "tasks/preflight.yml", "tasks/linux/install.yml", "tasks/retire.yml"):
            path = place / "tasks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(FILE_TASK % (place / "canaries"), encoding="ascii")
        program = place / "tasks/program"
        program.write_text("#!/bin/sh\ntouch %s/program\n" % (place / "canaries"), encoding="ascii")
        program.chmod(0o755)
        self.server = Server("--era", "fixed", "--state", str(place / "state.sqlite"),
                             *(() if "--endpoint" in server else ("--endpoint", "127.0.0.1:51820")), *server, under=under)
        self.other = self.server.ask("peer", action="add", peer="laptop-7", values={})[0]
        self.server.token("client", name="ansible: laptop-7", peer_id=self.other["id"])
        self.before = self.others()

    def close(self) -> None:
        self.trap.close()
        self.server.stop()

    def database(self, query: str, *values: t.Any) -> list[tuple]:
        connection = sqlite3.connect("file:%s?mode=ro" % (self.place / "state.sqlite"), uri=True)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def others(self) -> tuple[list[tuple], list[tuple]]:
        """The peer of another machine and its tokens, as the server has them."""
        return (self.database("SELECT id, name, description, public_key, private_key, preshared_key, dns, enabled, tags, expires_at FROM peers WHERE id = ?",
                              self.other["id"]),
                self.database("SELECT id, name, token_hash, scopes, peer_id, machine_fingerprint FROM tokens WHERE peer_id = ? ORDER BY id", self.other["id"]))

    def write(self, whole: dict[str, t.Any], marker: str) -> None:
        """What the attackers know."""
        (self.place / "lab.json").write_text(json.dumps({
            "hosts": self.hosts, "whole": dict(whole, url=self.server.url), "marker": marker, "canaries": str(self.place / "canaries"),
            "notes": str(self.place / "notes"), "other_id": self.other["id"], "secrets": [PASSWORD, SECRET],
            "marks": {"EVIL": self.trap.url, "SECRET": str(self.secret), "TASKS": str(self.place / "tasks"), "OTHER": "laptop-7", "URL": self.server.url}}),
            encoding="ascii")

    def inventory(self, **variables: t.Any) -> pathlib.Path:
        """An inventory of all hosts, over the stand-in connection."""
        path = self.place / "inventory.yml"
        windows = {"gatecontrol_system": "windows", "ansible_shell_type": "powershell", "gatecontrol_allow_full_tunnel": True}
        path.write_text(yaml.safe_dump({"all": {
            "hosts": {name: dict(windows if any(attacks.ATTACKS[one].windows for one in names) else {}, hostile_host=name)
                      for name, names in self.hosts.items()},
            "vars": dict({
                "ansible_connection": "hostile", "ansible_python_interpreter": "/usr/bin/python3", "ansible_pipelining": True,
                "gatecontrol_url": self.server.url,
                "gatecontrol_admin_user": "admin", "gatecontrol_admin_password": PASSWORD, "gatecontrol_max_wait": 5}, **variables)}}), encoding="utf-8")
        return path

    def play(self, inventory: pathlib.Path, *arguments: str, python: str = sys.executable, timeout: int = 900,
             environment: t.Mapping[str, str] | None = None, playbook: str | None = None) -> subprocess.CompletedProcess:
        """The role over all hosts, or a playbook. python: of the environment whose ansible-core plays."""
        site = self.place / "site.yml"
        site.write_text("- hosts: all\n  gather_facts: false\n  roles: [callmetechie.gatecontrol.gatecontrol]\n", encoding="ascii")
        known = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "GATECONTROL_"))}
        command = [python, "-m", "ansible", "playbook", "-i", str(inventory), playbook or str(site), "-f", str(FORKS), *arguments]
        return subprocess.run(
            command,
            cwd=self.place,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            errors="replace",
            env=dict(
                dict(
                    known,
                    ANSIBLE_COLLECTIONS_PATH="%s:%s" % (collection.link(), CHECKOUT / ".venv/windows"),
                    ANSIBLE_CONNECTION_PLUGINS=str(HERE / "plugins/connection"),
                    ANSIBLE_CALLBACK_PLUGINS=str(HERE / "plugins/callback"),
                    ANSIBLE_CALLBACKS_ENABLED="hostile_vars",
                    HOSTILE_LAB=str(self.place / "lab.json"),
                    HOSTILE_VARS=str(self.place / "vars.json"),
                    ANSIBLE_NOCOLOR="1",
                    ANSIBLE_LOCALHOST_WARNING="false",
                    ANSIBLE_LOCAL_TEMP=str(self.place / "tmp"),
                    ANSIBLE_HOME=str(self.place / "home"),
                    ANSIBLE_LOG_PATH=str(self.place / "ansible.log"),
                    ANSIBLE_RETRY_FILES_ENABLED="false",
                ),
                **(environment or {}),
            ),
        )

    def variables(self) -> dict[str, t.Any]:
        return json.loads((self.place / "vars.json").read_text("utf-8"))

    def notes(self) -> dict[str, list[dict[str, t.Any]]]:
        """What came to each host."""
        return {path.stem: [json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in (self.place / "notes").glob("*.jsonl")}

    def logins(self) -> int:
        return len([entry for entry in self.server.log() if entry.get("method") == "POST" and entry["path"].endswith("/login")])

    def harm(self, done: subprocess.CompletedProcess, gathered: bool = False) -> list[str]:
        """All that an attacker has gained, in sentences; none if nothing.

        gathered: whether Ansible itself gathered facts in this play, which it keeps for that host and shows as they are.
        """
        found = ["the controller ran or included %s" % path.name for path in sorted((self.place / "canaries").iterdir())]
        found += ["the trap was asked: %.60r" % words for words in self.trap.seen]
        if self.others() != self.before:
            found.append("the peer of another machine, or its tokens, are not what they were")
        if self.logins() > 1:
            found.append("%d logins" % self.logins())
        held = self._held()
        if gathered:
            found += [one for one in held if not self.hosts.get(one.split()[0])]
        else:
            found += self._shown(done) + held
        return found + self._given()

    def _shown(self, done: subprocess.CompletedProcess) -> list[str]:
        """Secrets and control characters in what was printed and logged."""
        texts = {"output": done.stdout + done.stderr, "log": (self.place / "ansible.log").read_text("utf-8", "replace")}
        words = {"the password": PASSWORD, "a file of the controller": SECRET, "an unknown key's value": attacks.UNKNOWN}
        found = ["%s stands in the %s" % (what, where) for where, text in texts.items() for what, word in words.items() if word in text]
        return found + ["control characters stand in the " + where for where, text in texts.items()
                        if any(mark in text for mark in ("\x1b", "\x9b", "\u202e", "\u2028", "\u200b", "\x07"))]

    def _held(self) -> list[str]:
        """Variables of any host that are an attack's."""
        known, found = self.variables(), []
        lures = {name: json.loads(attacks.filled(json.dumps(value), dict(json.loads((self.place / "lab.json").read_text())["marks"])))
                 for name, value in {**attacks.FACTS, **attacks.OURS}.items()}
        for host, told in known.items():
            found += ["%s has the attacker's %s" % (host, name) for name, value in lures.items()
                      if name in told["vars"] and told["vars"][name] == value and (host, name) != ("localhost", "ansible_connection")]
            if attacks.UNKNOWN in json.dumps(told["vars"]):
                found.append("%s has an unknown key in its variables" % host)
        return found + ["the inventory has another host: " + name for name in set(known) - set(self.hosts) - {"localhost"}]

    def _given(self) -> list[str]:
        """Secrets that came to a host which has no right to them."""
        found = []
        for host, notes in self.notes().items():
            found += ["%s was sent %s" % (host, secret) for note in notes for secret in note["secrets"]]
            for token in {token for note in notes for token in note["tokens"]}:
                owner = self.owner(token)
                if owner in (set(self.hosts) | {"laptop-7", None}) - {host}:
                    found.append("%s was given a token of %s" % (host, owner))
        return found

    def owner(self, token: str) -> str | None:
        """The name of the peer that a token is bound to."""
        import hashlib

        rows = self.database("SELECT peers.name FROM tokens JOIN peers ON peers.id = tokens.peer_id WHERE token_hash = ?",
                             hashlib.sha256(token.encode()).hexdigest())
        return rows[0][0] if rows else None
