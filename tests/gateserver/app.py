"""From request to answer: who may, how often, in which era; the headers every answer carries; the log."""
from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import time
import traceback

from aiohttp import web

import admin_api
import client_api
import control
import eras
import peers_api  # noqa: F401  # pylint: disable=unused-import
import session
from core import ROUTES, Call, Gate, Refusal, Reply, refuse
from faults import Faults

HELMET = {
    "Content-Security-Policy": "default-src 'self';style-src-attr 'unsafe-inline';font-src 'self';img-src 'self' data: blob:;"
                               "connect-src 'self';frame-ancestors 'self';base-uri 'self';form-action 'self';"
                               "object-src 'none';script-src-attr 'none';upgrade-insecure-requests",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Origin-Agent-Cluster": "?1",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
    "X-Download-Options": "noopen",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Permitted-Cross-Domain-Policies": "none",
    "X-XSS-Protection": "0",
}
LOGGED_HEADERS = ("User-Agent", "Accept-Language", "X-Client-Version", "X-Client-Platform", "X-Machine-Fingerprint", "X-Peer-Id")
SECRET_WORDS = re.compile(r"gc_[0-9A-Za-z_]+")
MALFORMED = Reply(400, {"error": "Internal server error"})
NOT_FOUND = Reply(404, {"error": "Not found"})


# ---------------------------------------------------------------- reading

def _no_constant(name):
    raise ValueError(name)


async def read_body(request):
    """The body as JSON or form fields; an empty dict if it is neither. Refuses what is sent as JSON and is none."""
    try:
        raw = await request.read() if request.can_read_body else b""
    except web.HTTPRequestEntityTooLarge:
        raise Refusal(Reply(413, {"error": "Internal server error"})) from None
    if not raw:
        return {}
    if request.content_type == "application/x-www-form-urlencoded":
        return dict(await request.post())
    if request.content_type != "application/json":
        return {}
    try:
        body = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refusal(MALFORMED) from None
    if not isinstance(body, (dict, list)):
        raise Refusal(MALFORMED)
    return body


def sent_token(call) -> str | None:
    """The token of a request: the first of three headers with a value that looks like one."""
    authorization = call.headers.get("Authorization", "")
    bearer = authorization[7:].strip() if authorization.startswith("Bearer ") else ""
    for value in (bearer, call.headers.get("X-API-Token", ""), call.headers.get("X-API-Key", "")):
        if value.startswith("gc_"):
            return value
    return None


# ---------------------------------------------------------------- the order of checks

def authenticate(call) -> None:
    """Session or token; then the token's user, then its scope."""
    if call.user:
        return
    token = sent_token(call)
    call.token = token and call.store.token(token)
    if not call.token:
        raise refuse(401, "Unauthorized")
    call.scopes = json.loads(call.token["scopes"])
    owner = call.token["user_id"] and call.store.one("SELECT * FROM users WHERE id = ?", call.token["user_id"])
    if owner:
        if not owner["enabled"]:
            raise refuse(403, "User account is disabled")
        call.scopes = [scope for scope in call.scopes if scope in admin_api.role_scopes(call, owner["role"])]
    if not call.era.allows(call.scopes, call.path, call.method):
        raise refuse(403, "Token does not have permission for this resource")


def count(call) -> None:
    """Counts the call against its token's or its address's budget."""
    call.counted = "token:%d" % call.token["id"] if call.token else call.address
    limit = call.gate.session_limit if call.user else call.gate.api_limit
    allowed, call.rate_headers = call.gate.api_limiter.hit(call.counted, limit)
    if not allowed:
        raise call.fail(429, "rate_limit.api")


def checked(call, handler) -> Reply:
    """Runs a request through all checks and its handler, None if there is none."""
    session.find(call)
    if call.path != "/api/v1" and not call.path.startswith("/api/v1/"):
        if handler:
            return handler(call)
        return NOT_FOUND if call.path.startswith("/api/") else Reply(404, session.page("404", "<h1>404</h1>"))
    if not (handler and call.path.startswith("/api/v1/client/update/") and call.era.has("update_public")):
        authenticate(call)
    count(call)
    if call.user and call.method in ("POST", "PUT", "PATCH", "DELETE"):
        session.check_csrf(call)
    setting = call.path.removeprefix("/api/v1/settings/").split("/")[0]
    if call.token and call.era.has("token_fence") and call.path.startswith("/api/v1/settings/") and setting in eras.SESSION_SETTINGS:
        raise refuse(403, "Forbidden for token auth")
    if call.token and call.path.startswith("/api/v1/client"):
        client_api.note_client_version(call)
    return handler(call) if handler else NOT_FOUND


