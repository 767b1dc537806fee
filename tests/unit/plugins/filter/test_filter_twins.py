"""What the filter takes of each host of a play: hosts of this batch, of earlier ones, and those that were not asked yet."""
from __future__ import annotations

from ansible_collections.callmetechie.gatecontrol.plugins.filter import gatecontrol_twins as twins
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment

URL = "https://gate.example.com"


def new(host, **known):
    """The variables of a host that is to be enrolled."""
    return {"__gatecontrol_seen": {"enrolled": False}, "__gatecontrol_identity": dict(
        {"host": host, "url": URL + "/", "token_digest": None, "name": host, "fingerprint": host * 64, "peer_id": None}, **known)}


def enrolled(name, number, fingerprint):
    """The variables of a host that was enrolled before this run."""
    return {"__gatecontrol_seen": {"enrolled": True, "url": URL, "peer_name": name, "peer_id": number, "host": {"fingerprint": fingerprint}}}


def refused(**hostvars):
    return twins.gatecontrol_twins([*hostvars, "gone"], hostvars)


def test_new_hosts_are_compared_with_those_of_earlier_batches():
    hostvars = {"a": enrolled("web", 3, "e" * 64), "b": new("b", fingerprint="e" * 64), "c": new("c", name="web"), "d": new("d", peer_id=3), "f": new("f")}
    found = refused(**hostvars)
    assert {host: text.partition(",")[0] for host, text in found.items()} == {
        "b": "a and b have the same machine id", "c": "a and c have the same name", "d": "a and d have the same peer"}


def test_tokens_are_compared_with_those_that_the_inventory_has_for_later_batches():
    token = "gc_" + "1" * 96
    found = refused(a=new("a", token_digest=_enrollment.digest(token)), b={"gatecontrol_token": token + "\n"}, c={"gatecontrol_token": ""}, d={})
    assert list(found) == ["a"] and found["a"].startswith("a and b were given the same client token") and token not in found["a"]


def test_hosts_that_are_enrolled_are_never_refused():
    assert refused(a=enrolled("web", 3, "e" * 64), b=enrolled("web", 3, "e" * 64), c=new("c")) == {}
