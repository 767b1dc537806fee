"""How long a fleet takes to enroll under the server's rate limit: the collection's requests to the embedded server, on a clock that skips the waits.

  .venv/bin/python tests/benchmark/rate_limit.py [--hosts 1000] [--batch 1000] [--era 1.118.2]

Every request is made for real and counted by the server as each release counts; only its windows of 15 minutes end when the collection's wait for them
would. The hosts' side is left out where it counts on tokens of their own. Prints a row for each way to enroll.
"""
from __future__ import annotations

import argparse
import pathlib
import sys
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "gateserver")]

import collection  # noqa: E402
from running import ADMIN, Server  # noqa: E402

sys.path.insert(0, str(collection.link()))

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _fleet, _session, _verify  # noqa: E402

LIMIT, WINDOW = 100, 900  # requests of a token (a session has ten times that) in so many seconds


class Clock:
    """Time that passes by waiting alone; the server's windows end with each wait, which is until the end of one."""

    def __init__(self, server: Server):
        self.server, self.now, self.waits = server, 0.0, 0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits += 1
        self.server.ask("reset")

    def hands(self) -> dict:
        """What _api.Api takes."""
        return {"sleep": self.sleep, "clock": lambda: self.now}


def in_batches(server: Server, options, fleet) -> tuple:
    """Peers for all hosts by _fleet: (hosts that got theirs, the first error or None)."""
    done, error = 0, None
    for start in range(0, options.hosts, options.batch):
        names = ["host%05d" % number for number in range(start, min(start + options.batch, options.hosts))]
        try:
            answers = fleet.present([{"host": name, "name": name} for name in names])
        except _api.ApiError as err:
            return done, str(err)
        for answer in answers.values():
            done += "msg" not in answer
            error = error or answer.get("msg")
        if error:
            return done, error
    made = len(server.ask("peer", action="list"))
    if made != options.hosts:
        raise SystemExit("%d hosts were enrolled, the server has %d peers" % (options.hosts, made))
    return done, None


def admin_session(server: Server, options, clock: Clock, pace: bool) -> tuple:
    user, password = ADMIN.split(":", 1)
    api = _session.Admin({"url": server.url, "max_wait": 60}, **clock.hands())
    api.transport.login(user, password)
    return (*in_batches(server, options, _fleet.Fleet(api, api.user_id(user), pace=pace)), api.requests)


def peers_token(server: Server, options, clock: Clock, pace: bool) -> tuple:
    api = _api.Api({"url": server.url, "token": server.token("peers"), "max_wait": 60}, **clock.hands())
    return (*in_batches(server, options, _fleet.Fleet(api, pace=pace)), api.requests)


def client_tokens(server: Server, options, clock: Clock, pace: bool) -> tuple:
    """Each host by itself, as gatecontrol_peer and the first beat ask; tokens are made beforehand, as by hand."""
    requests = 0
    for number in range(options.hosts):
        api = _api.Api({"url": server.url, "token": server.token("client"), "max_wait": 60}, **clock.hands())
        _created, answer = api.register("host%05d" % number, "linux", _verify.VERSION)
        api.heartbeat(answer["peerId"], connected=True)
        requests += api.requests
    return options.hosts, None, requests


# way: (what it is called, its function, the era: None for the one asked for, gatecontrol_pace)
WAYS = (
    ("administrator's login", admin_session, None, True),
    ("peers token", peers_token, None, True),
    ("client token per host", client_tokens, "fixed", True),
    ("administrator's login, no pace", admin_session, None, False),
    ("peers token, no pace", peers_token, None, False),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1000, help="hosts of one serial batch (default: %(default)s)")
    parser.add_argument("--era", default="1.118.2", help="the server's release; a client token per host is tried on one whose register works")
    options = parser.parse_args()
    print("%-36s %8s %9s %6s %10s" % ("", "hosts", "requests", "waits", "time"))
    errors = []
    for name, way, era, pace in WAYS:
        with Server("--era", era or options.era, "--subnet", "10.64.0.0/12", "--rate-limit", str(LIMIT)) as server:
            clock, begun = Clock(server), time.monotonic()
            done, error, requests = way(server, options, clock, pace)
            seconds = clock.now + time.monotonic() - begun
        print("%-36s %8d %9d %6d %6d min" % (name, done, requests, clock.waits, round(seconds / 60)))
        if error:
            errors.append("%s, the others: %s" % (name, error))
    print("\n".join(errors))
    return 0


if __name__ == "__main__":
    sys.exit(main())
