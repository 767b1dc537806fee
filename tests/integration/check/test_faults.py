"""Each fault of the embedded server, and each of its settings that a host would not get on with, is found by a check, and nothing stays."""
from __future__ import annotations

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _http
from checked import failed, text

from gateserver.kinds import CONFIG_SPOILERS, KINDS

CLIENT, PEERS = "/api/v1/client/", "/api/v1/peers"
USERS, TOKENS, LICENCE = "/api/v1/users", "/api/v1/tokens", "/api/v1/license"


def on(kind: str, path: str, method: str = "*", **how) -> dict:
    return dict(how, kind=kind, path=path, method=method)


# name -> (a fault, the point that finds it)
FAULTS = {
    # the way to the server
    "drop-all": (on("drop", "*"), "server"),
    "drop-login": (on("drop", "/login", "POST"), "login"),
    "html-login": (on("html", "/login", "GET"), "login"),
    "html-ping": (on("html", CLIENT + "ping"), "release"),
    "redirect-all": (on("redirect", "*", url="http://127.0.0.1:9"), "login"),
    "redirect-ping": (on("redirect", CLIENT + "ping", url="http://127.0.0.1:9"), "release"),
    "redirect-create": (on("redirect", PEERS, "POST", url="http://127.0.0.1:9"), "make a peer"),
    "delay": (on("delay", CLIENT + "heartbeat", seconds=3.2, count=1), "speed"),
    "drip": (on("drip", LICENCE, seconds=0.015), "speed"),
    "login-503": (on("status", "/login", "GET", status=503), "login"),
    "dashboard-500": (on("status", "/dashboard", status=500), "login"),
    # what it says of itself
    "ping-503": (on("status", CLIENT + "ping", status=503), "release"),
    "ping-cut": (on("cut", CLIENT + "ping", count=1), "release"),
    "ping-without-version": (on("set", CLIENT + "ping", text='{"version": null}'), "release"),
    "ping-odd-version": (on("set", CLIENT + "ping", text='{"version": "unknown"}'), "release"),
    "ping-version-no-text": (on("set", CLIENT + "ping", text='{"version": 5}'), "release"),
    "ping-odd-time": (on("set", CLIENT + "ping", text='{"timestamp": "yesterday"}'), "release"),
    "clock-behind": (on("set", CLIENT + "ping", text='{"timestamp": "2026-01-01T00:00:00.000Z"}'), "clock"),
    "clock-ahead": (on("set", CLIENT + "ping", text='{"timestamp": "2031-01-01T00:00:00.000Z"}'), "clock"),
    "licence-invalid-json": (on("invalid-json", LICENCE), "licence"),
    "licence-without-peers": (on("set", LICENCE, text='{"features.vpn_peers": null}'), "licence"),
    "licence-odd": (on("set", LICENCE, text='{"features": "all"}'), "licence"),
    "licence-403": (on("status", LICENCE, status=403), "licence"),
    "users-500": (on("status", USERS, status=500), "users"),
    "users-none": (on("set", USERS, text='{"users": []}'), "users"),
    "users-odd": (on("set", USERS, text='{"users": "admin"}'), "users"),
    "users-without-id": (on("set", USERS, text='{"users": [{"username": "admin"}]}'), "users"),
    "peers-list-403": (on("status", PEERS, "GET", status=403, text="Token does not have permission for this resource"), "peers"),
    "peers-list-odd": (on("set", PEERS, "GET", text='{"peers": {}}'), "peers"),
    "peers-list-nameless": (on("set", PEERS, "GET", text='{"peers": [{"id": 1}]}'), "peers"),
    "peers-list-429": (on("status", PEERS, "GET", status=429, retry_after=7), "peers"),
    # the life of a peer
    "create-500": (on("status", PEERS, "POST", status=500), "make a peer"),
    "create-500-after": (on("status", PEERS, "POST", status=500, when="after"), "make a peer"),
    "create-404-after": (on("status", PEERS, "POST", status=404, when="after"), "make a peer"),
    "create-drop": (on("drop", PEERS, "POST"), "make a peer"),
    "create-drop-after": (on("drop", PEERS, "POST", when="after"), "make a peer"),
    "create-cut": (on("cut", PEERS, "POST"), "make a peer"),
    "create-invalid-json": (on("invalid-json", PEERS, "POST", when="after"), "make a peer"),
    "create-html": (on("html", PEERS, "POST", when="after"), "make a peer"),
    "create-no-licence": (on("status", PEERS, "POST", status=403, text="Feature not licensed"), "make a peer"),
    "create-without-id": (on("set", PEERS, "POST", text='{"peer.id": null}'), "make a peer"),
    "create-id-text": (on("set", PEERS, "POST", text='{"peer.id": "7"}'), "make a peer"),
    "create-another-name": (on("set", PEERS, "POST", text='{"peer.name": "web01"}'), "make a peer"),
    "create-a-network": (on("set", PEERS, "POST", text='{"peer.allowedIps": "10.8.0.0/24"}'), "make a peer"),
    "create-no-address": (on("set", PEERS, "POST", text='{"peer.allowedIps": "none"}'), "make a peer"),
    "create-no-expiry": (on("set", PEERS, "POST", text='{"peer.expires_at": null}'), "make a peer"),
    "create-lie": (on("lie", PEERS, "POST"), "make a peer"),
    "config-500": (on("status", PEERS + "/*/config", status=500), "peer's config"),
    "config-cut": (on("cut", PEERS + "/*/config"), "peer's config"),
    "config-missing": (on("set", PEERS + "/*/config", text='{"config": null}'), "peer's config"),
    "config-hooks": (on("config", PEERS + "/*/config", how="hooks"), "peer's config"),
    "config-placeholder": (on("config", PEERS + "/*/config", how="placeholder"), "peer's config"),
    "config-private-placeholder": (on("config", PEERS + "/*/config", how="private-placeholder"), "peer's config"),
    "config-crlf": (on("config", PEERS + "/*/config", how="crlf"), "peer's config"),
    "config-unknown-key": (on("config", PEERS + "/*/config", how="unknown-key"), "peer's config"),
    "config-save-config": (on("config", PEERS + "/*/config", how="save-config"), "peer's config"),
    "config-second-interface": (on("config", PEERS + "/*/config", how="second-interface"), "peer's config"),
    "config-short-key": (on("config", PEERS + "/*/config", how="short-key"), "peer's config"),
    "config-short-private-key": (on("config", PEERS + "/*/config", how="short-private-key"), "peer's config"),
    "config-short-preshared-key": (on("config", PEERS + "/*/config", how="short-preshared-key"), "peer's config"),
    "config-empty": (on("config", PEERS + "/*/config", how="empty"), "peer's config"),
    "mint-500": (on("status", USERS + "/*/tokens", "POST", status=500), "mint a token"),
    "mint-500-after": (on("status", USERS + "/*/tokens", "POST", status=500, when="after"), "mint a token"),
    "mint-without-token": (on("set", USERS + "/*/tokens", "POST", text='{"token": null}'), "mint a token"),
    "mint-unbound": (on("set", USERS + "/*/tokens", "POST", text='{"details.peer_id": null}'), "mint a token"),
    "client-config-hash": (on("wrong-hash", CLIENT + "config"), "client config"),
    "client-config-hooks": (on("config", CLIENT + "config", how="hooks"), "client config"),
    "client-config-401": (on("status", CLIENT + "config", status=401), "client config"),
    "client-config-other-peer": (on("set", CLIENT + "config", text='{"peerName": "web01"}'), "client config"),
    "check-always-new": (on("set", CLIENT + "config/check", text='{"updated": true}'), "unchanged"),
    "check-never-new": (on("lie", CLIENT + "config/check", text='{"updated": false}'), "changed"),
    "check-hash": (on("wrong-hash", CLIENT + "config/check"), "changed"),
    "check-another": (on("config", CLIENT + "config/check", how="hooks"), "changed"),
    "check-503": (on("status", CLIENT + "config/check", status=503), "unchanged"),
    "heartbeat-500": (on("status", CLIENT + "heartbeat", status=500), "heartbeat"),
    "heartbeat-disabled": (on("set", CLIENT + "heartbeat", text='{"peerEnabled": false}'), "heartbeat"),
    "heartbeat-says-nothing": (on("set", CLIENT + "heartbeat", text='{"peerEnabled": null}'), "heartbeat"),
    "heartbeat-429": (on("status", CLIENT + "heartbeat", status=429, retry_after=60), "heartbeat"),
    "status-500": (on("status", CLIENT + "status", status=500), "status"),
    "peer-info-other": (on("set", CLIENT + "peer-info", text='{"peer.id": 1000}'), "peer info"),
    "peer-info-disabled": (on("set", CLIENT + "peer-info", text='{"peer.enabled": false}'), "peer info"),
    "peer-info-missing": (on("set", CLIENT + "peer-info", text='{"peer": null}'), "peer info"),
    "peer-info-404": (on("status", CLIENT + "peer-info", status=404), "peer info"),
    "disable-500": (on("status", PEERS + "/*", "PUT", status=500), "disable"),
    "disable-lie": (on("lie", PEERS + "/*", "PUT"), "disable"),
    "revoke-500-once": (on("status", TOKENS + "/*", "DELETE", status=500, count=1), "revoke"),
    "revoke-drop-after": (on("drop", TOKENS + "/*", "DELETE", when="after", count=1), "revoke"),
    "revoke-lie-once": (on("lie", TOKENS + "/*", "DELETE", count=1), "revoke"),
    "tokens-500-once": (on("status", TOKENS, "GET", status=500, count=1), "revoke"),
    "delete-500-once": (on("status", PEERS + "/*", "DELETE", status=500, count=1), "delete"),
    "delete-drop-after": (on("drop", PEERS + "/*", "DELETE", when="after", count=1), "delete"),
    "delete-lie-once": (on("lie", PEERS + "/*", "DELETE", count=1), "delete"),
    "delete-409": (on("status", PEERS + "/*", "DELETE", status=409, count=1), "delete"),
}
# name -> (settings of the server, the point that finds it)
SETTINGS = {
    "no-server-key": ({"server_key": "none"}, "peer's config"),
    "no-room": ({"licence.vpn_peers": 0}, "licence"),
    "few-requests-of-the-login": ({"session_limit": 9}, "rate limit"),
    "few-requests-of-a-token": ({"api_limit": 5}, "rate limit"),
    "no-network": ({"allowed_ips": "10.8.0.0/33"}, "peer's config"),
    "hook-in-dns": ({"dns": "10.8.0.1\nPostUp = touch /tmp/gatecontrol-hook-ran"}, "peer's config"),
    "no-login-left": ({"login_limit": 1}, "login"),
}


