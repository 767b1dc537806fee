"""docs/limits.md says what tests/benchmark/rate_limit.py prints."""
from __future__ import annotations

import pathlib
import re
import subprocess
import sys

CHECKOUT = pathlib.Path(__file__).parents[3]


def rows(text: str) -> list:
    """[way, hosts, requests, waits] of each row; the time has the machine's own in it."""
    return re.findall(r"^(\S.*?) +(\d+) +(\d+) +(\d+) +\d+ min$", text, re.MULTILINE)


def test_the_page_has_the_figures_of_the_command():
    section = (CHECKOUT / "docs" / "limits.md").read_text(encoding="utf-8").partition("\n## 1,000 new hosts\n")[2].partition("\n## ")[0]
    command, _blank, rest = section.strip().partition("\n")
    done = subprocess.run([sys.executable, *command.split()[1:]], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert len(rows(rest)) == 5 and rows(rest) == rows(done.stdout)
    assert "gatecontrol_pace=true" in rest and done.stdout.count("gatecontrol_pace=true") == 2
