# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers and tokens for a batch of hosts in one go, from the controller: the list is read once, and no two writers race.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import math
import time

from . import _api, _peer, _whose
from ._whose import ROTATED, is_minted, is_past, token_name

STOP = ("licence", "rate_limited", "auth", "scope", "forbidden", "user_disabled", "conflict", "network", "proxy", "tls", "redirect", "server",
        "uncertain", "endpoint_missing")
EPHEMERAL = "ephemeral"  # tag of peers whose hosts live for minutes


def slim(peer):
    """What inventory and report tell of a peer: no key. address without prefix length; handshake in seconds since 1970, 0 for never; bytes."""
    return {
        "id": peer["id"], "name": peer["name"], "address": (peer.get("allowed_ips") or "").split("/")[0], "description": peer.get("description"),
        "tags": [tag.strip() for tag in (peer.get("tags") or "").split(",") if tag.strip()], "group_id": peer.get("group_id"),
        "enabled": bool(peer.get("enabled")), "online": bool(peer.get("isOnline")), "expires_at": peer.get("expires_at"),
        "handshake": peer.get("latestHandshake") or peer.get("latest_handshake") or 0, "type": peer.get("peer_type") or "regular",
        "rx_bytes": peer.get("transferRx") or peer.get("transfer_rx") or 0, "tx_bytes": peer.get("transferTx") or peer.get("transfer_tx") or 0}


class _Listed(_peer.ServerPeer):
    """A peer whose record is known from the list; None where the list has none of the name, and so it is to be made."""

    def __init__(self, api, name, known):
        super().__init__(api, name)
        self.known = known

    def find(self):
        # Asked again only after "name taken". Who made it since the list was read has its key as well: that is no peer for this host.
        known, self.known = self.known, None
        return known


