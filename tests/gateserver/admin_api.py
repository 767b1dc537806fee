"""What only the administrator reaches: tokens, users, licence, settings."""
from __future__ import annotations

import json
import re
import sqlite3

from core import IPV4, Reply, leading_int, ok, refuse, route, trimmed, truthy
from store import is_past, password_hash

MACHINE_BINDING_MODES = ("off", "global", "individual")
CIDR = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}/\d{1,2}")


# ---------------------------------------------------------------- tokens

def token_details(call, token) -> dict:
    details = {"id": token["id"], "name": token["name"], "scopes": json.loads(token["scopes"]),
               "created_at": token["created_at"], "expires_at": token["expires_at"], "last_used_at": token["last_used_at"]}
    if call.era.has("binding"):
        details.update(peer_id=token["peer_id"], machine_fingerprint=token["machine_fingerprint"],
                       machine_binding_enabled=bool(token["machine_binding_enabled"]))
    if call.era.has("users"):
        details["user_id"] = token["user_id"]
    if call.era.has("split_tunnel"):
        details["split_tunnel_override"] = token["split_tunnel_override"]
    return details


def preset_problem(preset) -> str | None:
    """What is wrong with a split-tunnel preset, or None."""
    if not isinstance(preset, dict):
        return "Invalid preset format"
    networks = preset.get("networks") or []
    if preset.get("mode", "off") not in ("off", "exclude", "include"):
        return "Invalid mode"
    if not isinstance(networks, list):
        return "networks must be an array"
    if len(networks) > 50:
        return "Maximum 50 networks"
    for network in networks:
        cidr = str(network.get("cidr") if isinstance(network, dict) else network)
        if not CIDR.fullmatch(cidr):
            return "Invalid CIDR: " + cidr
        if int(cidr.split("/")[1]) > 32:
            return "Invalid prefix: " + cidr
        if len(str(network.get("label") or "")) > 100:
            return "Label too long (max 100)"
    return None


def _mint(call, role_scopes=None, **bound) -> Reply:
    """Checks the request for a token and makes it. ``role_scopes``: what the owner's role allows, None: not asked."""
    name, scopes, expires = call.field("name"), call.field("scopes"), call.chosen("expires_at")
    if not isinstance(name, str) or not name.strip():
        raise call.fail(400, "tokens.name_required")
    if not isinstance(scopes, list) or not scopes:
        raise call.fail(400, "tokens.scopes_required")
    if role_scopes is not None:
        scopes = [scope for scope in scopes if scope in role_scopes]
        if not scopes:
            raise call.fail(400, "users.no_valid_scopes")
    for scope in scopes:
        if scope not in call.era.scopes:
            raise refuse(400, "Invalid scope: %s" % scope)
    preset = call.chosen("split_tunnel_override")
    if preset and preset_problem(preset):
        raise refuse(400, preset_problem(preset))
    if len(name.strip()) > 100:
        raise refuse(400, "Token name too long (max 100 chars)")
    if expires and (not isinstance(expires, str) or is_past(expires)):
        raise refuse(400, "Expiry date must be in the future")
    token, row = call.store.create_token(
        name.strip(), scopes, expires_at=expires, machine_binding_enabled=int(truthy(call.field("machine_binding_enabled"))),
        split_tunnel_override=json.dumps(preset) if preset else None, **bound)
    return ok(201, token=token, details=token_details(call, row))


def _no_tokens(call) -> None:
    if call.token:
        raise call.fail(403, "tokens.no_escalation")


def _token(call):
    token = call.store.one("SELECT * FROM tokens WHERE id = ?", leading_int(call.match["id"]))
    if token is None:
        raise call.fail(404, "tokens.not_found")
    return token


@route("GET", "/api/v1/tokens")
def list_tokens(call):
    if call.era.has("token_fence"):
        _no_tokens(call)
    tokens = call.store.all("SELECT * FROM tokens ORDER BY created_at DESC, id DESC")
    return ok(tokens=[token_details(call, token) for token in tokens])


@route("POST", "/api/v1/tokens")
def create_token(call):
    _no_tokens(call)
    call.need_feature("api_tokens")
    return _mint(call)


@route("DELETE", "/api/v1/tokens/{id}")
def delete_token(call):
    _no_tokens(call)
    call.store.run("DELETE FROM tokens WHERE id = ?", _token(call)["id"])
    return ok()


@route("PUT", "/api/v1/tokens/{id}/assign", "users")
def assign_token(call):
    _no_tokens(call)
    if not call.field("userId"):
        raise refuse(400, "userId is required")
    token = _token(call)
    if token["user_id"] is not None:
        raise refuse(400, "Token is already assigned to a user")
    try:
        call.store.run("UPDATE tokens SET user_id = ? WHERE id = ?", leading_int(call.field("userId")), token["id"])
    except sqlite3.IntegrityError:
        raise refuse(500, "Failed to assign token") from None
    return ok(token=token_details(call, _token(call)))


