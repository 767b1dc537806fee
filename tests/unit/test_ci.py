"""The public CI runs what the checkout has: scenarios, releases of ansible-core, distributions."""
from __future__ import annotations

import pathlib
import re
import sys

import yaml

CHECKOUT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(CHECKOUT / "tests"))

import packages  # noqa: E402

JOBS = yaml.safe_load((CHECKOUT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
MAKEFILE = (CHECKOUT / "Makefile").read_text()
TABLE = yaml.safe_load(packages.VARS.read_text())["__gatecontrol_packages"]
BY_HAND = ("vm",)  # the scenarios that are no part of make test


def matrix(job):
    return JOBS[job]["strategy"]["matrix"]


def test_every_scenario_runs():
    rule = re.search(r"^scenarios:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]
    listed = " ".join(re.findall(r"tests/scenarios\.sh (.*)", rule)).split()
    assert "scenarios BESIDE=integration" in MAKEFILE
    listed.remove("$(BESIDE)")
    assert sorted([*listed, *BY_HAND]) == sorted(path.parent.name for path in (CHECKOUT / "molecule").glob("*/molecule.yml"))
    assert set(listed) <= set(matrix("hosts")["scenario"])
    for name in matrix("hosts")["scenario"]:
        assert (CHECKOUT / "molecule" / name / "molecule.yml").is_file()


def test_unit_tests_run_with_every_ansible_core_of_the_sanity_tests():
    listed = re.findall(r"^(\d+\.\d+\.\d+) (\d\.\d+)$", (CHECKOUT / "tests" / "sanity.sh").read_text(), re.MULTILINE)
    assert listed and set(listed) <= {(entry["core"], entry["python"]) for entry in matrix("unit")["include"]}
    steps = next(step for step in JOBS["sanity"]["steps"] if "with" in step and "python-version" in step["with"])
    assert steps["with"]["python-version"].split() == sorted({python for _core, python in listed})


def test_every_distribution_of_the_role_s_table_is_tried():
    assert set(packages.INSTALL) == set(TABLE) == {entry["distribution"] for entry in matrix("packages")["include"]}


def test_script_installs_every_package_and_looks_for_every_tool():
    for distribution, tools in TABLE.items():
        script = packages.script(distribution)
        assert set(tools.values()) <= set(script.split("\n")[2].split())
        assert set(tools) <= set(re.search(r"^for tool in ([^;]*);", script, re.MULTILINE).group(1).split())


def test_actions_are_pinned():
    for name in re.findall(r"uses: (\S+)", (CHECKOUT / ".github" / "workflows" / "ci.yml").read_text()):
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name)
