# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An enrollment that is killed at any moment: one run more heals it, and the server has one peer for the host."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment

KILLS = int(os.environ.get("GATECONTROL_KILLS", "30"))


def killed(work, seconds: float) -> bool:
    """Kill work() after so long, as the kernel does; whether it was still at it."""
    number = os.fork()
    if not number:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(number, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(number, 0)[1])


@pytest.mark.parametrize("gate", ["1.50.12", "fixed"], indirect=True)
def test_an_enrollment_that_is_killed_at_any_moment_is_healed_by_one_run_more(gate, new_host, monkeypatch):
    monkeypatch.setattr(_enrollment, "ABANDONED", 0)
    chance, hits, lengths = random.Random(5), 0, []
    for _number in range(KILLS):
        host, name, token = new_host(), gate.name("killed"), gate.token()

        def run(host=host, name=name, token=token):
            enrolled = host.module("peer", url=gate.url, token=token, name=name)
            host.module("config", url=gate.url, hash=enrolled["hash"], stage=True)
        if not lengths:
            begin = time.monotonic()
            run()
            lengths.append(time.monotonic() - begin)
            continue
        hits += killed(run, chance.random() * lengths[0])
        for path in (host.root / "etc/gatecontrol").glob("*.json"):
            assert isinstance(json.loads(path.read_text(encoding="utf-8")), dict), path
        result = host.ok("peer", url=gate.url, token=token, name=name)
        peer, = gate.peers(name)
        assert result["peer"] == {"id": peer["id"], "name": name} and host.record["token_digest"] == _enrollment.digest(token)
        staged = host.ok("config", url=gate.url, hash=result["hash"], stage=True)
        assert staged["hash"] == _enrollment.digest(host.store.text("offered")) and host.store.text("candidate")
        assert host.store.load("intent") is None
        again = host.ok("peer", url=gate.url, name=name)
        assert not again["changed"] and len(gate.peers(name)) == 1
    assert hits > KILLS / 4
