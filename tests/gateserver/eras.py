"""What each release of GateControl can do, as data: which release brought a behaviour, and which one lost it again.

Sources: the vendor's releases 1.5.2 to 1.118.2. Where the exact release of a behaviour is not known, an early one of
those it may have come with stands here (1.6.1: after 1.5.2; 1.51.0: after 1.50.12).
"""
from __future__ import annotations

FIXED = "1.119.0"  # the version of the era "fixed", a later release whose register works

SINCE = {
    "client_scope": "1.6.0",         # the client API needs the scope client; before, peers
    "mtu": "1.6.0",                  # an MTU line, 1420
    "binding": "1.6.1",              # a token belongs to one peer; peer-info, permissions, traffic, services, dns-check
    "tags": "1.6.1",
    "gateways": "1.6.1",             # peer_type; ip_address in the answer to a creation
    "dns_check_names": "1.12.2",     # vpnDns and gatewayIp instead of serverIp
    "users": "1.16.0",               # users, and tokens bound to a peer beforehand
    "own_dns": "1.20.1",             # DNS defaults to the server's tunnel address
    "split_tunnel": "1.24.0",
    "platform_label": "1.29.3",      # "Client", "Desktop Client" or "Android Client" by platform
    "describing_headers": "1.29.5",  # X-Client-Version rewrites the peer's description
    "peer_enabled": "1.33.0",        # the heartbeat's answer tells whether the peer is enabled
    "hostnames": "1.35.0",
    "heartbeat_hostname": "1.39.1",
    "token_fence": "1.50.6",         # tokens cannot list tokens, nor reach the security settings
    "owners": "1.51.0",              # a peer's user_id and owner_name, batch-owner
    "session_ping": "1.51.0",        # GET /api/v1/ping
    "pihole": "1.51.0",              # two more permissions
    "register_broken": "1.50.13",
    "no_adoption": "1.76.2",         # a token never gets a foreign peer; names get -2, -3
    "failures_free": "1.80.2",       # answers of 400 and above are not counted by the API's limiter
    "portal": "1.108.4",             # permissions tell the portal's address
    "update_public": "1.20.9",
}
LAST = {"register_broken": "1.118.2"}

SCOPES = ["read-only", "full-access", "peers", "routes", "settings", "webhooks", "logs", "system", "backup"]
CLIENT_SCOPES = ["client", "client:services", "client:traffic", "client:dns", "client:rdp"]
LATE_SCOPES = ["gateway", "pihole", "pihole:control"]

# The first prefix that fits decides; a path without one is for full-access (and GET for read-only).
CLIENT_PATHS = [
    ("/api/v1/client/services", "client:services"), ("/api/v1/client/traffic", "client:traffic"),
    ("/api/v1/client/dns-check", "client:dns"), ("/api/v1/client/rdp", "client:rdp"), ("/api/v1/client", "client"),
]
ADMIN_PATHS = [
    ("/api/v1/peers", "peers"), ("/api/v1/routes", "routes"), ("/api/v1/settings", "settings"),
    ("/api/v1/webhooks", "webhooks"), ("/api/v1/logs", "logs"), ("/api/v1/system", "system"),
    ("/api/v1/dashboard", "read-only"), ("/api/v1/wg", "system"), ("/api/v1/caddy", "system"),
    ("/api/v1/smtp", "settings"), ("/api/v1/gateway", "gateway"), ("/api/v1/pihole", "pihole"),
]
SESSION_SETTINGS = ("security", "lockout", "dns", "machine-binding", "split-tunnel", "backup", "restore", "metrics",
                    "domains", "password", "profile", "portal")

COMMUNITY = {"vpn_peers": 3, **dict.fromkeys(
    ("api_tokens", "webhooks", "internal_dns", "machine_binding", "custom_dns", "split_tunnel_preset", "remote_desktop"), False)}
UNLIMITED = {**COMMUNITY, "vpn_peers": -1, "api_tokens": True}
PROFILES = {  # licence, API limit of a token, of a session, login limit
    "unlimited": (UNLIMITED, 1000, 10_000, 5),
    "community": (COMMUNITY, 100, 1000, 5),
    "ratelimit5": (UNLIMITED, 5, 50, 5),
}


def _numbers(version: str) -> tuple:
    return tuple(int(part) for part in version.split("."))


class Era:
    """One release. ``has(name)`` answers whether it shows a behaviour of ``SINCE``."""

    def __init__(self, name: str):
        self.name = name
        self.version = FIXED if name == "fixed" else name
        number = _numbers(self.version)
        self._abilities = {
            ability for ability, first in SINCE.items()
            if _numbers(first) <= number <= _numbers(LAST.get(ability, self.version))
        }

    def has(self, ability: str | None) -> bool:
        return ability is None or ability in self._abilities

    @property
    def scopes(self) -> list:
        late = LATE_SCOPES if self.has("owners") else []
        return SCOPES + (CLIENT_SCOPES if self.has("client_scope") else []) + late

    def allows(self, scopes: list, path: str, method: str) -> bool:
        """Whether a token with these scopes may send this request."""
        if "full-access" in scopes or ("read-only" in scopes and method == "GET"):
            return True
        client = CLIENT_PATHS if self.has("client_scope") else [("/api/v1/client", "peers")]
        for prefix, scope in client + ADMIN_PATHS:
            if path.startswith(prefix):
                return scope in scopes
        return False
