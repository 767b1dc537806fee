# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one lock of a host: whoever changes the tunnel, or a file that others read, change and write, holds it.

It is a flock(2) on the folder of the agent's memory: that needs no room on the disk and no right to write, so the beat's own unit can take it too,
and the kernel takes it back from a process that ends, however it ends.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import time

from . import _enrollment, _observe

PATIENCE = 200  # seconds that one waits for another, unless told otherwise
NOWHERE = (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)  # what file systems say that cannot lock a folder, such as NFS


class Busy(_observe.TunnelError):
    """Another process holds the lock. str: one sentence that names it."""


def _taken(folder: str) -> int | None:
    """A handle that holds the lock, None while another process does. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in NOWHERE:
                raise
            other = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.close(handle)
            handle = other
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        if os.path.samestat(os.fstat(handle), os.stat(folder)):
            return handle
        os.close(handle)  # the folder was taken away, or made anew, while this waited
        return None
    except BaseException as error:
        os.close(handle)
        if isinstance(error, (BlockingIOError, FileNotFoundError)):
            return None
        raise


def holder(folder: str) -> str:
    """Who holds the lock, in words; "another process" where the kernel does not tell."""
    try:
        seen = os.stat(folder)
        mark = "%02x:%02x:%d" % (os.major(seen.st_dev), os.minor(seen.st_dev), seen.st_ino)
        number = re.search(r"^\d+: FLOCK .* (\d+) %s " % mark, _enrollment.read_text("/proc/locks") or "", re.MULTILINE).group(1)
        words = (_enrollment.read_text("/proc/%s/cmdline" % number) or "").replace("\0", " ")
    except (OSError, AttributeError):
        return "another process"
    named = re.search(r"gatecontrol[-_]\w+(?:\.py)?(?: [a-z]+)?", words)
    return "process %s%s" % (number, " (%s)" % named.group(0).strip() if named else "")


@contextlib.contextmanager
def held(store, limit: float = PATIENCE, sleep=time.sleep, clock=time.monotonic, make: bool = True):
    """Hold the lock of the host whose files `store` has; within one process as often as one likes.

    limit: seconds to wait for another process; make: make the folder where it is missing, else there is nothing to hold and to wait for.
    Raises Busy, OSError.
    """
    folder = os.path.join(store.root, _enrollment.VAR)
    if store.locked or not (make or os.path.isdir(folder)):
        yield
        return
    end, handle = clock() + limit, None
    while handle is None:
        if not os.path.isdir(folder):
            os.makedirs(folder, 0o700, exist_ok=True)
        handle = _taken(folder)
        if handle is None and clock() >= end:
            raise Busy("this host is being changed by %s, which was not done within %d s; try again in a minute" % (holder(folder), limit))
        if handle is None:
            sleep(0.1)
    store.locked = True
    try:
        yield
    finally:
        store.locked = False
        os.close(handle)


def is_free(store) -> bool:
    """Whether no process holds the lock now. Raises OSError."""
    try:
        with held(store, limit=0, make=False):
            return True
    except Busy:
        return False
