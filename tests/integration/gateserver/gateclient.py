"""A small client to call a running server with, and the marker that plays a test in several eras."""
from __future__ import annotations

import re

import pytest
import requests
from gateserver.running import Server

ERAS = ("1.5.2", "1.50.12", "1.118.2", "fixed")


class Client:
    """One server, called as a host or an administrator calls it."""

    def __init__(self, server: Server, era: str):
        self.server, self.era = server, era
        self.client_scope = "peers" if era == "1.5.2" else "client"
        self._number = 0
        self.admin = server.token("peers")

    def unique(self, prefix: str) -> str:
        """A name that no other test uses."""
        self._number += 1
        return "%s-%d" % (prefix, self._number)

    def host_token(self, peer_id=None) -> str:
        return self.server.token(self.client_scope, name=self.unique("host"), peer_id=peer_id)

    def call(self, method: str, path: str, token: str | None = None, headers: dict | None = None, **more) -> requests.Response:
        """A request; paths without a leading slash are below /api/v1/."""
        url = self.server.url + (path if path.startswith("/") else "/api/v1/" + path)
        headers = dict(headers or {}, **({"X-API-Token": token} if token else {}))
        return requests.request(method, url, headers=headers, timeout=30, allow_redirects=False, **more)

    def get(self, path: str, token: str | None = None, **more) -> requests.Response:
        return self.call("GET", path, token, **more)

    def post(self, path: str, token: str | None = None, body=None, **more) -> requests.Response:
        return self.call("POST", path, token, json={} if body is None else body, **more)

    def put(self, path: str, body: dict) -> requests.Response:
        return self.call("PUT", path, self.admin, json=body)

    def new_peer(self, prefix: str = "peer", **given) -> dict:
        """A peer made by the administrator: the answer's ``peer``."""
        answer = self.post("peers", self.admin, dict({"name": self.unique(prefix)}, **given))
        assert answer.status_code == 201, answer.text
        return answer.json()["peer"]

    def row(self, peer_id: int) -> dict:
        return self.get("peers/%d" % peer_id, self.admin).json()["peer"]

    def named(self, name: str) -> dict | None:
        peers = self.get("peers", self.admin).json()["peers"]
        return next((peer for peer in peers if peer["name"] == name), None)

    def session(self, password: str = "LoopbackTest123!", user: str = "admin") -> Session:
        return Session(self, user, password)


class Session:
    """The administrator, logged in."""

    def __init__(self, client: Client, user: str, password: str):
        self.url, self.http = client.server.url, requests.Session()
        form = re.search(r'name="_csrf" value="([0-9a-f]{128})"', self.http.get(self.url + "/login", timeout=30).text)
        self.login_csrf = form.group(1)
        self.answer = self.http.post(self.url + "/login", timeout=30, allow_redirects=False, data={
            "username": user, "password": password, "_csrf": self.login_csrf})
        script = re.search(r"csrfToken: '([0-9a-f]{128})'", self.http.get(self.url + "/dashboard", timeout=30).text)
        self.csrf = script.group(1) if script else None

    def call(self, method: str, path: str, csrf: str | None = "", **more) -> requests.Response:
        headers = {"X-CSRF-Token": self.csrf if csrf == "" else csrf or ""}
        return self.http.request(method, self.url + "/api/v1/" + path, headers=headers, timeout=30, allow_redirects=False, **more)


def eras(*names: str, but: str | None = None):
    """Plays a test in these eras (default: in all, or in all but one)."""
    return pytest.mark.parametrize("gate", [era for era in names or ERAS if era != but], indirect=True)
