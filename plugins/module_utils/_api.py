# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GateControl's client API and peers API: requests, errors, retries, rate limit. URLs and error texts live only here.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import time
import urllib.parse

from . import _answers, _enrollment, _http, _verify

ApiError, normal_url = _http.ApiError, _http.normal_url

CLIENT = "/api/v1/client"
PEERS = "/api/v1/peers"
PAGE = 250  # peers in one page, the most the server gives
MOST = 100000  # peers in all; a network of the server's size has 65,000

# Releases whose POST /client/register ends in 500 for every token, after having made the peer.
REGISTER_BROKEN = ((1, 50, 13), (1, 118, 2))
OTHER_WAYS = "give gatecontrol_peers_token, or a client token bound to a peer together with gatecontrol_peer_id"
WINDOW = 900  # seconds of the server's rate limit
TOKEN_HEADERS = {"authorization": ("Authorization", "Bearer "), "x-api-token": ("X-API-Token", ""), "x-api-key": ("X-API-Key", "")}


# ---------------------------------------------------------------- names, releases, addresses

def cleaned_name(hostname):
    """The peer name that register makes of a host name: other characters become "_", cut to 50."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", hostname)[:50]


def check_name(name, exact=False):
    """The name the server gives a peer: of a host name that registers, or exactly this one.

    Raises ApiError (invalid_name) where the server would refuse it.
    """
    given = name if exact else cleaned_name(name)
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}", given) or given.endswith(" "):
        raise ApiError("the server would refuse the name %r: it takes 1 to 63 ASCII letters, digits, dots, underscores, hyphens and "
                       "blanks, a letter or digit first; set gatecontrol_name to such a name" % name, "invalid_name")
    return given


def release(version):
    """A server's version text as a tuple of ints, () where it has none."""
    return tuple(int(part) for part in re.findall(r"\d{1,9}", (version or "").split("-")[0])[:3])


def register_broken(version):
    """Whether this release is known to answer every register with 500."""
    return REGISTER_BROKEN[0] <= release(version) <= REGISTER_BROKEN[1]


# ---------------------------------------------------------------- what an answer means

def _says(body, response):
    """The server's own words. Never the raw answer, which may hold a config."""
    title = re.search(r"<title>([^<]+)", response.text)
    words = body.get("error") if isinstance(body.get("error"), str) else title and title.group(1)
    return _http.shown(words or "") or http.client.responses.get(response.status, "no reason")


BEYOND_LICENCE = "the server's licence does not cover it (%s): remove peers or extend the licence"
IN_USE = "%(feature)s: %(current)s of %(limit)s in use"
ENROLL_AGAIN = "run the play with a secret for this host to enroll it again"
# 403: what the server says -> kind, advice. The first that fits counts; the texts are fixed English, except for the fingerprint's.
FORBIDDEN = (
    ("permission for this resource", "scope", "the token needs the scope %(scope)s: create one that has it"),
    ("forbidden for token", "scope", "no token may do this, only a login in the web interface"),
    ("user account is disabled", "user_disabled", "enable the user the token belongs to, or use another user's token"),
    ("not bound to a peer", "unbound", "the peer was deleted, or this token never had one: " + ENROLL_AGAIN),
    ("not authorized for this peer", "wrong_peer", "the token belongs to another peer: give this host a token of its own"),
    ("bound to a different peer", "bound_elsewhere", "two hosts registered with one token: give each host a token of its own"),
    ("different machine", "machine_binding", "if this host was rebuilt or got a new machine id, reset the token's machine binding in "
     "the web interface"),
    ("fingerprint", "machine_binding", "the server binds tokens to machines: send machine_fingerprint, 64 lower-case hex digits"),
)


# 400 and 409: statuses, what the server says -> kind, advice. The first that fits counts.
REFUSED = (
    ((400, 409), "no available ip", "conflict", "no address is free in the tunnel's subnet: delete unused peers or enlarge the subnet"),
    ((409,), "", "conflict", "change what it names in the web interface first"),
    ((400,), "fingerprint", "machine_binding", "machine_fingerprint has to be 64 lower-case hex digits"),
    ((400,), "already exists", "name_taken", "it was made by somebody else a moment ago: run again"),
    ((400,), "name", "invalid_name", "set gatecontrol_name to 1-63 letters, digits, dots, underscores or hyphens that start with a letter "
     "or digit"),
)


