"""The collection as a whole: what stands in two places says the same."""
from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys
import textwrap

import collection
import pytest
import yaml
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _options, _verify

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
PLUGINS = CHECKOUT / "plugins"
MODULES = sorted(path.stem for path in (PLUGINS / "modules").glob("gatecontrol_*.py"))
UTILS = sorted((PLUGINS / "module_utils").glob("*.py"))


def constants(module: str) -> dict:
    """DOCUMENTATION, EXAMPLES and RETURN of a module, read without running it."""
    tree = ast.parse((PLUGINS / "modules" / (module + ".py")).read_text(encoding="utf-8"))
    names = ("DOCUMENTATION", "EXAMPLES", "RETURN")
    return {node.targets[0].id: yaml.safe_load(node.value.value) for node in tree.body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in names}


def fragments(name: str) -> dict:
    """The options a documentation fragment brings."""
    short = name.removeprefix("callmetechie.gatecontrol.")
    file, _dot, variable = short.partition(".")
    tree = ast.parse((PLUGINS / "doc_fragments" / (file + ".py")).read_text(encoding="utf-8"))
    fragment = next(node for node in tree.body if isinstance(node, ast.ClassDef))
    text = next(node.value.value for node in fragment.body
                if isinstance(node, ast.Assign) and node.targets[0].id == (variable or "documentation").upper())
    return yaml.safe_load(text).get("options") or {}


def documented(module: str) -> dict:
    """All options of a module, those of its fragments included."""
    documentation = constants(module)["DOCUMENTATION"]
    options = {}
    for name in documentation.get("extends_documentation_fragment") or []:
        options.update(fragments(name))
    return dict(options, **(documentation.get("options") or {}))


def test_every_module_is_in_the_action_group():
    runtime = yaml.safe_load((CHECKOUT / "meta/runtime.yml").read_text(encoding="utf-8"))
    assert sorted(runtime["action_groups"]["gatecontrol"]) == MODULES


def test_the_version_is_one():
    galaxy = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text(encoding="utf-8"))
    assert galaxy["version"] == _verify.VERSION


@pytest.mark.parametrize("module", MODULES)
def test_a_module_documents_itself(module):
    said = constants(module)
    assert set(said) == {"DOCUMENTATION", "EXAMPLES", "RETURN"} and said["DOCUMENTATION"]["module"] == module
    for task in said["EXAMPLES"]:
        assert task["name"]
        for called in [key for key in task if key.startswith("callmetechie.gatecontrol.")]:
            unknown = set(task[called] or {}) - set(documented(called.removeprefix("callmetechie.gatecontrol.")))
            assert not unknown, (task["name"], unknown)
    assert any("callmetechie.gatecontrol." + module in task for task in said["EXAMPLES"])


@pytest.mark.parametrize("module", MODULES)
def test_options_that_modules_share_mean_the_same(module):
    shared = {**_options.REACH, **_options.TOKEN, **_options.PEERS_TOKEN, **_options.IDENTITY}
    for name, option in documented(module).items():
        if name in shared and name not in ("url", "token", "peers_token"):  # where these come from differs
            assert option["type"] == shared[name]["type"], name


@pytest.mark.parametrize("path", UTILS, ids=lambda path: path.stem)
def test_module_utils_are_private_and_say_so(path):
    text = path.read_text(encoding="utf-8")
    if path.stem == "__init__":
        assert not text.strip()
        return
    assert path.name.startswith("_") and "This module util is PRIVATE to the collection" in text
    assert text.startswith("# Copyright: (c) ") and "SPDX-License-Identifier: GPL-3.0-or-later" in text.splitlines()[2]


def test_urls_of_the_api_live_in_two_rooms_only():
    found = set()
    for path in PLUGINS.rglob("*.py"):
        code = re.sub(r'""".*?"""', "", path.read_text(encoding="utf-8"), flags=re.S)
        if re.search(r'"/api/|"/login"|/client/', code):
            found.add(path.name)
    assert found <= {"_api.py", "_session.py"}


def test_what_the_agent_is_made_of_needs_nothing_but_the_standard_library():
    for name in _verify.MODULES:
        tree = ast.parse((PLUGINS / "module_utils" / (name + ".py")).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == 1 and not node.module:
                assert {alias.name for alias in node.names} <= set(_verify.MODULES), name
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert not {part.split(".")[0] for part in names} & {"ansible", "ansible_collections", "requests"}, name


def test_what_installs_the_agent_brings_all_of_it():
    """A module's payload holds what the module imports, and nothing else: the agent is installed from there."""
    left, found = ["_install"], set()
    while left:
        name = left.pop()
        found.add(name)
        for node in ast.walk(ast.parse((PLUGINS / "module_utils" / (name + ".py")).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                left += {node.module} - found if node.module else {alias.name for alias in node.names} - found
    assert set(_verify.MODULES) <= found


def test_a_steady_run_loads_little_of_the_collection():
    """Ansible compiles what it loads of a collection in every run, in the one process that all hosts wait for."""
    code = """
        import sys
        from ansible.plugins.loader import init_plugin_loader
        init_plugin_loader(sys.argv[1:])
        from ansible_collections.callmetechie.gatecontrol.plugins.action import gatecontrol_host_info
        print(*(name for name in sys.modules if ".gatecontrol.plugins.module_utils." in name))"""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(collection.link())], capture_output=True, text=True, check=True)
    assert sorted(word.rpartition(".")[2] for word in done.stdout.split()) == [
        "_enrollment", "_gate", "_pace", "_play", "_proof", "_said", "_verify", "_x25519"]
