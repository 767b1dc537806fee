"""gatecontrol_fleet in real plays: in the controller's own process, once for a batch, and with nothing of what a host says in it."""
from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

import collection

# What a module of a hostile host may answer: facts, which stand above the inventory's variables.
HOSTILE = """#!/usr/bin/python
import json, sys
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule(argument_spec={"facts": {"type": "dict"}})
module.exit_json(ansible_facts=module.params["facts"])
"""
ADMIN = {"gatecontrol_admin_user": "admin", "gatecontrol_admin_password": "LoopbackTest123!"}
SERVER = {"url": "{{ gatecontrol_url }}", **{
    name: "{{ gatecontrol_%s | default(omit) }}" % name for name in ("admin_user", "admin_password", "peers_token", "proxy")}}
ASK = {"name": "Ask", "callmetechie.gatecontrol.gatecontrol_fleet": dict(
    SERVER, part="ask", hosts=[{"host": "{{ inventory_hostname }}", "name": "{{ gatecontrol_name | default(inventory_hostname) }}",
                                "wanted_id": "{{ gatecontrol_peer_id | default(none) }}"}]), "register": "__gatecontrol_asked"}
BATCH = {"name": "Settle", "callmetechie.gatecontrol.gatecontrol_fleet": dict(SERVER, part="batch"), "run_once": True, "register": "__gatecontrol_fleet"}
TELL = {"name": "Tell", "ansible.builtin.copy": {
    "content": "{{ __gatecontrol_fleet.hosts[inventory_hostname] | to_json }}", "dest": "{{ room }}/{{ inventory_hostname }}.json", "mode": "0600"}}


def player(gate, folder, secret=None):
    """(hosts: {name: variables}, **keywords of the play) -> (status, output, what each host got)"""
    (folder / "library").mkdir()
    (folder / "library/hostile.py").write_text(HOSTILE)

    def run(hosts, tasks=(), environment=None, tell=None, **keywords):
        variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "room": str(folder), "gatecontrol_url": gate.url,
                     **(ADMIN if secret is None else secret)}
        (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": variables}}))
        (folder / "play.yml").write_text(
            yaml.safe_dump(
                [dict({"hosts": "all", "gather_facts": False, "tasks": [*tasks, ASK, BATCH, tell or TELL]}, **keywords)]
            )
        )
        for path in folder.glob("*.json"):
            path.unlink()
        done = subprocess.run(
            [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", "hosts.yml", "play.yml"], cwd=folder, capture_output=True, text=True,
            env=dict({name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "GATECONTROL_"))},
                     ANSIBLE_COLLECTIONS_PATH=str(collection.link()), HOME=str(folder), **(environment or {})), timeout=300, check=False)
        got = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
        return done.returncode, " ".join((done.stdout + done.stderr).split()), got
    run.gate, run.folder = gate, folder
    return run


@pytest.fixture
def play(gates, tmp_path):
    gate = gates("1.118.2", "--login-limit", "100000")
    gate.seen()
    yield player(gate, tmp_path)
    for name in ("a", "b", "c", "d"):
        for peer in gate.peers(name):
            gate.delete(peer["id"])


def logins(gate):
    return sum(call.startswith("POST /login") for call in gate.calls())


def test_one_login_serves_all_batches_and_stands_in_no_variable(play):
    show = {"name": "Show", "ansible.builtin.debug": {"msg": "{{ hostvars | to_json }}"}}
    status, output, got = play({name: {} for name in "abcd"}, serial=1, post_tasks=[show])
    assert status == 0, output
    assert sorted(got) == list("abcd") and all(one["created"] and one["token"] for one in got.values())
    assert logins(play.gate) == 1 and "gc.sid" not in output and '"csrf"' not in output and "cookie" not in output


def test_a_run_goes_on_with_nothing_of_the_run_before(play):
    for _run in range(2):
        status, output, got = play({"a": {}})
        assert status == 0 and got["a"]["token"], output
        assert logins(play.gate) == 1


CANARY = {"ansible_remote_tmp": "{room}/x/$(touch {room}/canary)", "ansible_shell_executable": "{room}/canary.sh", "ansible_shell_type": "powershell",
          "ansible_python_interpreter": "{room}/canary.sh", "ansible_async_dir": "{room}/$(touch {room}/canary)", "ansible_become": True,
          "ansible_become_method": "su", "ansible_connection": "ssh", "ansible_host": "192.0.2.1"}


@pytest.mark.parametrize("hosts, serial", [
    ({"a%d" % number: [name] for number, name in enumerate(CANARY)}, 1), ({"a": list(CANARY), "b": list(CANARY)}, 2)], ids=["each", "all"])
def test_no_variable_of_a_host_runs_a_program_on_the_controller(play, hosts, serial):
    """Each variable alone, of a host that is a batch of its own, and all at once."""
    room = str(play.folder)
    (play.folder / "canary.sh").write_text("#!/bin/sh\ntouch %s/canary\n" % room)
    (play.folder / "canary.sh").chmod(0o755)
    values = {name: value.format(room=room) if isinstance(value, str) else value for name, value in CANARY.items()}
    tell = dict(TELL, vars={"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_remote_tmp": room + "/tmp",
                            "ansible_shell_executable": "/bin/sh", "ansible_shell_type": "sh", "ansible_become": False})
    status, output, got = play({host: {name: values[name] for name in names} for host, names in hosts.items()}, tell=tell, serial=serial)
    assert status == 0 and sorted(got) == sorted(hosts), output
    assert not (play.folder / "canary").exists()


