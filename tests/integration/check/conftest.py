"""Checks of running servers of every era, in this process and in one of its own."""
from __future__ import annotations

import pytest

from checked import Checked


@pytest.fixture(scope="session")
def servers():
    """A server by era; it runs until all tests are over."""
    made: dict = {}

    def server(era: str) -> Checked:
        if era not in made:
            made[era] = Checked(era)
        return made[era]
    yield server
    for one in made.values():
        one.server.stop()


@pytest.fixture
def server(servers, request):
    """The server of the era that the test is for, the latest known otherwise; as it was when the test is over."""
    one = servers(getattr(request, "param", "1.118.2"))
    yield one
    one.server.no_faults()
    one.server.ask("settings", values=dict.fromkeys(("endpoint", "server_key", "allowed_ips", "dns", "machine_binding", "licence.vpn_peers"), ""))
    one.server.ask("settings", values={"api_limit": 1000, "session_limit": 10000, "login_limit": 100000, "licence.machine_binding": ""})
    one.server.ask("reset")
    for peer in one.server.ask("peer", action="list"):
        one.server.ask("peer", action="delete", peer=str(peer["id"]))
