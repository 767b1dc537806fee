"""The stand-in's own administration, under a path no real server has; the caller shows the administrator's login."""
from __future__ import annotations

import base64
import binascii
import json
import sqlite3

from aiohttp import web

import wgtext
from admin_api import MACHINE_BINDING_MODES, preset_problem
from hub import HubError
from store import NameTaken, NoFreeAddress, without_keys

PREFIX = "/_stand-in/"


class Wrong(Exception):
    """A request that cannot be done, in one sentence."""


async def serve(gate, request) -> web.Response:
    name, _colon, password = _basic(request).partition(":")
    if not gate.store.is_admin(name, password):
        return web.json_response({"error": "the administrator's name and password are needed (--admin USER:PASSWORD)"}, status=401)
    verb = VERBS.get(request.path.removeprefix(PREFIX))
    if verb is None or request.method != "POST":
        return web.json_response({"error": "there is no such verb"}, status=404)
    try:
        given = await request.json()
        with gate.store:
            return web.json_response(verb(gate, request.app["faults"], given))
    except (Wrong, ValueError, TypeError, KeyError, sqlite3.Error, NameTaken, NoFreeAddress, HubError) as problem:
        return web.json_response({"error": str(problem)}, status=400)


def _basic(request) -> str:
    try:
        return base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode()
    except ValueError:
        return ""


def _whole(what: str, value, least: int, most: int) -> int:
    if not str(value).isdecimal() or not least <= int(value) <= most:
        raise Wrong("%s is a whole number from %d to %d, not %s" % (what, least, most, value))
    return int(value)


def _peer(gate, wanted):
    if not wanted:
        raise Wrong("which peer? Give its id or its name")
    peer = gate.store.peer(int(wanted)) if str(wanted).isdecimal() else gate.store.peer_named(wanted)
    if peer is None:
        raise Wrong("there is no peer %s" % wanted)
    return peer


def token(gate, _faults, given):
    scopes = [scope for scope in given["scopes"].split(",") if scope]
    if not scopes:
        raise Wrong("a token needs a scope; there are " + ", ".join(gate.era.scopes))
    for scope in scopes:
        if scope not in gate.era.scopes:
            raise Wrong("the era %s has no scope %s; there are %s" % (gate.era.name, scope, ", ".join(gate.era.scopes)))
    bound = given.get("peer_id") and gate.era.has("binding")
    return {"token": gate.store.create_token(given["name"], scopes, peer_id=_peer(gate, given["peer_id"])["id"] if bound else None)[0]}


def peer(gate, _faults, given):
    action, values = given["action"], given.get("values") or {}
    if action == "list":
        gate.poll()
        rows = [_peer(gate, given["peer"])] if given.get("peer") else gate.store.all("SELECT * FROM peers ORDER BY id")
        return [without_keys(row) for row in rows]
    columns = gate.store.columns("peers")
    for name in values:
        if name not in columns or name == "id":
            raise Wrong("a peer has no %s to set; there are %s" % (name, ", ".join(columns[1:])))
    if action == "add":
        if not given.get("peer"):
            raise Wrong("the new peer needs a name")
        names = [given["peer"]] if not given.get("count") else ["%s-%d" % (given["peer"], number + 1) for number in range(given["count"])]
        return [{"id": made["id"], "name": made["name"], "address": made["allowed_ips"]}
                for made in (gate.create_peer(name, **values) for name in names)]
    found = _peer(gate, given.get("peer"))
    if action == "delete":
        gate.delete_peer(found)
        return {"deleted": found["id"]}
    if action == "expire":
        values = {"expires_at": "2000-01-01T00:00:00.000Z"}
    elif action in ("enable", "disable"):
        values = {"enabled": int(action == "enable")}
    elif action != "set":
        raise Wrong("a peer cannot be told to %s" % action)
    gate.change_peer(found, **values)
    if action == "expire":
        gate.sweep()
    return without_keys(gate.store.peer(found["id"]))


def log(gate, _faults, given):
    gate.poll()
    if given.get("clear"):
        return {"cleared": gate.store.run("DELETE FROM log").rowcount}
    where, values = ["id > ?"], [given.get("since") or 0]
    for name in ("event", "method", "status", "token", "peer_id"):
        if given.get(name) is not None:
            where.append(name + " = ?")
            values.append(given[name])
    if given.get("path"):
        where.append("path GLOB ?")
        values.append(given["path"])
    rows = gate.store.all("SELECT * FROM (SELECT * FROM log WHERE %s ORDER BY id DESC LIMIT ?) ORDER BY id" % " AND ".join(where),
                          *values, given.get("limit") or -1)
    return [{name: json.loads(row[name]) if name in ("headers", "body") and row[name] else row[name]
             for name in row.keys() if row[name] is not None} for row in rows]


