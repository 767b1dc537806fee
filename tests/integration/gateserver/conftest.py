"""A running server per era."""
from __future__ import annotations

import pathlib
import sys

import pytest

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[2])]

from gateclient import Client  # noqa: E402
from gateserver.running import Server  # noqa: E402


@pytest.fixture(scope="session")
def clients():
    """A client by era; its server runs until all tests are over."""
    made = {}

    def client(era: str) -> Client:
        if era not in made:
            made[era] = Client(Server("--era", era, "--login-limit", "100000"), era)
        return made[era]
    yield client
    for one in made.values():
        one.server.stop()


@pytest.fixture
def gate(request, clients) -> Client:
    """The client of the era that ``eras`` asks for."""
    client = clients(request.param)
    yield client
    client.server.no_faults()


@pytest.fixture
def start():
    """Starts further servers, with arguments of their own; they end with the test."""
    running = []

    def run(era: str = "fixed", *arguments: str, **more) -> Client:
        server = Server("--era", era, *arguments, **more)
        running.append(server)
        return Client(server, era)
    yield run
    for server in running:
        server.__exit__()
