"""The same attacks on a real host: an agent and a Python of the attacker's, over SSH and sudo; beside an honest host.

With the oldest and the latest release of ansible-core; with GATECONTROL_CORES=all in the environment with each.
"""
from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml

HOSTILE = pathlib.Path(__file__).resolve().parents[1]
CHECKOUT = HOSTILE.parents[1]
sys.path[:0] = [str(HOSTILE), str(CHECKOUT / "tests/unit/plugins/action")]

import attacks  # noqa: E402
import cores  # noqa: E402
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _verify  # noqa: E402
from connections import ANSWER  # noqa: E402
from lab import Lab  # noqa: E402

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="real hosts need root")
RUN = "hostile"
MODULES = {
    "gatecontrol_agent": {"changed": True, "files": ["/etc/gatecontrol"]},
    "gatecontrol_tunnel": {"changed": True, "action": "none", "reasons": [], "kept": None},
    "gatecontrol_peer": {"changed": True, "peer": {"id": 99, "name": "x"}, "created": False, "adopted": True, "reporting": "full", "hash": "ab" * 32},
    "gatecontrol_config": {"changed": True, "hash": "ab" * 32, "updated": True, "needs": [], "full_tunnel": False}, "other": {"changed": True}}


def chosen() -> dict[str, list[str]]:
    """All that adds keys, and every twelfth of the rest: each one more costs a login and its tasks."""
    table = attacks.hosts()
    adding = {name: names for name, names in table.items() if name.startswith(("fact-", "key-", "all-facts"))}
    rest = [name for name, names in table.items() if name not in adding and not any(attacks.ATTACKS[one].windows or attacks.ATTACKS[one].lost for one in names)]
    return {name: table[name] for name in [*adding, *rest[::12]]}


def hosts(*arguments: str, **how) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(CHECKOUT / "tests/hosts"), *arguments], check=True, capture_output=True, text=True, **how)


@pytest.fixture(scope="module")
def machines():
    """The run's folder: hosts "bad" and "good"."""
    hosts("up", RUN, "--hosts", "bad:bookworm", "good:bookworm:ready")
    try:
        yield CHECKOUT / "build/hosts" / RUN
    finally:
        hosts("down", RUN)


def occupy(lab: Lab, names: dict[str, str]) -> None:
    """Put the attacker on its host. names: inventory name -> user there."""
    told = json.loads((lab.place / "lab.json").read_text())
    files = {}
    for host, user in names.items():
        attack = attacks.together(lab.hosts[host])
        whole = json.loads(json.dumps(dict(ANSWER, url=lab.server.url)))
        whole["host"].update(hostname=host, fingerprint=hashlib.sha256(host.encode()).hexdigest(), needs=["wg", "wg-quick"])
        if not attack.steady:
            whole.update(in_sync=False, drift=[], codes=["not_enrolled"], enrolled=False, peer_id=None, peer_name=None, reporting=None, url=None,
                         interface=None, hash=None)
        says = {"verify": attacks.agent_says(attack, whole, _verify.MARKER), "confirm": "", "gatecontrol_host_info": attacks.module_says(attack, whole, True)}
        says.update({name: attacks.module_says(attack, result) for name, result in MODULES.items()})
        marks = dict(told["marks"], CANARY="%s/%s" % (told["canaries"], host))
        files[user] = {kind: attacks.filled(text.replace('"@OTHER_ID@"', str(told["other_id"])), marks) for kind, text in says.items()}
    script = "mkdir -p /opt/attacks && cd /opt/attacks && cat >attacker.py && " \
        "printf '#!/bin/sh\\nexec /usr/bin/python3 /opt/attacks/attacker.py \"$@\"\\n' >python && " \
        "chmod 755 python && { echo '#!/usr/bin/python3'; cat attacker.py; } >/usr/local/sbin/gatecontrol-agent && chmod 755 /usr/local/sbin/gatecontrol-agent"
    hosts("exec", RUN, "bad", "--", "sh", "-c", script, input=(HOSTILE / "attacker.py").read_text())
    users = "import json,os,subprocess,sys\nfor user, says in json.load(sys.stdin).items():\n" \
        " subprocess.run(['useradd', '-m', user], stderr=subprocess.DEVNULL)\n" \
        " open('/etc/sudoers.d/' + user, 'w').write(user + ' ALL=(ALL) NOPASSWD: ALL\\n')\n" \
        " json.dump(says, open('/opt/attacks/%s.json' % user, 'w'))\n open('/opt/attacks/%s.log' % user, 'a').close()\n" \
        " os.chmod('/opt/attacks/%s.log' % user, 0o666)\n" \
        " os.makedirs('/home/%s/.ssh' % user, exist_ok=True)\n" \
        " open('/home/%s/.ssh/authorized_keys' % user, 'w').write(open('/home/ops/.ssh/authorized_keys').read())\n"
    hosts("exec", RUN, "bad", "--", "python3", "-c", users, input=json.dumps(files))


