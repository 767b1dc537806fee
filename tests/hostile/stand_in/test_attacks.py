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


GATHERS = "- hosts: all\n  gather_facts: true\n  roles: [callmetechie.gatecontrol.gatecontrol]\n"
HONEST = {"honest": [], "honest2": []}


def played(lab, playbook=None):
    """(The play's output, all harm in it, variables of each host) of one play over all hosts of a lab."""
    try:
        lab.write(ANSWER, _verify.MARKER)
        if playbook:
            (lab.place / "own.yml").write_text(playbook, encoding="ascii")
        done = lab.play(lab.inventory(), playbook=playbook and str(lab.place / "own.yml"))
        return done.stdout, lab.harm(done, gathered=bool(playbook)), lab.variables()
    finally:
        lab.close()


def check(lab, output, harm, known):
    """Nothing was gained, and the honest hosts were enrolled each with a token of its own."""
    assert not harm, "\n".join(harm)
    for host in HONEST:
        assert not known[host]["stats"]["failures"] and not known[host]["stats"]["unreachable"], output[-5000:]
        assert lab.owner(next(token for note in lab.notes()[host] for token in note["tokens"])) == host


def test_a_hostile_host_gains_nothing_and_an_honest_one_is_enrolled(tmp_path):
    hosts = dict(attacks.hosts(), **HONEST)
    assert {name for names in hosts.values() for name in names} == set(attacks.ATTACKS) and len(attacks.ATTACKS) >= 60
    lab = Lab(tmp_path / "lab", hosts)
    check(lab, *played(lab))
    asked = {host: {note["kind"] for note in notes} for host, notes in lab.notes().items()}
    for host, names in hosts.items():  # each of them did answer, and one on Windows told what it lacks and what it keeps
        windows = any(attacks.ATTACKS[name].windows for name in names)
        assert {"verify", *(("win_copy", "win_powershell") if windows else ())} <= asked[host], host


def test_facts_that_ansible_itself_gathers_gain_nothing_either(tmp_path):
    """They stand above the inventory, above what Ansible says a host is called, and above what templates are made of."""
    hosts = {host: names for host, names in attacks.hosts().items() if any("ansible_facts" in attacks.ATTACKS[name].merge for name in names)}
    lab = Lab(tmp_path / "lab", dict(hosts, **HONEST))
    output, harm, known = played(lab, GATHERS)
    check(lab, output, harm, known)
    assert "the facts of this host set inventory_hostname" in " ".join(output.split())
