# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The config format: what is accepted, what is refused and with which line, what a mask shows."""

from __future__ import annotations

import base64
import os
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _wgconf


def key():
    return base64.b64encode(os.urandom(32)).decode()


PRIVATE, PUBLIC, PRESHARED = key(), key(), key()
TEXT = """[Interface]
PrivateKey = %s
Address = 10.8.0.2/32
DNS = 10.8.0.1
MTU = 1420

[Peer]
PublicKey = %s
PresharedKey = %s
Endpoint = gate.example.net:51820
AllowedIPs = 0.0.0.0/0
PersistentKeepalive = 25
""" % (PRIVATE, PUBLIC, PRESHARED)


def refused(text, allow_hooks=False):
    with pytest.raises(_wgconf.ConfigError) as caught:
        _wgconf.parse(text, allow_hooks)
    message = str(caught.value)
    assert "\n" not in message
    assert not any(secret in message for secret in (PRIVATE, PRESHARED))
    return caught.value


def with_line(line, after="[Interface]"):
    return TEXT.replace(after, after + "\n" + line)


def test_servers_text_is_understood():
    config = _wgconf.parse(TEXT)
    assert config.interface == {"PrivateKey": PRIVATE, "Address": ["10.8.0.2/32"], "DNS": ["10.8.0.1"], "MTU": 1420}
    assert config.peers == [
        {
            "PublicKey": PUBLIC,
            "PresharedKey": PRESHARED,
            "Endpoint": "gate.example.net:51820",
            "AllowedIPs": ["0.0.0.0/0"],
            "PersistentKeepalive": 25,
        }
    ]


def test_servers_text_is_rendered_as_it_is():
    assert _wgconf.render(_wgconf.parse(TEXT)) == TEXT


def test_wg_quicks_normalisation():
    loose = (
        "# note\n[interface] # x\n\tprivatekey=%s\nADDRESS = 10.8.0.2\n Address=fd00::2/64\ndns = 10.8.0.1,10.8.0.3 corp.example\n"
        "table = AUTO\nfwmark = 0xca6c\nlistenport = 0\n[PEER]\npublickey = %s #c\nAllowedIPs = 10.9.0.7/16, 10.9.0.0/16\n"
        "allowedips=fd00::/8\n"
        "PersistentKeepalive = off\n\n" % (PRIVATE, PUBLIC)
    )
    config = _wgconf.parse(loose)
    assert config.interface == {
        "PrivateKey": PRIVATE,
        "Address": ["10.8.0.2/32", "fd00::2/64"],
        "DNS": ["10.8.0.1", "10.8.0.3", "corp.example"],
        "FwMark": 51820,
    }
    assert config.peers == [{"PublicKey": PUBLIC, "AllowedIPs": ["10.9.0.0/16", "fd00::/8"]}]


def test_several_peers():
    other = key()
    config = _wgconf.parse(TEXT + "[Peer]\nPublicKey = %s\nAllowedIPs = 10.77.0.0/16\n" % other)
    assert [peer["PublicKey"] for peer in config.peers] == [PUBLIC, other]
    assert _wgconf.parse(_wgconf.render(config)) == config


@pytest.mark.parametrize("name", _wgconf.HOOKS)
@pytest.mark.parametrize(
    "spelling", ["%s = touch /x", "  %s=touch /x", "\t%s\t=\ttouch /x", "%s = touch /x\r", "\r%s = touch /x", "%s = a # b"]
)
@pytest.mark.parametrize("change", [str, str.lower, str.upper])
@pytest.mark.parametrize("section", ["[Interface]", "[interface]", "[INTERFACE]"])
def test_hooks_in_any_spelling_are_refused(name, spelling, change, section):
    text = TEXT.replace("[Interface]", section + "\n" + change(spelling % name))
    assert refused(text).line == 2


def test_hooks_behind_crlf_line_ends_are_refused():
    refused(with_line("PostUp = touch /x").replace("\n", "\r\n"))


