"""What every handler is given (``Call``), what it returns (``Reply``), and the server's state (``Gate``)."""
from __future__ import annotations

import json
import re
import time
import types
import typing

import eras
import texts
import wgtext
from hub import HubError
from ratelimit import Limiter
from store import Store, now_iso

UPGRADE_URL = "https://callmetechie.de/products/gatecontrol/pricing"
IPV4 = re.compile(r"(\d{1,3}\.){3}\d{1,3}")
PEER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9 ._-]{0,62}")
ROUTES = []


class Reply(typing.NamedTuple):
    """An answer before it becomes HTTP: a dict is sent as JSON, a text as HTML unless a header says otherwise."""

    status: int
    body: dict | str
    headers: typing.Mapping = types.MappingProxyType({})


class Refusal(Exception):
    """Ends a handler with an answer."""

    def __init__(self, reply: Reply):
        super().__init__(reply.status)
        self.reply = reply


def ok(status: int = 200, **fields) -> Reply:
    return Reply(status, {"ok": True, **fields})


def refuse(status: int, error: str, **more) -> Refusal:
    return Refusal(Reply(status, {"ok": False, "error": error, **more}))


def route(method: str, path: str, ability: str | None = None):
    """Makes a function the handler of a path, in the eras that have the ability."""
    def keep(handler):
        ROUTES.append((method, path, ability, handler))
        return handler
    return keep


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def truthy(value) -> bool:
    """Whether JavaScript takes a value from JSON as true: an empty list or object is."""
    return value not in (None, False, 0, "")


def number(value):
    """A value as JavaScript's ``Number`` reads it, if it is a whole number; None for anything else."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str):
        value = value.strip() or "0"
        if re.fullmatch(r"0[xX][0-9a-fA-F]+", value):
            return int(value, 16)
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value, re.ASCII):
            return None
        value = float(value)
    if isinstance(value, (int, float)) and abs(value) < 2**53 and value == int(value):
        return int(value)
    return None


def leading_int(text, default: int = 0) -> int:
    """The digits a text begins with, as JavaScript's ``parseInt`` reads them; what no database holds is cut."""
    found = re.match(r"\s*([+-]?[0-9]+)", "" if text is None else js_text(text))
    return max(-2**53, min(int(found.group(1)[:20]), 2**53)) if found else default


def js_text(value) -> str:
    """A value from JSON as JavaScript's ``String`` writes it."""
    if isinstance(value, list):
        return ",".join("" if item is None else js_text(item) for item in value)
    if isinstance(value, dict):
        return "[object Object]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def trimmed(value) -> str:
    """A value as text without blanks around it or its items; nothing for what JavaScript takes as false."""
    if isinstance(value, list):
        return ",".join(trimmed(item) for item in value)
    return js_text(value).strip() if truthy(value) else ""


