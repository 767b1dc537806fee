"""The whole table of attacks in plays of the real role: what answers is a connection in the controller's own processes."""
from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import attacks  # noqa: E402
import pytest  # noqa: E402
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _verify  # noqa: E402
from lab import PASSWORD, Lab  # noqa: E402

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


@pytest.mark.parametrize("kind", ["login", "peers", "client"])
def test_no_secret_is_shown_at_the_highest_verbosity(tmp_path, kind):
    """In output, log and what callbacks are told of results; on hosts that are enrolled, that are as they should be, on one that fails and one with Windows."""
    lab = Lab(tmp_path / "lab", {"honest": [], "steady": ["all facts, and all is well"], "failing": ["result: message is a template"],
                                 "win": ["windows: nothing but what it is"]})
    try:
        lab.write(ANSWER, _verify.MARKER)
        token = lab.server.token("client" if kind == "client" else "peers")
        given = {"login": {}, "peers": {"gatecontrol_peers_token": token, "gatecontrol_admin_password": ""},
                 "client": {"gatecontrol_token": "{{ '%s' if inventory_hostname == 'honest' else '' }}" % token}}[kind]
        inventory = lab.inventory(gatecontrol_proxy="http://user:ProxyWord-4711@127.0.0.1:9", gatecontrol_no_proxy="127.0.0.1", **given)
        done = lab.play(inventory, "-vvvv", "--diff", environment={
            "ANSIBLE_CALLBACKS_ENABLED": "hostile_vars,hostile_results", "HOSTILE_RESULTS": str(lab.place / "results.jsonl")})
        words = {PASSWORD, "ProxyWord-4711", token, *(word for row in lab.database("SELECT private_key, preshared_key FROM peers") for word in row)}
        words |= {word for row in lab.database("SELECT id, csrf FROM sessions") for word in row}
        words |= {token for notes in lab.notes().values() for note in notes for token in note["tokens"]}
    finally:
        lab.close()
    texts = {"output": done.stdout + done.stderr, "log": (lab.place / "ansible.log").read_text(), "results": (lab.place / "results.jsonl").read_text()}
    assert all(len(text) > 10000 for text in texts.values()) and any(note["kind"] == "gatecontrol_peer" for note in lab.notes()["honest"])
    assert [where for where, text in texts.items() for word in words if word and len(word) > 7 and word in text] == []