def test_hooks_are_kept_where_they_are_allowed():
    config = _wgconf.parse(with_line("postup = echo %i\nPostUp = echo two"), allow_hooks=True)
    assert config.interface["PostUp"] == ["echo %i", "echo two"]
    assert "PostUp = echo %i\nPostUp = echo two\n" in _wgconf.render(config)
    refused(with_line("PostUp = echo", "[Peer]"), allow_hooks=True)


@pytest.mark.parametrize(
    "line, number, reason",
    [
        ("SaveConfig = true", 2, "SaveConfig is not allowed in [Interface]"),
        ("Jc = 4", 2, "Jc is not allowed"),
        ("[Interface]", 2, "a second [Interface]"),
        ("[Peers]", 2, "a section other than"),
        ("nonsense", 2, "not KEY = VALUE"),
        ("PrivateKey = " + PUBLIC, 3, "a second PrivateKey"),
        ("MTU = 100", 2, "not between 576 and 65535"),
        ("MTU = big", 2, "not a number"),
        ("ListenPort = 65536", 2, "not between 1 and 65535"),
        ("Table = blue", 2, "not a number"),
        ("DNS = 10.8.0.300", 2, "not an IP address"),
        ("DNS = -x", 2, "neither an address nor a domain"),
        ("DNS = *", 2, "neither an address nor a domain"),
        ("Address = 10.8.0.2/33", 2, "not an IP address or network"),
        ("Address = 10.8.0.2/255.255.255.0", 2, "not an IP address or network"),
        ("DNS = a\x00b", 2, "control character U+0000"),
        ("DNS = a\u2028PostUp = x", 2, "control character U+2028"),
        ("DNS = a\x0bPostUp = x", 2, "control character U+000B"),
        ("DNS = \u0661.example", 2, "outside ASCII"),
    ],
)
def test_refused_in_interface(line, number, reason):
    error = refused(with_line(line))
    assert (error.line, error.kind) == (number, "syntax")
    assert reason in str(error)


@pytest.mark.parametrize(
    "old, new, reason",
    [
        (PRIVATE, "<PRIVATE_KEY>", "placeholder"),
        (PUBLIC, "<SERVER_PUBLIC_KEY>", "placeholder"),
        (PRIVATE, PRIVATE[:-2] + "=", "not a key of 32 bytes"),
        (PRIVATE, base64.b64encode(bytes(32)).decode(), "all zeros"),
        ("PrivateKey = %s\n" % PRIVATE, "", "[Interface] has no PrivateKey"),
        ("PublicKey = %s\n" % PUBLIC, "", "[Peer] has no PublicKey"),
        ("Address = 10.8.0.2/32", "Address = ", "[Interface] has no Address"),
        ("AllowedIPs = 0.0.0.0/0\n", "", "[Peer] has no AllowedIPs"),
        ("0.0.0.0/0", "0.0.0.0", None),
        ("0.0.0.0/0", "+10.0.0.0/8", "not an IP address or network"),
        ("gate.example.net:51820", "gate.example.net", "not HOST:PORT"),
        ("gate.example.net:51820", "gate.example.net:0", "port that is not between"),
        ("gate.example.net:51820", "gate.example.net:70000", "port that is not between"),
        ("gate.example.net:51820", "2001:db8::1", "not an IP address"),
        ("gate.example.net:51820", "[10.0.0.1]:51820", "not HOST:PORT"),
        ("gate.example.net:51820", "$(reboot):51820", "neither an address nor a domain"),
        ("PersistentKeepalive = 25", "PersistentKeepalive = 70000", "not between"),
        ("[Interface]\n", "", "not KEY = VALUE in a section"),
    ],
)
def test_damage(old, new, reason):
    assert old in TEXT
    if reason is None:
        assert _wgconf.parse(TEXT.replace(old, new)).peers[0]["AllowedIPs"] == ["0.0.0.0/32"]
    else:
        assert reason in str(refused(TEXT.replace(old, new)))


