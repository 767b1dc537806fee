"""Whatever place a key or a token is typed into by mistake, no error holds a piece of it."""

from __future__ import annotations

import base64
import io
import json

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _agent, _api, _enrollment, _facts, _options, _verify, _wgconf
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
KEYS = st.binary(min_size=32, max_size=32).filter(any).map(lambda raw: base64.b64encode(raw).decode())
TOKENS = st.binary(min_size=48, max_size=48).map(lambda raw: "gc_" + raw.hex())
SECRETS = st.one_of(KEYS, TOKENS)
OTHER = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
CONFIG = """[Interface]
PrivateKey = %(secret)s
Address = 10.8.0.2/32
DNS = 10.8.0.1, example.com
MTU = 1420

[Peer]
PublicKey = %(other)s
PresharedKey = %(secret)s
Endpoint = gate.example.com:51820
AllowedIPs = 10.8.0.0/24
PersistentKeepalive = 25
"""
NAMES = [*_wgconf._KEYS["interface"], *_wgconf._KEYS["peer"], *_wgconf.HOOKS, "SaveConfig", "[Interface]", "[Peer]", "", "#"]
PLACES = st.sampled_from(
    [
        "%(name)s = %(secret)s",
        "%(name)s = 10.8.0.1, %(secret)s",
        "%(secret)s = %(name)s",
        "%(name)s%(secret)s",
        "[%(secret)s]",
        "%(secret)s",
        "%(secret)s =",
        "%(name)s = %(secret)s:51820",
        "%(name)s = [%(secret)s]:1",
        "%(name)s = <%(secret)s>",
        "%(name)s = %(secret)s/24",
        "%(name)s = %(secret)s\x07",
    ]
)


def pieces(text: str, secret: str, size: int = 20) -> list[str]:
    """Pieces of a secret, of this many characters, that a text holds."""
    return [secret[start:start + size] for start in range(len(secret) - size + 1) if secret[start:start + size] in text]


@unhurried
@given(SECRETS, PLACES, st.sampled_from(NAMES), st.integers(0, 12), st.booleans())
def test_a_config_with_a_secret_in_the_wrong_place(secret, place, name, number, replaces):
    lines = (CONFIG % {"secret": secret if not secret.startswith("gc_") else OTHER, "other": OTHER}).split("\n")
    lines[number:number + int(replaces)] = [place % {"name": name, "secret": secret}]
    try:
        config = _wgconf.parse("\n".join(lines))
        _wgconf.check_policy(config, endpoints=["x"], allowed_ips=["192.0.2.0/24"], dns=[])
    except _wgconf.ConfigError as err:
        assert not pieces(str(err), secret), err
        assert not pieces(repr(err.__cause__), secret) and err.__suppress_context__ | (err.__context__ is None)


@unhurried
@given(SECRETS, st.sampled_from(["allowed_ips", "dns", "mtu", "table", "fwmark", "listen_port", "persistent_keepalive"]), st.booleans())
def test_a_local_value_that_is_a_secret(secret, name, listed):
    config = _wgconf.parse(CONFIG % {"secret": OTHER, "other": OTHER})
    try:
        _wgconf.override(config, **{name: [secret] if listed else secret})
    except _wgconf.ConfigError as err:
        assert not pieces(str(err), secret)


BREAKS = st.sampled_from(["\n", "\r\n", " ", "\t", "\x00", "é", "\u2028", "\x1b"])


@unhurried
@given(SECRETS, BREAKS, st.integers(1, 40))
def test_a_token_that_is_broken_is_refused_without_it(secret, character, where):
    broken = secret[:where] + character + secret[where:]
    for make in (lambda: _api.Api({"url": "https://gate.example.com", "token": broken}), lambda: _options.secret({"token": broken})):
        with pytest.raises(_api.ApiError) as caught:
            make()
        assert not pieces(str(caught.value), secret, 12) and caught.value.failure["kind"] == "options"


def test_a_beat_with_a_broken_token_file_says_so_and_no_more(tmp_path):
    """http.client quotes a header that it refuses."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("a" * 32 + "\n")
    store, token = _enrollment.Store(str(tmp_path)), "gc_" + "ab" * 24 + "\n" + "cd" * 24
    store.save("token", token)
    store.save("settings", {"url": "https://127.0.0.1:9", "timeout": 1, "max_wait": 0})
    store.save(
        "enrollment",
        {
            "peer_id": 4,
            "peer_name": "web01",
            "url": "https://127.0.0.1:9",
            "reporting": "full",
            "interface": "wg0",
            "hash": "aa",
            "fingerprint": _facts.machine_fingerprint(str(tmp_path)),
        },
    )
    shown = _agent.Agent(store, lambda argv, stdin=None, **_how: (127, "", "")).beat()
    assert shown["error"]["kind"] == "options" and "line break" in shown["error"]["text"] and not pieces(json.dumps(shown), token, 12)


@unhurried
@given(SECRETS)
def test_a_url_or_a_proxy_that_holds_a_secret(secret):
    for url in ("https://user:%s@gate.example.com", "https://gate.example.com/?token=%s", "%s", "https://%s@", "ftp://x:%s@y"):
        for make in (
            lambda: _verify.normal_url(url % secret),
            lambda: _api.Api({"url": "https://gate.example.com", "proxy": url % secret}),
            lambda: _api.Api({"url": url % secret}),
        ):
            try:
                make()
            except (ValueError, _api.ApiError) as err:
                assert not pieces(str(err), secret), (url, err)


@unhurried
@given(KEYS, st.sampled_from(["Address", "DNS", "AllowedIPs", "Endpoint", "nonsense", ""]), st.booleans())
def test_a_masked_text_of_any_kind(key, name, known):
    assume(name or known)
    text = _wgconf.mask("%s = %s\n%s\n" % (name, key, key) + (CONFIG % {"secret": key, "other": OTHER} if known else ""))
    assert not pieces(text, key) and io.StringIO(text).readline()
