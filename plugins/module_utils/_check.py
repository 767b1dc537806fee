# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a GateControl server is what the collection expects: points that are asked and judged, nothing is changed.

What is written for a moment, where the user wants that, is _trial's. Both run in a process of their own on the
controller (_checking).

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import calendar
import itertools
import ssl
import time

from . import _api, _fleet, _http, _points, _session, _wgconf
from ._points import FAIL, NOT_APPLICABLE, PASS, NotApplicable, Wrong
from ._tally import Counted, Tally

KNOWN = "1.118.2"  # the latest release whose behaviour is known
PREFIX = "gatecontrol-check-"  # begins the names of the peers that a check makes
SLOW = 3.0  # seconds for an answer; a beat of each host waits as long
SKEW = 60  # seconds
LEAST = 0.1  # of a certificate's life; those who renew by themselves do so long before
ENROLLMENT = 10  # requests with which a host is enrolled and looked at
UNREACHED = ("network", "proxy", "tls", "redirect")
# What the list of peers shows from a release on, latest first: it tells a peers token, which may not ask, how old the
# server is at most.
TRACES = (("owner_name", "1.51.0"), ("hostname", "1.35.0"), ("peer_type", "1.6.1"))
ODD = "the answer has not the form that the collection expects; look into the server's log"
ORDER = (
    "server", "certificate", "login", "peers token", "client token", "release", "clock", "peers", "licence",
    "users", "rate limit", "speed", "by login", "by peers token", "by register", "by bound token", "any way",
    "make a peer", "peer's config", "policy", "mint a token", "client config", "unchanged", "changed", "heartbeat",
    "status", "peer info", "register", "disable", "revoke", "delete", "nothing stays")


