# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps about its peer: the record, the token, the intent, and the files of a change under way.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time

ABANDONED = 60  # seconds; a write takes milliseconds
HALF = ".gatecontrol."  # begins the names of files that are being written, which the file's own name follows
# What an enrollment is lies in /etc; what the agent learns and needs for a change lies in /var/lib, the only
# place its hardened unit may write to.
ETC = "etc/gatecontrol"
VAR = "var/lib/gatecontrol"
FILES = {
    "enrollment": ETC + "/enrollment.json",  # peer id, name, url, hashes, digests of token and fields, machine id
    "token": ETC + "/token",                 # the client token, alone
    "settings": ETC + "/settings.json",      # what the agent needs to reach the server and how often
    "intent": ETC + "/intent.json",          # written before register, removed after enrollment
    "installed": ETC + "/installed.json",    # what the agent's installation put where: path -> SHA-256
    "issued": VAR + "/issued.conf",          # the server's text that the running config was made of
    "offered": VAR + "/offered.conf",        # the server's text that the candidate was made of
    "candidate": VAR + "/candidate.conf",    # the config that is to be applied next
    "last_good": VAR + "/last_good.conf",    # the config that ran before the change under way
    "pending": VAR + "/pending.json",        # a change is under way
    "confirm": VAR + "/confirm",             # the controller came back: the change's id, then, over a new connection, its word
    "verdict": VAR + "/verdict.json",        # how the last change ended
    "earlier": VAR + "/earlier.json",        # and the one before it, for a controller that has yet to ask
    "state": VAR + "/state.json",            # the agent's memory between two beats
}


def digest(text):
    """SHA-256 of a text (str, taken as UTF-8) or bytes, 64 lower-case hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text).hexdigest()


def read_text(path):
    """The text of a file, None where there is none. Bytes that are no UTF-8 are kept as surrogates, so digests still differ."""
    try:
        with open(path, "rb") as handle:
            return handle.read().decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return None


DEEPEST = 100  # containers in one another
_SHELL = re.compile(r'"(?:[^"\\]|\\.)*"?|[^\[\]{}"]+', re.DOTALL)  # what of a JSON text is no bracket


def read_json(text, deepest=DEEPEST, digits=300, places=600, once=False):
    """The value of a JSON text (RFC 8259) from outside. Raises ValueError: for what is none, NaN and numbers without end, and beyond these bounds.

    deepest: containers in one another, None for as many as Python reads (RecursionError beyond). digits, places: characters of a whole number, which takes
    quadratic time to read, and of another one. once: refuses a key that stands twice in an object, since readers differ in which of both counts.
    """
    def whole(word):
        if len(word) > digits:
            raise ValueError("a number is too long")
        return int(word)

    def real(word):
        value = float(word) if len(word) <= places else float("inf")
        if not abs(value) < float("inf"):
            raise ValueError("a number is not finite")
        return value

    if deepest is not None:
        _check_depth(text, deepest)
    return json.loads(text, parse_int=whole, parse_float=real, parse_constant=real, object_pairs_hook=_single if once else None)


def _check_depth(text, deepest):
    if text.count("[") + text.count("{") <= deepest:
        return
    depth = 0
    for bracket in _SHELL.sub("", text):
        depth += 1 if bracket in "[{" else -1
        if depth > deepest:
            raise ValueError("it has more than %d levels" % deepest)


def _single(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def write_text(path, text, mode=0o600, owner=None, group=None):
    """Write a whole file or nothing: temporary file in the same directory, fsync, rename; the directory is made 0700 if missing.

    owner, group: numeric ids or None. What writers that were killed have left in the directory goes too. Raises OSError.
    """
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder, 0o700)
    _remove_half_written(folder)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix="%s%s." % (HALF, os.path.basename(path)))
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode("utf-8", "surrogateescape"))
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if owner is not None or group is not None:
                os.fchown(stream.fileno(), -1 if owner is None else owner, -1 if group is None else group)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder_handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(folder_handle)
    finally:
        os.close(folder_handle)


def _remove_half_written(folder):
    """Remove the temporary files whose writer was killed; a time in the future is that of a clock which was put back since."""
    try:
        for name in os.listdir(folder):
            if name.startswith(HALF) and abs(time.time() - os.stat(os.path.join(folder, name)).st_mtime) > ABANDONED:
                os.unlink(os.path.join(folder, name))
    except (FileNotFoundError, NotADirectoryError):
        return  # another writer was quicker


def remove_file(path):
    """Remove a file and what writers that were killed have left beside it; True if there was the file."""
    _remove_half_written(os.path.dirname(path))
    if not os.path.lexists(path):
        return False  # a file system that cannot be written refuses to remove even what is not there
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


class Store:
    """The host's files by their names in FILES, below root ("/" but in tests and on stand-ins)."""

    locked = False  # whether this process holds the host's lock (_lock)

    def __init__(self, root="/"):
        self.root = root

    def path(self, name):
        """The absolute path of a named file."""
        return os.path.join(self.root, FILES[name])

    def text(self, name):
        """The text of a named file, or None."""
        return read_text(self.path(name))

    def load(self, name):
        """The object in a named JSON file; None where there is none or it is damaged."""
        try:
            value = read_json(self.text(name) or "null")
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def save(self, name, value):
        """Write a named file, 0600: an object as JSON, a str as it is."""
        self.put(name, value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True) + "\n")

    def put(self, name, text):
        """Write the text of a named file, 0600."""
        write_text(self.path(name), text)

    def drop(self, *names):
        """Remove named files; True if any was there."""
        return sum(remove_file(self.path(name)) for name in names) > 0


class Texts(Store):
    """The files of a host that this does not run on, in memory.

    texts: {name: text} as they lie on the host; changed: {name: text, None for one that is removed}, for whoever brings it there.
    """

    locked = True  # nobody else has them

    def __init__(self, texts):
        super().__init__()
        self.texts, self.changed = {name: text for name, text in texts.items() if text is not None}, {}

    def text(self, name):
        return self.texts.get(name)

    def put(self, name, text):
        if self.texts.get(name) != text:
            self.changed[name] = self.texts[name] = text

    def drop(self, *names):
        there = [name for name in names if name in self.texts]
        for name in there:
            self.changed[name] = None
            del self.texts[name]
        return bool(there)
