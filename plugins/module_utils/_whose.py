# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a peer is: what tells that it is a host's, that it is nobody's yet, or that it is another machine's. On the controller only; asks nobody.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import hashlib
import hmac
import typing as t

from . import _api, _beat, _peer

MINTED, LONGEST = "ansible: ", 100  # begins the name of a token that the collection mints; characters that the server takes of a token's name
ROTATED = ".pre-rotation"  # ends the name of a peer that a second one takes the place of; fits the longest name that register makes
Record = dict[str, t.Any]  # of a peer or a token, as the server's list has it; or a host, as Fleet takes it


def is_past(moment: str | None, now: float) -> bool:
    """Whether a time of the server (ISO-8601 UTC text or None) is over; now in seconds since 1970."""
    return bool(moment) and moment.replace(" ", "T") < _beat.timestamp(now)


def token_name(peer_name: str, host: str | None = None) -> str:
    """The name of the token that the collection mints for a peer, and for the host of this name in the inventory; at most one of a peer is kept.

    The inventory's name of a host is the user's word, which no host can change, and tells later whom a token that was never used was made for.
    """
    plain = MINTED + peer_name
    if host in (None, peer_name):
        return plain
    named = "%s for %s" % (plain, host)
    return named if len(named) <= LONGEST else "%s for %s" % (plain, hashlib.sha256(host.encode()).hexdigest()[:16])


def is_minted(token: Record, name: str) -> bool:
    """Whether a token has a name; where that is token_name(peer), for whatever host."""
    return token["name"] == name or name.startswith(MINTED) and token["name"].startswith(name + " for ")


