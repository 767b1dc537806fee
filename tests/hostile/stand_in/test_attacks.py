"""The whole table of attacks in one play of the real role: what answers is a connection in the controller's own processes."""
from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import attacks  # noqa: E402
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _verify  # noqa: E402
from lab import Lab  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "unit/plugins/action"))

from connections import ANSWER  # noqa: E402


def test_a_hostile_host_gains_nothing_and_an_honest_one_is_enrolled(tmp_path):
    hosts = dict(attacks.hosts(), honest=[], honest2=[])
    assert {name for names in hosts.values() for name in names} == set(attacks.ATTACKS) and len(attacks.ATTACKS) >= 60
    lab = Lab(tmp_path / "lab", hosts)
    try:
        lab.write(ANSWER, _verify.MARKER)
        done = lab.play(lab.inventory())
        harm, known = lab.harm(done), lab.variables()
    finally:
        lab.close()
    assert not harm, "\n".join(harm)
    for host in ("honest", "honest2"):
        assert not known[host]["stats"]["failures"] and not known[host]["stats"]["unreachable"], done.stdout[-5000:]
        assert lab.owner(next(token for note in lab.notes()[host] for token in note["tokens"])) == host
