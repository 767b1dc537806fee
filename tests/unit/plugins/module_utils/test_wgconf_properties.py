# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties of the config format over generated texts."""

from __future__ import annotations

import base64
import ipaddress
import re

from hypothesis import HealthCheck, example, given, settings, strategies as st

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _wgconf

# Time is no property here: the machine may be shared.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

keys = st.binary(min_size=32, max_size=32).filter(any).map(lambda raw: base64.b64encode(raw).decode())
addresses = st.ip_addresses()
written = addresses.map(_wgconf.address_text)  # Pythons differ in how they write ::ffff:a.b.c.d
networks = st.builds(
    lambda address, bits: _wgconf.address_text(ipaddress.ip_network((address, min(bits, address.max_prefixlen)), strict=False)),
    addresses,
    st.integers(0, 128),
)
hosts = st.one_of(written, st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?\.example", fullmatch=True))
endpoints = st.builds(_wgconf.join_endpoint, hosts, st.integers(1, 65535))


def section(required, optional):
    return st.fixed_dictionaries(required, optional=optional)


interfaces = section(
    {"PrivateKey": keys, "Address": st.lists(addresses.map(lambda a: _wgconf.address_text(ipaddress.ip_interface(a))), min_size=1, max_size=3, unique=True)},
    {
        "DNS": st.lists(written, min_size=1, max_size=3, unique=True),
        "MTU": st.integers(576, 9000),
        "Table": st.one_of(st.just("off"), st.integers(1, 2**32 - 1)),
        "ListenPort": st.integers(1, 65535),
        "FwMark": st.integers(1, 2**32 - 1),
    },
)
peers = section(
    {"PublicKey": keys, "AllowedIPs": st.lists(networks, min_size=1, max_size=4, unique=True)},
    {"PresharedKey": keys, "Endpoint": endpoints, "PersistentKeepalive": st.integers(1, 65535)},
)


def distinct(config):
    shown = [network for peer in config.peers for network in peer["AllowedIPs"]]
    return len(set(shown)) == len(shown) and len({peer["PublicKey"] for peer in config.peers}) == len(config.peers)


configs = st.builds(_wgconf.Config, interfaces, st.lists(peers, min_size=1, max_size=3)).filter(distinct)

# Lines that look like a config, spelled wildly, so that a fair share of the texts parses.
names = st.sampled_from([*_wgconf._KEYS["interface"], *_wgconf._KEYS["peer"], *_wgconf.HOOKS, "SaveConfig", "[Interface]", "[Peer]", "#"])
wild = st.builds(
    lambda name, upper, blank, equals, value, end: blank + (name.upper() if upper else name.lower()) + blank + equals + value + end,
    names,
    st.booleans(),
    st.sampled_from(["", " ", "\t", "\r", "\u00a0", "\u2028", "\x0b"]),
    st.sampled_from(["=", " = ", "", "=="]),
    st.one_of(keys, networks, endpoints, st.just("touch /x"), st.text(max_size=12)),
    st.sampled_from(["", "\r", " #", ";", "\\"]),
)
texts = st.one_of(
    st.text(),
    st.lists(wild, max_size=8).map(lambda lines: "\n".join(lines) + "\n"),
    st.builds(lambda config, lines, at: insert(_wgconf.render(config), lines, at), configs, st.lists(wild, max_size=3), st.integers(0, 14)),
)


def insert(text, lines, at):
    old = text.split("\n")
    return "\n".join(old[:at] + lines + old[at:])


@unhurried
@given(configs)
def test_rendering_is_a_fixed_point(config):
    text = _wgconf.render(config)
    assert _wgconf.parse(text) == config
    assert _wgconf.render(_wgconf.parse(text)) == text


@settings(unhurried, max_examples=400)
@given(texts)
@example("[Interface]\nPostUp\u00a0= touch /x\n")
def test_no_text_yields_a_hook(text):
    try:
        rendered = _wgconf.render(_wgconf.parse(text))
    except _wgconf.ConfigError:
        return
    for line in re.split(r"[\s\x00]*[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+", rendered):
        assert not re.match(r"\s*(pre|post)(up|down)|\s*saveconfig", line, re.IGNORECASE)
        assert line in ("", "[Interface]", "[Peer]") or line.partition(" = ")[0] in {**_wgconf._KEYS["interface"], **_wgconf._KEYS["peer"]}
    assert _wgconf.parse(rendered) == _wgconf.parse(text)


@unhurried
@given(configs, st.integers(1, 2**32 - 1), st.integers(1, 65535))
def test_live_mark_and_port_are_never_lost(config, fwmark, port):
    lines = _wgconf.stripped(config, fwmark, port).split("\n")
    assert "FwMark = %d" % config.interface.get("FwMark", fwmark) in lines
    assert "ListenPort = %d" % config.interface.get("ListenPort", port) in lines
    assert "PrivateKey = %s" % config.interface["PrivateKey"] in lines
    assert not any(line.startswith(("Address", "DNS", "MTU", "Table")) for line in lines)


@settings(unhurried, max_examples=300)
@given(configs, st.lists(wild, max_size=3), st.integers(0, 14), st.integers(0, 400))
def test_a_mask_never_shows_a_secret(config, lines, at, cut):
    text = insert(_wgconf.render(config), lines, at)
    public = {peer["PublicKey"] for peer in config.peers}
    for shown in (text, text[cut:]):
        masked = _wgconf.mask(shown)
        for secret in {config.interface["PrivateKey"], *(peer.get("PresharedKey", "-" * 44) for peer in config.peers)} - public:
            assert secret not in masked
            assert secret[cut % 20 :] not in masked


@unhurried
@given(st.text())
def test_any_text_is_parsed_or_refused_with_one_sentence(text):
    try:
        _wgconf.parse(text)
    except _wgconf.ConfigError as error:
        assert "\n" not in str(error)
    _wgconf.mask(text)