def explain(what, path, response, body):
    """The ApiError of an answer that is no success. what: the action in words, such as "reading the config"."""
    status, words, client = response.status, _says(body, response), path.startswith(CLIENT)

    def error(kind, advice, **details):
        return ApiError("%s failed: the server says \"%s\" (%d); %s" % (what, words, status, advice), kind, status, **details)

    if status == 401:
        return error("auth", "check that the token is complete, not expired and not revoked" + (
            "; a second play over the same host at the same time revokes it too: run them one after the other" if client else ""))
    if status == 403:
        return _forbidden(body, words.lower(), "client (peers on the 1.5.2 era)" if client else "peers", error)
    if status == 404 and "ok" in body:
        return error("not_found", "the peer was deleted: " + ENROLL_AGAIN if client
                     else "there is no peer with this number: correct peer_id")
    if status == 404:
        return error("endpoint_missing", "either this release has no %s, or gatecontrol_url is not a GateControl server"
                     % path.split("?")[0])
    if status == 429:
        seconds = _http.retry_after(response.headers)
        return error("rate_limited", "come back in %d s" % seconds, retry_after=seconds)
    for statuses, text, kind, advice in REFUSED:
        if status in statuses and text in words.lower():
            return error(kind, advice)
    if status == 400:
        fields = body["fields"].items() if isinstance(body.get("fields"), dict) else ()
        return error("invalid", "correct the value named there", **(
            {"fields": {_http.shown(key): _http.shown(str(value)) for key, value in fields}} if fields else {}))
    if status >= 500:
        return error("server", "look into the server's log and run again")
    return error("protocol", "check gatecontrol_url and what stands between")


def _forbidden(body, low, scope, error):
    """What a 403 means."""
    if "feature" in body:
        numbers = {key: body[key] for key in ("current", "limit") if _answers.SHAPES["number"](body.get(key))}
        numbers["feature"] = _http.shown(str(body["feature"]))
        return error("licence", BEYOND_LICENCE % ((IN_USE if len(numbers) == 3 else "%(feature)s") % numbers), **numbers)
    for text, kind, advice in FORBIDDEN:
        if text in low:
            return error(kind, advice.replace("%(scope)s", scope))
    return error("forbidden", "check the token's rights in the web interface")


# ---------------------------------------------------------------- the API

@contextlib.contextmanager
def _once_only(name, advice=""):
    """Around a request that makes a peer: an error that leaves open whether it was made becomes ApiError uncertain."""
    try:
        yield
    except ApiError as err:
        if err.kind in ("server", "protocol") or (err.kind in ("network", "tls") and err.sent):
            raise ApiError("%s; the peer %s may have been made all the same%s" % (err, name, advice), "uncertain", err.status, True,
                           cause=err.kind)
        raise


def _suspect(fields):
    """What most likely was wrong where the server fails on a peer's fields: it does not check the group."""
    return "; most likely there is no group %s: correct group_id" % fields["group_id"] if fields.get("group_id") else ""