@route("PUT", "/api/v1/tokens/{id}/binding", "binding")
def set_binding(call):
    _no_tokens(call)
    call.need_feature("machine_binding")
    token = _token(call)
    if not isinstance(call.field("enabled"), bool):
        raise refuse(400, "enabled must be a boolean")
    call.store.run("UPDATE tokens SET machine_binding_enabled = ? WHERE id = ?", int(call.field("enabled")), token["id"])
    return ok()


@route("DELETE", "/api/v1/tokens/{id}/binding", "binding")
def reset_binding(call):
    _no_tokens(call)
    call.need_feature("machine_binding")
    call.store.run("UPDATE tokens SET machine_fingerprint = NULL WHERE id = ?", _token(call)["id"])
    return ok()


# ---------------------------------------------------------------- users

def _administrators_only(call) -> None:
    if call.token:
        raise call.fail(403, "users.session_required")
    if call.user["role"] != "admin":
        raise call.fail(403, "users.admin_required")


def _user_row(user) -> dict:
    return {name: user[name] for name in user.keys() if name != "password_hash"}


def _user(call):
    _administrators_only(call)
    user = call.store.one("SELECT * FROM users WHERE id = ?", leading_int(call.match["id"]))
    if user is None:
        raise call.fail(404, "users.not_found")
    return user


def _not_last_admin(call, user, enabled_only: bool = False) -> None:
    admins = call.store.one("SELECT COUNT(*) FROM users WHERE role = 'admin' AND enabled >= ?", int(enabled_only))[0]
    if user["role"] == "admin" and user["enabled"] >= int(enabled_only) and admins <= 1:
        raise call.fail(400, "users.last_admin")


@route("GET", "/api/v1/users", "users")
def list_users(call):
    _administrators_only(call)
    users = call.store.all(
        "SELECT u.*, COUNT(t.id) AS tokenCount, COUNT(DISTINCT t.peer_id) AS peerCount, MAX(t.last_used_at) AS lastAccess"
        " FROM users u LEFT JOIN tokens t ON t.user_id = u.id GROUP BY u.id ORDER BY u.created_at, u.id")
    return ok(users=[_user_row(user) for user in users])


@route("POST", "/api/v1/users", "users")
def create_user(call):
    _administrators_only(call)
    name, role, password = call.field("username"), call.chosen("role") or "admin", call.field("password")
    if not isinstance(name, str) or not name.strip():
        raise refuse(400, "Username is required")
    if call.store.one("SELECT 1 FROM users WHERE username = ?", name.strip()):
        raise call.fail(409, "users.duplicate")
    if role == "admin" and not password:
        raise refuse(400, "Password is required for admin users")
    try:
        cursor = call.store.run(
            "INSERT INTO users (username, display_name, email, role, password_hash) VALUES (?, ?, ?, ?, ?)", name.strip(),
            trimmed(call.field("displayName")) or None, trimmed(call.field("email")) or None, role,
            password_hash(str(password)) if role == "admin" else None)
    except sqlite3.Error:
        raise call.fail(500, "users.create") from None
    return ok(201, user=_user_row(call.store.one("SELECT * FROM users WHERE id = ?", cursor.lastrowid)))


@route("GET", "/api/v1/users/unassigned-tokens", "users")
def unassigned_tokens(call):
    _administrators_only(call)
    tokens = call.store.all("SELECT * FROM tokens WHERE user_id IS NULL ORDER BY created_at DESC, id DESC")
    return ok(tokens=[token_details(call, token) for token in tokens])


@route("GET", "/api/v1/users/{id}", "users")
def get_user(call):
    user = _user(call)
    tokens = call.store.all("SELECT * FROM tokens WHERE user_id = ? ORDER BY created_at DESC, id DESC", user["id"])
    return ok(user=_user_row(user), tokens=[token_details(call, token) for token in tokens])


@route("PATCH", "/api/v1/users/{id}", "users")
def update_user(call):
    user = _user(call)
    if call.field("role") == "user":
        _not_last_admin(call, user)
    if call.field("role", "user") not in ("admin", "user"):
        raise call.fail(500, "users.update")
    for name, column in {"displayName": "display_name", "email": "email", "role": "role"}.items():
        if call.given(name):
            call.store.run("UPDATE users SET %s = ?, updated_at = datetime('now') WHERE id = ?" % column,
                           trimmed(call.field(name)) or None, user["id"])
    return ok(user=_user_row(_user(call)))


