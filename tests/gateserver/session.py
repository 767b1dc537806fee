"""The administrator's login: pages, cookie, CSRF token, lockout."""
from __future__ import annotations

import hmac
import html
import secrets
import time
import urllib.parse

from core import Refusal, Reply, is_loopback, ok, route

LIFE = 24 * 3600
COOKIE = "gc.sid"
PAGES = ("/dashboard", "/peers", "/users", "/settings", "/logs", "/profile")


def page(title: str, content: str) -> str:
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>%s</title></head>\n<body>%s</body></html>\n'
            % (html.escape(title), content))


def find(call) -> None:
    """Puts the session the cookie names, and its user if logged in, into the call."""
    sid = urllib.parse.unquote(call.request.cookies.get(COOKIE, "")).removeprefix("s:").split(".")[0]
    row = sid and call.store.one("SELECT * FROM sessions WHERE id = ? AND expires > ?", sid, time.time())
    if row:
        call.session = row
        if row["user_id"]:
            call.user = call.store.one("SELECT * FROM users WHERE id = ?", row["user_id"])


def start(call, user_id: int | None) -> None:
    """Begins a session with a CSRF token of its own; the one before, if any, ends."""
    if call.session:
        call.store.run("DELETE FROM sessions WHERE id = ?", call.session["id"])
    sid = secrets.token_urlsafe(24)
    call.store.run("INSERT INTO sessions VALUES (?, ?, ?, ?)", sid, user_id, secrets.token_hex(64), time.time() + LIFE)
    call.session = call.store.one("SELECT * FROM sessions WHERE id = ?", sid)
    expires = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + LIFE))
    call.new_cookie = "%s=%s; Path=/; Expires=%s; HttpOnly;%s SameSite=Strict" % (
        COOKIE, urllib.parse.quote("s:%s.%s" % (sid, secrets.token_urlsafe(32)), safe=""), expires,
        " Secure;" if call.gate.secure else "")


def check_csrf(call) -> None:
    """Refuses a request without the session's CSRF token, in the body as _csrf or in X-CSRF-Token."""
    shown = call.field("_csrf") or call.headers.get("X-CSRF-Token") or ""
    if not (call.session and hmac.compare_digest(str(shown).encode(), call.session["csrf"].encode())):
        if call.path.startswith("/api/"):
            raise Refusal(Reply(403, {"error": "Invalid CSRF token"}))
        raise Refusal(Reply(403, page("Forbidden", "<p>Invalid security token. Please refresh and try again.</p>")))


def redirect(to: str) -> Reply:
    return Reply(302, "Found. Redirecting to " + to, {"Location": to, "Content-Type": "text/plain; charset=utf-8"})


@route("GET", "/login")
def login_page(call):
    if call.user:
        return redirect("/")
    if not call.session:
        start(call, None)
    return Reply(200, page("Login", (
        '<form method="post" action="/login"><input type="hidden" name="_csrf" value="%s">'
        '<input name="username"><input name="password" type="password"><button>Login</button></form>') % call.session["csrf"]))


@route("POST", "/login")
def login(call):
    if call.user:
        return redirect("/")
    allowed, call.rate_headers = call.gate.login_limiter.hit(call.address, call.gate.login_limit)
    if not allowed:
        return Reply(429, {"error": call.t("rate_limit.login")})
    check_csrf(call)
    name, password = str(call.field("username") or ""), str(call.field("password") or "")
    failures = call.gate.lockouts.setdefault(name, [])
    failures[:] = [moment for moment in failures if moment > time.time() - 900]
    user = call.store.is_admin(name, password) if name and password and len(failures) < 5 else None
    call.note = {"username": name, "accepted": user is not None}
    if user is None:
        failures.append(time.time())
        return redirect("/login")
    failures.clear()
    start(call, user["id"])
    call.store.run("UPDATE users SET last_login_at = datetime('now') WHERE id = ?", user["id"])
    return redirect("/dashboard")


@route("POST", "/logout")
def logout(call):
    if not call.user:
        return redirect("/login")
    check_csrf(call)
    call.store.run("DELETE FROM sessions WHERE id = ?", call.session["id"])
    return redirect("/login")


@route("GET", "/")
def root(call):
    return redirect("/dashboard" if call.user else "/login")


def _page(call) -> Reply:
    if not call.user:
        return redirect("/login")
    return Reply(200, page("GateControl", "<script>window.GC = { csrfToken: '%s' };</script>" % call.session["csrf"]))


for _path in PAGES:
    route("GET", _path)(_page)


@route("GET", "/health")
def health(call):
    detail = {}
    if call.user or is_loopback(call.address):
        detail = {"version": call.era.version, "uptime": int(time.time() - call.gate.started), "db": True,
                  "wireguard": True, "caddy": True}
    return ok(**detail)
