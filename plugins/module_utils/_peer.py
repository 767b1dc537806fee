# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A peer exists: made from the host with its client token, or from the controller through the peers API.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import ipaddress
import os
import platform
import re

from . import _api, _enrollment, _facts, _observe, _verify, _wgconf

GONE = ("unbound", "not_found")  # what a server says of a deleted peer: 404 in the 1.5.2 era, 403 "not bound" later


class PeerError(Exception):
    """The host's peer cannot be settled without a person. One sentence.

    kinds: not_ours other_peer other_server other_interface other_token clone no_secret
    """

    def __init__(self, message, kind, **details):
        super().__init__(message)
        self.kind = kind
        self.failure = dict(details, kind=kind, status=None)


def other_peer(enrolled_as, name):
    """The PeerError of a host that is to be another peer than it is."""
    return PeerError("this host is enrolled as %s, not as %s, and nothing was changed; set gatecontrol_name back, or set gatecontrol_adopt=true to change "
                     "over (the peer %s stays on the server)" % (enrolled_as, name, enrolled_as), "other_peer")


class HostPeer:
    """The peer of the host this runs on.

    api: token -> Api at the wanted URL. url, token (None: use the host's own), name, interface, peer_id (a token bound in advance),
    issued (the config's text where the controller read it: this host gets no token), adopt, move: the options of gatecontrol_peer.
    server: {"version", "timestamp"} of a ping made a moment ago, or None. run: runs commands, as machine_fingerprint takes it. fingerprint,
    system ("name release"): of a host that is not this machine. settled: {"peer_id", "fields"}, what stands for the FIELDS that the controller has
    brought to a peer, or None; kept with the enrollment of that peer.
    """

    def __init__(self, store, api, url, token=None, name=None, interface="wg0", peer_id=None, issued=None, adopt=False, move=False,
                 server=None, run=None, fingerprint=None, system=None, settled=None):
        self.store, self.api, self.url, self.token, self.interface = store, api, url, token, interface
        self.peer_id, self.issued, self.adopt, self.move, self.server, self.settled = peer_id, issued, adopt, move, server, settled or {}
        self.name = name or platform.node()
        self.system = system or "%s %s" % (_facts.client_platform(), platform.release())
        self.record = store.load("enrollment") or {}
        self.fingerprint = fingerprint or _facts.machine_fingerprint(store.root, run)
        self.token_digest = _enrollment.digest(token) if token else None

    def present(self, check_mode=False):
        """Settle it; returns {"changed", "peer": {"id", "name"}, "hash", "created", "adopted", "reporting"}.

        hash: of the server's config, whose text then lies in the store as "offered" or "issued"; None in check mode of a new enrollment.
        Raises ApiError, PeerError.
        """
        record = self.record
        if not record.get("peer_id"):
            return self._enroll(check_mode)
        if record.get("fingerprint") != self.fingerprint and not self.adopt:
            if self.issued is not None and self.peer_id != record["peer_id"] or self.token_digest not in (None, record.get("token_digest")):
                return self._enroll(check_mode)
            raise PeerError("this machine holds the enrollment of %s but has another machine id, so it is a clone of that host; give it a "
                            "token of its own, or set gatecontrol_adopt=true if it is that host with a new machine id"
                            % record["peer_name"], "clone", peer=record["peer_name"])
        if record["interface"] != self.interface:
            raise PeerError("this host is enrolled with the interface %s, not %s; set gatecontrol_interface back, or run with "
                            "gatecontrol_state=absent first" % (record["interface"], self.interface), "other_interface")
        return self._known(check_mode) or self._enroll(check_mode)

    # -- a host with an enrollment

    def _known(self, check_mode):
        """The result where the enrollment still stands; None where the peer is gone or given up: the host is to be enrolled anew."""
        record = self.record
        if self.issued is not None and not self.token:
            if not self._same_server(self.issued):
                self._check_move()
                return None
            if record["peer_id"] == self.peer_id:
                return self._keep(self.issued, check_mode)
            if record["peer_name"] == self.name or self.adopt:  # names are unique: the peer of this name that the host had is gone
                return None
            raise other_peer(record["peer_name"], self.name)
        own = (self.store.text("token") or "").strip()
        token = self.token or own
        if not token and record["reporting"] == "full":
            raise PeerError("the token of this host is gone from %s; give gatecontrol_token, or a secret for the server on the controller"
                            % self.store.path("token"), "no_secret")
        if not token:
            if record.get("hash") and _enrollment.digest(self.store.text("issued") or "") == record["hash"]:
                return self._keep(None, check_mode)  # nobody can ask the server, but what it issued last is here
            raise PeerError("this host has no token of its own (reporting: none) and none was given; give gatecontrol_peers_token, or a "
                            "client token bound to the peer %s" % record["peer_name"], "no_secret")
        try:
            offer = self.api(token).config_check(record["peer_id"], record.get("hash"))
        except _api.ApiError as err:
            moved, foreign = record["url"] != self.url, own != token
            if err.kind not in GONE + ("wrong_peer",) * (moved or foreign) + ("auth", "scope") * moved:
                raise
            if moved:
                self._check_move()
            elif not self.token:
                raise
            else:
                self._check_gone(own, err)
            return None
        text = offer["config"] if offer else None
        if text is not None and not self._same_server(text):
            self._check_move()
        return self._keep(text, check_mode)

    def _same_server(self, text):
        """Whether a config comes from the server this host is enrolled with: same URL, or same public key."""
        keys = {self.record.get("server_public_key"), _server_key(self.store.text("issued") or "")}
        return self.record["url"] == self.url or _server_key(text) in keys - {None}

    def _check_move(self):
        """Raise PeerError unless the host may leave its server."""
        if not self.move:
            raise PeerError("this host is enrolled with another server, %s, and nothing was changed; set gatecontrol_url back, or set "
                            "gatecontrol_move=true to enroll it with %s instead" % (self.record["url"], self.url), "other_server",
                            url=self.record["url"])

    def _check_gone(self, own, err):
        """Raise PeerError unless the host's peer is gone: err may only say that the token given is another peer's, or nobody's yet."""
        if err.kind == "not_found" or self.adopt or own == self.token:
            return
        try:
            if own:
                self.api(own).config_check(self.record["peer_id"], self.record.get("hash"))
        except _api.ApiError as own_err:
            if own_err.kind in GONE:
                return
        raise PeerError("the token given is not bound to this host's peer %s (%s), and a second peer was not made; give a token bound to "
                        "that peer%s, or set gatecontrol_adopt=true to leave that peer behind"
                        % (self.record["peer_name"], err, ", or none (the host has its own)" if own else ""), "other_token")

    def _keep(self, offered, check_mode):
        """The enrollment stands; its URL, token or machine id may be new, and the server may have offered another config."""
        record = dict(self.record, url=self.url, fingerprint=self.fingerprint)
        if self.token:
            record.update(token_digest=self.token_digest, reporting="full")
        if self.settled.get("peer_id") == record["peer_id"]:
            record["fields"] = self.settled["fields"]
        if offered is not None and _server_key(offered):
            record["server_public_key"] = _server_key(offered)
        changed = record != self.record or self.token not in (None, (self.store.text("token") or "").strip())
        if not check_mode:
            if offered is not None:
                self.store.save("offered", offered)
            if changed:
                self._write(record)
            self.store.drop("intent")  # of a run that was cut off after its last write
        return {"changed": changed, "peer": {"id": record["peer_id"], "name": record["peer_name"]}, "created": False, "adopted": False,
                "hash": record.get("hash") if offered is None else _enrollment.digest(offered), "reporting": record["reporting"]}

    # -- a host without

    def _enroll(self, check_mode):
        issued = self.issued is not None and not self.token
        if not issued and not self.token:
            raise PeerError("this host is not enrolled and no secret was given for it; give gatecontrol_token or gatecontrol_peers_token",
                            "no_secret")
        if not self.record.get("peer_id") and not self.adopt and not isinstance(self.store, _enrollment.Texts):
            self._check_interface()
        if not self.peer_id:
            _api.check_name(self.name)
            if self.server:
                self._check_release(self.server)
        if check_mode:
            return {"changed": True, "peer": {"id": self.peer_id, "name": self.name}, "hash": None, "created": not self.peer_id,
                    "adopted": False, "reporting": "none" if issued else "full"}
        created = adopted = False
        if issued:
            answer = {"peerId": self.peer_id, "peerName": self.name, "config": self.issued}
        elif self.peer_id:
            answer = self._bound()
        else:
            created, adopted, answer = self._register()
        record = self._begun(answer["peerId"], answer["peerName"], answer["config"])
        self.store.save("offered", answer["config"])
        self._write(record)
        self.store.drop("intent", "state", *(["token"] if issued else []))
        return {"changed": True, "peer": {"id": record["peer_id"], "name": record["peer_name"]}, "created": created, "adopted": adopted,
                "hash": _enrollment.digest(answer["config"]), "reporting": record["reporting"]}

    def _begun(self, peer_id, peer_name, text):
        """The record of an enrollment that begins; text: the server's config, None where the host is still to ask for it."""
        return {
            "peer_id": peer_id, "peer_name": peer_name, "url": self.url, "interface": self.interface, "fingerprint": self.fingerprint,
            "token_digest": self.token_digest, "reporting": "full" if self.token else "none",
            "server_public_key": _server_key(text) if text is not None else None, "hash": None, "file_hash": None,
            "fields": self.settled["fields"] if self.settled.get("peer_id") == peer_id else None}

    def _bound(self):
        """The config of the peer that the token is bound to, with the peer's number.

        Record and token are written before the request: a host that is killed after it would have nothing to prove that the peer, whose token was used
        by then, is its own.
        """
        before, own = self.record, self.store.text("token")
        self._write(self._begun(self.peer_id, self.name, None))
        try:
            return dict(self.api(self.token).config(self.peer_id), peerId=self.peer_id)
        except _api.ApiError:
            for name, kept in (("enrollment", before), ("token", own)):
                if kept:
                    self.store.save(name, kept)
                else:
                    self.store.drop(name)
            raise

    def _check_interface(self):
        """Raise PeerError where a tunnel of this name is there already, whose key may be kept nowhere else."""
        path = _observe.config_path(self.store, self.interface)
        if os.path.lexists(path) or _observe.present(self.store.root, self.interface):
            raise PeerError("this host has a tunnel %s already that is not of an enrollment (%s), and nothing was changed; set gatecontrol_interface "
                            "to another name, or gatecontrol_adopt=true to have it replaced" % (self.interface, path), "other_interface")

    def _write(self, record):
        if self.token:
            self.store.save("token", self.token + "\n")
        self.store.save("enrollment", record)

    @staticmethod
    def _check_release(server):
        if _api.register_broken(server["version"]):
            raise _api.ApiError("registering with a client token is broken in this server's release %s (it answers 500 and leaves a peer "
                                "behind), so it was not tried; %s" % (server["version"], _api.OTHER_WAYS), "register_broken",
                                version=server["version"])

    def intend(self):
        """Save the intent of a host that may register, and nothing else: for one whose store is in memory, so that the intent lies there before the
        request is sent. present() then takes the store as it was before."""
        if self.token and not self.peer_id and self.issued is None:
            _api.check_name(self.name)
            self._intent(self.api(self.token))

    def _intent(self, api):
        """(intent, whether it was there before this run, server). Raises ApiError for a release that cannot register."""
        server = self.server = self.server or api.ping()
        self._check_release(server)
        intent = {"url": self.url, "token_digest": self.token_digest, "fingerprint": self.fingerprint, "name": self.name}
        before = self.store.load("intent") or {}
        resumed = {key: before.get(key) for key in intent} == intent
        intent["server_time"] = before["server_time"] if resumed else server["timestamp"]
        self.store.save("intent", intent)
        return intent, resumed, server

    def _register(self):
        """(created, adopted, answer). The intent on disk tells a later run which peer is ours."""
        api = self.api(self.token)
        intent, resumed, server = self._intent(api)
        repeats = _api.release(server["version"]) < (1, 6, 1)  # every register makes a new peer there
        if resumed and repeats:
            ours = self._find_ours(api, intent)
            if ours:
                return True, False, ours
        try:
            created, answer = api.register(self.name, self.system, _verify.VERSION)
        except _api.ApiError as err:
            if err.kind != "uncertain":
                if not resumed:
                    self.store.drop("intent")
                elif err.kind == "licence":  # asked before anything else, even where the peer is there
                    raise _api.ApiError("%s; an earlier run may have made the peer %s already: then give its number as gatecontrol_peer_id"
                                        % (err, _api.cleaned_name(self.name)), err.kind, err.status, **err.details)
                raise
            try:
                ours = self._find_ours(api, intent)
                if ours:
                    return True, False, ours
            except (_api.ApiError, PeerError):
                pass
            if err.status == 500:
                advice = "if this happens again, registering is broken in release %s: %s" % (server["version"], _api.OTHER_WAYS)
            else:
                advice = "run the play again: by the intent it left on this host it recognises the peer"
            raise _api.ApiError("%s; %s" % (err, advice), "uncertain", err.status, True, **err.details)
        if created:
            return True, False, answer
        if resumed and self._created_since(api.peer_info(answer["peerId"]).get("createdAt"), intent):
            return True, False, answer
        if not self.adopt:
            if not resumed:
                self.store.drop("intent")
            raise PeerError(
                "the server gave this host the peer %s (id %d), which was there before and may be another machine's, so nothing was "
                "written; set gatecontrol_adopt=true if this is that machine rebuilt, else give this host a token of its own and another "
                "gatecontrol_name (the token given is bound to that peer now: have the administrator revoke it)"
                % (answer["peerName"], answer["peerId"]), "not_ours", peer_id=answer["peerId"], peer_name=answer["peerName"])
        return False, True, answer

    def _find_ours(self, api, intent):
        """The peer that our interrupted register made, None if it made none; for tokens that may list the peers.

        Its name is ours up to the collision suffix, it was made since the intent, and nobody has used it. Raises PeerError where that
        cannot be told.
        """
        name = _api.cleaned_name(self.name)
        pattern = re.compile(re.escape(name) + r"(-\d+)?")
        try:
            found = [peer for peer in api.peers() if pattern.fullmatch(str(peer.get("name"))) and not peer.get("latest_handshake")
                     and self._created_since(peer.get("created_at"), intent)]
        except _api.ApiError as err:
            if err.kind != "scope":
                raise
            why = "this server's release does not tell a client whether the peer was made"
            made = "a peer %s or %s-1 of %s or later" % (name, name, intent["server_time"])
        else:
            if len(found) < 2:
                return dict(api.config(found[0]["id"]), peerId=found[0]["id"], peerName=found[0]["name"]) if found else None
            why, made = "several peers may be its own", ", ".join(peer["name"] for peer in found)
        raise PeerError("an earlier run was cut off while it registered %s, and %s; delete what it made (%s) in the web interface, run "
                        "with gatecontrol_state=absent, then again" % (name, why, made), "not_ours")

    @staticmethod
    def _created_since(created, intent):
        return bool(created) and created.replace("T", " ")[:19] >= intent["server_time"].replace("T", " ")[:19]