def test_last_bit_of_a_key_counts():
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    crooked = PRIVATE[:42] + last[last.index(PRIVATE[42]) | 1] + "="
    assert "32 bytes" in str(refused(TEXT.replace(PRIVATE, crooked)))


def test_every_truncation_within_a_line_is_refused():
    for length in range(len(TEXT)):
        if not TEXT[:length].endswith("\n"):
            refused(TEXT[:length])


def test_shared_values_of_two_peers_are_refused():
    assert "PublicKey" in str(refused(TEXT + "[Peer]\nPublicKey = %s\nAllowedIPs = 10.1.0.0/16\n" % PUBLIC))
    assert "AllowedIPs" in str(refused(TEXT + "[Peer]\nPublicKey = %s\nAllowedIPs = 0.0.0.0/0\n" % key()))


@pytest.mark.parametrize("text", ["", "\n", "   \n\t\n", "# nothing\n", "[Interface]\n", "[Peer]\n"])
def test_nothing_is_refused(text):
    refused(text)


@pytest.mark.parametrize(
    "given, shown",
    [("2001:db8::1:51820", "[2001:db8::1]:51820"), ("[2001:DB8::1]:51820", "[2001:db8::1]:51820"), ("192.0.2.1:1", "192.0.2.1:1")],
)
def test_endpoint_literals(given, shown):
    config = _wgconf.parse(TEXT.replace("gate.example.net:51820", given))
    assert config.peers[0]["Endpoint"] == shown
    assert _wgconf.join_endpoint(*_wgconf.split_endpoint(shown)) == shown


def test_override():
    config = _wgconf.parse(TEXT)
    changed = _wgconf.override(
        config,
        allowed_ips=["10.8.0.0/24", "10.9.0.1/16"],
        dns=[],
        mtu=1380,
        table="off",
        fwmark="0x20",
        listen_port=51999,
        persistent_keepalive=0,
    )
    assert changed.interface == {
        "PrivateKey": PRIVATE,
        "Address": ["10.8.0.2/32"],
        "MTU": 1380,
        "Table": "off",
        "FwMark": 32,
        "ListenPort": 51999,
    }
    assert changed.peers[0]["AllowedIPs"] == ["10.8.0.0/24", "10.9.0.0/16"] and "PersistentKeepalive" not in changed.peers[0]
    assert _wgconf.render(config) == TEXT, "the original is left alone"
    assert _wgconf.override(config) == config
    assert _wgconf.parse(_wgconf.render(changed)) == changed


@pytest.mark.parametrize("values", [{"allowed_ips": ["x"]}, {"allowed_ips": []}, {"mtu": 10}, {"dns": ["a b\nPostUp = x"]}, {"table": "x"}])
def test_bad_override(values):
    with pytest.raises(_wgconf.ConfigError):
        _wgconf.override(_wgconf.parse(TEXT), **values)


@pytest.mark.parametrize(
    "bounds",
    [
        {"endpoints": ["gate.example.net"]},
        {"endpoints": ["GATE.example.net:51820"]},
        {"allowed_ips": ["0.0.0.0/0"]},
        {"dns": ["10.8.0.0/24"]},
        {},
    ],
)
def test_policy_kept(bounds):
    _wgconf.check_policy(_wgconf.parse(TEXT), **bounds)


@pytest.mark.parametrize(
    "bounds",
    [
        {"endpoints": []},
        {"endpoints": ["192.0.2.0/24"]},
        {"endpoints": ["gate.example.net:1"]},
        {"allowed_ips": ["10.0.0.0/8", "::/0"]},
        {"dns": ["10.9.0.0/24"]},
        {"dns": ["corp.example"]},
    ],
)
def test_policy_broken(bounds):
    with pytest.raises(_wgconf.ConfigError) as caught:
        _wgconf.check_policy(_wgconf.parse(TEXT), **bounds)
    assert caught.value.kind == "policy"


