"""The arguments of every win_* task of the role are those that the real modules document: neither a linter nor the stand-in looks."""
from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest
import yaml

CHECKOUT = pathlib.Path(__file__).parents[3]
TASKS = CHECKOUT / "roles/gatecontrol/tasks/windows"
REAL = CHECKOUT / ".venv/windows"


def tasks(found):
    """Every task of a file, those in blocks too."""
    for task in found:
        yield from tasks(task["block"]) if "block" in task else [task]


GATED = "callmetechie.gatecontrol.gatecontrol_windows"  # which runs them
USED = [(path.name, task["name"], task[GATED]["module"], task[GATED]["arguments"])
        for path in sorted(TASKS.glob("*.yml")) for task in tasks(yaml.safe_load(path.read_text())) if GATED in task]


@pytest.fixture(scope="session")
def documented():
    """{module: its options}, of the real collections."""
    done = subprocess.run([str(CHECKOUT / ".venv/bin/ansible-doc"), "-j", *sorted({used[2] for used in USED})], capture_output=True, text=True, check=True,
                          env=dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(REAL)))
    return {name: plugin["doc"]["options"] for name, plugin in json.loads(done.stdout).items()}


def faults(given, options):
    """What is wrong with arguments; a template may come to anything."""
    names = {alias: name for name, option in options.items() for alias in (name, *option.get("aliases", []))}
    for name, option in options.items():
        if option.get("required") and name not in {names.get(key) for key in given}:
            yield "%s is missing" % name
    for key, value in given.items():
        if key not in names:
            yield "there is no %s" % key
            continue
        option = options[names[key]]
        if isinstance(value, str) and "{{" in value:
            continue
        if "choices" in option and value not in option["choices"]:
            yield "%s is none of the choices: %r" % (key, value)
        kinds = {"str": str, "path": str, "bool": bool, "int": int, "dict": dict, "list": list}
        if not isinstance(value, kinds.get(option.get("type"), object)):
            yield "%s is no %s: %r" % (key, option.get("type"), value)
        elif option.get("suboptions"):
            for part in value if isinstance(value, list) else [value]:
                yield from faults(part, option["suboptions"])


def test_all_of_the_role_s_modules_are_looked_at():
    assert {used[2] for used in USED} == {"ansible.windows.win_copy", "ansible.windows.win_package", "ansible.windows.win_powershell"}


@pytest.mark.parametrize("used", USED, ids=lambda used: "%s: %s" % used[:2])
def test_arguments(documented, used):
    assert list(faults(used[3], documented[used[2]])) == []


def test_wrong_arguments_are_seen(documented):
    options = documented["ansible.windows.win_powershell"]
    assert list(faults({"depht": 2, "error_action": "ignore", "depth": "deep", "sensitive_parameters": [{"value": "x"}]}, options)) == [
        "there is no depht", "error_action is none of the choices: 'ignore'", "depth is no int: 'deep'", "name is missing"]
