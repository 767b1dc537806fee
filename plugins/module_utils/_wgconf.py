# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The WireGuard config format: parse, check against a local policy, override, render, mask. Pure: no input or output.

The server's text is not trusted, for wg-quick evaluates hooks as root. It is never passed through: it is parsed from
an allowlist of keys, with wg-quick's own normalisation of case, blanks and comments, and rendered anew.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import base64
import copy
import ipaddress
import re
import unicodedata

from . import _enrollment, _x25519

INTERFACE_NAME = re.compile(r"(?!\.\.?$)[a-zA-Z0-9_=+.-]{1,15}")  # wg-quick's own rule; use fullmatch
HOOKS = ("PreUp", "PostUp", "PreDown", "PostDown")
LISTS = ("Address", "DNS", "AllowedIPs")
SECRETS = ("PrivateKey", "PresharedKey")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_LITERAL = re.compile(r"[0-9.]+|.*:.*")  # what wg-quick takes for an address in DNS: digits and dots, or a colon in it
_HOST = re.compile(r"(?=.{1,253}$)%s(?:\.%s)*\.?" % (_LABEL, _LABEL))

digest = _enrollment.digest


class ConfigError(Exception):
    """A config is refused. str: one sentence with the line's number (where there is one) and the reason, without secrets.

    line: the line's number from 1, or None; kind: "syntax" or "policy".
    """

    def __init__(self, reason, line=None, kind="syntax"):
        super().__init__("line %d: %s" % (line, reason) if line else reason)
        self.line, self.kind = line, kind


class Config:
    """A parsed config. interface: canonical key -> value; peers: list of such dicts, in the text's order.

    Values: str; list of str for Address (address/prefix), DNS, AllowedIPs (network/prefix) and each hook; int for MTU (bytes), ListenPort,
    FwMark, PersistentKeepalive (seconds); Table is "off" or int. A key whose value means "not set" (0, off, auto, empty) is absent.
    """

    def __init__(self, interface, peers):
        self.interface, self.peers = interface, peers

    def __eq__(self, other):
        return isinstance(other, Config) and (self.interface, self.peers) == (other.interface, other.peers)

    __hash__ = None


# The checks: text -> canonical value, None where the value means "not set". They raise ValueError with the reason.

def _key(value):
    if not re.fullmatch(r"[A-Za-z0-9+/]{43}=", value) or base64.b64encode(base64.b64decode(value)).decode() != value:
        raise ValueError("is not a key of 32 bytes in base64")
    if not any(base64.b64decode(value)):
        raise ValueError("is all zeros, which would erase the key")
    return value


def _number(low, high, names=None):
    def check(value):
        text = value.lower()
        if names and text in names:
            return names[text]
        if not re.fullmatch(r"[0-9]{1,10}|0x[0-9a-f]{1,8}", text):
            raise ValueError("is not a number")
        number = int(text, 0 if text.startswith("0x") else 10)
        if number and not low <= number <= high:
            raise ValueError("is not between %d and %d" % (low, high))
        return number or None
    return check


_ADDRESS = re.compile(r"[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?")


def address_text(value):
    """The text of an address, an interface or a network of ipaddress: one spelling in every Python, which since 3.13 writes ::ffff:a.b.c.d with dots."""
    text, slash, prefix = str(value).partition("/")
    if value.version == 6 and "." in text:
        number = int(ipaddress.IPv6Address(text))
        text = "::ffff:%x:%x" % (number >> 16 & 0xffff, number & 0xffff)
    return text + slash + prefix


def canonical_address(text):
    """An address or ADDRESS/PREFIX that a program named, in the spelling of this module; what is none stays as it is."""
    try:
        if _ADDRESS.fullmatch(text):
            return address_text(ipaddress.ip_interface(text) if "/" in text else ipaddress.ip_address(text))
    except ValueError:
        pass
    return text


def _address(make):
    def check(value):
        try:
            if _ADDRESS.fullmatch(value):
                return address_text(make(value))
        except ValueError:
            pass
        raise ValueError("has a value that is not an IP address or network")
    return check


def _network(text):
    return ipaddress.ip_network(text, strict=False)


