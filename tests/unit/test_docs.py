"""The pages in docs/ say what the code says: error texts, options, links, files."""
from __future__ import annotations

import ast
import pathlib
import re
import sys

import pytest
import yaml

CHECKOUT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(CHECKOUT / "tests"))

import options_page  # noqa: E402

PAGES = sorted([*(CHECKOUT / "docs").glob("*.md"), CHECKOUT / "README.md", CHECKOUT / "roles" / "gatecontrol" / "README.md"])
OPTIONS = yaml.safe_load(options_page.SPECS.read_text())["argument_specs"]["main"]["options"]
PLAYBOOKS = {path.stem: set(re.findall(r"(?<![\w.])gatecontrol_[a-z_]+\b(?!:)", path.read_text())) for path in (CHECKOUT / "playbooks").glob("*.yml")}
TROUBLESHOOTING = (CHECKOUT / "docs" / "troubleshooting.md").read_text().partition("\n## ")[2]
TEXTS = re.findall(r"^\| `([^`]+)` \|", TROUBLESHOOTING, re.MULTILINE)


def said():
    """Every text that the collection may say: string constants of the plugins, messages of the role."""
    for path in sorted((CHECKOUT / "plugins").rglob("*.py")):
        if path.parent.name != "doc_fragments":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    yield "".join(part.value if isinstance(part, ast.Constant) else "%s" for part in node.values)
    for path in sorted((CHECKOUT / "roles" / "gatecontrol" / "tasks").rglob("*.yml")):
        yield from re.findall(r"\bmsg: >-\n((?: {6,}.*\n)+)", path.read_text())


SAID = [" ".join(text.split()) for text in said()]


def test_options_page_is_up_to_date():
    assert options_page.PAGE.read_text() == options_page.page(), "run .venv/bin/python tests/options_page.py write"


def test_options_page_has_every_option():
    rows = re.findall(r"^\| `(gatecontrol_\w+)` \| .+ \| .{10,} \|$", options_page.page(), re.MULTILINE)
    assert sorted(rows) == sorted(OPTIONS)


@pytest.mark.parametrize("playbook", ["enroll", "sync", "report"])
def test_fleet_page_has_every_variable_of_its_playbooks(playbook):
    rows = re.findall(r"^\| `(gatecontrol_\w+)` \|", (CHECKOUT / "docs" / "fleet.md").read_text(), re.MULTILINE)
    assert "gatecontrol_hosts" in PLAYBOOKS[playbook] and PLAYBOOKS[playbook] - set(OPTIONS) <= set(rows)


def test_troubleshooting_has_texts():
    assert len(TEXTS) > 50 and len(set(TEXTS)) == len(TEXTS)
    assert len(re.findall(r"^\| ", TROUBLESHOOTING, re.MULTILINE)) == len(TEXTS) + len(re.findall(r"^\| text \|", TROUBLESHOOTING, re.MULTILINE))


@pytest.mark.parametrize("text", TEXTS)
def test_text_still_occurs_in_the_code(text):
    pattern = re.compile(".+?".join(re.escape(part) for part in re.split(" ?… ?|…", text)))
    assert any(pattern.search(candidate) for candidate in SAID)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name if page.parent.name != "gatecontrol" else "role")
def test_page_names_options_and_files_that_exist(page):
    text = page.read_text()
    named = set(re.findall(r"(?<![\w./-])gatecontrol_[a-z_]+\b(?!\.\w)", text))
    plugins = {path.stem for kind in ("modules", "filter") for path in (CHECKOUT / "plugins" / kind).glob("*.*")}
    assert named - plugins <= set(OPTIONS).union(*PLAYBOOKS.values())
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:docs|roles|plugins|molecule|tests|meta|playbooks)/[\w./-]*\w)", text):
        assert (CHECKOUT / path).exists() or (CHECKOUT / "plugins" / path).exists() or list(CHECKOUT.glob(path + ".*")), path


def test_readme_names_all_content_and_targets_that_exist():
    text = (CHECKOUT / "README.md").read_text()
    for path in (CHECKOUT / "plugins" / "modules").glob("*.py"):
        assert "| module `%s` |" % path.stem in text
    assert len(re.findall(r"^\| module ", text, re.MULTILINE)) == len(list((CHECKOUT / "plugins" / "modules").glob("*.py")))
    for kind in ("inventory", "lookup", "filter"):
        for path in (CHECKOUT / "plugins" / kind).glob("*.py"):
            assert "| %s plugin `%s` |" % (kind, path.stem) in text
    assert sorted(re.findall(r"^\| playbook `(\w+)` \|", text, re.MULTILINE)) == sorted(PLAYBOOKS)
    targets = re.findall(r"^([a-z-]+):.*##", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"^ {4}make ([a-z-]+)", text, re.MULTILINE)) <= set(targets)


def test_check_page_has_every_point_and_variable():
    from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _check, _prospect, _said
    text = (CHECKOUT / "docs" / "check.md").read_text()
    cells = [cell for row in re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE) for cell in re.findall("`([^`]+)`", row)]
    assert set(cells) == set(_check.ORDER) | set(_said.POINTS) | {name for name in PLAYBOOKS["check"] if "_check_" in name}
    assert _said.POINTS == ("connection", *_prospect.ORDER)


def test_design_page_has_one_line_for_each_room():
    from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _verify
    text = (CHECKOUT / "docs" / "design.md").read_text()
    rows = re.findall(r"^\| `(_\w+)` \| (agent|module|controller) \| .{15,200} \|$", text, re.MULTILINE)
    rooms = [path.stem for kind in ("module_utils", "plugin_utils") for path in (CHECKOUT / "plugins" / kind).glob("_[a-z]*.py")]
    assert sorted(name for name, _where in rows) == sorted(rooms)
    assert {name for name, where in rows if where == "agent"} == set(_verify.MODULES)


VERIFIED = (CHECKOUT / "docs" / "verified.md").read_text()
SHOWN = re.findall(r"^\| (.+) \|$", VERIFIED.partition("\n## ")[0], re.MULTILINE)[1:]


def test_verified_names_tests():
    assert len(SHOWN) > 20 and "shown by" not in SHOWN[0]


@pytest.mark.parametrize("row", SHOWN, ids=lambda row: row[:40])
def test_each_line_of_verified_names_tests_that_exist(row):
    named = re.findall(r"`((?:tests|molecule)/[^`]+)`", row.rpartition(" | ")[2])
    assert named
    for name in named:
        path, _colons, test = name.partition("::")
        text = (CHECKOUT / path).read_text()
        assert re.search(r"^def test_", text, re.MULTILINE), path
        assert not test or re.search(r"^(?:async )?def %s\(" % re.escape(test), text, re.MULTILINE), name
