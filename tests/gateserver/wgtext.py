"""WireGuard keys and the configuration text a peer gets."""
from __future__ import annotations

import base64
import hashlib
import os

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey


def key_pair() -> tuple:
    """A private key and its public key, as WireGuard writes them (base64 of 32 bytes)."""
    private = os.urandom(32)
    private = bytes([private[0] & 248]) + private[1:31] + bytes([private[31] & 127 | 64])
    text = base64.b64encode(private).decode()
    return text, public_key(text)


def public_key(private: str) -> str:
    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private))
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def preshared_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def client_config(peer, server: dict) -> str:
    """The text for one peer. ``server``: public_key, endpoint, allowed_ips, mtu (None: no line), dns."""
    lines = [
        "[Interface]",
        "PrivateKey = " + (peer["private_key"] or "<PRIVATE_KEY>"),
        "Address = %s/32" % peer["allowed_ips"].split("/")[0],
        "DNS = " + (peer["dns"] or server["dns"]),
    ]
    if server["mtu"]:
        lines.append("MTU = %s" % server["mtu"])
    lines += ["", "[Peer]", "PublicKey = " + (server["public_key"] or "<SERVER_PUBLIC_KEY>")]
    if peer["preshared_key"]:
        lines.append("PresharedKey = " + peer["preshared_key"])
    lines += [
        "Endpoint = " + server["endpoint"],
        "AllowedIPs = " + server["allowed_ips"],
        "PersistentKeepalive = %s" % (peer["persistent_keepalive"] or 25),
    ]
    return "\n".join(lines) + "\n"


def config_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