def answer(call, handler) -> Reply:
    try:
        reply = checked(call, handler)
    except Refusal as refusal:
        reply = refusal.reply
    if call.counted and reply.status >= 400 and call.era.has("failures_free"):
        call.gate.api_limiter.take_back(call.counted)
    return reply._replace(headers={**call.rate_headers, **reply.headers})


# ---------------------------------------------------------------- answering

def weak_etag(body: bytes) -> str:
    return 'W/"%x-%s"' % (len(body), base64.b64encode(hashlib.sha1(body).digest()).decode()[:27])


def to_response(request, reply: Reply) -> web.Response:
    headers = {**HELMET, **reply.headers}
    if isinstance(reply.body, dict):
        body = json.dumps(reply.body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        headers.setdefault("Content-Type", "application/json; charset=utf-8")
    else:
        body = reply.body.encode()
        headers.setdefault("Content-Type", "text/html; charset=utf-8")
    if not 300 <= reply.status < 400:
        headers["ETag"] = weak_etag(body)
    wanted = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    if request.method in ("GET", "HEAD") and reply.status == 200 and "no-cache" not in request.headers.get("Cache-Control", "") and (
            "*" in wanted or headers["ETag"].removeprefix("W/") in wanted):
        del headers["Content-Type"]
        return web.Response(status=304, headers=headers)
    return web.Response(status=reply.status, body=body, headers=headers)


def _masked(body):
    """A request's body without its secrets."""
    if not isinstance(body, dict):
        return None
    return {name: "***" if name.lower() in ("password", "_csrf", "token") else value for name, value in body.items()} or None


def write_log(call, reply: Reply, started: float, fault) -> None:
    event = None
    if call.path == "/login" and call.method == "POST":
        event = "login"
    elif call.path.startswith("/api/v1/client/"):
        event = call.path.removeprefix("/api/v1/client/")
    body = call.note or _masked(call.body)
    row = dict(
        method=call.method, path=call.path, query=SECRET_WORDS.sub("gc_***", call.request.query_string), status=reply.status,
        ms=round((time.monotonic() - started) * 1000, 2), token=call.token["name"] if call.token else None,
        peer_id=call.token["peer_id"] if call.token else None, address=call.address,
        headers={name: call.headers[name] for name in LOGGED_HEADERS if name in call.headers},
        body=body if len(str(body)) < 4096 else None, fault=fault and fault.kind)
    call.store.log(event, **row)


@web.middleware
async def serve(request, handler):
    """Every request except the stand-in's own administration goes through here."""
    gate, started = request.app["gate"], time.monotonic()
    if request.path.startswith(control.PREFIX):
        return await control.serve(gate, request)
    unresolved = request.match_info.http_exception is not None
    call, reply = Call(gate, request, {}), None
    try:
        call.body = await read_body(request)
    except Refusal as refusal:
        reply = refusal.reply
        if not call.path.startswith("/api/"):
            reply = reply._replace(body=session.page("Error", "<p>Something went wrong</p>"))
    try:
        with gate.store as store:
            fault = request.app["faults"].take(call.method, call.path, store.token_name(sent_token(call)))
            if fault and fault.when == "before":
                reply = Reply(503, {"ok": False, "error": "Fault on demand"})
            elif reply is None:
                reply = answer(call, None if unresolved else await handler(request))
            if fault:
                reply = fault.spoil(reply, request.path_qs)
            write_log(call, reply, started, fault)
    except Exception:
        traceback.print_exc(file=sys.stderr)
        reply, fault = Reply(500, {"error": "Internal server error"}), None
    response = to_response(request, reply)
    if call.new_cookie:
        response.headers["Set-Cookie"] = call.new_cookie
    return await fault.send(request, response) if fault else response


async def _strip_server(_request, response) -> None:
    for name in ("Server",) + (("Content-Type",) if response.status == 304 else ()):
        response.headers.popall(name, None)


def _found(handler):
    """What the router keeps for a handler: a coroutine that names it."""
    async def resolve(_request):
        return handler
    return resolve


def make(gate: Gate) -> web.Application:
    """The web application for one era."""
    app = web.Application(middlewares=[serve], client_max_size=1024**2)
    app["gate"], app["faults"] = gate, Faults()
    app.on_response_prepare.append(_strip_server)
    for method, path, ability, handler in ROUTES:
        if gate.era.has(ability):
            for verb in ("GET", "HEAD") if method == "GET" else (method,):
                for form in sorted({path, path.rstrip("/") + "/"}):
                    app.router.add_route(verb, form, _found(handler))
    return app