class Check:
    """One check of one server.

    options: as _api.Api takes them, without a token. secrets: {"token", "peers_token", "admin_user", "admin_password",
    "token_user", "peer_id"}, None where not given. intervals: (of the heartbeat, of the config's) in seconds.
    """

    def __init__(self, options: dict, secrets: dict, intervals: tuple = (60, 300), tally: Tally | None = None):
        self.options, self.secrets, self.intervals = dict(options, max_wait=0), secrets, intervals
        self.tally, self.points = tally or Tally(), _points.Points(ORDER, (_api.ApiError, _wgconf.ConfigError), ODD)
        self.transport = Counted(self.options, self.tally)
        self.admin = self.peers_api = self.client = None
        self.version = self.offset = self.limit = self.count = self.user = self.bound = None
        self.full, self.listing, self.logins = False, [], 0

    def api(self, token: str, fingerprint: str | None = None):
        """The server as a token sees it.

        fingerprint: none for a token that was given, since the first one that is sent may stay the token's.
        """
        return _api.Api(dict(self.options, token=token), {"fingerprint": fingerprint}, transport=self.transport)

    def later(self, release: str) -> bool | None:
        """Whether the server is of this release or later; None where its release is not known."""
        return None if self.version is None else _api.release(self.version) >= _api.release(release)

    # -- the read-only points

    def read(self) -> None:
        """Ask everything that changes nothing."""
        points, ask = self.points, self.points.ask
        self._secrets()
        reached = self.tally.answers > 0
        if not reached:
            why = next((point["text"] for point in points.listed() if point["outcome"] == FAIL), "no secret was given")
            points.put("server", FAIL, why)
            return
        points.put("server", PASS, f"{self.options['url']} answers")
        ask("certificate", self._certificate)
        ask("release", self._release)
        ask("clock", self._clock)
        ask("peers", self._peers)
        ask("licence", self._licence)
        ask("users", self._users)
        ask("rate limit", self._rate_limit)
        self._ways()

    def _secrets(self) -> None:
        """What each secret opens; in the order in which a run would use them."""
        ask, given = self.points.ask, self.secrets
        for name, key, work in (
            ("login", "admin_password", self._login),
            ("peers token", "peers_token", self._peers_token),
            ("client token", "token", self._client_token),
        ):
            if given.get(key):
                ask(name, work)
            else:
                self.points.put(name, NOT_APPLICABLE, "not given")
            if not self.tally.answers and any(point["outcome"] == FAIL for point in self.points.found.values()):
                return  # a server that is not reached is not asked for the rest

    def _login(self):
        admin, user, before = _session.Admin(self.options), self.secrets["admin_user"], self.tally.requests
        admin.transport.http = self.transport
        admin.transport.login(user, self.secrets["admin_password"])
        self.tally.requests, self.logins, self.admin = before, 1, admin
        return f"{user} is logged in"

    def _peers_token(self):
        api = self.api(self.secrets["peers_token"])
        self._list(api)
        self.peers_api = api
        return "it may list the peers"

    def _client_token(self):
        api = self.api(self.secrets["token"])
        said = api.ping()
        self._heard(said)
        self.client = api
        if not self.later("1.6.1"):
            return "accepted; on this release any token reads any peer"
        number = self.secrets.get("peer_id")
        try:
            peer = api.peer_info(number or 1)
        except _api.ApiError as err:
            if err.kind not in ("unbound", "wrong_peer", "machine_binding"):
                raise
            self.bound = err.kind != "unbound"
            if err.kind == "machine_binding":
                return "accepted; bound to its peer, and to the machine that uses it first or did already"
            if number and self.bound:
                self.client = None
                raise Wrong(
                    f"the token is bound to another peer than {number}; correct gatecontrol_peer_id or give this host a"
                    " token of its own"
                ) from err
            return (
                "accepted; bound to a peer, whose number goes into gatecontrol_peer_id"
                if self.bound
                else "accepted; bound to no peer yet"
            )
        self.bound = True
        return f"accepted; bound to the peer {_shown(peer.get('name'))} ({peer.get('id')})"

    def _heard(self, said: dict) -> None:
        """What a ping tells."""
        self.version = said["version"]
        stamp = calendar.timegm(time.strptime(said["timestamp"][:19], "%Y-%m-%dT%H:%M:%S"))
        self.offset = stamp - self.tally.now()

    def _list(self, api) -> None:
        """One page of peers, which says how many there are where it is not full."""
        self.listing = list(itertools.islice(api.peers(), _api.PAGE))
        self.full, self.count = len(self.listing) >= _api.PAGE, len(self.listing)

    def _certificate(self):
        if not self.options["url"].startswith("https:"):
            raise NotApplicable("plain http")
        known = self.tally.certificate
        if self.options.get("validate_certs") is False:
            raise Wrong(
                "not checked, since gatecontrol_validate_certs is false: anybody in between can read the tokens; give"
                " gatecontrol_ca_path instead"
            )
        if not known:
            raise NotApplicable("checked; its dates are not told here")
        begin, end = (ssl.cert_time_to_seconds(known[key]) for key in ("notBefore", "notAfter"))
        left = end - self.tally.now()
        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(end))
        if left < LEAST * (end - begin):
            raise Wrong(
                f"valid until {until} only, and not renewed yet; renew it, or every host is cut off from the server"
                " then"
            )
        return f"trusted, valid until {until}"

    def _release(self):
        if self.version is None and self.admin:
            self._heard(self.admin.ping())
        if self.version is None and self.peers_api:
            try:
                self._heard(self.peers_api.ping())
            except _api.ApiError as err:
                if err.kind != "scope":
                    raise
                return f"{self._era()} (a peers token is not told the release)"
        if self.version is None:
            raise NotApplicable("no secret that works was given")
        number = _api.release(self.version)
        if not number:
            raise Wrong(
                f"the server calls its release {_shown(self.version)!r}, which is no number; look into the server's log"
            )
        if number > _api.release(KNOWN):
            return (
                f"{_shown(self.version)} is later than {KNOWN}, the latest release known here: whether it fits is what"
                " the other points show, registering aside"
            )
        return f"{_shown(self.version)}, known" + (
            "; registering is broken there" if _api.register_broken(self.version) else ""
        )

    def _era(self) -> str:
        seen = next((since for key, since in TRACES if self.listing and key in self.listing[0]), "1.6.0")
        return f"{seen} or later"

    def _clock(self):
        offset = self.tally.date if self.offset is None else self.offset
        if offset is None:
            raise NotApplicable("the server does not tell its time")
        if abs(offset) > SKEW:
            raise Wrong(
                f"the server's clock is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} this machine's:"
                " expiry times and certificates go by it; set the clock that is wrong"
            )
        return (
            "server and controller agree" if abs(offset) < 2 else f"{abs(offset):.0f} s between server and controller"
        )

    def _peers(self):
        if self.count is None:
            if not self.admin:
                raise NotApplicable(
                    "a client token may not list the peers" if self.client else "no secret that may list them works"
                )
            self._list(self.admin)
        left = [
            peer["name"]
            for peer in self.listing
            if is_left(peer) and _fleet.is_past(peer.get("expires_at"), self.tally.now() + (self.offset or 0))
        ]
        if left:
            raise Wrong(
                f"an earlier check was killed and left {', '.join(map(_shown, left[:5]))}; delete them with"
                " ansible-playbook callmetechie.gatecontrol.retire -e"
                f" gatecontrol_retire_names={','.join(map(_shown, left[:5]))}"
            )
        return f"{'at least ' * self.full}{self.count}"

    def _licence(self):
        if not self.admin:
            raise NotApplicable("only the login is told")
        limit = self.admin.licence().get("vpn_peers")
        if limit is None:
            raise Wrong("the licence's number of peers is no number; look into the server's licence page")
        self.limit = limit
        if limit < 0:
            return "any number of peers"
        if self.count is None:
            raise NotApplicable(f"{limit} peers; how many there are was not told")
        full = self.count >= limit
        if self.full and not full:  # more than one page: one peer at the last place tells as much as all of them
            full = next(self.admin.peers(page_size=1, offset=limit - 1), None) is not None
        if full:
            raise Wrong(f"no room: {limit} peers are licensed and there; remove peers or extend the licence")
        return f"room for {limit - self.count} more of {limit} peers" if not self.full else f"room, of {limit} peers"

    def _users(self):
        if not self.admin:
            raise NotApplicable("only the login is told")
        if self.later("1.16.0") is False:
            raise NotApplicable("this release has none (they came with 1.16.0)")
        name = self.secrets.get("token_user") or self.secrets["admin_user"]
        self.user = self.admin.user_id(name)
        return f"tokens can be minted for {name}"

    def _rate_limit(self):
        rates = [
            (name, api.budget)
            for name, api in (("a token", self.client or self.peers_api), ("the login", self.admin))
            if api and api.budget
        ]
        if not rates:
            raise NotApplicable("the server does not tell it")
        heartbeat, config = (max(1, seconds) for seconds in self.intervals)
        needed = -(-_api.WINDOW // heartbeat) - (-_api.WINDOW // config)
        for name, rate in rates:
            left = rate["until"] - time.monotonic()
            if name == "a token" and rate["limit"] < needed:
                raise Wrong(
                    f"a token may send {rate['limit']} requests in 15 minutes, and a host needs {needed} with these"
                    " intervals; raise GC_RATE_LIMIT_API on the server, or gatecontrol_heartbeat_interval"
                )
            if rate["left"] < ENROLLMENT:
                raise Wrong(
                    f"{rate['left']} of {rate['limit']} requests are left for {name}; come back in"
                    f" {max(1, int(left))} s"
                )
        return ", ".join(f"{rate['left']} of {rate['limit']} requests left for {name}" for name, rate in rates)

    # -- what follows

    def _ways(self) -> None:
        """Which ways to enroll a host are open with what was given."""
        points, given = self.points, self.secrets
        ways = {
            "by login": self._by_login,
            "by peers token": self._by_peers_token,
            "by register": self._by_register,
            "by bound token": self._by_bound_token,
        }
        for name, work in ways.items():
            points.ask(name, work)
        tokens = [name for name in ways if points.passed(name)]
        if tokens:
            points.put("any way", PASS, f"{len(tokens)} of the {len(ways)} ways to enroll a host are open")
        elif given.get("token") and _api.register_broken(self.version) and self.bound is False:
            points.put("any way", FAIL, f"none with this token: {_api.OTHER_WAYS}")
        else:
            points.put(
                "any way",
                FAIL,
                "no host can be enrolled with what was given; docs/releases.md has the ways that this release knows",
            )

    def _by_login(self):
        if not self.secrets.get("admin_password"):
            raise NotApplicable("no login was given")
        if self.later("1.16.0") is False:
            raise NotApplicable("this release mints no tokens for a peer (1.16.0 and later do)")
        if not self.points.passed("users"):
            raise NotApplicable("closed: see login and users")
        return "makes peers and mints a token for each host"

    def _by_peers_token(self):
        if not self.peers_api:
            raise NotApplicable(
                "closed: see peers token" if self.secrets.get("peers_token") else "no peers token was given"
            )
        return "makes peers; hosts send no heartbeat"

    def _by_register(self):
        if not self.client:
            raise NotApplicable(
                "closed: see client token" if self.secrets.get("token") else "no client token was given"
            )
        if _api.register_broken(self.version):
            raise NotApplicable("broken in this release: it answers 500 and leaves a peer behind")
        if self.bound:
            raise NotApplicable("the token is bound to a peer already")
        if self.later(KNOWN) and _api.release(self.version) > _api.release(KNOWN):
            return "not known to be broken in this later release, and not tried"
        return "a host makes its peer itself"

    def _by_bound_token(self):
        if not self.client:
            raise NotApplicable(
                "closed: see client token" if self.secrets.get("token") else "no client token was given"
            )
        if self.bound is False:
            raise NotApplicable("the token is bound to no peer")
        return "with gatecontrol_peer_id"

    def finish(self) -> None:
        """The points that all requests together tell."""
        took, path = self.tally.slowest
        if not self.tally.answers:
            return
        if took > SLOW:
            self.points.put(
                "speed",
                FAIL,
                f"{path} took {took:.1f} s: a beat of each host waits as long; look at the server's load and at its"
                " proxy",
            )
        else:
            self.points.put("speed", PASS, f"the slowest answer took {took:.1f} s")


def is_left(peer: dict) -> bool:
    """Whether a peer was made by a check."""
    return peer["name"].startswith(PREFIX) and _fleet.EPHEMERAL in (peer.get("tags") or "")


def _shown(text) -> str:
    """A foreign text as it may stand in a line."""
    return _http.shown(str(text))[:80]