def test_policy_of_literal_endpoints_and_search_domains():
    config = _wgconf.parse(TEXT.replace("gate.example.net", "192.0.2.7").replace("DNS = 10.8.0.1", "DNS = 10.8.0.1, corp.example"))
    _wgconf.check_policy(config, endpoints=["192.0.2.0/24"], dns=["10.8.0.1", "Corp.Example"])
    for bounds in ({"endpoints": ["198.51.100.0/24", "gate.example.net"]}, {"dns": ["10.8.0.1"]}):
        with pytest.raises(_wgconf.ConfigError):
            _wgconf.check_policy(config, **bounds)


@pytest.mark.parametrize(
    "allowed, full",
    [
        ("0.0.0.0/0", True),
        ("::/0", True),
        ("10.0.0.0/8", False),
        ("0.0.0.0/1, 128.0.0.0/1", True),
        ("0.0.0.0/1", False),
        ("::/1, 8000::/1", True),
    ],
)
def test_full_tunnel(allowed, full):
    assert _wgconf.is_full_tunnel(_wgconf.parse(TEXT.replace("0.0.0.0/0", allowed))) is full


def test_stripped_keeps_live_mark_and_port_and_never_lacks_the_key():
    config = _wgconf.parse(TEXT)
    text = _wgconf.stripped(config, fwmark=51820, listen_port=40000)
    assert text.startswith("[Interface]\nPrivateKey = %s\nListenPort = 40000\nFwMark = 51820\n\n[Peer]\n" % PRIVATE)
    assert not any(word in text for word in ("Address", "DNS", "MTU"))
    own = _wgconf.stripped(_wgconf.override(config, fwmark=7, listen_port=51821), fwmark=51820, listen_port=40000)
    assert "FwMark = 7\n" in own and "ListenPort = 51821\n" in own
    del config.interface["PrivateKey"]
    with pytest.raises(_wgconf.ConfigError):
        _wgconf.stripped(config)


def test_mask_shows_a_change_of_key_without_the_key():
    masked, other = _wgconf.mask(TEXT), _wgconf.mask(TEXT.replace(PRIVATE, key()))
    assert PRIVATE not in masked and PRESHARED not in masked and PUBLIC in masked
    changed = [(old, new) for old, new in zip(masked.splitlines(), other.splitlines()) if old != new]
    assert len(changed) == 1 and changed[0][0].startswith("PrivateKey = (masked, digest ")
    assert masked == _wgconf.mask(TEXT)


@pytest.mark.parametrize(
    "damage",
    [
        "%s",
        "private key = %s",
        "PRIVATEKEY=%s",
        "\rPrivateKey = %s",
        "#PrivateKey = %s",
        "Address = 1 %s",
        "PrivateKey %s",
        "PublicKey = %s",
        "[Interface]PrivateKey=%s",
        "\u2028PrivateKey\u2028= %s",
        "PostUp = wg set %%i private-key <(echo %s)",
    ],
)
def test_mask_of_damaged_text(damage):
    assert PRIVATE not in _wgconf.mask("[Interface]\n" + damage % PRIVATE + "\n")
    if "PublicKey" not in damage:
        assert PRIVATE not in _wgconf.mask(with_line(damage % PRIVATE))


def test_public_key_agrees_with_cryptography_and_wg():
    for _round in range(3):
        private = X25519PrivateKey.generate()
        raw = private.private_bytes(serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        assert _wgconf.public_key(base64.b64encode(raw).decode()) == base64.b64encode(public).decode()
    random = key()  # not clamped
    answer = subprocess.run(["wg", "pubkey"], input=random, capture_output=True, text=True, check=True).stdout.strip()
    assert _wgconf.public_key(random) == answer


@pytest.mark.parametrize(
    "name, good", [("wg0", True), ("a" * 15, True), ("a" * 16, False), ("", False), ("wg0/..", False), ("wg 0", False), ("..", False)]
)
def test_interface_names(name, good):
    assert bool(_wgconf.INTERFACE_NAME.fullmatch(name)) is good
