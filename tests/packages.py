"""Prints a shell script that installs the packages the role names for a distribution and looks for the tools they should bring.

  packages.py debian|fedora|rhel|suse|arch

Run it in a fresh machine or container of that distribution: it proves the role's own table, and no name is written twice.
"""
from __future__ import annotations

import pathlib
import sys

import yaml

VARS = pathlib.Path(__file__).resolve().parent.parent / "roles" / "gatecontrol" / "vars" / "main.yml"
INSTALL = {
    "debian": "apt-get update -qq && apt-get install -y -qq --no-install-recommends",
    "fedora": "dnf install -y -q",
    "rhel": "dnf install -y -q epel-release; dnf install -y -q",
    "suse": "zypper --non-interactive --quiet install",
    "arch": "pacman -Sy --noconfirm --quiet",
}


def script(distribution: str) -> str:
    """The script; it ends with a failure that names what is missing."""
    tools = yaml.safe_load(VARS.read_text())["__gatecontrol_packages"][distribution]
    return "\n".join([
        "set -eu",
        "export DEBIAN_FRONTEND=noninteractive",
        "%s %s" % (INSTALL[distribution], " ".join(sorted(set(tools.values())))),
        "missing=",
        "for tool in %s; do command -v $tool >/dev/null || missing=\"$missing $tool\"; done" % " ".join(sorted(tools)),
        "if [ -n \"$missing\" ]; then echo \"these packages do not bring:$missing\"; exit 1; fi",
        "echo \"%s: all of %s\"" % (distribution, " ".join(sorted(tools))), ""])


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in INSTALL:
        sys.exit(__doc__)
    print(script(sys.argv[1]), end="")
