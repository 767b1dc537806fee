"""The peer's pure parts: fields as the server keeps them, and times compared."""
from __future__ import annotations

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _peer


@pytest.mark.parametrize("given, wanted", [
    ({}, {}), ({"description": None}, {}), ({"tags": ["b", " a ", ""]}, {"tags": "a,b"}), ({"tags": []}, {"tags": ""}),
    ({"peer_dns": [" 10.8.0.1", "9.9.9.9 "]}, {"peer_dns": "10.8.0.1,9.9.9.9"}), ({"group_id": 0}, {"group_id": None}),
    ({"group_id": 4}, {"group_id": 4}),
    ({"expires_at": "never"}, {"expires_at": None}), ({"expires_at": ""}, {"expires_at": None}),
    ({"expires_at": "2031-01-01T00:00:00Z"}, {"expires_at": "2031-01-01T00:00:00Z"}),
    ({"expires_at": "2031-01-01T00:00:00.000Z"}, {"expires_at": "2031-01-01T00:00:00.000Z"}),
    ({"peer_keepalive": 1, "name": "ignored"}, {"peer_keepalive": 1})])
def test_wanted_fields(given, wanted):
    assert _peer.wanted_fields(given) == wanted


@pytest.mark.parametrize("given", [
    {"peer_dns": ["a"]}, {"peer_dns": []}, {"peer_dns": ["10.8.0.1,9.9.9.9"]}, {"peer_keepalive": 0}, {"peer_keepalive": -1},
    {"peer_keepalive": 70000},
    {"expires_at": "2031-01-01T00:00:00+01:00"}, {"expires_at": "2031-01-01 00:00:00"}, {"description": "x" * 256}])
def test_fields_the_server_would_swallow_or_choke_on(given):
    with pytest.raises(_api.ApiError) as caught:
        _peer.wanted_fields(given)
    assert caught.value.kind == "options" and list(given)[0] in str(caught.value)


@pytest.mark.parametrize("key, value, current, same", [
    ("tags", "a,b", "b, a", True), ("tags", "a", "a,b", False), ("tags", "", None, True),
    ("peer_dns", "10.8.0.1,9.9.9.9", "10.8.0.1, 9.9.9.9", True),
    ("peer_dns", "10.8.0.1", None, False), ("expires_at", None, "", True), ("expires_at", None, "2031-01-01T00:00:00Z", False),
    ("description", "", None, True),
    ("group_id", None, 4, False), ("peer_keepalive", 25, 25, True)])
def test_a_field_is_compared_as_the_server_means_it(key, value, current, same):
    assert _peer.ServerPeer._same(key, value, current) is same


@pytest.mark.parametrize("created, since", [
    ("2026-11-23 12:00:00", True), ("2026-11-23T12:00:01.000Z", True), ("2026-11-23 11:59:59", False), ("", False), (None, False),
    ("2027-01-01 00:00:00", True)])
def test_a_peer_made_since_the_intent(created, since):
    assert _peer.HostPeer._created_since(created, {"server_time": "2026-11-23T12:00:00.900Z"}) is since
