"""What the inventory plugin takes for a large server: 10,000 peers of the embedded server, read over loopback.

  .venv/bin/python tests/benchmark/inventory.py [--peers 10000] [--rounds 3]

Prints a row for the built-in groups, the slowest of the rounds, and one for each kind of expression of one's own with the CPU time that it adds for a
host. Ends with status 1 where the built-in groups take more than 5 s or another number of requests than pages.
"""
from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import yaml

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "gateserver")]

import collection  # noqa: E402
from running import Server  # noqa: E402

os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(collection.link())

from ansible.inventory.manager import InventoryManager  # noqa: E402
from ansible.parsing.dataloader import DataLoader  # noqa: E402
from ansible.plugins.loader import init_plugin_loader  # noqa: E402

PAGE, BAR = 250, 5.0  # peers of one answer; seconds
SITE = "gatecontrol_peer.name[:5]"
OWN = {
    "one expression in compose": {"compose": {"site": SITE}},
    "two": {"compose": {"site": SITE, "number": "gatecontrol_peer.id"}},
    "one in groups": {"groups": {"low": "gatecontrol_peer.id < 100"}},
    "one in keyed_groups": {"keyed_groups": [{"key": SITE, "prefix": "site"}]},
}


def load(source: str) -> tuple:
    """(seconds, seconds of this process's CPU, InventoryManager) of one load, as a play loads it."""
    begun, used = time.monotonic(), time.process_time()
    inventory = InventoryManager(DataLoader(), sources=[source])
    return time.monotonic() - begun, time.process_time() - used, inventory


def write(source: str, server: Server, own: dict) -> None:
    """The file that configures the plugin."""
    pathlib.Path(source).write_text(yaml.safe_dump({"plugin": "callmetechie.gatecontrol.gatecontrol", "url": server.url, **own}), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    options = parser.parse_args()
    init_plugin_loader()
    with Server("--subnet", "10.64.0.0/12") as server, tempfile.TemporaryDirectory() as folder:
        for number, tags in enumerate(("web,production", "db,production", "edge", "")):
            count = options.peers // 4 + (number < options.peers % 4)
            server.ask("peer", action="add", peer="site%d" % number, count=count, values={"tags": tags})
        os.environ["GATECONTROL_PEERS_TOKEN"] = server.token("peers")
        source = os.path.join(folder, "gatecontrol.yml")
        write(source, server, {})
        loads = [load(source) for _round in range(options.rounds)]
        slowest, usual, inventory = max(one[0] for one in loads), min(one[1] for one in loads), loads[0][2]
        requests = len(server.log(path="/api/v1/peers")) / options.rounds
        print("%-30s %5.2f s  %d requests, %d hosts, %d groups" % (
            "built-in groups, slowest of %d" % options.rounds, slowest, requests, len(inventory.hosts), len(inventory.groups)))
        begun = time.monotonic()
        subprocess.run([os.path.join(os.path.dirname(sys.executable), "ansible-inventory"), "-i", source, "--graph"], check=True, stdout=subprocess.DEVNULL)
        print("%-30s %5.2f s" % ("ansible-inventory --graph", time.monotonic() - begun))
        for name, own in OWN.items():
            write(source, server, own)
            seconds, used, _inventory = load(source)
            print("%-30s %5.2f s  %.2f ms a host" % (name, seconds, (used - usual) * 1000 / options.peers))
    return 0 if slowest <= BAR and len(inventory.hosts) == options.peers and requests == options.peers // PAGE + 1 else 1


if __name__ == "__main__":
    sys.exit(main())