class Gate:
    """The running server."""

    def __init__(self, options):
        self.era = eras.Era(options.era)
        self.profile = options.profile
        self.licence, limit, session_limit, login_limit = eras.PROFILES[options.profile]
        self.features = {}       # the profile's licence and what was set of it
        self.api_limit = options.rate_limit or limit
        self.session_limit = self.api_limit * 10 if options.rate_limit else session_limit
        self.login_limit = options.login_limit or login_limit
        self.secure = bool(options.tls)
        self.store = Store(options.state, options.subnet)
        self.hub = None
        self.api_limiter, self.login_limiter, self.hostname_limiter = Limiter(900), Limiter(900), Limiter(60)
        self.lockouts = {}       # user name -> times of failed logins
        self.described = {}      # peer id -> when its description was last rewritten
        self.started = time.time()
        if options.endpoint:
            self.store.set("endpoint", options.endpoint)
        if self.store.setting("server_key") is None:
            self.store.set("server_key", wgtext.key_pair()[0])
        self.load_licence()

    def load_licence(self) -> None:
        """Applies the licence: of more enabled peers than it allows the oldest are disabled."""
        self.features = {name: json.loads(self.store.setting("licence." + name, json.dumps(value)))
                         for name, value in self.licence.items()}
        limit = self.features["vpn_peers"]
        if limit >= 0:
            for peer in self.store.all("SELECT * FROM peers WHERE enabled = 1 ORDER BY created_at, id LIMIT max(0, ?)",
                                       self.store.count_peers(enabled_only=True) - limit):
                self.change_peer(peer, enabled=0)

    def server(self) -> dict:
        """The server-wide half of every configuration."""
        get, key = self.store.setting, self.store.setting("server_key")
        return {
            "public_key": wgtext.public_key(key) if key and key != "none" else None,
            "endpoint": get("endpoint", "vpn.example.com:51820"),
            "allowed_ips": get("allowed_ips", "0.0.0.0/0"),
            "mtu": get("mtu") or ("1420" if self.era.has("mtu") else None),
            "dns": get("dns", self.store.gateway if self.era.has("own_dns") else "1.1.1.1,8.8.8.8"),
            "keepalive": int(get("keepalive", "25")),
        }

    def config(self, peer) -> str:
        return wgtext.client_config(peer, self.server())

    # Peers are changed through these three only, so that the hub follows.

    def create_peer(self, name: str, **given):
        server = self.server()
        given["dns"] = given["dns"] if truthy(given.get("dns")) else server["dns"]
        given.setdefault("persistent_keepalive", server["keepalive"])
        peer = self.store.create_peer(name, **given)
        self.store.record("peer_created", 'Peer "%s" created (%s)' % (name, peer["allowed_ips"]), "success", peerId=peer["id"])
        self._follow("add", peer)
        return peer

    def change_peer(self, peer, **changes):
        changed = self.store.update_peer(peer["id"], **changes)
        if changed["enabled"] != peer["enabled"]:
            self._follow("add" if changed["enabled"] else "remove", changed)
        return changed

    def delete_peer(self, peer) -> None:
        self.store.delete_peer(peer)
        self._follow("remove", peer)

    def _follow(self, action: str, peer) -> None:
        """Has the hub do the same. As on the real server, an interface that refuses is only logged."""
        try:
            if self.hub:
                getattr(self.hub, action)(peer)
        except HubError as problem:
            self.store.log("hub-error", peer_id=peer["id"], body={"error": str(problem)})

    def live(self) -> dict:
        """What the hub knows of its peers, by public key; nothing without a hub, or if it does not answer."""
        try:
            return self.hub.live() if self.hub else {}
        except HubError as problem:
            self.store.log("hub-error", body={"error": str(problem)})
            return {}

    def sweep(self) -> int:
        """Disables the peers whose time is over and keeps what the hub says of the others. Returns how many expired."""
        expired = self.store.all("SELECT * FROM peers WHERE expires_at < ? AND enabled = 1", now_iso())
        for peer in expired:
            self.change_peer(peer, enabled=0)
            self.store.log("expired", peer_id=peer["id"])
            self.store.record("peer_expired", 'Peer "%s" expired and was disabled' % peer["name"], "warning", peerId=peer["id"],
                              expiresAt=peer["expires_at"])
        self.poll()
        self.store.trim_log()
        return len(expired)

    def poll(self) -> None:
        """Takes the hub's counters over into the peers, and into the log where they have moved."""
        for key, live in self.live().items():
            peer = self.store.one("SELECT * FROM peers WHERE public_key = ?", key)
            if peer is None or (live["rx"], live["tx"], live["handshake"]) == (
                    peer["transfer_rx"], peer["transfer_tx"], peer["latest_handshake"]):
                continue
            more = {name: live[name] - peer["transfer_" + name] if live[name] >= peer["transfer_" + name] else live[name]
                    for name in ("rx", "tx")}
            self.store.update_peer(
                peer["id"], transfer_rx=live["rx"], transfer_tx=live["tx"], latest_handshake=live["handshake"],
                endpoint=live["endpoint"], total_rx=peer["total_rx"] + more["rx"], total_tx=peer["total_tx"] + more["tx"])
            self.store.log("transfer", peer_id=peer["id"], body=dict(live, name=peer["name"]))


class Call:
    """One request: where it goes, what it carries, who sends it."""

    def __init__(self, gate: Gate, request, body):
        self.gate, self.era, self.store = gate, gate.era, gate.store
        self.request, self.body = request, body
        self.method, self.path = request.method, request.path
        self.headers, self.match = request.headers, request.match_info
        self.query = {name: request.query.getall(name)[0] if len(request.query.getall(name)) == 1
                      else request.query.getall(name) for name in request.query}
        self.token = self.session = self.user = self.new_cookie = None
        self.scopes, self.rate_headers = [], {}
        self.counted = None  # the key under which the API's limiter counted it
        self.note = None  # what the log shows instead of the body
        self.language = texts.language(self.query.get("lang"), request.headers.get("Accept-Language"))

    def t(self, key: str) -> str:
        return texts.text(key, self.language)

    def fail(self, status: int, key: str, **more) -> Refusal:
        """A refusal in the caller's language."""
        return refuse(status, self.t(key), **more)

    def field(self, name: str, default=None):
        return self.body.get(name, default) if isinstance(self.body, dict) else default

    def chosen(self, name: str):
        """A field's value, None for what JavaScript takes as false."""
        return self.field(name) if truthy(self.field(name)) else None

    def given(self, name: str) -> bool:
        return isinstance(self.body, dict) and name in self.body

    @property
    def address(self) -> str:
        """The caller's address; X-Forwarded-For is believed from loopback only."""
        address = self.request.remote or ""
        for hop in reversed(self.headers.get("X-Forwarded-For", "").split(",")):
            if is_loopback(address):
                address = hop.strip() or address
        return address

    def need_feature(self, name: str) -> None:
        if self.gate.features.get(name) is not True:
            raise self.fail(403, "license.feature_not_available", feature=name, upgrade_url=UPGRADE_URL)

    def need_room_for_peer(self, count: int) -> None:
        limit = self.gate.features["vpn_peers"]
        if 0 <= limit <= count:
            raise self.fail(403, "license.limit_reached", feature="vpn_peers", current=count, limit=limit,
                            upgrade_url=UPGRADE_URL)
