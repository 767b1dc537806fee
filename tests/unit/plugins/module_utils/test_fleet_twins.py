"""Hosts that would get what another one has, and times that are over."""
from __future__ import annotations

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _fleet, _whose

URL = "https://gate.example.com"


def host(own, /, **known):
    """A new host with a token, a name and a machine id of its own."""
    return dict({"host": own, "url": URL, "new": True, "token_digest": own + "-token", "name": own, "fingerprint": own + "-id"}, **known)


@pytest.mark.parametrize("key, words", [
    ("token_digest", "were given the same client token"), ("name", "have the same name"), ("fingerprint", "have the same machine id"),
    ("peer_id", "have the same peer")])
def test_two_new_hosts_with_one_of_these_are_both_refused(key, words):
    found = _whose.twins([host("a", **{key: "x"}), host("b"), host("c", **{key: "x"})])
    assert set(found) == {"a", "c"}
    assert str(found["a"]).startswith("a and c " + words) and found["a"].failure == {"kind": "clone", "status": None, "hosts": ["a", "c"]}


def test_a_host_that_has_its_peer_is_left_alone():
    found = _whose.twins([host("a", new=False, peer_id=3), host("b", fingerprint="a-id"), host("c", new=False, peer_id=3)])
    assert set(found) == {"b"} and "a and b have the same machine id" in str(found["b"])


def test_what_is_not_known_is_no_twin():
    assert _whose.twins([host("a", token_digest=None, name="", peer_id=None), host("b", token_digest=None, name="", peer_id=None)]) == {}


def test_another_server_may_have_the_same_names():
    assert _whose.twins([host("a", name="web"), host("b", name="web", url="https://other.example.com")]) == {}


def test_many_twins_are_counted():
    found = _whose.twins([host("h%d" % number, name="web") for number in range(40)])
    assert len(found) == 40 and "h3 and h4 and 35 more have the same name" in str(found["h0"])


@pytest.mark.parametrize("moment, over", [
    (None, False), ("", False), ("1970-01-01T00:16:39Z", True), ("1970-01-01 00:16:39", True), ("1970-01-01T00:16:40.001Z", False),
    ("2031-01-01T00:00:00Z", False)])
def test_a_time_is_over(moment, over):
    assert _fleet.is_past(moment, 1000) is over