def facts(**values):
    return {"name": "Gather", "hostile": {"facts": values}, "when": "inventory_hostname == 'b'"}


@pytest.mark.parametrize("fact", ["gatecontrol_url", "gatecontrol_admin_user", "gatecontrol_proxy", "__gatecontrol_asked", "__gatecontrol_fleet"])
def test_facts_with_the_collection_s_names_are_refused_and_the_other_hosts_go_on(play, fact):
    status, output, got = play({"a": {}, "b": {}, "c": {}}, tasks=[facts(**{fact: "https://192.0.2.9"})])
    assert status != 0 and "the facts of b set " + fact in output and sorted(got) == ["a", "c"], output


def test_facts_that_stand_behind_an_inventory_s_variable_are_refused(play):
    hosts = {name: {"where": play.gate.url, "gatecontrol_url": "{{ where }}"} for name in "ab"}
    status, output, got = play(hosts, tasks=[facts(where="https://192.0.2.9")])
    assert status != 0 and "a fact of b changes gatecontrol_url" in output and sorted(got) == ["a"], output
    status, output, got = play(hosts, tasks=[facts(elsewhere="https://192.0.2.9"), {"name": "Say", "ansible.builtin.set_fact": {"where": play.gate.url}}])
    assert status == 0 and sorted(got) == ["a", "b"], output


def test_facts_of_another_host_are_refused_too(play):
    """The host whose server is made of them has none itself."""
    hosts = {"a": {"gatecontrol_url": "{{ hostvars['b'].where | default(other) }}", "other": play.gate.url}, "b": {}}
    status, output, got = play(hosts, tasks=[facts(where="https://192.0.2.9")])
    assert status != 0 and "a fact of a or another host changes gatecontrol_url" in output and sorted(got) == ["b"], output
    status, output, got = play(hosts, tasks=[facts(elsewhere="https://192.0.2.9")])
    assert status == 0 and sorted(got) == ["a", "b"], output


def test_hosts_of_two_ways_to_the_server_are_refused_together(play):
    status, output, got = play({"a": {}, "b": {"gatecontrol_proxy": "http://192.0.2.9:3128"}})
    assert status != 0 and "a and b differ in gatecontrol_proxy" in output and got == {} and logins(play.gate) == 0


@pytest.mark.parametrize("keywords, environment", [
    ({"strategy": "free"}, {}), ({"strategy": "ansible.builtin.host_pinned"}, {}), ({}, {"ANSIBLE_STRATEGY": "free"})], ids=str)
def test_strategies_under_which_hosts_go_on_by_themselves_are_refused(play, keywords, environment):
    status, output, got = play({"a": {}, "b": {}}, environment=environment, **keywords)
    assert status != 0 and "the play's strategy is" in output and "use the strategy linear" in output and got == {}
    assert play.gate.calls() == []


def test_the_number_in_an_inventory_may_be_text_and_is_one_host_s(play):
    made = play.gate.add(play.gate.name("d"))
    status, output, got = play({"a": {"gatecontrol_peer_id": str(made["id"])}})
    assert status == 0 and got["a"]["peer"]["id"] == made["id"], output
    status, output, got = play({"b": {"gatecontrol_peer_id": str(made["id"])}, "c": {"gatecontrol_peer_id": made["id"]}})
    assert "b and c have the same peer" in str(got["b"]) and "token" not in got["c"], output


@pytest.mark.parametrize("module, arguments", [
    ("peer", {"name": "{{ inventory_hostname }}", "tags": ["own"]}), ("info", {"gather": ["peers"]}), ("config", {"peer_id": "{{ number }}"})],
    ids=["peer", "info", "config"])
@pytest.mark.parametrize("where", [{"connection": "local"}, {"delegate_to": "localhost"}], ids=["connection", "delegate_to"])
def test_no_fact_chooses_the_shell_of_a_task_that_has_a_peers_token(play, module, arguments, where):
    """In a play of one's own, whose facts a hostile host has answered. What it is delegated to is chosen by nothing of the host."""
    room, made = str(play.folder), play.gate.add("b")
    (play.folder / "canary.sh").write_text("#!/bin/sh\ntouch %s/canary\n" % room)
    (play.folder / "canary.sh").chmod(0o755)
    canary = {name: value.format(room=room) if isinstance(value, str) else value for name, value in CANARY.items()}
    secret = {"url": play.gate.url, "peers_token": play.gate.peers_token}
    task = dict(where, name="Own", register="own", ignore_errors=True, **{"callmetechie.gatecontrol.gatecontrol_" + module: dict(arguments, **secret)})
    tell = {"name": "Tell", "delegate_to": "a", "ansible.builtin.copy": {"content": "{{ own | to_json }}", "dest": "{{ room }}/{{ inventory_hostname }}.json"}}
    _status, output, got = play({name: {"number": made["id"]} for name in "ab"}, tasks=[facts(**canary), task, tell],
                                tell={"name": "End", "ansible.builtin.meta": "end_play"})
    assert not (play.folder / "canary").exists(), output
    failed = {host: one["msg"] for host, one in got.items() if one.get("failed")}
    assert sorted(got) == ["a", "b"] and list(failed) == (["b"] if "connection" in where else []), output
    assert not failed or "facts of b are known" in failed["b"] and "delegate_to: localhost" in failed["b"]
