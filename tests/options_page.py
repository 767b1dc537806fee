"""Makes docs/options.md of the role's argument_specs.yml; a test fails when the page is out of date.

  options_page.py         print the page
  options_page.py write   write it
"""
from __future__ import annotations

import pathlib
import re
import sys

import yaml

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
SPECS = CHECKOUT / "roles" / "gatecontrol" / "meta" / "argument_specs.yml"
DEFAULTS = CHECKOUT / "roles" / "gatecontrol" / "defaults" / "main.yml"
PAGE = CHECKOUT / "docs" / "options.md"
INTRO = """# Options of the role

Made from `roles/gatecontrol/meta/argument_specs.yml` by `tests/options_page.py`; `ansible-doc -t role callmetechie.gatecontrol.gatecontrol` shows the same.
The options of the modules are shown by `ansible-doc callmetechie.gatecontrol.gatecontrol_peer` and so on.

Every option is a variable: set it in the inventory, in the play or with `-e`. An option without a default is not set at all; leave it out to have
the server's or the host's own way. Keep tokens in a vault. Times are in seconds.
"""


def plain(text: str) -> str:
    """Ansible's markup as Markdown, on one line."""
    text = re.sub(r"\b[CVOE]\(([^()]*)\)", r"`\1`", text)
    return text.replace("|", "\\|")


def cell(option: dict, given: str) -> str:
    """Type, choices and default of an option."""
    kind = "list of " + option["elements"] if option["type"] == "list" else option["type"]
    if "choices" in option:
        kind = " or ".join("`%s`" % choice for choice in option["choices"])
    if "default" in option:
        kind += "<br>default `%s`" % str(option["default"]).lower()
    elif "lookup" in given:
        kind += "<br>default: the environment's `%s`" % re.search(r"'(GATECONTROL_\w+)'", given).group(1)
    return kind


def page() -> str:
    """The page's text. A comment before an option begins a section."""
    text = SPECS.read_text().partition("\n  gone:\n")[0]  # the entry point that a user plays; the others are for playbooks
    specs, defaults = yaml.safe_load(text)["argument_specs"]["main"], yaml.safe_load(DEFAULTS.read_text())
    lines = [INTRO]
    for comment, name in re.findall(r"^ {6}(?:# (.+)|(gatecontrol_\w+):)$", text, re.MULTILINE):
        if comment or len(lines) == 1:
            lines += ["## %s\n" % (comment or "What is wanted"), "| option | type, default | what it does |", "|---|---|---|"]
            if comment:
                lines[-3] = "\n" + lines[-3]
        if name:
            option = specs["options"][name]
            words = option["description"] if isinstance(option["description"], list) else [option["description"]]
            lines.append("| `%s` | %s | %s |" % (name, cell(option, str(defaults.get(name))), plain(" ".join(words))))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        PAGE.write_text(page())
    elif not sys.argv[1:]:
        print(page(), end="")
    else:
        sys.exit(__doc__)