def _server_key(text):
    """The server's public key in a config's text, None where it cannot be read."""
    try:
        return _wgconf.parse(text, allow_hooks=True).peers[0]["PublicKey"]
    except _wgconf.ConfigError:
        return None


# ---------------------------------------------------------------- from the controller, through the peers API

# Options of gatecontrol_peer -> (field in the list, field of PUT). What POST does not take is put afterwards.
FIELDS = {
    "description": ("description", "description"),
    "tags": ("tags", "tags"),
    "peer_dns": ("dns", "dns"),
    "peer_keepalive": ("persistent_keepalive", "persistentKeepalive"),
    "expires_at": ("expires_at", "expires_at"),
    "group_id": ("group_id", "group_id"),
}


def wanted_fields(options):
    """The fields of FIELDS that were given, as the server keeps them.

    Raises ApiError (options) for what it would answer with 500 or keep as it is.
    """
    wanted = {key: options[key] for key in FIELDS if options.get(key) is not None}
    if "tags" in wanted:
        wanted["tags"] = ",".join(sorted(tag.strip() for tag in wanted["tags"] if tag.strip()))
    if "peer_dns" in wanted:
        try:
            wanted["peer_dns"] = ",".join(str(ipaddress.IPv4Address(entry.strip())) for entry in wanted["peer_dns"])
        except ValueError as err:
            raise _api.ApiError("peer_dns: %s; give IPv4 addresses, the only ones the server takes" % err, "options")
        if not wanted["peer_dns"]:
            raise _api.ApiError("peer_dns cannot be emptied on the server; override it on the host with gatecontrol_dns", "options")
    if "peer_keepalive" in wanted and not 1 <= wanted["peer_keepalive"] <= 65535:
        raise _api.ApiError("peer_keepalive is not between 1 and 65535 s, and the server ignores 0; to switch it off set "
                            "gatecontrol_persistent_keepalive=0 on the host", "options")
    if len(wanted.get("description") or "") > 255:
        raise _api.ApiError("description has more than the 255 characters the server takes; shorten it", "options")
    if wanted.get("group_id") == 0:
        wanted["group_id"] = None
    if "expires_at" in wanted:
        if wanted["expires_at"] in ("", "never"):
            wanted["expires_at"] = None
        elif not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", wanted["expires_at"]):
            raise _api.ApiError("expires_at %r is not of the form 2026-12-31T23:59:59Z, which the server compares as text; correct it, or "
                                "give never" % wanted["expires_at"], "options")
    return wanted


