"""The scenario "fleet" as molecule has left it after converge: eight hosts, enrolled with the administrator's login."""
from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "shared"))

from scenario import CHECKOUT, Scenario  # noqa: E402


class Fleet(Scenario):
    """Eight hosts and the playbooks that a user has of the collection."""

    NO_SECRET = {"gatecontrol_admin_user": "", "gatecontrol_admin_password": ""}

    def run(self, name: str, *words: str, **options):
        """Play one of the collection's playbooks; options as for start()."""
        return self.play(*words, playbook=CHECKOUT / "playbooks" / (name + ".yml"), **options)

    def offer_dark(self, host: str, text: str) -> None:
        """Have the server offer a host a config whose endpoint answers nobody (RFC 5737); text: a config to begin with."""
        dark = "".join("Endpoint = 198.51.100.9:51820\n" if line.startswith("Endpoint") else line for line in text.splitlines(keepends=True))
        self.fault("config", text=dark, token="ansible: " + host)


@pytest.fixture(scope="session")
def room():
    """Hosts, server and plays."""
    return Fleet("fleet")
