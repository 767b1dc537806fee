"""How fast the embedded server is, on one core, against what the other tests need of it.

  .venv/bin/python tests/benchmark/gateserver.py

Prints one line a figure and ends with status 1 if one misses its bar. The load comes from this process, on the other cores.
"""
from __future__ import annotations

import http.client
import json
import os
import pathlib
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "gateserver"))

from running import Server  # noqa: E402

SECONDS, PEERS, PAGE = 5, 10_000, 250


def one_core() -> tuple:
    """The command that keeps the server on the first core; this process leaves it if it can."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[1:])
    return "taskset", "-c", str(cores[0])


def start_time(under: tuple) -> float:
    begun = time.monotonic()
    with Server(under=under):
        return time.monotonic() - begun


def requests_per_second(server: Server, keep_alive: bool) -> float:
    """Heartbeats, checks and pings of one host after another for some seconds, on two connections at once."""
    peers = server.ask("peer", action="add", peer="load" + str(keep_alive), count=20)
    hosts = [(peer["id"], server.token("client", peer_id=peer["id"])) for peer in peers]
    port, end, counts = int(server.url.rpartition(":")[2]), time.monotonic() + SECONDS, []

    def load(worker: int) -> None:
        count, connection = 0, http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while time.monotonic() < end:
            peer_id, token = hosts[(count // 3 + worker * 10) % len(hosts)]
            headers = {"X-API-Token": token, "Content-Type": "application/json"}
            if count % 3 == 0:
                connection.request("POST", "/api/v1/client/heartbeat", json.dumps({"peerId": peer_id, "connected": True}), headers)
            else:
                connection.request("GET", ("/api/v1/client/config/check?peerId=%d&hash=x" % peer_id, "/api/v1/client/ping")[count % 3 - 1],
                                   headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            count += 1
            if not keep_alive:
                connection.close()
        counts.append(count)
    begun, threads = time.monotonic(), [threading.Thread(target=load, args=(worker,)) for worker in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == 2, "a load thread failed"
    return sum(counts) / (time.monotonic() - begun)


def listing_time(server: Server) -> tuple:
    """Seconds and requests to page through all peers."""
    token, connection = server.token("peers"), http.client.HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]), timeout=30)
    begun, names, calls = time.monotonic(), set(), 0
    while True:
        connection.request("GET", "/api/v1/peers?limit=%d&offset=%d" % (PAGE, calls * PAGE), headers={"X-API-Token": token})
        page = json.loads(connection.getresponse().read())["peers"]
        calls += 1
        names.update(peer["name"] for peer in page)
        if not page:
            break
    assert len(names) == PEERS, len(names)
    return time.monotonic() - begun, calls


def main() -> int:
    under, fine = one_core(), True

    def figure(text: str, value: float, good: bool) -> None:
        nonlocal fine
        fine = fine and good
        print("%-52s %8.2f  %s" % (text, value, "ok" if good else "MISSED"))
    slowest = max(start_time(under) for turn in range(5))
    figure("start, slowest of 5 (s, bar 1)", slowest, slowest < 1)
    with tempfile.TemporaryDirectory() as folder, Server(
            "--era", "fixed", "--subnet", "10.64.0.0/16", "--rate-limit", "10000000", "--state", folder + "/state", under=under) as server:
        for keep_alive, text in ((False, "a connection each"), (True, "kept connections")):
            rate = requests_per_second(server, keep_alive)
            figure("requests per second, %s (bar 200)" % text, rate, rate >= 200)
    with Server("--era", "fixed", "--subnet", "10.64.0.0/16", under=under) as server:
        server.ask("peer", action="add", peer="peer", count=PEERS)
        seconds, calls = listing_time(server)
        figure("listing %d peers in %d requests (s, bar 2)" % (PEERS, calls), seconds, seconds < 2 and calls == PEERS // PAGE + 1)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