class ServerPeer:
    """A peer as the peers API sees it: api is an Api with a peers token."""

    def __init__(self, api, name=None, peer_id=None):
        self.api, self.name, self.peer_id = api, name, peer_id

    def find(self):
        """The peer's record, or None. By its id, which must exist; else by its exact name."""
        if self.peer_id:
            return self.api.peer(self.peer_id)
        return self.api.peer_named(_api.check_name(self.name, exact=True))

    def settle(self, state, wanted, check_mode=False):
        """Bring the peer to a state (present, enabled, disabled, absent) and fields (wanted_fields).

        Returns {"changed", "peer": {"id", "name", "enabled", "address" CIDR} or None, "created", "before", "after"}. Raises ApiError.
        """
        try:
            found = self.find()
        except _api.ApiError as err:
            if state != "absent" or err.kind != "not_found":
                raise
            found = None
        if state == "absent":
            if found and not check_mode:
                self.api.delete_peer(found["id"])
            return self._result(bool(found), None, False, self._shown(found), {})
        before, created = self._shown(found), found is None
        if created:
            try:
                found = self._create(wanted, check_mode)
            except _api.ApiError as err:
                found, created = self.find() if err.kind == "name_taken" else None, False  # another run was quicker
                if not found:
                    raise
        changes = {FIELDS[key][1]: value for key, value in wanted.items() if not self._same(key, value, found.get(FIELDS[key][0]))}
        if state != "present" and bool(found.get("enabled", 1)) != (state == "enabled"):
            changes["enabled"] = state == "enabled"
        if changes:
            if not check_mode:
                self.api.update_peer(found["id"], changes)
            found = dict(found, **{FIELDS[key][0]: value for key, value in wanted.items()})
            found["enabled"] = int(changes.get("enabled", found.get("enabled", 1)))
        return self._result(created or bool(changes), found, created, before, self._shown(found))

    def _create(self, wanted, check_mode):
        name = self.name
        fields = {FIELDS[key][1]: value for key, value in wanted.items() if key != "peer_keepalive" and value is not None}
        if check_mode:
            return dict({FIELDS[key][0]: value for key, value in wanted.items()}, id=None, name=name, enabled=1)
        made = self.api.create_peer(name, **fields)
        return dict({FIELDS[key][0]: value for key, value in wanted.items() if key != "peer_keepalive"},
                    id=made["id"], name=made["name"], enabled=1, allowed_ips=made.get("allowedIps"))

    @staticmethod
    def _same(key, value, current):
        if key == "tags":
            return value == ",".join(sorted(tag.strip() for tag in (current or "").split(",") if tag.strip()))
        if key == "peer_dns":
            return value == (current or "").replace(" ", "")
        return (value or None) == (current or None)

    @staticmethod
    def _shown(found):
        if not found:
            return {}
        shown = {key: found.get(column) for key, (column, _put) in FIELDS.items()}
        return dict(shown, name=found["name"], enabled=bool(found.get("enabled", 1)))

    @staticmethod
    def _result(changed, found, created, before, after):
        peer = found and {"id": found["id"], "name": found["name"], "enabled": bool(found.get("enabled", 1)),
                          "address": found.get("allowed_ips")}
        return {"changed": changed, "peer": peer, "created": created, "before": before, "after": after}