class Fleet:
    """The peers of many hosts.

    api: an Api with a peers token, or an Admin. user: with an Admin, the number of the user whose tokens are minted; None mints none.
    pace: whether to wait where the server's rate limit does not suffice, instead of failing before anything is done.
    expected, notes: how a host proves that a peer is its own, and what this run has made so far, as _whose.Peers takes them; notes has made, given and
    rotated, and is added to.
    hosts: dicts with host (its name in the play), name (of the peer), wanted_id (of the peer whatever its name), peer_id and enrolled_as (what the host says
    of its enrollment), proof, bound, adopt, word (see _whose.Peers), fingerprint, token (False: has one already), token_id (of the token it works with, if
    known), expires_at (of the token too) and what wanted_fields takes.
    Every verb returns {host: result}, with {"msg", "failure"} where it did not come about; a failure that would meet the other hosts too, such
    as a revoked token, ends the batch for them with the same words.
    """

    def __init__(self, api, user=None, pace=False, expected=lambda public_key: None, notes=None, now=time.time):
        self.api, self.user, self.pace, self.expected, self.now = api, user, pace, expected, now
        self.notes = {} if notes is None else notes
        for key in ("made", "given", "rotated"):
            self.notes.setdefault(key, {})

    def present(self, hosts, check_mode=False):
        """{"peer", "created", "changed", "gone": whether the peer of its enrollment is not on the server, and "token" with "token_id", or "config"
        with "hash"}"""
        known = self._known()
        meant, refused = self._looked(hosts, known.meant)
        refused.update(_whose.doubles(hosts))
        refused.update(self._beyond_licence([name for name, peer in meant.items() if not peer and name not in refused], len(known.all)))
        return self._each(hosts, lambda host, dry: dict(
            self._one(host, meant[host["host"]], known, dry), gone=host.get("peer_id") not in {None, *known.numbered}), refused, check_mode)

    def kept(self, hosts, check_mode=False):
        """{"peer", "created": False, "changed"}: the fields of the peers that the hosts are enrolled as. Looks at no token."""
        known = self._known(tokens=False)
        return self._each(hosts, lambda host, dry: self._fields(host["name"], known.own(host), _peer.wanted_fields(host), dry), {}, check_mode)

    def listed(self):
        """{"peers": the server's list, without keys}"""
        return {"peers": [{key: value for key, value in peer.items() if "key" not in key} for peer in self._known(tokens=False).all]}

    def absent(self, hosts, max_percent=None, others=0, check_mode=False):
        """{"deleted", "changed", "revoked": [token names], "staying": [names of tokens that only an administrator can revoke]}

        max_percent: the share of the server's peers that may go, one always may; others: how many more the same run deletes. Raises PeerError
        (share), and nothing is deleted then.
        """
        known = self._known()
        gone, refused = self._looked(hosts, known.going)
        going, count = len({peer["id"] for found in gone.values() for peer in found}), len(known.all)
        allowed = count if max_percent is None else max(1, count * max_percent // 100)
        if (going or others) and max_percent is not None and going + others > allowed:
            raise _peer.PeerError(
                "this run would delete %d of the server's %d peers, and gatecontrol_retire_max_percent=%d allows %d, so nothing was deleted; name "
                "fewer hosts (--limit), or raise it" % (going + others, count, max_percent, allowed), "share", deleting=going + others,
                peers=count, allowed=allowed)
        return self._each(hosts, lambda host, dry: self._gone(host, gone[host["host"]], known, dry), refused, check_mode)

    def expired(self, check_mode=False):
        """The same for every peer with the tag EPHEMERAL that the server disabled when its time was over, by the peer's name."""
        known = self._known()
        over = [peer for peer in known.all if EPHEMERAL in (peer.get("tags") or "").replace(" ", "").split(",") and not peer.get("enabled", 1)
                and is_past(peer.get("expires_at"), self.now())]
        hosts = [{"host": peer["name"], "name": peer["name"], "peer_id": peer["id"], "word": True} for peer in over]
        return self._each(hosts, lambda host, dry: self._gone(host, known.going(host), known, dry), {}, check_mode)

    def rotated(self, hosts, keys=False, check_mode=False):
        """{"peer", "token", "token_id", "changed"}: a token beside the one the host has; with keys for a second peer, which gets the name.

        Where an earlier run was cut off, what it made is gone on with. Raises ApiError (options) without an Admin.
        """
        if not self.user:
            raise _api.ApiError("only the administrator's login can rotate tokens; set admin_user and admin_password", "options")
        known = self._known()
        own, refused = self._looked(hosts, known.own)
        refused.update(_whose.doubles(hosts))
        by = {host["host"]: host for host in hosts}
        new = [name for name, peer in own.items() if keys and len(known.pair(by[name], peer)) == 1 and name not in refused]
        refused.update(self._beyond_licence(new, len(known.all)))
        return self._each(hosts, lambda host, dry: self._second(host, own[host["host"]], known, keys, dry), refused, check_mode)

    def confirmed(self, hosts, check_mode=False):
        """What rotated left of the time before goes, now that the host works with what this run gave it, else with peer_id and token_id: {"revoked",
        "deleted", "changed"}"""
        known = self._known()
        return self._each(hosts, lambda host, dry: self._settled(dict(host, **self.notes["rotated"].get(host["host"], {})), known, dry), {}, check_mode)

    # -- a batch

    def _known(self, tokens=True):
        """The server's peers and, where they matter and can be seen, its tokens."""
        try:
            return _whose.Peers(list(self.api.peers()), (self.api.tokens() if self.user else []) if tokens else None, self.expected, self.notes["made"],
                                self.notes["given"], self.now())
        except _api.ApiError as err:
            if err.kind != "rate_limited":
                raise
            seconds = err.details["retry_after"]
            if not self.pace:
                raise _api.ApiError("%s, or set gatecontrol_pace=true to wait" % err, err.kind, err.status, retry_after=seconds, seconds=seconds)
            self.api.sleep(seconds + 1)
            return self._known(tokens)

    @staticmethod
    def _looked(hosts, look):
        """({host: what look(host) finds}, {host: the error of one that is refused})"""
        found, refused = {}, {}
        for host in hosts:
            try:
                found[host["host"]] = look(host)
            except (_api.ApiError, _peer.PeerError) as err:
                refused[host["host"]] = err
        return found, refused

    def _each(self, hosts, work, refused, check_mode):
        """work(host, dry) for each host that is not refused; dry makes no request that changes something, and counts the others."""
        results, stopped, costs = {}, None, {}
        if not check_mode and hosts:
            costs = {host["host"]: self._cost(host, work) for host in hosts if host["host"] not in refused}
            self._afford(costs)
        for host in hosts:
            name = host["host"]
            try:
                if stopped or name in refused:
                    raise stopped or refused[name]
                self._wait_for(costs.get(name, 0))
                results[name] = work(host, check_mode)
            except (_api.ApiError, _peer.PeerError) as err:
                results[name] = {"msg": str(err), "failure": err.failure}
                stopped = err if err.failure["kind"] in STOP else stopped
            results[name].pop("requests", None)
        return results

    @staticmethod
    def _cost(host, work):
        """How many requests a host takes at most."""
        try:
            return work(host, True)["requests"]
        except (_api.ApiError, _peer.PeerError):
            return 0

    def _afford(self, costs):
        """Raise ApiError (rate_limited) where the rate limit does not suffice for all and nobody is to wait."""
        rate, needed = self.api.budget, sum(costs.values())
        if not rate or needed <= rate["left"] or self.pace:
            return
        left = max(0, math.ceil(rate["until"] - self.api.clock()))
        seconds = left + (math.ceil((needed - rate["left"]) / rate["limit"]) - 1) * _api.WINDOW
        raise _api.ApiError(
            "this batch needs %d requests, and the server's rate limit leaves %d of %d for the next %d s, so it would take %d minutes and nothing was "
            "done; set gatecontrol_pace=true to wait%s" % (
                needed, rate["left"], rate["limit"], left, math.ceil(seconds / 60),
                "" if self.user else ", or give the administrator's login, which may make ten times as many"),
            "rate_limited", retry_after=left, needed=needed, left=rate["left"], limit=rate["limit"], seconds=seconds)

    def _wait_for(self, cost):
        """Wait for the next window of the rate limit where this one does not suffice for a host."""
        rate = self.api.budget
        pause = rate["until"] - self.api.clock() if rate and self.pace and cost > rate["left"] else 0
        if pause > 0:
            self.api.sleep(pause + 1)

    def _beyond_licence(self, new, count):
        """{host: ApiError} of the new ones that the licence has no room for; asked beforehand, so that nothing is begun for them."""
        limit = None
        if new and self.user:
            try:
                limit = self.api.licence().get("vpn_peers")
            except _api.ApiError as err:
                if err.kind not in ("endpoint_missing", "forbidden", "scope"):
                    raise
        if not isinstance(limit, int) or limit < 0:
            return {}
        numbers = {"feature": "vpn_peers", "current": max(limit, count), "limit": limit}
        why = _api.BEYOND_LICENCE % (_api.IN_USE % numbers)
        return {host: _api.ApiError("no peer was made for %s: %s" % (host, why), "licence", **numbers) for host in new[max(0, limit - count):]}

    # -- one host

    def _one(self, host, found, known, check_mode):
        name = found["name"] if found else host["name"]
        wanted = _peer.wanted_fields(host)
        result = self._fields(name, found, wanted, check_mode)
        number, requests = result["peer"]["id"], result.pop("requests")
        if result["created"] and not check_mode:
            self.notes["made"][host["host"]] = number
        if not host.get("token", True):
            return dict(result, requests=requests)
        if not check_mode:
            self.notes["given"][str(number)] = host["host"]
        if not self.user:
            answer = {} if check_mode else self.api.peer_config(number)
            return dict(result, requests=requests + 1, **{key: answer[key] for key in ("config", "hash") if key in answer})
        # Those of a run that ended before the host had it, or of the host's earlier life.
        names = (token_name(name), token_name(host["name"]))
        old = [token for token in known.tokens if token.get("peer_id") in (number, None) and any(is_minted(token, one) for one in names)]
        if check_mode:
            return dict(result, requests=requests + len(old) + 1)
        self._revoke(old)
        return dict(result, changed=True, **self._mint(token_name(name, host["host"]), number, wanted.get("expires_at")))

    def _fields(self, name, found, wanted, check_mode):
        """A peer with its fields as wanted: found, or one that is made of this name."""
        # The server leaves a peer disabled that is given more time.
        again = found and not found.get("enabled", 1) and "expires_at" in wanted and is_past(found.get("expires_at"), self.now()) and (
            not is_past(wanted["expires_at"], self.now()))
        result = _Listed(self.api, name, found).settle("enabled" if again else "present", wanted, check_mode)
        requests = 1 + ("peer_keepalive" in wanted) if result["created"] else int(result["changed"])
        return dict({key: result[key] for key in ("peer", "created", "changed")}, requests=requests)

    def _mint(self, name, peer_id, expires_at):
        token, details = self.api.mint(self.user, name, peer_id, expires_at)
        return {"token": token, "token_id": details.get("id")}

    def _revoke(self, tokens):
        for token in tokens:
            self.api.revoke(token["id"])

    def _gone(self, host, found, known, check_mode):
        numbers = [peer["id"] for peer in found]
        bound = [token for token in known.tokens if token.get("peer_id") in numbers
                 or is_minted(token, token_name(host["name"])) and token.get("peer_id") is None]
        if not check_mode:
            self._revoke(bound)  # first: without its peer a token belongs to nothing that a later run could find it by
            for number in numbers:
                self.api.delete_peer(number)
                self.notes["given"].pop(str(number), None)
            self.notes["made"].pop(host["host"], None)
        return {"deleted": bool(found), "revoked": [token["name"] for token in bound], "changed": bool(found or bound),
                "staying": [] if self.user or not found else [token_name(host["name"], host["host"])], "requests": len(numbers) + len(bound)}

    def _second(self, host, own, known, keys, check_mode):
        name, peer, requests = own["name"].removesuffix(ROTATED), own, 1
        pair = known.pair(host, own)
        if keys and own is pair[-1]:  # the host works with the first one, or there is no second one yet
            if len(pair) == 1 and own["name"] != name and name in known.named:
                raise known.refusal(host, known.named[name])
            peer, requests = self._successor(own, pair[0] if len(pair) == 2 else None, name, check_mode), 6
            old = [token for token in known.tokens if is_minted(token, token_name(name)) and token.get("peer_id") == peer["id"]]
            if not check_mode:
                self._revoke(old)
            requests += len(old)
        result = {"peer": {"id": peer["id"], "name": name}, "changed": True}
        if check_mode:
            return dict(result, requests=requests)
        made = self._mint(token_name(name, host["host"]), peer["id"], own.get("expires_at"))
        self.notes["rotated"][host["host"]] = {"peer_id": peer["id"], "token_id": made["token_id"]}
        self.notes["given"].update({str(one["id"]): host["host"] for one in (own, peer)})
        return dict(result, **made)

    def _successor(self, own, second, name, check_mode):
        """The peer that takes the place of one, with its name and fields; gone on with where it is there already."""
        wanted = {key: own[column] for key, (column, _put) in _peer.FIELDS.items() if own.get(column) is not None}
        if own["name"] == name:
            _api.check_name(name + ROTATED, exact=True)
            if not check_mode:
                self.api.update_peer(own["id"], {"name": name + ROTATED})
        peer = _Listed(self.api, name, second).settle("present", wanted, check_mode)["peer"]
        if own.get("user_id") and not check_mode:
            self.api.update_peer(peer["id"], {"user_id": own["user_id"]})
        return peer

    def _settled(self, host, known, check_mode):
        own = known.own(host)
        before = [peer for peer in known.pair(host, own) if peer is not own]
        numbers = [peer["id"] for peer in before]
        old = [token for token in known.tokens if token.get("peer_id") in numbers
               or token.get("peer_id") == own["id"] and host.get("token_id") and token["id"] != host["token_id"]]
        if not check_mode:
            self._revoke(old)
            for number in numbers:
                self.api.delete_peer(number)
        return {"revoked": [token["name"] for token in old], "deleted": bool(before), "changed": bool(old or before), "requests": len(old) + len(numbers)}


class Tokens:
    """The client tokens of one peer, or those of one name.

    admin: an Admin. user: the number of the user they are minted for. peer: {"id", "name"} or None. name: the token's, made of the peer's
    unless given.
    """

    def __init__(self, admin, user, peer=None, name=None, now=time.time):
        self.admin, self.user, self.peer, self.now, self.all = admin, user, peer, now, not name
        self.name = name or (token_name(peer["name"]) if peer else None)
        self.found = [token for token in admin.tokens() if (token.get("peer_id") == peer["id"] if peer else not name or is_minted(token, name))]

    def settle(self, state, scopes=("client",), expires_at=None, revoke_old=True, except_id=None, check_mode=False):
        """Bring them to a state: present (one that fits is there), rotated (a new one is), absent, listed.

        expires_at: ISO-8601 UTC text or None for what it may have. Returns {"changed", "tokens": details of those that are left, "revoked":
        names, "token" and "token_id" of a new one, "before", "after"}. Raises ApiError.
        """
        named = [token for token in self.found if self.name and is_minted(token, self.name)]
        fit = [token for token in named if not is_past(token.get("expires_at"), self.now()) and set(token["scopes"]) == set(scopes)
               and expires_at in (None, token.get("expires_at"))]
        mint = state == "rotated" or state == "present" and not fit
        going = self.found if state == "absent" and self.all else named if state == "absent" or mint and revoke_old else []
        going = [token for token in going if token["id"] != except_id]
        left, made = [token for token in self.found if token not in going], {}
        if mint and not check_mode:
            text, details = self.admin.mint(self.user, self.name, self.peer["id"], expires_at, scopes)
            made = {"token": text, "token_id": details.get("id")}
            left.append(details)
        elif mint:
            left.append({"id": None, "name": self.name})
        if not check_mode:
            for token in going:
                self.admin.revoke(token["id"])
        return dict(made, changed=bool(mint or going), tokens=left, revoked=[token["name"] for token in going],
                    before=_shown(self.found), after=_shown(left))


def _shown(tokens):
    return {"tokens": ["%s (id %s)" % (token["name"], token["id"]) for token in tokens]}
