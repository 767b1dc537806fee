"""The stand-in's own administration, under a path no real server has; the caller shows the administrator's login."""
from __future__ import annotations

import base64
import json
import sqlite3

from aiohttp import web

import wgtext
from hub import HubError
from store import NameTaken, NoFreeAddress

PREFIX = "/_stand-in/"
SETTINGS = ("endpoint", "mtu", "allowed_ips", "dns", "keepalive", "server_key", "machine_binding", "custom_dns", "split_tunnel")


class Wrong(Exception):
    """A request that cannot be done, in one sentence."""


async def serve(gate, request) -> web.Response:
    verb = VERBS.get(request.path.removeprefix(PREFIX))
    name, _, password = _basic(request).partition(":")
    if not gate.store.is_admin(name, password):
        return web.json_response({"error": "the administrator's name and password are needed (--admin USER:PASSWORD)"}, status=401)
    if verb is None or request.method != "POST":
        return web.json_response({"error": "there is no such verb"}, status=404)
    given = await request.json()
    gate.store.begin()
    try:
        result = verb(gate, request.app["faults"], given)
        gate.store.commit()
        return web.json_response(result)
    except (Wrong, ValueError, TypeError, KeyError, sqlite3.Error, NameTaken, NoFreeAddress, HubError) as problem:
        gate.store.rollback()
        return web.json_response({"error": "%s: %s" % (type(problem).__name__, problem)}, status=400)


def _basic(request) -> str:
    try:
        return base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode()
    except ValueError:
        return ""


def token(gate, _faults, given):
    scopes = [scope for scope in given["scopes"].split(",") if scope]
    unknown = [scope for scope in scopes if scope not in gate.era.scopes]
    if unknown or not scopes:
        raise Wrong("the era %s has no scope %s" % (gate.era.name, ",".join(unknown)))
    peer_id = int(given["peer_id"]) if given.get("peer_id") and gate.era.has("binding") else None
    return {"token": gate.store.create_token(given["name"], scopes, peer_id=peer_id)[0]}


def _peer(gate, wanted):
    peer = gate.store.peer(int(wanted)) if str(wanted).isdigit() else gate.store.peer_named(wanted)
    if peer is None:
        raise Wrong("there is no peer %s" % wanted)
    return peer


def peer(gate, _faults, given):
    action, values = given["action"], given.get("values") or {}
    if action == "list":
        gate.poll()
        return [{name: row[name] for name in row.keys() if name not in ("private_key", "preshared_key")}
                for row in gate.store.all("SELECT * FROM peers ORDER BY id")]
    if action == "add":
        names = [given["peer"] + ("-%d" % number if given.get("count") else "") for number in range(1, (given.get("count") or 1) + 1)]
        return [{"id": made["id"], "name": made["name"], "address": made["allowed_ips"]}
                for made in (gate.create_peer(name, **values) for name in names)]
    found = _peer(gate, given["peer"])
    if action == "delete":
        gate.delete_peer(found)
        return {"deleted": found["id"]}
    if action == "expire":
        values = {"expires_at": "2000-01-01T00:00:00.000Z"}
    elif action in ("enable", "disable"):
        values = {"enabled": int(action == "enable")}
    elif action != "set":
        raise Wrong("a peer cannot be %s" % action)
    gate.change_peer(found, **values)
    if action == "expire":
        gate.sweep()
    row = gate.store.peer(found["id"])
    return {name: row[name] for name in row.keys() if name not in ("private_key", "preshared_key")}


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
        faults.remove(given.get("id"))
    return faults.shown()


def settings(gate, _faults, given):
    for name, value in (given.get("values") or {}).items():
        if name == "server_key":
            value = wgtext.key_pair()[0] if value == "new" else value
        if name == "machine_binding" and value:  # an administrator who sets this has the licence for it
            gate.store.set("licence.machine_binding", "true")
        if name.removeprefix("licence.") in gate.features and name.startswith("licence."):
            gate.store.set(name, json.dumps(json.loads(str(value).lower())))
        elif name in ("api_limit", "session_limit", "login_limit"):
            setattr(gate, name, int(value))
        elif name in SETTINGS:
            gate.store.set(name, value)
        else:
            raise Wrong("there is no setting %s" % name)
        if gate.hub and name == "server_key" and value != "none":
            gate.hub.set_key(value)
        if gate.hub and name == "endpoint":
            gate.hub.listen(value)
    gate.load_licence()
    return {**gate.server(), "machine_binding": gate.store.setting("machine_binding", "off"), "features": gate.features,
            "api_limit": gate.api_limit, "session_limit": gate.session_limit, "login_limit": gate.login_limit}


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
