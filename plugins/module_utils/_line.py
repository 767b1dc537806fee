# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection that cannot hold its user up: every wait ends at one deadline, every size is bounded.

http.client parses answers; the connection below it is this room's, since a socket's timeout is one for each read.

This module util is PRIVATE to the collection; it may change without notice.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import ssl
import threading
import time

LARGEST = 2**23  # bytes of an answer's body; a full page of peers has 200,000
HEAD = 2**18  # bytes of an answer's head with all interim answers, and of a TLS handshake
INTERIM = 16  # interim answers (1xx) before the answer
ADDRESSES = 8  # of a name, that are tried


class Refused(Exception):
    """An answer that is HTTP, but not in a form that is accepted. The text continues "the answer ..."."""


def addresses(host, port, deadline):
    """What getaddrinfo says of a host. It knows no timeout, so it gets a thread, left when late. Raises OSError."""
    with contextlib.suppress(OSError, UnicodeError):
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    found = []

    def ask():
        try:
            found.append(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
        except (OSError, UnicodeError) as err:
            found.append(err if isinstance(err, OSError) else OSError(f"{host} is not a host's name"))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if not found:
        raise TimeoutError(f"the name {host} was not resolved in time")
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


def dial(host, port, deadline):
    """A socket connected to a host by one of its addresses; each gets its share of the time. Raises OSError.

    deadline: as time.monotonic counts.
    """
    found, last = addresses(host, port, deadline)[:ADDRESSES], None
    for number, (family, kind, protocol, _name, address) in enumerate(found):
        share = (deadline - time.monotonic()) / (len(found) - number)
        if share <= 0:
            break
        try:
            connected = socket.socket(family, kind, protocol)
            try:
                connected.settimeout(share)
                connected.connect(address)
                return connected
            except OSError:
                connected.close()
                raise
        except OSError as err:
            last = err
    raise last or TimeoutError("timed out")


class Line(io.RawIOBase):
    """A connection on which every wait ends at .deadline (time.monotonic) and that takes in .room more bytes at most.

    TLS is done between buffers: within ssl's own socket a peer could keep one read busy for as long as it sends.
    """

    def __init__(self, connected, deadline):
        super().__init__()
        self.socket, self.deadline, self.room = connected, deadline, HEAD
        self.tls, self.quiet = None, False
        self.inside, self.outside = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.reader = Reader(self)
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def secure(self, context, host):
        """Begin TLS with the host of this name. Raises ssl.SSLError, OSError."""
        tls = context.wrap_bio(self.inside, self.outside, server_hostname=host)
        self._step(tls.do_handshake)
        self.tls = tls

    def _wait(self):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.socket.settimeout(left)

    def _take(self, most=65536):
        self._wait()
        part = self.socket.recv(most)
        self.room -= len(part)
        if self.room < 0:
            raise Refused("is too large")
        return part

    def _give(self, data):
        view = memoryview(data)
        while view:
            self._wait()
            view = view[self.socket.send(view[:65536]) :]

    def _step(self, step, *given):
        """One step of TLS, with what it has to say sent and what it waits for received."""
        while True:
            try:
                result = step(*given)
                self._give(self.outside.read())
                return result
            except ssl.SSLWantReadError:
                self._give(self.outside.read())
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._give(self.outside.read())  # the alert
                raise
            part = self._take()
            if part:
                self.inside.write(part)
            else:
                self.inside.write_eof()

    def readable(self):
        return True

    def readinto(self, target):
        if self.quiet:
            return 0
        try:
            part = self._step(self.tls.read, len(target)) if self.tls else self._take(len(target))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            part = b""  # what is missing shows by the answer's own length
        target[: len(part)] = part
        return len(part)

    def sendall(self, data):
        """As a socket does."""
        if self.tls:
            self._step(self.tls.write, data)
        else:
            self._give(data)

    def makefile(self, _mode):
        """As a socket does; always the same reader, so that nothing that came too much is overlooked."""
        return self.reader

    def spent(self):
        """Whether something came that was not asked for, the end of the connection included."""
        self.quiet = True
        try:
            if self.reader.peek(1) or self.tls and (self.tls.pending() or self.inside.pending):
                return True
            self.socket.settimeout(0)
            self.socket.recv(1, socket.MSG_PEEK)
            return True
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.quiet = False

    def close(self):
        super().close()
        self.socket.close()


class Reader(io.BufferedReader):
    """What http.client reads an answer from.

    Its lines hold no control characters: what one side takes for a line's end would not be one for another.
    """

    def readline(self, size=-1):
        line = super().readline(size)
        if re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)", line):
            raise Refused("has control characters in its head")
        return line

    def flush(self):
        """Nothing to do; http.client calls it on a connection that is closed."""

    def close(self):
        """Not after each answer, as http.client wants it: the connection closes itself."""


class Answer(http.client.HTTPResponse):
    """An answer, after all interim ones."""

    def _read_status(self):
        for _interim in range(INTERIM):
            found = super()._read_status()
            if not 100 <= found[1] < 200 or found[1] == 101:
                return found
            http.client.parse_headers(self.fp)
        raise Refused("is preceded by too many interim ones")

    def begin(self):
        """Read the head. Raises Refused where the body's length or form is open to interpretation."""
        super().begin()
        lengths = {value.strip() for value in self.headers.get_all("content-length", [])}
        transfer = [value.strip().lower() for value in self.headers.get_all("transfer-encoding", [])]
        if (
            len(lengths) > 1
            or not all(re.fullmatch("[0-9]{1,15}", value) for value in lengths)
            or transfer not in ([], ["chunked"])
            or lengths
            and transfer
        ):
            raise Refused("does not say clearly how long it is")
        if self.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise Refused("is compressed, though that was not asked for")

    def body(self):
        """The body's bytes. Raises OSError, Refused, HTTPException."""
        parts, size = [], 0
        while True:
            part = self.read(65536)
            parts.append(part)
            size += len(part)
            if size > LARGEST:
                raise Refused("is too large")
            if not part and self.length:
                raise OSError("the answer broke off, %d bytes are missing" % self.length)
            if not part:
                return b"".join(parts)