class Peers:
    """The server's peers, and which of them hosts may have.

    peers: the server's list. tokens: those of the administrator's list, [] where it cannot be read, None where it was not. expected: public key -> the
    proof that a host gives which has the private one. made: {host: number of the peer that this run made for it}. given: {number as text: host that this
    run gave the peer to}. now: seconds since 1970.
    A host's word for its number, its name and its machine id counts for nothing. A host's own peer is one
    - whose private key it has proven to have (proof), or that the server knows its client token to be bound to (bound),
    - that this run made for it or gave it, or
    - that the user says is its (word where the peer itself was named; adopt, but where the host alone says which peer (named False) not one whose token was
      minted for another host).
    """

    def __init__(self, peers: list[Record], tokens: list[Record] | None, expected: t.Callable[[str], str | None], made: dict[str, int], given: dict[str, str],
                 now: float):
        self.all, self.tokens, self.expected, self.made, self.given, self.now = peers, tokens or [], expected, made, given, now
        self.looked = tokens is not None
        self.named = {peer["name"]: peer for peer in peers}
        self.numbered = {peer["id"]: peer for peer in peers}

    def proves(self, host: Record, peer: Record) -> bool:
        """Whether a peer is the host's without the user's word. Of a rotation that was cut off, either peer stands for both."""
        return any(self._proves(host, one) for one in self.pair(host, peer))

    def _proves(self, host: Record, peer: Record) -> bool:
        if peer["id"] in (host.get("bound"), self.made.get(host["host"])) or self.given.get(str(peer["id"])) == host["host"]:
            return True
        expected = host.get("proof") and self.expected(str(peer.get("public_key")))
        return bool(expected) and hmac.compare_digest(expected, str(host["proof"]))

    def owns(self, host: Record, peer: Record) -> bool:
        """Whether a peer is the host's, by proof or by the user's word."""
        adopted = host.get("adopt") and (host.get("named") is not False or self.looked and not self._other(host, peer))
        return bool(adopted or host.get("word")) or self.proves(host, peer)

    def _other(self, host: Record, peer: Record) -> str | None:
        """The name of a token of a peer that was minted for another host of the inventory and for none of this name."""
        own = (MINTED + host["host"], " for " + host["host"], token_name("x" * LONGEST, host["host"]).removeprefix(MINTED + "x" * LONGEST))
        minted = [token["name"] for token in self._minted(peer)]
        return minted[0] if minted and not any(name == own[0] or name.endswith(own[1:]) for name in minted) else None

    def pair(self, host: Record, peer: Record) -> list[Record]:
        """A peer and the other one of its rotation, newest first, where both are of one host as far as can be told.

        The names alone tell nothing: a host may call itself NAME.pre-rotation, or NAME while the rotation of another one is cut off. Of a rotation each
        has a token that was minted for this host, is proven, or is nobody's yet; and the second one is the newer.
        """
        stem = peer["name"].removesuffix(ROTATED)
        first, second = self.named.get(stem + ROTATED), self.named.get(stem)
        if not self.looked or not first or not second or second["id"] < first["id"]:
            return [peer]
        minted = {token.get("peer_id") for token in self.tokens if token["name"] == token_name(stem, host["host"])}
        one = all(found["id"] in minted or self._proves(host, found) or not self.taken(host, found) for found in (first, second))
        return [second, first] if one else [peer]

    def used(self, peer: Record) -> str | None:
        """What tells that a machine has used a peer, None for nothing. A server that was started anew may have forgotten any one of these."""
        if peer.get("isOnline"):
            return "it had a handshake in the last 3 minutes"
        if any(peer.get(key) for key in ("latestHandshake", "latest_handshake")):
            return "it had handshakes"
        if any(peer.get(key) for key in ("transferRx", "transferTx", "transfer_rx", "transfer_tx", "total_rx", "total_tx")):
            return "it has carried data"
        if any(token.get("peer_id") == peer["id"] and token.get("last_used_at") for token in self.tokens):
            return "a client token of its was used"
        return None

    def taken(self, host: Record, peer: Record) -> str | None:
        """What tells that a peer is not free for a host without proof: it was used, or a living token of the collection's waits for another host."""
        own = self._names(host, peer)
        waiting = [token for token in self._minted(peer) if token["name"] not in own and not is_past(token.get("expires_at"), self.now)]
        return self.used(peer) or (waiting and "its client token %r was not made for this host of the inventory" % waiting[0]["name"] or None)

    def _minted(self, peer: Record) -> list[Record]:
        """The tokens that the collection minted for a peer."""
        return [token for token in self.tokens if token.get("peer_id") == peer["id"] and token["name"].startswith(MINTED)]

    @staticmethod
    def _names(host: Record, peer: Record) -> set[str]:
        """What a token is called that was minted for a peer and this host."""
        return {token_name(name, host["host"]) for name in (peer["name"], host["name"])}

    def check_given(self, host: Record, peer: Record) -> None:
        """Raise PeerError (clone) for a peer that this run gave to another host."""
        other = self.given.get(str(peer["id"]), host["host"])
        if other != host["host"]:
            raise _peer.PeerError("the peer %s (id %s) was given to %s in this run, and two machines must not have one key; set gatecontrol_name or "
                                  "gatecontrol_peer_id to another one for %s" % (peer["name"], peer["id"], other, host["host"]), "clone",
                                  hosts=[other, host["host"]])

    def refusal(self, host: Record, peer: Record) -> _peer.PeerError:
        """Why a peer is not the host's to have."""
        why, word = self.taken(host, peer) or "it was made for a machine that has the key, or is still to get it", "gatecontrol_adopt=true"
        if host.get("adopt"):
            other, word = self._other(host, peer), "gatecontrol_name=%s" % peer["name"]
            why = "its client token %r was minted for another host of the inventory" % other if other else why
        return _peer.PeerError(
            "the peer %s (id %s) looks like another machine's: %s, and %s does not prove that it is that machine, so nothing was changed; set "
            "%s for this host if it is that machine, else set gatecontrol_name to another name"
            % (peer["name"], peer["id"], why, host["host"], word), "not_ours", peer_id=peer["id"], peer_name=peer["name"])

    def own(self, host: Record) -> Record:
        """The peer that a host is enrolled as. Raises ApiError (not_found), PeerError (not_ours)."""
        peer = self.numbered.get(host.get("peer_id"))
        if not peer:
            raise _api.ApiError("the peer %s (id %s) is not on the server: %s" % (host["name"], host.get("peer_id"), _api.ENROLL_AGAIN), "not_found")
        if not self.owns(host, peer):
            raise self.refusal(host, peer)
        return peer

    def meant(self, host: Record) -> Record | None:
        """The peer that a host is to have, None where one is to be made. Raises ApiError (not_found, name), PeerError (not_ours, other_peer, clone)."""
        name = _api.check_name(host["name"], exact=True)
        claimed = self.numbered.get(host.get("peer_id"))
        own = claimed if claimed and self.proves(host, claimed) else None
        if host.get("wanted_id"):
            found = self.numbered.get(host["wanted_id"])
            if not found:
                raise _api.ApiError("there is no peer of the number gatecontrol_peer_id=%s on the server, and none was made for %s; correct it"
                                    % (host["wanted_id"], host["host"]), "not_found")
            if own and own is not found and not host.get("adopt"):
                raise _peer.other_peer(own["name"], found["name"])
        elif own and not host.get("adopt"):
            if host.get("enrolled_as") not in (None, name) and own["name"] != name:
                raise _peer.other_peer(host["enrolled_as"], name)
            found = own  # by whatever name an administrator has given it
        else:
            found = self.named.get(name) or own
            if claimed and claimed is not found and not host.get("adopt"):
                raise self.refusal(host, claimed)
            if not found and name.endswith(ROTATED) and not host.get("adopt"):
                raise _peer.PeerError("no peer was made for %s: its name %s ends as that of a peer does which a rotation replaces; set gatecontrol_name"
                                      % (host["host"], name), "not_ours")
        if found:
            self.check_given(host, found)
            if not self.owns(host, found) and (self.taken(host, found) or host.get("adopt")):
                raise self.refusal(host, found)
        return found

    def going(self, host: Record) -> list[Record]:
        """The peers that go with a host: its own, and the other one of a rotation. Raises PeerError (not_ours).

        By its name alone only one goes that nobody has used and that the collection made for this host, or gave it: by the token that it minted.
        """
        number = host.get("peer_id") or self.made.get(host["host"])
        peer = self.numbered.get(number) if number else self.named.get(host["name"]) or self.named.get(host["name"] + ROTATED)
        if not peer:
            return []
        own = self._names(host, peer)
        made = not number and any(token["name"] in own for token in self._minted(peer))
        if not self.owns(host, peer) and (not made or self.taken(host, peer)):
            raise self.refusal(host, peer)
        stem = peer["name"].removesuffix(ROTATED)
        names = (stem, stem + ROTATED) if host.get("word") else tuple(one["name"] for one in self.pair(host, peer))
        return [one for one in self.all if one["name"] in names]


