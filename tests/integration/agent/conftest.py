"""A server of each era for all tests, and machines for each."""
from __future__ import annotations

import socket

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _line, _names

from made_up_host import Gate, Machine, enroll


@pytest.fixture(scope="session")
def gates():
    made = {}

    def gate(era: str) -> Gate:
        if era not in made:
            made[era] = Gate(era)
        return made[era]
    yield gate
    for one in made.values():
        one.server.stop()


@pytest.fixture
def gate(request, gates) -> Gate:
    one = gates(getattr(request, "param", "fixed"))
    one.seen()
    yield one
    one.server.no_faults()
    for peer in one.ask("peer", action="list"):  # there are more tests than addresses
        one.peer("delete", peer["id"])


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Machine:
    """A machine that is not enrolled. Its clock is the API client's too, and jitter is left out."""
    made = Machine(tmp_path)
    made.names = {}  # what is resolved, beside addresses; this machine's own resolver is not asked
    really = _line.addresses

    def addresses(name, port, deadline):
        if _names.is_address(name) or name == "localhost":
            return really(name, port, deadline)
        if name not in made.names:
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in made.names[name]]

    monkeypatch.setattr(_line, "addresses", addresses)
    middle = {(0.8, 1.2): 1.0, (0, 1): 0.5}
    monkeypatch.setattr(_api.Api.__init__, "__defaults__", (None, None, made.sleep, made.now, lambda low, high: middle[low, high]))
    return made


@pytest.fixture
def host(machine, gate) -> Machine:
    """An enrolled machine, its tunnel connected, that has not beaten yet."""
    enroll(machine, gate)
    return machine


@pytest.fixture
def steady(host) -> Machine:
    """An enrolled machine with its agent installed and one beat behind it."""
    host.install()
    host.beat()
    return host
