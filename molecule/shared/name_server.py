# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A name server for one name: name_server.py NAME IPV4-ADDRESS|FILE [BIND]. Every other name does not exist (RFC 1035).

FILE holds the address, and is read for each question; without it, as when the run is over, the name server ends. BIND is the address to listen at, all
of them unless given.
"""

from __future__ import annotations

import pathlib
import socket
import sys

NAME, ADDRESS, BIND = sys.argv[1].lower(), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""
A, NO_SUCH_NAME, ANSWER = 1, 3, 0x8580  # ANSWER: authoritative, recursion asked for and available


def answer(question: bytes) -> bytes:
    """The answer to a message with one question."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1:at + 1 + question[at]].decode("latin-1").lower())
        at += question[at] + 1
    known = ".".join(labels) == NAME
    count = int(known and int.from_bytes(question[at + 1:at + 3], "big") == A)
    address = socket.inet_aton(pathlib.Path(ADDRESS).read_text("ascii").strip() if "/" in ADDRESS else ADDRESS)
    record = (b"\xc0\x0c\0\x01\0\x01" + (60).to_bytes(4, "big") + b"\0\x04" + address) * count
    flags, counts = ANSWER | (0 if known else NO_SUCH_NAME), bytes([0, 1, 0, count, 0, 0, 0, 0])
    return question[:2] + flags.to_bytes(2, "big") + counts + question[12:at + 5] + record


with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind((BIND, 53))
    server.settimeout(1)
    while "/" not in ADDRESS or pathlib.Path(ADDRESS).exists():
        try:
            message, sender = server.recvfrom(4096)
        except TimeoutError:
            continue
        if len(message) > 16:
            server.sendto(answer(message), sender)