TWINS = (
    ("token_digest", "were given the same client token", "and would get one peer and one private key; give each host a token of its own"),
    ("name", "have the same name", "so they would share one peer and its key; set gatecontrol_name"),
    ("fingerprint", "have the same machine id, as clones of one image do",
     "so they would share one peer and its key; give each an id of its own with systemd-machine-id-setup"),
    ("peer_id", "have the same peer", "and would use one private key; give each host a peer of its own"),
)


def doubles(hosts: list[Record]) -> dict[str, _peer.PeerError]:
    """{host: PeerError} of a batch's hosts that would share a peer."""
    return twins([{"host": host["host"], "name": host["name"], "fingerprint": host.get("fingerprint"), "peer_id": host.get("wanted_id"), "new": True}
                  for host in hosts])


def twins(hosts: list[Record]) -> dict[str, _peer.PeerError]:
    """{host: PeerError} of the new hosts that would get what another one has: token, name, machine id or peer.

    hosts: dicts with host, url, new (whether it is to get a peer in this run), and of each of TWINS what is known; all but a token may occur
    again on another server.
    """
    found: dict[str, _peer.PeerError] = {}
    for key, what, advice in TWINS:
        seen: dict[tuple, list[Record]] = {}
        for host in hosts:
            if host.get(key):
                seen.setdefault((key == "token_digest" or host.get("url"), host[key]), []).append(host)
        for group in seen.values():
            names = [host["host"] for host in group]
            if len(names) > 1:
                shown = " and ".join(names if len(names) < 6 else names[:5] + ["%d more" % (len(names) - 5)])
                error = _peer.PeerError("%s %s, %s" % (shown, what, advice), "clone", hosts=names)
                found.update({host["host"]: error for host in group if host.get("new") and host["host"] not in found})
    return found
