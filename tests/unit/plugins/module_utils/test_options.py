"""From a module's options to an API: what was given, then what the agent's settings say of the same server."""
from __future__ import annotations

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _options, _verify

NOTHING = dict.fromkeys([*_options.REACH, *_options.TOKEN, *_options.IDENTITY, *_options.POLICY, "peers_token"])
SETTINGS = {"url": "https://gate.example.com/", "ca_path": "/etc/ca.pem", "timeout": 7, "proxy": "http://proxy:1", "send_version": False,
            "policy": {"mtu": 1300, "dns": ["10.8.0.1"]}}


def params(**given) -> dict:
    return dict(NOTHING, **given)


def test_settings_count_where_nothing_was_given():
    found = _options.reach(params(), SETTINGS)
    assert found["url"] == "https://gate.example.com" and found["ca_path"] == "/etc/ca.pem" and found["timeout"] == 7
    assert found["max_wait"] is None
    assert set(found) == set(_options.REACH)


def test_what_was_given_wins():
    found = _options.reach(params(url="https://GATE.example.com:443", timeout=3, validate_certs=False), SETTINGS)
    assert found["timeout"] == 3 and found["validate_certs"] is False and found["proxy"] == "http://proxy:1"


def test_settings_of_another_server_do_not_count():
    found = _options.reach(params(url="https://other.example.com"), SETTINGS)
    assert {value for key, value in found.items() if key != "url"} == {None}


def test_no_server_at_all():
    for settings in (None, {}, {"timeout": 5}):
        with pytest.raises(_api.ApiError, match="GATECONTROL_URL"):
            _options.reach(params(), settings)


def test_the_policy_is_mixed_the_same_way():
    found = _options.policy(params(mtu=1400, allowed_ips=[]), SETTINGS)
    assert found["mtu"] == 1400 and found["dns"] == ["10.8.0.1"] and found["allowed_ips"] == [] and set(found) == set(_options.POLICY)
    assert _options.policy(params(), {})["mtu"] is None


def test_a_token_as_option_or_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(" gc_file\n", encoding="ascii")
    assert _options.secret(params(token="gc_option", token_file=str(path))) == "gc_option"
    assert _options.secret(params(token_file=str(path))) == "gc_file"
    assert _options.secret(params(token=" gc_x\n")) == "gc_x"
    assert _options.secret(params()) is None and _options.secret(params(token="")) is None
    assert _options.secret(params(peers_token="gc_p"), "peers_token") == "gc_p"


@pytest.mark.parametrize("value, word", [("abc", "gc_"), ("Bearer gc_x", "gc_"), ("gc_a b", "blank"), ("gc_ü", "blank"),
                                         ("gc_a\nX: y", "blank")])
def test_what_is_no_token_is_refused_and_not_shown(value, word):
    with pytest.raises(_api.ApiError) as caught:
        _options.secret(params(token=value))
    assert word in str(caught.value) and value not in str(caught.value) and caught.value.kind == "options"


def test_who_the_requests_are_about():
    assert _options.identity(params(), None, "f" * 64) == {"version": _verify.VERSION, "platform": "linux", "fingerprint": "f" * 64}
    assert _options.identity(params(), SETTINGS, "f" * 64)["version"] is None
    assert _options.identity(params(send_version=True), SETTINGS)["version"] == _verify.VERSION
    assert _options.identity(params(send_version=False))["version"] is None
    delegated = _options.identity(params(machine_fingerprint="a" * 64, client_platform="windows"), None, "f" * 64)
    assert delegated["platform"] == "windows" and delegated["fingerprint"] == "a" * 64
