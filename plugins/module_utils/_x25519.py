# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Curve25519, as WireGuard's keys use it.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

BASE_POINT = (9).to_bytes(32, "little")


def multiply(private: bytes, point: bytes) -> bytes:
    """A private key (32 bytes) times a point of Curve25519 (its u, 32 bytes little-endian): 32 bytes, all zero for a point of low order.

    The Montgomery ladder of RFC 7748, section 5; not in constant time.
    """
    prime, u = 2 ** 255 - 19, int.from_bytes(point, "little") & (2 ** 255 - 1)
    scalar = int.from_bytes(private, "little") & ~7 & (2 ** 255 - 1) | 2 ** 254
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in range(254, -1, -1):
        swap = scalar >> bit & 1
        if swap:
            x2, x3, z2, z3 = x3, x2, z3, z2
        plus, minus = (x2 + z2) ** 2 % prime, (x2 - z2) ** 2 % prime
        cross, other = (x3 - z3) * (x2 + z2), (x3 + z3) * (x2 - z2)
        x3, z3 = (cross + other) ** 2 % prime, u * (cross - other) ** 2 % prime
        x2, z2 = plus * minus % prime, (plus - minus) * (plus + 121665 * (plus - minus)) % prime
        if swap:
            x2, x3, z2, z3 = x3, x2, z3, z2
    return (x2 * pow(z2, prime - 2, prime) % prime).to_bytes(32, "little")
