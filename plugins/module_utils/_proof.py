# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proof that a host has the private key of its peer, without the key leaving the host.

The controller makes an X25519 key pair for each run and sends its public half, the challenge, with what it asks an agent (`challenge` of verify: base64 of 32
bytes). The agent answers `proof`:

    SHA-256(LABEL || X25519(private key of its peer, challenge)), 64 lower-case hex digits

LABEL is the 24 bytes "gatecontrol possession 1", without a line end. The controller works out the same from its private half and the public key that the
server's list has for the peer. The private key is the first that stands in offered.conf (a change under way), issued.conf (what the server issued) or the
interface's own config, in this order. An agent answers no proof (null) where there is no key, where the challenge is not 32 bytes, and where it is a point of
low order (the product is 32 zero bytes), which would tell that two answers are of one key. tests/vectors/proof.json has challenges, keys and answers.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import base64
import binascii
import hashlib
import re

from . import _enrollment, _x25519

LABEL = b"gatecontrol possession 1"
KEY = re.compile(r"^[ \t]*PrivateKey[ \t]*=[ \t]*([A-Za-z0-9+/]{43}=)[ \t]*\r?$", re.MULTILINE | re.IGNORECASE)


def of_key(private_key: str, point: str) -> str | None:
    """The proof by a private key and the other side's public key, both base64; None where either is no key or the point has a low order."""
    try:
        private, public = (base64.b64decode(text, validate=True) for text in (private_key, point))
    except (binascii.Error, TypeError, ValueError):
        return None
    if len(private) != 32 or len(public) != 32:
        return None
    shared = _x25519.multiply(private, public)
    return hashlib.sha256(LABEL + shared).hexdigest() if any(shared) else None


def of_host(store: _enrollment.Store, config_path: str, challenge: str | None) -> str | None:
    """What a host answers to a challenge (base64), None without one or without a key."""
    for text in (store.text("offered"), store.text("issued"), _enrollment.read_text(config_path)) if challenge else ():
        found = KEY.search(text or "")
        if found:
            return of_key(found.group(1), challenge)
    return None