def inventory(lab: Lab, machines: pathlib.Path, names: dict[str, str]) -> pathlib.Path:
    """Each attack is a host of its own, all of them the one real host."""
    made = yaml.safe_load((machines / "inventory.yml").read_text())
    real: dict[str, dict] = {}

    def walk(group):
        real.update({name: values for name, values in (group.get("hosts") or {}).items() if values})
        for inner in (group.get("children") or {}).values():
            walk(inner or {})
    walk(made["all"])
    common = made["all"].get("vars") or {}
    bad = dict(common, **real["bad"])
    path = lab.place / "inventory.yml"
    path.write_text(yaml.safe_dump({"all": {
        "hosts": {**{host: dict(bad, ansible_user=user, ansible_python_interpreter="/opt/attacks/python") for host, user in names.items()},
                  "good": dict(common, **real["good"])},
        "vars": {"gatecontrol_url": lab.server.url, "gatecontrol_allow_http": True, "gatecontrol_admin_user": "admin", "gatecontrol_max_wait": 5,
                 "gatecontrol_admin_password": "LoopbackTest123!", "gatecontrol_confirm_timeout": 20}}}), encoding="utf-8")
    return path


CORES = cores.known() if os.environ.get("GATECONTROL_CORES") == "all" else [cores.known()[0], cores.known()[-1]]


@pytest.mark.parametrize("core,version", CORES, ids=[core for core, _version in CORES])
def test_a_hostile_machine_gains_nothing(machines, tmp_path, core, version):
    python = cores.python_of(core, version)
    assert python, "ansible-core %s needs Python %s, which is not on this machine" % (core, version)
    run = json.loads((machines / "run.json").read_text())
    lab = Lab(tmp_path / "lab", chosen(), "--host", run["machine_address"])
    try:
        lab.write(ANSWER, _verify.MARKER)
        names = {host: "h%d" % number for number, host in enumerate(lab.hosts)}
        occupy(lab, names)
        lab.hosts = dict(lab.hosts, good=[])
        done = lab.play(inventory(lab, machines, names), "-f", "6", python=python, environment={
            "ANSIBLE_PIPELINING": "1", "ANSIBLE_HOST_KEY_CHECKING": "0", "ANSIBLE_SSH_RETRIES": "3", "ANSIBLE_TIMEOUT": "60"})
        harm, known = lab.harm(done), lab.variables()
        asked = {user: set(words.split()) for user, _colon, words in (line.partition(":") for line in hosts(
            "exec", RUN, "bad", "--", "sh", "-c", "cd /opt/attacks && for log in *.log; do echo \"${log%.log}:\" $(cat $log); done").stdout.splitlines())}
        hosts("exec", RUN, "bad", "--", "sh", "-c", "rm -f /opt/attacks/*.log /opt/attacks/*.json")
    finally:
        lab.close()
        shutil.rmtree(tmp_path / "lab/home", ignore_errors=True)
    assert not harm, "\n".join(harm)
    assert sum(map(len, chosen().values())) >= 60
    assert {host for host, user in names.items() if "verify" not in asked[user]} == set(), asked  # each attacker did answer, and modules were asked
    assert {"gatecontrol_host_info", "gatecontrol_agent"} <= set().union(*asked.values()), asked
    assert not known["good"]["stats"]["unreachable"], done.stdout[-4000:]
