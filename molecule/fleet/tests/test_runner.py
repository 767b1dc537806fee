"""ansible-runner's transmit, worker and process, which is what AWX's mesh runs: two slices of the fleet at once, and no peer twice."""
from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml
from scenario import CHECKOUT

MINT = CHECKOUT / "docs" / "examples" / "mint.yml"
VAULT = "the vault's own password"
PLAY = [{"name": "Enroll", "hosts": "all", "gather_facts": False, "roles": ["callmetechie.gatecontrol.gatecontrol"]}]


class Fleet:
    """Hosts that are not enrolled, and how Ansible is told of them. secrets: what must show up nowhere."""

    def __init__(self, room):
        self.room, self.hosts = room, room.hosts[:4]
        self.login = {name: room.described[name] for name in ("gatecontrol_admin_user", "gatecontrol_admin_password")}
        self.secrets = [self.login["gatecontrol_admin_password"], VAULT]

    def inventory(self, folder: pathlib.Path, hosts: list) -> None:
        """What a job is given: hosts, the host keys and the CA, all inside its folder; no secret."""
        folder.mkdir(parents=True)
        for source in (self.room.folder / "known_hosts", self.room.folder / "tls/ca.pem"):
            shutil.copy(source, folder)
        known = {name: value for name, value in self.room.known.items() if name.startswith("gatecontrol_")}
        content = {"all": {
            "hosts": {name: {"ansible_host": self.room.record["hosts"][name]["address"]} for name in hosts},
            "vars": dict(known, ansible_user="ops", ansible_python_interpreter="/usr/bin/python3",
                         gatecontrol_controller_ca_path="{{ inventory_dir }}/ca.pem",
                         ansible_ssh_common_args="-F /dev/null -o UserKnownHostsFile={{ inventory_dir }}/known_hosts -o GlobalKnownHostsFile=/dev/null")}}
        (folder / "hosts.yml").write_text(yaml.safe_dump(content), encoding="utf-8")


@pytest.fixture
def fleet(room):
    """Enrolled again by the scenario's own play afterwards, which has nothing to do where the slices did it all."""
    made = Fleet(room)
    room.ask("reset")  # logins of earlier tests
    room.play(gatecontrol_state="absent", limit=made.hosts).ok()
    assert not set(made.hosts) & set(room.peers())
    made.mark = room.mark_log()
    yield made
    room.play(limit=made.hosts).ok()