class Api:
    """A GateControl server as one token sees it.

    options: what _http.HttpTransport takes, plus token; None means not given. max_wait is over all tries of one call.
    identity: version (None: no X-Client-Version is sent, since the server would write it into the peer's description), platform,
    fingerprint (64 hex) of the machine the call is made for; {} in a delegated call that is about no machine. dial: as _http.HttpTransport takes it.
    """

    def __init__(self, options, identity=None, transport=None, sleep=time.sleep, clock=time.monotonic, jitter=random.uniform,
                 *, dial=None):
        options = _http.complete(options)
        self.transport = transport or _http.HttpTransport(options, dial)
        self.timeout, self.max_wait = options["timeout"], options["max_wait"]
        self.sleep, self.clock, self.jitter = sleep, clock, jitter
        self.requests, self.budget, self.date = 0, None, None  # of the last answer: the rate limit, as budget() gives it, and its Date header
        self.headers = {"Accept": "application/json", "Accept-Language": "en", "User-Agent": "callmetechie.gatecontrol/" + _verify.VERSION}
        if options.get("token"):
            if not re.fullmatch("[!-~]+", options["token"]):  # before it is a header, whose own error would quote it
                raise ApiError("the token has a blank, a line break or another character that no token has; write it again", "options")
            name, prefix = TOKEN_HEADERS[options["auth_header"]]
            self.headers[name] = prefix + options["token"]
        identity = dict(identity or {})
        if not re.fullmatch("([0-9a-f]{64})?", identity.get("fingerprint") or ""):
            raise ApiError("machine_fingerprint is not 64 lower-case hex digits; correct it", "options")
        if not re.fullmatch("[ -~]*", identity.get("platform") or ""):
            raise ApiError("client_platform is not plain ASCII, such as linux or windows; correct it", "options")
        for header, key in (("X-Client-Version", "version"), ("X-Client-Platform", "platform"), ("X-Machine-Fingerprint", "fingerprint")):
            if identity.get(key):
                self.headers[header] = identity[key]

    def call(self, what, method, path, body=None, query=None, repeat=True):
        """One request with retries; returns (status, object).

        repeat: whether it may be sent again when it is open if it took effect. 5xx and network errors wait 2 s, 3 s, 4.5 s ... 60 s with
        jitter, 429 waits for Retry-After, both within max_wait; every other 4xx ends at once (the vendor's client strategy).
        All of it takes timeout or max_wait, whichever is longer, and at most a second more.
        """
        if query:
            path += "?" + urllib.parse.urlencode({key: value for key, value in query.items() if value is not None})
        payload = None if body is None else json.dumps(body).encode("utf-8")
        headers = self.headers if payload is None else dict(self.headers, **{"Content-Type": "application/json"})
        end, delay, limit = self.clock() + self.max_wait, 2.0, self.timeout
        while True:
            try:
                return self._once(what, method, path, headers, payload, limit)
            except ApiError as err:
                if err.kind == "rate_limited":
                    pause = max(err.details["retry_after"], 1) + self.jitter(0, 1)
                elif err.kind in ("server", "network") and (repeat or (err.kind == "network" and not err.sent)):
                    pause, delay = delay * self.jitter(0.8, 1.2), min(delay * 1.5, 60.0)
                else:
                    raise
                left = end - self.clock() - pause
                if left < 0:
                    raise
            self.sleep(pause)
            limit = min(self.timeout, max(1.0, left))

    def _once(self, what, method, path, headers, payload, limit):
        self.requests += 1
        response = self.transport.request(method, path, headers, payload, limit)
        self.budget, self.date = _http.budget(response.headers, self.clock()) or self.budget, response.headers.get("date")
        body = _answers.parsed(response.text)
        if response.status < 300:
            if not isinstance(body, dict) or body.get("ok") is not True:
                kind = _http.shown(response.headers.get("content-type", "no type"))
                raise ApiError("%s failed: the answer of %s is not the JSON of a GateControl server (%d bytes of %s); check "
                               "gatecontrol_url and what stands between" % (what, self.transport.url, len(response.text), kind),
                               "protocol", response.status, sent=True)
            return response.status, body
        raise explain(what, path, response, body if isinstance(body, dict) else {})

    # -- client API

    def ping(self):
        """{"version": str, "timestamp": ISO-8601 UTC}"""
        what = "asking the server"
        return _answers.checked(what, self.call(what, "GET", CLIENT + "/ping")[1], _answers.PING)

    def permissions(self):
        """What the token may do: {"permissions": {…: bool}, "scopes": [str]}; releases since 1.6.1."""
        what = "reading the token's permissions"
        return _answers.checked(what, self.call(what, "GET", CLIENT + "/permissions")[1], _answers.PERMISSIONS)

    def register(self, hostname, platform, version):
        """Make this token's peer, or get the one it has: (created, {"peerId", "peerName", "config", "hash"}); never sent twice.

        Raises ApiError uncertain where it is open whether the peer was made.
        """
        body = {"hostname": hostname, "platform": platform, "clientVersion": version}
        with _once_only(cleaned_name(hostname)):
            status, answer = self.call("registering %s" % hostname, "POST", CLIENT + "/register", body, repeat=False)
            return status == 201, _answers.checked("registering %s" % hostname, answer, _answers.REGISTERED)

    def config(self, peer_id):
        """{"config": str, "hash": 64 hex, "peerName": str}"""
        return self._consistent(lambda: self.call("reading the config of peer %s" % peer_id, "GET", CLIENT + "/config",
                                                  query={"peerId": peer_id})[1])

    def config_check(self, peer_id, known_hash):
        """None while the server's config has this hash, else {"config": str, "hash": 64 hex}."""
        def ask():
            answer = self.call("checking the config of peer %s" % peer_id, "GET", CLIENT + "/config/check",
                               query={"peerId": peer_id, "hash": known_hash})[1]
            return answer if _answers.checked("checking the config of peer %s" % peer_id, answer, _answers.CHECK)["updated"] else None
        return self._consistent(ask)

    def heartbeat(self, peer_id, **values):
        """Send a heartbeat: connected bool, rxBytes and txBytes in bytes, uptime in seconds, hostname.

        Returns peerEnabled, None before 1.33.0.
        """
        answer = self.call("sending the heartbeat of peer %s" % peer_id, "POST", CLIENT + "/heartbeat", dict(values, peerId=peer_id))[1]
        return answer["peerEnabled"] if isinstance(answer.get("peerEnabled"), bool) else None

    def status(self, peer_id, status, timestamp):
        """Report a status event; each one is a row in the server's activity log, so it is not repeated blindly."""
        self.call("reporting the status of peer %s" % peer_id, "POST", CLIENT + "/status",
                  {"peerId": peer_id, "status": status, "timestamp": timestamp}, repeat=False)

    def peer_info(self, peer_id):
        """{"id", "name", "enabled" bool, "expiresAt" str or None, "createdAt" "YYYY-MM-DD HH:MM:SS" UTC}; releases since 1.6.1."""
        what = "reading peer %s" % peer_id
        return self._record(what, self.call(what, "GET", CLIENT + "/peer-info", query={"peerId": peer_id})[1], _answers.INFO)

    # -- peers API

    def peers(self, page_size=PAGE, offset=0):
        """Every peer from an offset on, page by page as they are asked for: the server gives no total, so the last page is the one that is not full."""
        seen, what = set(), "listing the peers"
        while True:
            answer = self.call(what, "GET", PEERS, query={"limit": page_size, "offset": offset})[1]
            page = _answers.listed(what, answer, "peers", _answers.PEER)
            new = [peer for peer in page if peer["id"] not in seen]
            yield from new
            if len(page) < page_size:
                return
            seen.update(peer["id"] for peer in new)
            offset += page_size
            if not new or offset > MOST:
                raise ApiError("%s failed: the server's list does not end (%d peers so far); look into the server's log" % (what, len(seen)), "protocol", 200)

    def peer_named(self, name):
        """The peer of this exact name, or None."""
        return next((peer for peer in self.peers() if peer.get("name") == name), None)

    def peer(self, peer_id):
        """One peer's record."""
        what = "reading peer %s" % peer_id
        return self._record(what, self.call(what, "GET", "%s/%d" % (PEERS, peer_id))[1])

    def create_peer(self, name, **fields):
        """Make a peer; returns its record, private key included. Never sent twice: raises ApiError uncertain where it is open if it
        was made."""
        what = "creating the peer %s" % name
        with _once_only(name, _suspect(fields) or ": the next run finds it by its name"):
            return self._record(what, self.call(what, "POST", PEERS, dict(fields, name=name), repeat=False)[1])

    def update_peer(self, peer_id, fields):
        """Change fields of a peer; those left out stay."""
        try:
            self.call("changing peer %s" % peer_id, "PUT", "%s/%d" % (PEERS, peer_id), fields, repeat=not _suspect(fields))
        except ApiError as err:
            if err.kind == "server" and _suspect(fields):
                raise ApiError("%s%s" % (err, _suspect(fields)), "invalid", err.status)
            raise

    def delete_peer(self, peer_id):
        """Delete a peer; its tokens stay and are unbound."""
        try:
            self.call("deleting peer %s" % peer_id, "DELETE", "%s/%d" % (PEERS, peer_id))
        except ApiError as err:
            if err.kind != "not_found":  # as after an answer that was lost
                raise

    def peer_config(self, peer_id):
        """{"config": str, "hash": 64 hex, "name": str}: the hash is made here, since this answer has none."""
        what = "reading the config of peer %s" % peer_id
        answer = _answers.checked(what, self.call(what, "GET", "%s/%d/config" % (PEERS, peer_id))[1], _answers.PEER_CONFIG)
        return dict(answer, hash=_enrollment.digest(answer["config"]))

    # -- consistency

    @staticmethod
    def _record(what, answer, schema=_answers.PEER):
        """The peer's record in an answer."""
        return _answers.checked(what, _answers.checked(what, answer, {"peer": "object!"})["peer"], schema)

    def _consistent(self, ask):
        """A config whose hash fits its bytes: asked a second time when it does not, refused then."""
        for _try in range(2):
            answer = ask()
            if answer is None:
                return None
            _answers.checked("reading the config", answer, _answers.CONFIG)
            if _enrollment.digest(answer["config"]) == answer["hash"]:
                return answer
        raise ApiError("the server's config does not have the hash it names (twice), so nothing was written; look into the server's log",
                       "protocol", 200)
