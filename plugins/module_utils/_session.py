# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The administrator's session: login, CSRF, client tokens minted and revoked. For the controller only.

It speaks over _http's transport, so that certificates, proxies and redirects are treated alike.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import re
import urllib.parse

from . import _answers, _api, _http

COOKIE = "gc.sid"
LOGINS = "5 logins in 15 minutes are allowed, successful ones included"


class Session:
    """An administrator's session as a transport for _api.Api: adds the cookie, and the CSRF token to what changes something.

    options: as _http.HttpTransport takes them. state: {"cookie", "csrf"} of an earlier login, or None; keep it in memory only.
    fresh: the state after a login of this object, else None. A state that was given is for no result: Ansible masks there what a no_log option holds.
    """

    def __init__(self, options, state=None):
        self.http = _http.HttpTransport(_http.complete(options))
        self.url = self.http.url
        self.state, self.fresh = {key: value for key, value in (state or {}).items() if isinstance(value, str)}, None

    def login(self, user, password):
        """Log in and return the state. Raises ApiError: auth for a wrong name or password, rate_limited, protocol."""
        page = self._page("GET", "/login")
        csrf = re.search(r'name="_csrf"[^>]*\bvalue="([0-9a-f]+)"', page.text)
        if page.status != 200 or not csrf:
            raise _api.ApiError("the login page of %s was not recognised (%d); check that gatecontrol_url is a GateControl server"
                                % (self.url, page.status), "protocol", page.status)
        form = urllib.parse.urlencode({"username": user, "password": password, "_csrf": csrf.group(1)})
        answer = self._page("POST", "/login", form)
        if answer.status == 429:
            seconds = _http.retry_after(answer.headers)
            raise _api.ApiError("logging in as %s failed: %s; come back in %d s" % (user, LOGINS, seconds), "rate_limited", 429, retry_after=seconds)
        if answer.status != 302 or urllib.parse.urlsplit(answer.headers.get("location", "")).path.rstrip("/").endswith("/login"):
            raise _api.ApiError("logging in as %s failed: the server does not accept this name and password (after 5 failures it locks the name for "
                                "15 minutes); check gatecontrol_admin_user and gatecontrol_admin_password" % user, "auth", answer.status)
        token = re.search(r"csrfToken\W+([0-9a-f]{32,})", self._page("GET", "/dashboard").text)
        if not token:
            raise _api.ApiError("the page after the login to %s has no CSRF token; this release is not known" % self.url, "protocol")
        self.state["csrf"] = token.group(1)
        self.fresh = dict(self.state)
        return self.state

    def _page(self, method, path, form=None):
        headers = {"Accept": "text/html", "Accept-Language": "en"}
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return self._send(method, path, headers, form)

    def _send(self, method, path, headers, body, limit=None):
        if "cookie" in self.state:
            headers = dict(headers, Cookie="%s=%s" % (COOKIE, self.state["cookie"]))
        # Not the transport's request(): the login answers with a redirect that must not be followed but looked at.
        response = self.http.exchange(method, self.http.parts.path + path, headers, body, self.http.deadline(limit))
        if response.cookies.get(COOKIE):
            self.state["cookie"] = response.cookies[COOKIE]
        return response

    def request(self, method, path, headers, body=None, limit=None):
        """One request of _api.Api."""
        if method != "GET":
            headers = dict(headers, **{"X-CSRF-Token": self.state.get("csrf", "")})
        response = self._send(method, path, headers, body, limit)
        if response.status == 302:
            raise _api.ApiError("the administrator's session has ended; log in again", "auth", 302)
        return response


class Admin(_api.Api):
    """The API as the administrator's session sees it: the peers API, and what only a session may do."""

    def __init__(self, options, state=None, **clock):
        super().__init__(options, transport=Session(options, state), **clock)

    def licence(self):
        """The licence's features, such as {"vpn_peers": 3} (-1: unlimited)."""
        what = "reading the licence"
        features = _answers.checked(what, self.call(what, "GET", "/api/v1/license")[1], {"features": "object"}).get("features") or {}
        return {key: value for key, value in features.items() if key != "vpn_peers" or isinstance(value, int) and not isinstance(value, bool)}

    def user_id(self, name):
        """The number of a user by name. Raises ApiError (not_found)."""
        what = "listing the users"
        try:
            answer = self.call(what, "GET", "/api/v1/users")[1]
        except _api.ApiError as err:
            if err.kind != "endpoint_missing":
                raise
            raise _api.ApiError("%s has no users yet (they came with release 1.16.0), so this login cannot mint tokens; give each host a client token made "
                                "in the web interface, or gatecontrol_peers_token without the login" % self.transport.url, err.kind, err.status)
        for user in _answers.listed(what, answer, "users", _answers.USER):
            if user["username"] == name:
                return user["id"]
        raise _api.ApiError("the server has no user %s to mint tokens for; correct gatecontrol_token_user" % name, "not_found")

    def tokens(self):
        """Every API token's details: id, name, peer_id, user_id, scopes, expires_at; never the token itself."""
        what = "listing the tokens"
        return _answers.listed(what, self.call(what, "GET", "/api/v1/tokens")[1], "tokens", _answers.TOKEN)

    def mint(self, user_id, name, peer_id, expires_at=None, scopes=("client",)):
        """A client token bound to a peer in advance: (its text, its details). Releases since 1.16.0; needs no licence feature."""
        body = {"name": name, "scopes": list(scopes), "peer_id": peer_id}
        if expires_at:
            body["expires_at"] = expires_at
        what = "minting a token for peer %s" % peer_id
        answer = self.call(what, "POST", "/api/v1/users/%d/tokens" % user_id, body, repeat=False)[1]
        _answers.checked(what, answer, {"token": "token!", "details": "object!"})
        return answer["token"], _answers.checked(what, answer["details"], _answers.TOKEN)

    def revoke(self, token_id):
        """Delete a token."""
        try:
            self.call("revoking token %s" % token_id, "DELETE", "/api/v1/tokens/%d" % token_id)
        except _api.ApiError as err:
            if err.kind != "not_found":  # as after an answer that was lost
                raise


def administrator(params, options):
    """(An Admin that is logged in, the number of the user whose tokens it mints), by the session given if that is still good.

    params: admin_user, admin_password, session, token_user. options: as _api.Api takes them. Returns (None, None) where no login was given.
    Raises ApiError.
    """
    user = params["token_user"] or params["admin_user"]
    if not params["session"] and not params["admin_password"]:
        return None, None
    if not user or not (params["admin_user"] or params["session"]):
        raise _api.ApiError("an administrator's password needs a name; set admin_user", "options")
    if params["session"]:
        admin = Admin(options, params["session"])
        try:
            return admin, admin.user_id(user)
        except _api.ApiError as err:
            if err.kind != "auth" or not (params["admin_user"] and params["admin_password"]):
                raise
    admin = Admin(options)
    admin.transport.login(params["admin_user"], params["admin_password"])
    return admin, admin.user_id(user)