class Slice:
    """One job: transmitted, worked on in a process that knows nothing else, processed; all three run at once.

    Secrets are extra variables: the worker sends its environment back.
    """

    def __init__(self, folder: pathlib.Path, key: pathlib.Path, variables: dict, *words: str, passwords: dict | None = None):
        self.folder = folder
        (folder / "project").mkdir(parents=True)
        (folder / "project/enroll.yml").write_text(yaml.safe_dump(PLAY, sort_keys=False), encoding="utf-8")
        (folder / "env").mkdir(mode=0o700)
        shutil.copy(key, folder / "env/ssh_key")
        environment = {"ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "build"), "ANSIBLE_PIPELINING": "1", "ANSIBLE_FORKS": "20"}
        for name, content in (("envvars", environment), ("extravars", variables), ("passwords", passwords or {})):
            (folder / "env" / name).write_text(json.dumps(content), encoding="utf-8")
        self.words = words

    def start(self) -> None:
        runner = str(CHECKOUT / ".venv/bin/ansible-runner")
        plain = {"PATH": "%s:%s" % (CHECKOUT / ".venv/bin", os.environ["PATH"]), "HOME": str(self.folder.parent), "LC_ALL": "C.UTF-8"}
        self.back = self.folder.parent / (self.folder.name + ".back")
        ident = ["--ident", self.folder.name]
        steps = ([runner, "transmit", str(self.folder), "--playbook", "enroll.yml", *ident, *self.words], [runner, "worker", "--private-data-dir",
                 str(self.folder) + ".work", "--delete"], ["tee", str(self.back) + ".stream"], [runner, "process", str(self.back), *ident])
        self.steps, before = [], subprocess.DEVNULL
        for argv in steps:
            step = subprocess.Popen(argv, stdin=before, stdout=subprocess.PIPE, env=plain, cwd=self.folder.parent)
            if self.steps:
                before.close()  # ours; the step has its own
            self.steps.append(step)
            before = step.stdout

    def finish(self) -> str:
        """What the job said; it must have succeeded."""
        said = self.steps[-1].communicate(timeout=180)[0].decode()
        assert [step.wait(timeout=10) for step in self.steps] == [0, 0, 0, 0], said
        assert (self.back / "artifacts" / self.folder.name / "rc").read_text() == "0", said
        assert not pathlib.Path(str(self.folder) + ".work").exists(), "the worker keeps nothing"
        return said

    def told(self) -> str:
        """All that came back from the worker, as it came and as it was written."""
        files = [path for path in self.back.rglob("*") if path.is_file()] + [pathlib.Path(str(self.back) + ".stream")]
        return "\n".join(path.read_bytes().decode("utf-8", "replace") for path in files)


def run(fleet, slices: list) -> None:
    """Both at once; afterwards each host has a peer and a token of its own, and no secret came back."""
    for one in slices:
        one.start()
    for one in slices:
        one.finish()
    room = fleet.room
    peers = [peer for peer in room.ask("peer", action="list") if peer["name"] in fleet.hosts]
    assert sorted(peer["name"] for peer in peers) == sorted(fleet.hosts), "each host has one peer"
    shown = {host: room.shown(host) for host in fleet.hosts}
    assert {host: one["peer_id"] for host, one in shown.items()} == {peer["name"]: peer["id"] for peer in peers}
    assert {(one["status"], one["reporting"]) for one in shown.values()} == {("connected", "full")}
    tokens = {room.on(host, "cat /etc/gatecontrol/token").strip() for host in fleet.hosts}
    assert len(tokens) == len(fleet.hosts)
    for one in slices:
        told = one.told()
        assert "Observe what is there" in told
        assert not [secret for secret in [*fleet.secrets, *tokens] if secret in told]
        assert not re.search("OPENSSH PRIVATE KEY|csrf", told), "neither the key nor the session"


def made(fleet, path: str) -> int:
    """How often the server made something for an administrator since the hosts were un-enrolled."""
    return len(fleet.room.log(since=fleet.mark, method="POST", path=path, status=201))


def test_two_slices_each_with_its_own_login(fleet, tmp_path):
    key = fleet.room.folder / "id_ed25519"
    slices = [Slice(tmp_path / ("slice%d" % number), key, fleet.login) for number in (1, 2)]
    for number, one in enumerate(slices):
        fleet.inventory(one.folder / "inventory", fleet.hosts[number::2])
    run(fleet, slices)
    assert len(fleet.room.log(since=fleet.mark, event="login")) == 2
    assert made(fleet, "/api/v1/users/*/tokens") == len(fleet.hosts) == made(fleet, "/api/v1/peers")


def test_two_slices_with_tokens_minted_beforehand(fleet, tmp_path):
    room, inventory = fleet.room, tmp_path / "inventory"
    fleet.inventory(inventory, fleet.hosts)
    (tmp_path / "vault").write_text(VAULT, encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "build"),
                   "ANSIBLE_VAULT_PASSWORD_FILE": str(tmp_path / "vault"), **{name.upper(): value for name, value in fleet.login.items()}}
    for again in (False, True):
        said = subprocess.run([str(CHECKOUT / ".venv/bin/ansible-playbook"), "-v", "-i", str(inventory / "hosts.yml"), str(MINT)], env=environment,
                              capture_output=True, text=True, check=False)
        assert said.returncode == 0 and ("changed=0" in said.stdout) == again, said.stdout + said.stderr
        assert "gc_" not in said.stdout
    assert len(room.log(since=fleet.mark, event="login")) == 1
    assert made(fleet, "/api/v1/users/*/tokens") == len(fleet.hosts) == made(fleet, "/api/v1/peers")
    fleet.mark = room.mark_log()
    slices = [Slice(tmp_path / ("slice%d" % number), room.folder / "id_ed25519", {}, "--cmdline=--ask-vault-pass",
                    passwords={r"^Vault password:\s*?$": VAULT}) for number in (1, 2)]
    for number, one in enumerate(slices):
        fleet.inventory(one.folder / "inventory", fleet.hosts[number::2])
        for host in fleet.hosts[number::2]:
            kept = inventory / "host_vars" / host
            assert kept.joinpath("gatecontrol.yml").read_text().startswith("$ANSIBLE_VAULT;")
            shutil.copytree(kept, one.folder / "inventory/host_vars" / host)
    run(fleet, slices)
    assert room.log(since=fleet.mark, event="login") == [] and made(fleet, "*") == 0