def test_there_are_enough_faults():
    kinds = {fault["kind"] for fault, _point in FAULTS.values()}
    hows = {fault["how"] for fault, _point in FAULTS.values() if "how" in fault}
    assert kinds == set(KINDS) and hows == set(CONFIG_SPOILERS) and len(FAULTS) + len(SETTINGS) >= 40


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found_and_nothing_stays(server, name):
    fault, point = FAULTS[name]
    server.server.fault(**fault)
    report = server.check("login", timeout=15)
    assert point in failed(report), report["points"]
    assert "Traceback" not in text(report, point) and "\n" not in text(report, point) and not report["ok"]
    server.server.no_faults()
    assert "nothing stays" not in failed(report) and server.peers() == [] and server.minted() == []


def test_a_licence_without_a_number_of_peers_is_told_in_a_sentence(server):
    server.server.fault(**FAULTS["licence-without-peers"][0])
    assert text(server.check("login", write=False), "licence").startswith("the licence's number of peers is no number; ")


def test_a_date_that_is_none_stops_no_check(server, monkeypatch):
    exchange = _http.HttpTransport.exchange

    def dated(self, *given):
        response = exchange(self, *given)
        response.headers["date"] = "Mon, 01 Jan 99999 00:00:00 GMT"
        return response
    monkeypatch.setattr(_http.HttpTransport, "exchange", dated)
    report = server.check("login")
    assert report["ok"] and server.peers() == [] and server.minted() == []


@pytest.mark.parametrize("name", SETTINGS)
def test_setting_is_found_and_nothing_stays(server, name):
    values, point = SETTINGS[name]
    server.server.ask("settings", values=values)
    server.server.ask("reset")
    if name == "no-login-left":
        server.check("login", write=False)
    report = server.check("login", *(["client"] if "token" in name else []))
    assert point in failed(report), report["points"]
    server.server.ask("settings", values={"login_limit": 1000, "session_limit": 1000})
    server.server.ask("reset")
    assert server.peers() == [] and server.minted() == []


@pytest.mark.parametrize("kind", ["token", "peer", "both"])
def test_what_cannot_be_taken_away_is_named(server, kind):
    for what, path in (("token", TOKENS + "/*"), ("peer", PEERS + "/*")):
        if kind in (what, "both"):
            server.server.fault("status", path=path, method="DELETE", status=500)
    report = server.check("login")
    said = text(report, "nothing stays")
    assert "nothing stays" in failed(report) and ("the token 'ansible: gatecontrol-check-" in said) == (kind != "peer")
    assert ("the peer gatecontrol-check-" in said) == (kind != "token") and "web interface" in said
    server.server.no_faults()
    server.revoke_minted()
