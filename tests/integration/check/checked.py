"""A running server, and checks of it in this process."""
from __future__ import annotations

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _checking, _session

from gateserver.running import ADMIN, Server

ERAS = ("1.5.2", "1.50.12", "1.118.2", "fixed")
LOGIN = dict(zip(("admin_user", "admin_password"), ADMIN.split(":")))


class Checked:
    """A server, and checks of it."""

    def __init__(self, era: str, *arguments: str):
        self.era = era
        self.server = Server("--era", era, "--login-limit", "100000", *arguments)
        self.secrets = {
            "login": LOGIN, "peers": {"peers_token": self.server.token("peers", name="peers")},
            "client": {"token": self.server.token("peers" if era == "1.5.2" else "client", name="client")}}

    def given(self, *names: str, write: bool = True, **options) -> dict:
        """What a check is given: the secrets of these names."""
        secrets = {key: value for name in names for key, value in self.secrets[name].items()}
        return {"options": dict(options, url=self.server.url), "secrets": secrets, "intervals": [60, 300], "policy": {}, "write": write}

    def check(self, *names: str, write: bool = True, **options) -> dict:
        """The report of a check with these secrets, made in this process."""
        report = _checking.report(self.given(*names, write=write, **options))
        assert report["requests"] <= 25 and report["logins"] <= 1
        return report

    def peers(self) -> list:
        """The names of the peers that are there."""
        return [peer["name"] for peer in self.server.ask("peer", action="list")]

    def admin(self) -> _session.Admin:
        """The administrator, logged in."""
        admin = _session.Admin({"url": self.server.url})
        admin.transport.login(**dict(zip(("user", "password"), LOGIN.values())))
        return admin

    def minted(self) -> list:
        """The names of the tokens that checks minted and that are there."""
        return [token["name"] for token in self.admin().tokens() if token["name"].startswith("ansible: ")]

    def revoke_minted(self) -> None:
        """Take them away."""
        admin = self.admin()
        for token in admin.tokens():
            if token["name"].startswith("ansible: "):
                admin.revoke(token["id"])


def outcomes(report: dict) -> dict:
    """{point: outcome}"""
    return {point["name"]: point["outcome"] for point in report["points"]}


def text(report: dict, name: str) -> str:
    """What a point says."""
    return next(point["text"] for point in report["points"] if point["name"] == name)


def failed(report: dict) -> set:
    """The points that failed."""
    return {name for name, outcome in outcomes(report).items() if outcome == "fail"}