@route("DELETE", "/api/v1/users/{id}", "users")
def delete_user(call):
    user = _user(call)
    if user["id"] == call.user["id"]:
        raise call.fail(400, "users.self_delete")
    _not_last_admin(call, user)
    call.store.run("DELETE FROM users WHERE id = ?", user["id"])
    return ok()


@route("PUT", "/api/v1/users/{id}/toggle", "users")
def toggle_user(call):
    user = _user(call)
    if user["id"] == call.user["id"]:
        raise call.fail(400, "users.self_disable")
    _not_last_admin(call, user, enabled_only=True)
    call.store.run("UPDATE users SET enabled = 1 - enabled, updated_at = datetime('now') WHERE id = ?", user["id"])
    return ok(user=_user_row(_user(call)))


@route("POST", "/api/v1/users/{id}/tokens", "users")
def create_user_token(call):
    user = _user(call)
    try:
        return _mint(call, role_scopes=role_scopes(call, user["role"]), user_id=user["id"], peer_id=call.chosen("peer_id"))
    except sqlite3.Error:
        raise call.fail(500, "users.create_token") from None


def role_scopes(call, role: str) -> list:
    """The scopes a user's role leaves to their tokens."""
    if role == "admin":
        return call.era.scopes
    return [scope for scope in call.era.scopes if scope.startswith("client")]


# ---------------------------------------------------------------- activity, licence, settings

@route("GET", "/api/v1/logs/activity")
def activity(call):
    page, limit = max(leading_int(call.query.get("page")), 1), min(max(leading_int(call.query.get("limit")) or 50, 1), 100)
    total = call.store.one("SELECT COUNT(*) FROM activity")[0]
    rows = call.store.all("SELECT * FROM activity ORDER BY id DESC LIMIT ? OFFSET ?", limit, (page - 1) * limit)
    return ok(entries=[dict(row, details=json.loads(row["details"])) for row in rows], total=total, page=page, limit=limit,
              totalPages=-(-total // limit))


@route("GET", "/api/v1/license")
def licence(call):
    community = call.gate.profile == "community"
    return ok(plan="community" if community else "pro", features=call.gate.features, valid=True, unlicensed=community,
              expires_at=None, activations=None, max_activations=None, license_key_masked=None)


@route("GET", "/api/v1/settings/dns")
def get_dns(call):
    custom, default = call.store.setting("custom_dns"), call.gate.server()["dns"]
    return ok(data={"dns": custom or default, "is_custom": bool(custom), "default_dns": default})


@route("PUT", "/api/v1/settings/dns")
def put_dns(call):
    call.need_feature("custom_dns")
    if call.given("dns"):
        addresses = [one.strip() for one in str(call.field("dns")).split(",") if one.strip()]
        for address in addresses:
            if not IPV4.fullmatch(address):
                raise refuse(400, "Invalid IP address: " + address)
        call.store.set("custom_dns", ",".join(addresses) or None)
    return ok()


@route("GET", "/api/v1/settings/machine-binding", "binding")
def get_machine_binding(call):
    return ok(data={"mode": call.store.setting("machine_binding", "off")})


@route("PUT", "/api/v1/settings/machine-binding", "binding")
def put_machine_binding(call):
    call.need_feature("machine_binding")
    if call.given("mode"):
        if call.field("mode") not in MACHINE_BINDING_MODES:
            raise call.fail(400, "settings.machine_binding_mode_invalid")
        call.store.set("machine_binding", call.field("mode"))
    return ok()


@route("GET", "/api/v1/settings/split-tunnel", "split_tunnel")
def get_split_tunnel(call):
    preset = json.loads(call.store.setting("split_tunnel", "{}"))
    return ok(mode=preset.get("mode", "off"), networks=preset.get("networks", []), locked=preset.get("locked", False))


@route("PUT", "/api/v1/settings/split-tunnel", "split_tunnel")
def put_split_tunnel(call):
    if call.gate.features["split_tunnel_preset"] is not True:
        raise refuse(403, "Feature not licensed")
    preset = {"mode": call.field("mode"), "networks": call.field("networks"), "locked": truthy(call.field("locked"))}
    if preset["mode"] not in ("off", "exclude", "include"):
        raise refuse(400, "Invalid mode. Must be off, exclude, or include.")
    if not isinstance(preset["networks"], list) or len(preset["networks"]) > 50:
        raise refuse(400, "networks must be an array with max 50 entries.")
    if preset_problem(preset):
        raise refuse(400, preset_problem(preset))
    call.store.set("split_tunnel", json.dumps(preset))
    return ok()


@route("GET", "/api/v1/ping", "session_ping")
def session_ping(call):
    return ok()
