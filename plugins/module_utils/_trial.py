# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole life of a peer on a server: every answer is held against what the collection expects, and nothing stays.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import ipaddress
import secrets
import time
from collections.abc import Callable

from . import _agent, _api, _beat, _check, _enrollment, _fleet, _wgconf
from ._points import FAIL, NOT_APPLICABLE, PASS, NotApplicable, Wrong

LIFETIME = 600  # seconds after which the server disables the peer and ends its token, where neither could be deleted
SPARE = 8  # requests that are kept for taking away what was made
TRIES = 2  # of each deletion, a second apart
OTHER_HASH = "0" * 64
FINGERPRINT = _enrollment.digest("a check is no machine")


class Trial:
    """One peer's life. check: a Check that has read; policy: of the hosts, as _options.policy has it."""

    def __init__(self, check: _check.Check, policy: dict | None = None, sleep: Callable[[float], None] = time.sleep):
        self.check, self.points, self.policy, self.sleep = check, check.points, policy or {}, sleep
        self.maker = check.admin or check.peers_api
        self.name = _check.PREFIX + secrets.token_hex(4)
        self.expires = _beat.timestamp(check.tally.now() + (check.offset or check.tally.date or 0) + LIFETIME)
        self.begun = False  # whether a peer may be there
        self.peer = self.token_id = self.config = self.client = None
        self.minted = self.revoked = self.deleted = False
        self.seen: dict = {}  # what the config says of the tunnel, for the hosts' part

    def run(self) -> None:
        """Live through it; whatever comes, also a signal that raises, what was made is taken away and looked for."""
        why = self._not_to_be_tried()
        if why:
            self.points.put("make a peer", NOT_APPLICABLE, f"nothing was written: {why}")
            return
        try:
            self._live()
        finally:
            self._clean()

    def _not_to_be_tried(self) -> str | None:
        if not self.maker:
            return "only the login or a peers token can delete what it makes"
        return next((f"see {name}" for name in ("licence", "rate limit") if self.points.failed(name)), None)

    def _ask(self, name: str, work: Callable):
        """A point of the life, for which there have to be more requests than cleaning up takes."""
        if self.check.tally.left <= SPARE:
            self.points.put(
                name,
                NOT_APPLICABLE,
                f"not asked: the {self.check.tally.most} requests that a check may send are used up",
            )
            return None
        return self.points.ask(name, work)

    # -- from birth to death

    def _live(self) -> None:
        if not self._ask("make a peer", self._make):
            return
        self._ask("peer's config", self._read_config)
        if self.config:
            self.points.ask("policy", self._policy)
        self._ask("mint a token", self._mint)
        if self.client:
            self._client()
        self._ask("disable", self._disable)
        if self.minted:
            self.points.ask("revoke", self._revoke)
        self.points.ask("delete", self._delete)

    def _make(self):
        self.begun = True
        made = self.maker.create_peer(
            self.name, tags=_fleet.EPHEMERAL, expires_at=self.expires, description="made by a check, deleted at its end"
        )
        self.peer = made
        if made["name"] != self.name:
            raise Wrong(f"the new peer is called {_check._shown(made['name'])} instead of {self.name}")
        network = ipaddress.IPv4Network(made["allowedIps"])
        if network.prefixlen != 32:
            raise Wrong(f"the new peer has {network}, and not one address of its own")
        if made.get("expires_at") != self.expires:
            raise Wrong(
                f"the new peer expires at {_check._shown(made.get('expires_at'))} instead of {self.expires}: ephemeral"
                " hosts would not be taken out"
            )
        return f"{self.name}, {network.network_address}, expires in {LIFETIME // 60} minutes"

    def _read_config(self):
        answer = self.maker.peer_config(self.peer["id"])
        return self._usable(answer["config"]), True

    def _usable(self, text: str) -> str:
        """What a config that can be used says. Raises ConfigError, Wrong."""
        config = _wgconf.parse(text, allow_hooks=bool(self.policy.get("allow_hooks")))
        addresses = [str(ipaddress.ip_interface(address).ip) for address in config.interface["Address"]]
        if self.peer["allowedIps"].split("/")[0] not in addresses:
            raise Wrong(f"the config has the address {', '.join(addresses)}, and the peer {self.peer['allowedIps']}")
        if not config.peers or "Endpoint" not in config.peers[0]:
            raise Wrong("the config has no Endpoint, so that no host could reach the gateway; set it on the server")
        self.config = text
        self.seen = {
            "endpoint": config.peers[0]["Endpoint"],
            "allowed_ips": config.peers[0]["AllowedIPs"],
            "dns": config.interface.get("DNS", []),
        }
        return f"usable; endpoint {self.seen['endpoint']}, AllowedIPs {', '.join(self.seen['allowed_ips'])}"

    def _policy(self):
        agent = _agent.Agent(
            _enrollment.Texts({}),
            lambda argv, stdin=None: (127, "", argv[0]),
            platform="linux",
            fingerprint=FINGERPRINT,
        )
        config = _wgconf.parse(agent.rendered(self.config, self.policy), allow_hooks=True)
        self.seen.update(
            allowed_ips=config.peers[0]["AllowedIPs"],
            dns=config.interface.get("DNS", []),
            full=_wgconf.is_full_tunnel(config),
        )
        return (
            "all traffic of a host goes through the tunnel; gatecontrol_allowed_ips narrows it"
            if self.seen["full"]
            else "a host reaches " + ", ".join(self.seen["allowed_ips"])
        )

    def _mint(self):
        check = self.check
        if check.later("1.16.0") is False or not check.admin or not check.user:
            old = check.later("1.6.0") is False
            # What may ask for any peer: a session on every release, each token on the oldest.
            self.client = check.client if old and check.client else check.admin or (check.peers_api if old else None)
            raise NotApplicable(
                "no login was given"
                if not check.admin
                else "this release mints no tokens for a peer"
                if check.later("1.16.0") is False
                else "closed: see users"
            )
        self.minted = True
        token, details = check.admin.mint(check.user, _fleet.token_name(self.name), self.peer["id"], self.expires)
        self.token_id = details["id"]
        if details.get("peer_id") != self.peer["id"]:
            raise Wrong(f"the new token is bound to {details.get('peer_id')} instead of the peer {self.peer['id']}")
        self.client = check.api(token, FINGERPRINT)
        return f"bound to the peer {self.peer['id']}"

    # -- as a host would

    def _client(self) -> None:
        for name, work in (
            ("client config", self._client_config),
            ("unchanged", self._unchanged),
            ("changed", self._changed),
            ("heartbeat", self._heartbeat),
            ("status", self._status),
            ("peer info", self._peer_info),
            ("register", self._register),
        ):
            self._ask(name, work)

    def _client_config(self):
        answer = self.client.config(self.peer["id"])
        if self.config is None:
            self._usable(answer["config"])
        elif answer["config"] != self.config:
            raise Wrong(
                "a host is told another config than the peers API tells; look for what changes answers in between"
            )
        if answer["peerName"] != self.name:
            raise Wrong(f"the config is said to be of {_check._shown(answer['peerName'])}")
        return "as the peers API tells it, and the hash fits"

    def _unchanged(self):
        if self.config is None:
            raise NotApplicable("no config was read")
        if self.client.config_check(self.peer["id"], _enrollment.digest(self.config)) is not None:
            raise Wrong("the server calls a config new that a host has: each beat would change the tunnel")
        return "a host that has the config is told so"

    def _changed(self):
        answer = self.client.config_check(self.peer["id"], OTHER_HASH)
        if answer is None:
            raise Wrong("the server calls a config unchanged that a host does not have: no change would ever arrive")
        if self.config is not None and answer["config"] != self.config:
            raise Wrong("what is offered as the new config is another one; look for what changes answers in between")
        return "a host that has another config is given this one"

    def _beat(self):
        return self.client.heartbeat(self.peer["id"], connected=False, rxBytes=0, txBytes=0, uptime=0)

    def _heartbeat(self):
        enabled = self._beat()
        if enabled is None and self.check.later("1.33.0"):
            raise Wrong("the answer does not tell whether the peer is enabled, and this release should")
        if enabled is False:
            raise Wrong("the new peer is not enabled; look at the licence")
        return "answered" + ("; this release does not tell whether the peer is enabled" if enabled is None else "")

    def _status(self):
        self.client.status(self.peer["id"], "disconnected", _beat.timestamp(self.check.tally.now()))
        return "taken; one line in the activity log"

    def _peer_info(self):
        if self.check.later("1.6.1") is False:
            raise NotApplicable("this release has none (it came with 1.6.1)")
        peer = self.client.peer_info(self.peer["id"])
        for key, wanted in (
            ("id", self.peer["id"]),
            ("name", self.name),
            ("enabled", True),
            ("expiresAt", self.expires),
        ):
            if peer.get(key) != wanted:
                raise Wrong(f"{key} is {_check._shown(peer.get(key))} instead of {wanted}")
        return "as made"

    def _register(self):
        if not self.minted:
            raise NotApplicable("no token was minted that could")
        if _api.register_broken(self.check.version):
            raise NotApplicable("known to be broken in this release, and not tried")
        created, answer = self.client.register(self.name, "linux", _check.KNOWN)
        if created or answer["peerId"] != self.peer["id"]:
            raise Wrong(
                f"the token's own peer was not given back, but {answer['peerId']}: hosts would get a second peer"
            )
        return "works: the token's own peer is given back"

    def _disable(self):
        self.maker.update_peer(self.peer["id"], {"enabled": False})
        if not self.client or self.check.later("1.33.0") is False:
            record = self.maker.peer(self.peer["id"])
            enabled = bool(record["enabled"])
        else:
            enabled = self._beat()
        if enabled is not False:
            raise Wrong("a peer that was disabled is told to be enabled")
        return "a disabled peer is told so"

    # -- nothing stays

    def _revoke(self):
        if self.token_id is None:
            self._find_token()
        if self.token_id is not None:
            self.check.admin.revoke(self.token_id)
            if any(token["id"] == self.token_id for token in self.check.admin.tokens()):
                raise Wrong("a token that was revoked is still listed")
        self.revoked = True
        return "the token is gone"

    def _delete(self):
        if self.peer is None:
            self._find_peer()
        if self.peer is not None:
            self.maker.delete_peer(self.peer["id"])
            try:
                self.maker.peer(self.peer["id"])
            except _api.ApiError as err:
                if err.kind != "not_found":
                    raise
            else:
                raise Wrong("a peer that was deleted is still there")
        self.deleted = True
        return "the peer is gone"

    def _find_peer(self) -> None:
        """The peer of a request whose answer was lost; the list is by age, so it stands behind those of before."""
        behind = self.maker.peers(offset=max(0, (self.check.count or 0) - 1))
        self.peer = next((peer for peer in behind if peer["name"] == self.name), None)

    def _find_token(self) -> None:
        wanted = _fleet.token_name(self.name)
        self.token_id = next((token["id"] for token in self.check.admin.tokens() if token["name"] == wanted), None)

    def _clean(self) -> None:
        """Take away what is still there, and say what could not be."""
        if not self.begun:
            return
        if self.peer is None:
            self.sleep(1)  # what was asked for may be made only now
        for done, needed, work in (("revoked", self.minted, self._revoke), ("deleted", True, self._delete)):
            for number in range(TRIES):
                if getattr(self, done) or not needed:
                    break
                if number:
                    self.sleep(1)
                try:
                    work()
                except (_api.ApiError, Wrong, NotApplicable, AttributeError, KeyError, TypeError, ValueError):
                    self.check.transport.close()
        left = [
            what
            for what, gone in (
                (f"the token {_fleet.token_name(self.name)!r}", self.revoked or not self.minted),
                (f"the peer {self.name}", self.deleted),
            )
            if not gone
        ]
        if left:
            self.points.put(
                "nothing stays",
                FAIL,
                f"{' and '.join(left)} may have stayed; delete it in the web interface (it ends by itself "
                f"in {LIFETIME // 60} minutes)",
            )
        else:
            self.points.put("nothing stays", PASS, "peer and token are gone" if self.minted else "the peer is gone")
