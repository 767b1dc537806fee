# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an answer of the server may hold: JSON without its dark corners, and the keys and types that are relied on.

This module util is PRIVATE to the collection; it may change without notice.
"""

from __future__ import annotations

import json
import re

from . import _enrollment, _http

HIGHEST = 2**53  # numbers from here on are not exact in the server's own language
MOMENT = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?"

# A shape says what a value is; None stands for "not there" unless "!" ends the shape.
SHAPES = {
    "id": lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 < value < HIGHEST,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < HIGHEST,
    "flag": lambda value: value in (0, 1) and isinstance(value, (bool, int)),
    "bool": lambda value: isinstance(value, bool),
    "text": lambda value: isinstance(value, str),
    "word": lambda value: isinstance(value, str) and 0 < len(value) < 256 and value.isprintable(),
    "moment": lambda value: isinstance(value, str) and re.fullmatch(MOMENT, value) is not None,
    "config": lambda value: isinstance(value, str) and value != "",
    "hash": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None,
    "token": lambda value: isinstance(value, str) and re.fullmatch("gc_[0-9A-Za-z_-]{8,252}", value) is not None,
    "object": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
    "words": lambda value: isinstance(value, list) and all(isinstance(one, str) and one.isprintable() for one in value),
}
PING = {"version": "word!", "timestamp": "moment!"}
PERMISSIONS = {"permissions": "object!", "scopes": "words!"}
REGISTERED = {"peerId": "id!", "peerName": "word!", "config": "config!", "hash": "hash!"}
CONFIG = {"config": "config!", "hash": "hash!", "peerName": "word"}
CHECK = {"updated": "bool!"}
INFO = {"id": "id!", "name": "word!", "enabled": "flag!", "expiresAt": "text", "createdAt": "text"}
PEER_CONFIG = {"config": "config!", "name": "word"}
PEER = dict(
    {"id": "id!", "name": "word!", "enabled": "flag", "isOnline": "flag", "group_id": "number", "user_id": "number"},
    **{
        key: "text"
        for key in (
            "description",
            "allowed_ips",
            "allowedIps",
            "dns",
            "tags",
            "expires_at",
            "created_at",
            "peer_type",
            "public_key",
        )
    },
    **{
        key: "number"
        for key in (
            "persistent_keepalive",
            "latest_handshake",
            "latestHandshake",
            "transfer_rx",
            "transferRx",
            "transfer_tx",
            "transferTx",
        )
    },
)
USER = {"id": "id!", "username": "word!"}
TOKEN = {
    "id": "id!",
    "name": "text!",
    "scopes": "words!",
    "peer_id": "number",
    "user_id": "number",
    "expires_at": "text",
}


def parsed(text):
    """The JSON of an answer, None where it has none, or one that no honest server sends.

    That is one with lone surrogates, keys that occur twice, or numbers beyond all bounds.
    """
    try:
        found = _enrollment.read_json(text, None, 20, float("inf"), True)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(found, ensure_ascii=False).encode("utf-8")
        return found
    except (ValueError, RecursionError):  # UnicodeError is a ValueError
        return None


def checked(what, answer, schema):
    """The answer, if it has what the schema says; what it has beyond that stays. Raises ApiError (protocol)."""
    wrong = [
        key
        for key, shape in schema.items()
        if (shape.endswith("!") if answer.get(key) is None else not SHAPES[shape.rstrip("!")](answer[key]))
    ]
    if wrong:
        raise _http.ApiError(
            f"{what} failed: the answer has no valid {', '.join(wrong)}; look into the server's log and check what "
            "stands between",
            "protocol",
            200,
            True,
        )
    return answer


def listed(what, answer, key, schema):
    """The list under a key of an answer, each entry checked. Raises ApiError (protocol)."""
    found = checked(what, answer, {key: "list!"})[key]
    for number, one in enumerate(found):
        checked("%s (entry %d)" % (what, number + 1), one if isinstance(one, dict) else {}, schema)
    return found