def _dns(value):
    if is_literal(value):
        return _address(ipaddress.ip_address)(value)
    if not _HOST.fullmatch(value):
        raise ValueError("has a value that is neither an address nor a domain")
    return value


def is_literal(text):
    """Whether wg-quick takes an entry of DNS, or the host of an endpoint, for an address and not for a name."""
    return _LITERAL.fullmatch(text) is not None


def split_endpoint(value):
    """(host, port) of an endpoint, an IPv6 literal without brackets. Raises ValueError.

    The last colon parts them, as in wg itself: the server sends an IPv6 literal without brackets; it is rendered with them.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f.:]*:[0-9A-Fa-f.:]*)\]|([^\[\]]+)):([0-9]{1,5})", value)
    if not match:
        raise ValueError("is not HOST:PORT")
    host, port = match.group(1) or match.group(2), int(match.group(3))
    if not 1 <= port <= 65535:
        raise ValueError("has a port that is not between 1 and 65535")
    return _dns(host), port


def join_endpoint(host, port):
    """HOST:PORT, an IPv6 literal in brackets."""
    return "%s:%d" % ("[%s]" % host if ":" in host else host, port)


_KEYS = {
    "interface": {
        "PrivateKey": _key, "Address": _address(ipaddress.ip_interface), "DNS": _dns, "MTU": _number(576, 65535),
        "Table": _number(1, 2 ** 32 - 1, {"auto": None, "off": "off", "main": 254}),
        "ListenPort": _number(1, 65535), "FwMark": _number(1, 2 ** 32 - 1, {"off": None}),
    },
    "peer": {
        "PublicKey": _key, "PresharedKey": _key, "Endpoint": lambda value: join_endpoint(*split_endpoint(value)),
        "AllowedIPs": _address(_network), "PersistentKeepalive": _number(1, 65535, {"off": None}),
    },
}
_REQUIRED = {"interface": ("PrivateKey", "Address"), "peer": ("PublicKey", "AllowedIPs")}


def _put(section, target, name, text):
    """Set a key to its canonical value; a key of LISTS grows, without doubles. Raises ValueError."""
    if "<" in text and ">" in text:
        raise ValueError("is a placeholder, so the server could not fill it in")
    if not text.isascii():
        raise ValueError("has a character outside ASCII")
    check = _KEYS[section][name]
    if name in LISTS:
        value = list(dict.fromkeys(target.get(name, []) + [check(part) for part in re.split(r"[,\s]+", text) if part])) or None
    else:
        value = check(text)
    if value is not None:
        target[name] = value


def parse(text, allow_hooks=False):
    """The Config of a text (str, LF line ends, LF at the end). Raises ConfigError for anything that is not on the allowlist.

    CRLF is refused: the server never sends it, and a CR is a way round filters for hooks.
    """
    if not text.strip():
        raise ConfigError("the config is empty")
    config, section, target, seen, lines = Config(None, []), None, None, set(), text.split("\n")
    for number, line in enumerate(lines, 1):
        for character in line:
            if character != "\t" and unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs"):
                raise ConfigError("the control character U+%04X" % ord(character), number)
        line = line.split("#", 1)[0].strip(" \t")
        name, equals, value = (part.strip(" \t") for part in line.partition("="))
        if line.startswith("["):
            (section, target), seen = _begun(config, line, number), set()
        elif line and (target is None or not equals):
            raise ConfigError("not KEY = VALUE in a section", number)
        elif line:
            if name.isascii():  # the Kelvin sign's lower case is k
                name = {known.lower(): known for known in (*_KEYS[section], *HOOKS)}.get(name.lower(), name)
            if name in HOOKS and not allow_hooks:
                raise ConfigError("%s is a hook, which wg-quick runs as root; it is refused unless hooks are allowed" % name, number)
            if name in HOOKS and section == "interface" and value:
                target.setdefault(name, []).append(value)
                continue
            if name not in _KEYS[section]:
                shown = name if re.fullmatch(r"[A-Za-z]{1,19}", name) else "this key"  # a name is shorter than a key or a piece of one
                raise ConfigError("%s is not allowed in [%s]" % (shown, section.capitalize()), number)
            if name in seen and name not in LISTS:
                raise ConfigError("a second %s" % name, number)
            seen.add(name)
            try:
                _put(section, target, name, value)
            except ValueError as error:
                raise ConfigError("%s %s" % (name, error), number) from None
    if lines[-1]:
        raise ConfigError("the text is truncated: no line end after the last line", len(lines))
    return _complete(config)


def _begun(config, line, number):
    """(name, values) of the section that a line begins in a Config. Raises ConfigError."""
    header, target = line.lower(), {}
    if header == "[interface]" and config.interface is None:
        config.interface = target
    elif header == "[peer]":
        config.peers.append(target)
    else:
        raise ConfigError("a second [Interface]" if header == "[interface]" else "a section other than [Interface] and [Peer]", number)
    return header[1:-1], target


def _complete(config):
    """The config itself; ConfigError where something is missing or contradicts itself."""
    if config.interface is None or not config.peers:
        raise ConfigError("the config has no [%s]" % ("Peer" if config.interface else "Interface"))
    for section, part in [("interface", config.interface)] + [("peer", peer) for peer in config.peers]:
        for name in _REQUIRED[section]:
            if not part.get(name):
                raise ConfigError("[%s] has no %s" % (section.capitalize(), name))
    # WireGuard merges or moves what two peers share, so such a config would never be what runs.
    for name, values in (("PublicKey", [peer["PublicKey"] for peer in config.peers]),
                         ("AllowedIPs", [network for peer in config.peers for network in peer["AllowedIPs"]])):
        if len(set(values)) < len(values):
            raise ConfigError("two [Peer] sections share a value of %s" % name)
    return config


def _render(config, keys):
    parts = []
    for title, values, names in [("[Interface]", config.interface, keys)] + [("[Peer]", peer, _KEYS["peer"]) for peer in config.peers]:
        lines = [title]
        for name in names:
            value = values.get(name)
            if value is not None:
                entries = value if name in HOOKS else [", ".join(value) if name in LISTS else value]
                lines += ["%s = %s" % (name, entry) for entry in entries]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def render(config):
    """The canonical text of a Config: LF, fixed order of keys, no comments; parse(render(config)) == config."""
    return _render(config, (*_KEYS["interface"], *HOOKS))


def stripped(config, fwmark=None, listen_port=None):
    """The text for `wg syncconf`. Not told otherwise, it sets fwmark and listen port back and leaves a peer's preshared key and keepalive:
    so the live fwmark and listen port (int) fill in what the config leaves open, and what a peer has not is said to be off."""
    _complete(config)
    live = {name: value for name, value in (("ListenPort", listen_port), ("FwMark", fwmark)) if value}
    off = {"PresharedKey": base64.b64encode(bytes(32)).decode(), "PersistentKeepalive": "off"}
    return _render(Config({**live, **config.interface}, [{**off, **peer} for peer in config.peers]), ("PrivateKey", "ListenPort", "FwMark"))


def override(config, allowed_ips=None, dns=None, mtu=None, table=None, fwmark=None, listen_port=None, persistent_keepalive=None):
    """A new Config with local values in place of the server's. None: as the server says; dns=[], mtu=0, fwmark=0, listen_port=0,
    persistent_keepalive=0 and table="auto" take the key away. allowed_ips and dns: lists of str. Raises ConfigError (kind "policy")."""
    result = copy.deepcopy(config)
    values = [("interface", result.interface, name, value) for name, value in
              (("DNS", dns), ("MTU", mtu), ("Table", table), ("FwMark", fwmark), ("ListenPort", listen_port))]
    for peer in result.peers:
        values += [("peer", peer, "AllowedIPs", allowed_ips), ("peer", peer, "PersistentKeepalive", persistent_keepalive)]
    if allowed_ips is not None and len(result.peers) > 1:
        raise ConfigError("allowed IPs cannot be overridden in a config with %d peers" % len(result.peers), kind="policy")
    for section, part, name, value in values:
        if value is not None:
            part.pop(name, None)
            try:
                _put(section, part, name, ",".join(value) if isinstance(value, (list, tuple)) else str(value))
            except ValueError as error:
                raise ConfigError("the local value of %s %s" % (name, error), kind="policy") from None
    return _complete(result)


HALVES = {"0.0.0.0/0": ("0.0.0.0/1", "128.0.0.0/1"), "::/0": ("::/1", "8000::/1")}


def for_windows(config, kill_switch=False):
    """A new Config as WireGuard for Windows takes it: no FwMark, no Table but "off".

    kill_switch: whether a /0 stays, with which it blocks all that does not go through the tunnel; its two halves route the same.
    """
    result = copy.deepcopy(config)
    result.interface.pop("FwMark", None)
    if result.interface.get("Table") != "off":
        result.interface.pop("Table", None)
    for peer in [] if kill_switch else result.peers:
        peer["AllowedIPs"] = list(dict.fromkeys(half for network in peer["AllowedIPs"] for half in HALVES.get(network, (network,))))
    return _complete(result)  # a half may be another peer's


def _inside(address, rules):
    """Whether an address or network lies in one of the rules that are networks."""
    network = _network(address)
    for rule in rules:
        try:
            bound = _network(rule if _ADDRESS.fullmatch(rule) else "")
        except ValueError:
            continue
        if bound.version == network.version and network.subnet_of(bound):
            return True
    return False


def check_policy(config, endpoints=None, allowed_ips=None, dns=None):
    """Raise ConfigError (kind "policy") where a config leaves the local bounds; None: no bound.

    endpoints: list of host, host:port or CIDR; allowed_ips: list of CIDR; dns: list of CIDR, address or search domain.
    """
    for peer in config.peers:
        if endpoints is not None and "Endpoint" in peer:
            host, port = split_endpoint(peer["Endpoint"])
            named = {host.lower(), join_endpoint(host.lower(), port)} & {rule.lower() for rule in endpoints}
            if not (named or is_literal(host) and _inside(host, endpoints)):
                raise ConfigError("the endpoint %s is not one of the allowed endpoints" % peer["Endpoint"], kind="policy")
        for network in peer["AllowedIPs"]:
            if allowed_ips is not None and not _inside(network, allowed_ips):
                raise ConfigError("%s in AllowedIPs is outside the allowed networks" % network, kind="policy")
    for entry in config.interface.get("DNS", []) if dns is not None else []:
        if not (_inside(entry, dns) if is_literal(entry) else entry.lower() in [rule.lower() for rule in dns]):
            raise ConfigError("the DNS entry %s is not allowed" % entry, kind="policy")


def is_full_tunnel(config):
    """Whether a peer is allowed 0.0.0.0/0 or ::/0, or the whole of a family in halves (/1 and /1)."""
    networks = {network for peer in config.peers for network in peer["AllowedIPs"]}
    return bool(networks & set(HALVES)) or any(networks.issuperset(halves) for halves in HALVES.values())


def mask(text):
    """A text for a diff: a private or preshared key is shown as a short digest of itself, so that its change is seen and never the key.

    Works on any text. In one that does not parse, only lines with a known key that is no secret are shown, and no key at all.
    """
    try:
        parse(text, allow_hooks=True)
        public = ("publickey",)
    except ConfigError:
        public = ()
    known = [name.lower() for name in (*_KEYS["interface"], *_KEYS["peer"], *HOOKS)]
    secret = [name.lower() for name in SECRETS]
    shown = []
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        word = name.strip().lower() if name.isascii() else ""
        if word in known and word not in secret:
            shown.append(line if word in public else re.sub(r"[A-Za-z0-9+/]{40,}=*", lambda found: _masked(found.group()), line))
        elif not line.strip() or line.strip().lower() in ("[interface]", "[peer]"):
            shown.append(line)
        else:
            shown.append("%s= %s" % (name, _masked(value.strip())) if word in secret else _masked(line))
    return "".join(line + "\n" for line in shown)


def _masked(value):
    return "(masked, digest %s)" % digest(value.encode("utf-8", "surrogateescape"))[:8]


def clamp(private_key):
    """A private key (base64) as WireGuard keeps and shows it, with the bits fixed that X25519 ignores."""
    scalar = int.from_bytes(base64.b64decode(private_key), "little") & ~7 & (2 ** 255 - 1) | 2 ** 254
    return base64.b64encode(scalar.to_bytes(32, "little")).decode()


def public_key(private_key):
    """The X25519 public key (base64) of a private key (base64)."""
    return base64.b64encode(_x25519.multiply(base64.b64decode(private_key), _x25519.BASE_POINT)).decode()
