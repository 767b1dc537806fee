# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers for a batch of hosts in one go, from the controller: the list is read once, and no two writers race.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

from . import _api, _peer

STOP = ("licence", "rate_limited", "auth", "scope", "forbidden", "user_disabled", "conflict", "network", "proxy", "tls", "redirect", "server",
        "uncertain", "endpoint_missing")


def token_name(peer_name):
    """The name of the token that the collection mints for a peer; at most one of this name is kept."""
    return "ansible: " + peer_name


def slim(peer):
    """What inventory and report tell of a peer: no key. address without prefix length; handshake in seconds since 1970, 0 for never; bytes."""
    return {
        "id": peer["id"], "name": peer["name"], "address": (peer.get("allowed_ips") or "").split("/")[0], "description": peer.get("description"),
        "tags": [tag.strip() for tag in (peer.get("tags") or "").split(",") if tag.strip()], "group_id": peer.get("group_id"),
        "enabled": bool(peer.get("enabled")), "online": bool(peer.get("isOnline")), "expires_at": peer.get("expires_at"),
        "handshake": peer.get("latestHandshake") or peer.get("latest_handshake") or 0, "type": peer.get("peer_type") or "regular",
        "rx_bytes": peer.get("transferRx") or peer.get("transfer_rx") or 0, "tx_bytes": peer.get("transferTx") or peer.get("transfer_tx") or 0}


class _Listed(_peer.ServerPeer):
    """A peer whose record is known from the list."""

    def __init__(self, api, name, known):
        super().__init__(api, name)
        self.known = known

    def find(self):
        known, self.known = self.known, None
        # Asked again only after "name taken": somebody else made it since the list was read.
        return known[0] if known else super().find()


class Fleet:
    """The peers of many hosts.

    api: an Api with a peers token, or an Admin. user: with an Admin, the number of the user whose tokens are minted; None mints none.
    adopt: whether a peer that is online may be handed to a host that does not hold its enrollment.
    hosts: dicts with host (its name in the play), name (of the peer), peer_id (of its enrollment, if any), fingerprint, token (False: has one
    already), expires_at (of the token too) and what wanted_fields takes.
    """

    def __init__(self, api, user=None, adopt=False):
        self.api, self.user, self.adopt = api, user, adopt

    def present(self, hosts, check_mode=False):
        """{host: {"peer", "created", "token" or "config" and "hash"}}, or {"msg", "failure"} where it did not come about.

        A failure that would meet the other hosts too, such as the licence's limit, ends the batch for them with the same words.
        """
        peers = {peer["name"]: peer for peer in self.api.peers()}
        tokens = self.api.tokens() if self.user and not check_mode else []
        return self._each(hosts, lambda host: self._one(host, peers, tokens, check_mode), _twins(hosts))

    def absent(self, hosts, check_mode=False):
        """{host: {"deleted": bool, "revoked": [token names]}}; the peer by its number, else by its name. With a peers token no token is revoked."""
        peers = list(self.api.peers())
        tokens = self.api.tokens() if self.user else []
        return self._each(hosts, lambda host: self._gone(host, peers, tokens, check_mode), {})

    def _each(self, hosts, work, twins):
        results, stopped = {}, None
        for host in hosts:
            try:
                if stopped or host["host"] in twins:
                    raise stopped or twins[host["host"]]
                results[host["host"]] = work(host)
            except (_api.ApiError, _peer.PeerError) as err:
                results[host["host"]] = {"msg": str(err), "failure": err.failure}
                stopped = err if err.failure["kind"] in STOP else stopped
        return results

    def _one(self, host, peers, tokens, check_mode):
        name = _api.check_name(host["name"], exact=True)
        wanted = _peer.wanted_fields(host)
        found = peers.get(name)
        if found and found.get("isOnline") and found["id"] != host.get("peer_id") and not self.adopt:
            raise _peer.PeerError("the peer %s (id %s) is in use: it had a handshake in the last 3 minutes, and this host does not hold its enrollment; set "
                                  "gatecontrol_name to another name, or gatecontrol_adopt=true if it is this host" % (name, found["id"]), "not_ours",
                                  peer_id=found["id"], peer_name=name)
        result = _Listed(self.api, name, [found]).settle("present", wanted, check_mode)
        result = {key: result[key] for key in ("peer", "created", "changed")}
        peer_id = result["peer"]["id"]
        if check_mode or not host.get("token", True):
            return result
        if not self.user:
            answer = self.api.peer_config(peer_id)
            return dict(result, config=answer["config"], hash=answer["hash"])
        for token in tokens:
            if token.get("peer_id") == peer_id and token["name"] == token_name(name):
                self.api.revoke(token["id"])  # of a run that ended before the host had it, or of the host's earlier life
        token, details = self.api.mint(self.user, token_name(name), peer_id, wanted.get("expires_at"))
        return dict(result, token=token, token_id=details.get("id"), changed=True)

    def _gone(self, host, peers, tokens, check_mode):
        found = [peer for peer in peers if peer["id"] == host.get("peer_id")] if host.get("peer_id") else [
            peer for peer in peers if peer["name"] == host["name"]]
        bound = [token for token in tokens if found and token.get("peer_id") == found[0]["id"]]
        if not check_mode:
            for token in bound:
                self.api.revoke(token["id"])
            for peer in found:
                self.api.delete_peer(peer["id"])
        return {"deleted": bool(found), "revoked": [token["name"] for token in bound], "changed": bool(found)}


def _twins(hosts):
    """{host: PeerError} of hosts that would get one peer: the same name, or the same machine id as in a cloned image."""
    found = {}
    for key, what in (("name", "have the same name"), ("fingerprint", "have the same machine id, as clones of one image do")):
        seen = {}
        for host in hosts:
            if host.get(key):
                seen.setdefault(host[key], []).append(host["host"])
        for names in seen.values():
            if len(names) > 1:
                advice = "set gatecontrol_name" if key == "name" else "give each an id of its own with systemd-machine-id-setup"
                error = _peer.PeerError("%s %s, so they would share one peer and its key; %s" % (" and ".join(names), what, advice), "clone", hosts=names)
                found.update(dict.fromkeys(names, error))
    return found