def fault(_gate, faults, given):
    if given["action"] == "on":
        faults.add(given["fault"])
    elif given["action"] == "off":
        wanted = given.get("id")
        if not faults.remove(None if wanted in (None, "all") else wanted) and wanted not in (None, "all"):
            raise Wrong("there is no fault %s to switch off" % wanted)
    return faults.shown()


# ---------------------------------------------------------------- settings

def _endpoint(value) -> str:
    host, _colon, port = value.rpartition(":")
    if not host or any(letter.isspace() for letter in value):
        raise Wrong("endpoint is HOST:PORT, not " + value)
    _whole("the endpoint's port", port, 1, 65535)
    return value


def _server_key(value) -> str:
    if value == "none":
        return value
    try:
        return value if wgtext.public_key(value) else ""
    except (ValueError, binascii.Error):
        raise Wrong("server_key is new, none or a private key in base64") from None


def _mode(value) -> str:
    if value not in MACHINE_BINDING_MODES:
        raise Wrong("machine_binding is one of %s, not %s" % (", ".join(MACHINE_BINDING_MODES), value))
    return value


def _preset(value) -> str:
    try:
        problem = preset_problem(json.loads(value))
    except ValueError as wrong:
        problem = str(wrong)
    if problem:
        raise Wrong('split_tunnel is JSON such as {"mode": "include", "networks": [{"cidr": "10.0.0.0/8"}]}: ' + problem)
    return value


SETTINGS = {  # what a value must be
    "endpoint": _endpoint, "mtu": lambda value: _whole("mtu", value, 576, 65535), "allowed_ips": str, "dns": str,
    "keepalive": lambda value: _whole("keepalive", value, 0, 65535), "server_key": _server_key, "machine_binding": _mode,
    "custom_dns": str, "split_tunnel": _preset,
}
LIMITS = ("api_limit", "session_limit", "login_limit")


def settings(gate, _faults, given):
    """Changes settings, None or an empty text being the default, and shows them all."""
    for name, value in (given.get("values") or {}).items():
        value = None if value == "" else value
        if name == "server_key" and value in (None, "new"):
            value = wgtext.key_pair()[0]
        if name in LIMITS:
            setattr(gate, name, _whole(name, value, 1, 2**31))
        elif name in SETTINGS:
            gate.store.set(name, value if value is None else SETTINGS[name](value))
        elif name.startswith("licence.") and name.removeprefix("licence.") in gate.features:
            gate.store.set(name, None if value is None else _licence(name, value))
        else:
            raise Wrong("there is no setting %s; there are %s" % (
                name, ", ".join((*SETTINGS, *LIMITS, *("licence." + feature for feature in gate.features)))))
        if name == "machine_binding" and value:  # an administrator who sets this has the licence for it
            gate.store.set("licence.machine_binding", "true")
        if name == "machine_binding" or name.startswith("licence."):
            gate.load_licence()
        if gate.hub and name == "server_key" and value != "none":
            gate.hub.set_key(value)
        if gate.hub and name == "endpoint":
            gate.hub.listen(gate.server()["endpoint"])
    return {**gate.server(), "machine_binding": gate.store.setting("machine_binding", "off"), "features": gate.features,
            **{name: getattr(gate, name) for name in LIMITS}}


def _licence(name: str, value) -> str:
    text = str(value).lower()
    if not (text.lstrip("-").isdecimal() if name == "licence.vpn_peers" else text in ("true", "false")):
        raise Wrong("%s is %s, not %s" % (name, "a number (-1: unlimited)" if name == "licence.vpn_peers" else "true or false", value))
    return text


def reset(gate, _faults, given):
    """Forgets counted calls, failed logins, rewritten descriptions; with "sessions" the sessions too."""
    for limiter in (gate.api_limiter, gate.login_limiter, gate.hostname_limiter):
        limiter.clear()
    gate.lockouts.clear()
    gate.described.clear()
    if given.get("sessions"):
        gate.store.run("DELETE FROM sessions")
    return {}


def sweep(gate, _faults, _given):
    return {"expired": gate.sweep()}


VERBS = {"token": token, "peer": peer, "log": log, "fault": fault, "settings": settings, "reset": reset, "sweep": sweep}
