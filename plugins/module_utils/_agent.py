# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent does on an enrolled host: a beat, and a change of config with a way back.

The same file runs in the modules and, installed as the package "gatecontrol", in the agent's own units.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import os
import time

from . import _api, _change, _clock, _enrollment, _facts, _observe, _plan, _reach, _services, _verify, _way, _wgconf
from ._facts import AgentError

TIMER = "gatecontrol-beat.timer"
BEAT = "gatecontrol-beat.service"
APPLY = "gatecontrol-apply.service"
RECOVER = "gatecontrol-recover.service"

HANDSHAKE_FRESH = 180  # seconds; the server itself calls a peer online until then
REFUSED_WAIT = (300, 21600)  # seconds before a config that failed is tried again: doubled from the first to the second
UNREACHED = ("network", "proxy", "tls", "redirect", "protocol", "server", "options")  # errors that prove no way to the server
LISTS = ("allowed_ips", "dns", "allow_endpoints", "allow_allowed_ips", "allow_dns")  # of the policy
SILENT_MOST = 86400  # seconds for which a rate limit is believed

# The agent's memory, state.json: times are Unix times, intervals seconds.
NUMBER, TEXT = (int, float), str
MEMORY = {
    "not_before": NUMBER, "last_try": NUMBER, "last_beat": NUMBER, "last_check": NUMBER, "connected_since": NUMBER, "requests": NUMBER,
    "clock": NUMBER, "peer_enabled": bool, "reported": TEXT, "server": {"host": TEXT, "addresses": TEXT}, "error": {"kind": TEXT, "text": TEXT},
    "refused": {"hash": TEXT, "wait": NUMBER, "again": NUMBER, "text": (str, type(None))}}


def timestamp(seconds):
    """ISO-8601 UTC with milliseconds, as the server writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + ".%03dZ" % (seconds % 1 * 1000)


def sound(value, shape):
    """Whether a value read back has the shape it was written with."""
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(sound(value.get(key), kind) for key, kind in shape.items())
    return isinstance(value, shape) and (shape is not NUMBER or 0 <= value < 1e11)


class Agent:
    """One run on one host.

    store: the host's files. run: (argv, stdin=None) -> (rc, out, err). services: the service manager. now, sleep, clock: the time,
    clock as _change takes it. platform, fingerprint: of the host, where that is not this machine.
    """

    def __init__(self, store, run, services=None, now=time.time, sleep=time.sleep, *, clock=time.monotonic, platform=None, fingerprint=None):
        self.store, self.run, self.now, self.sleep, self.clock = store, run, now, sleep, clock
        self.platform = platform or _facts.client_platform()
        self.services = services or _services.kind(store.root)(run, store.root)
        self.host = _facts.Host(store, run, self.services, fingerprint)
        self.settings = store.load("settings") or {}
        self.enrollment = store.load("enrollment") or {}
        self.interface = self.enrollment.get("interface") or self.settings.get("interface") or "wg0"
        self.token = (store.text("token") or "").strip()
        self._api = self._way = None
        self.through = False  # whether requests go through the tunnel, whatever comes of it: what proves it has to

    # -- the host's own affairs

    @property
    def fingerprint(self):
        """What stands for this machine. Raises AgentError as _facts.machine_fingerprint does."""
        return self.host.fingerprint

    def check_identity(self):
        """Raise AgentError where this host has no enrollment, or holds the one of the machine it was cloned from."""
        if not self.enrollment.get("peer_id"):
            raise AgentError("this host is not enrolled; run the play with a secret for it", "not_enrolled")
        if self.enrollment.get("fingerprint") != self.fingerprint:
            raise AgentError("this machine is a clone of the one that enrolled as %s: it stays silent until it is enrolled itself; "
                             "run the play with a secret of its own and gatecontrol_state=absent first" % self.enrollment.get("peer_name"), "clone")

    def api(self, max_wait=None):
        """The server as this host's token sees it; one connection for all requests of a run. Raises ApiError."""
        if self._api is None:
            options = dict({"url": self.enrollment.get("url")}, **dict(self.settings, token=self.token))
            if max_wait is not None:
                options["max_wait"] = max_wait
            self._api = _api.Api(options, {
                "version": _verify.VERSION if self.settings.get("send_version", True) else None,
                "platform": self.platform, "fingerprint": self.enrollment["fingerprint"]}, sleep=self.sleep,
                dial=None if self.through else self.way(options).dial)
        return self._api

    def way(self, options):
        """The way of this host's requests with these connection options."""
        if self._way is None:
            beside = _way.allowed(dict(options, beside_tunnel=self.settings.get("beside_tunnel")))
            kept = self.memory().get("server") if _way.allowed(options) else None  # whoever answers there shows the server's certificate
            self._way = _way.Way(self.run, self.store, self.interface, beside, kept)
        return self._way

    def memory(self):
        """What the last beat left behind; what is damaged counts as forgotten."""
        known = self.store.load("state") or {}
        return {key: known[key] for key, shape in MEMORY.items() if sound(known.get(key), shape)}

    @property
    def reports(self):
        """Whether this host may talk to the server itself."""
        return self.enrollment.get("reporting") == "full"

    def running(self):
        """What runs on the interface, None where there is none."""
        # Asked of the kernel first: a host that is not enrolled may not have wg yet.
        if not _observe.present(self.store.root, self.interface):
            return None
        return _observe.observe(self.run, self.interface, self.store.root, _reach.kept_path(self.store, self.interface))

    def connection(self, running):
        """What the tunnel is like: {"status", "handshake_age", "rx_bytes", "tx_bytes"}.

        status: connected, reconnecting, disconnected or error (no peer); handshake_age in seconds, None where there was none
        or where the clock went back behind it.
        """
        if running is None:
            return {"status": "disconnected", "handshake_age": None, "rx_bytes": 0, "tx_bytes": 0}
        peers = running.peers.values()
        latest = max([peer["handshake"] for peer in peers] or [0])
        age = _clock.age(latest, self.now()) if latest else None
        status = "error" if not peers else "connected" if age is not None and age <= HANDSHAKE_FRESH else "reconnecting"
        return {"status": status, "handshake_age": age,
                "rx_bytes": sum(peer["rx"] for peer in peers), "tx_bytes": sum(peer["tx"] for peer in peers)}

    # -- a beat

    def beat(self, check=True, now=False):
        """Report to the server and ask for a new config when that is due; returns what `show` shows.

        check: whether the config may be asked for; now: even if it is not due, and if an offer was refused before.
        What went wrong with the server or its config stands in the result's "error" ({kind, text}). Raises AgentError, TunnelError, OSError.
        """
        self.check_identity()
        state = self.memory()
        at_once, now = now, self.now()
        if not self.reports or now < state.get("not_before", 0) <= now + SILENT_MOST:
            return self.show(state)
        running = self.running()
        link = self.connection(running)
        connected = link["status"] == "connected"
        state["connected_since"] = min(state.get("connected_since", now), now) if connected else None
        state.update(not_before=0, last_try=now, error=None)
        peer = self.enrollment["peer_id"]
        try:
            # All tries of a beat end before the next beat begins.
            api = self.api(min(self.settings.get("max_wait", 60), max(5, self.settings.get("heartbeat_interval", 60) - 15)))
            end = api.clock() + api.max_wait
            state["peer_enabled"] = api.heartbeat(
                peer, connected=connected, rxBytes=link["rx_bytes"], txBytes=link["tx_bytes"],
                uptime=int(now - state["connected_since"]) if connected else 0, hostname=os.uname().nodename.split(".")[0].lower())
            state.update(last_beat=now, clock=_clock.noted(state, now, _clock.server_time(api.date)))
            state["server"] = self._way and self._way.reached() or state.get("server")
            changing = self.store.load("pending")
            if check and not changing:
                state["error"] = self._follow_names(running, self._way is not None and self._way.went_beside)
            if not state.get("reported"):
                state["reported"] = link["status"]
            elif state["reported"] != link["status"] and not changing:
                api.max_wait = max(0, end - api.clock())
                api.status(peer, link["status"], timestamp(now))
                state["reported"] = link["status"]
            if check and not changing:
                if at_once or not 0 <= now - state.get("last_check", 0) < self.settings.get("sync_interval", 300) - 5:
                    api.max_wait = max(0, end - api.clock())
                    self._check(state, api, at_once)
                unusable = (state.get("refused") or {}).get("text")
                if unusable:
                    state["error"] = {"kind": "config", "text": unusable}
        except _api.ApiError as err:
            state["error"] = {"kind": err.kind, "text": self.explained(err)}
            if check and err.kind in UNREACHED:  # the server may be reached by its own tunnel only
                self._follow_names(running, False)
            if err.kind == "rate_limited":
                state["not_before"] = now + min(err.details["retry_after"], SILENT_MOST)
        state["requests"] = self._api.requests if self._api else 0
        self.store.save("state", state)
        return self.show(state, link)

    def explained(self, err):
        """The text of an ApiError; where the clock is wrong, that is most likely why."""
        clock = _clock.told(self.memory(), self.now()) if err.kind in UNREACHED else None
        return "%s; %s: set it" % (err, clock) if clock else str(err)

    def _follow_names(self, running, dead):
        """Move the endpoints that do not answer and whose names have other addresses by now; the error where that fails, else None.

        dead: whether the tunnel is known to carry nothing, however new its handshake is. WireGuard asks for a name once, when the tunnel starts.
        """
        if running is None or not (dead or any(_plan.is_stale(peer["handshake"], self.now()) for peer in running.peers.values())):
            return None
        config, name = _observe.applied(self.config_path), _observe.real_name(self.store.root, self.interface)
        try:
            resolve = _way.resolver(self.run, self.store, self.interface)
            for key, endpoint in _plan.moved_endpoints(config, running, None if dead else self.now(), resolve) if config else ():
                _observe.command(self.run, ["wg", "set", name, "peer", key, "endpoint", endpoint])
        except _observe.TunnelError as err:
            return {"kind": "tunnel", "text": "the endpoint could not be moved: %s" % err}
        return None

    def _check(self, state, api, at_once):
        """Ask for a new config and start its application, which is a unit of its own: the beat's cannot change the network."""
        offer = api.config_check(self.enrollment["peer_id"], self.enrollment.get("hash"))
        now = state["last_check"] = self.now()
        refused = state.get("refused") or {}
        if offer is None:
            state["refused"] = None
            return
        known = refused.get("hash") == offer["hash"]
        if known and not at_once and 0 < refused["again"] - now <= REFUSED_WAIT[1]:
            return
        wait = min(refused["wait"] * 2, REFUSED_WAIT[1]) if known else REFUSED_WAIT[0]
        # Noted before it is tried: a config that is rolled back comes up here again.
        refused = state["refused"] = {"hash": offer["hash"], "wait": wait, "again": now + wait, "text": None}
        try:
            self.stage(offer["config"])
            self.arm("server", self.enrollment.get("controller"))
            self.services.start_no_block(APPLY)
        except _wgconf.ConfigError as err:
            refused["text"] = "the server's config was refused and the tunnel left as it is: %s" % err
        except (AgentError, _observe.TunnelError, _services.ServiceError) as err:
            refused["text"] = "the server's config was not applied and the tunnel left as it is: %s" % err

    # -- a new config

    def stage(self, offered, policy=None):
        """Turn the server's text into the candidate; returns its text. Raises ConfigError, and nothing is written then.

        policy: options of _options.POLICY, the settings' own unless given.
        """
        text = self.rendered(offered, policy)
        self.wait_idle()
        self.store.save("offered", offered)
        self.store.save("candidate", text)
        return text

    def wait_idle(self):
        """Wait until no change is under way, so that its candidate is not replaced; one that died is left to whoever arms next."""
        end = self.clock() + 120
        while self.clock() < min(end, (self.store.load("pending") or {}).get("deadline", 0) + 30):
            self.sleep(0.5)

    def rendered(self, offered, policy=None):
        """The file that belongs to a server's text under a local policy. Raises ConfigError."""
        policy = self.settings.get("policy") or {} if policy is None else policy
        # Ansible lets a list be given as "a,b", and the role hands it on as it was given.
        policy = {key: [entry.strip() for entry in value.split(",") if entry.strip()] if key in LISTS and isinstance(value, str) else value
                  for key, value in policy.items()}
        config = _wgconf.parse(offered, allow_hooks=bool(policy.get("allow_hooks")))
        config = _wgconf.override(config, **{key: policy.get(key) for key in (
            "allowed_ips", "dns", "mtu", "table", "fwmark", "listen_port", "persistent_keepalive")})
        bounds = {"endpoints": "allow_endpoints", "allowed_ips": "allow_allowed_ips", "dns": "allow_dns"}
        _wgconf.check_policy(config, **{key: policy.get(option) for key, option in bounds.items()})
        return _wgconf.render(_wgconf.for_windows(config, policy.get("kill_switch")) if self.platform == "windows" else config)

    def reachability(self, text, ssh_connection):
        """What a config's text would do to a controller's connection (_reach.reachability); nothing is kept where nothing is to be kept reachable.

        A path that is kept already stays where this connection cannot tell whether it is needed: there is none, or it runs through the tunnel.
        """
        config, root = _wgconf.parse(text, allow_hooks=True), self.store.root
        if _services.system(root) == "macos":
            reach = _reach.reachability_on_mac(self.run, config, _observe.real_name(root, self.interface), ssh_connection)
        else:
            reach = _reach.reachability(self.run, config, self.interface, ssh_connection)
        if not self.settings.get("keep_reachable", True):
            reach.update(kept=None, reason=None)
        elif not ssh_connection or reach["through"]:
            reach["kept"] = _reach.kept_path(self.store, self.interface)
        return reach

    def arm(self, confirm_by, ssh_connection, timeout=None):
        """Arm the candidate; returns the change's id. Raises AgentError where the controller at ssh_connection could not be kept reachable."""
        text = self.store.text("candidate") or ""
        reach = self.reachability(text, ssh_connection)
        if reach["reason"] and not reach["through"]:
            raise AgentError("the new config would cut the controller off, so nothing was changed: %s; narrow gatecontrol_allowed_ips, or set "
                             "gatecontrol_keep_reachable=false" % reach["reason"], "lockout")
        change = _change.arm(self.store, self.interface, confirm_by=confirm_by, timeout=timeout or self.settings.get("confirm_timeout", 40),
                             kept=reach["kept"], clock=self.clock)
        # A play may fetch a newer one while this is applied.
        self.store.save("pending", dict(self.store.load("pending"), offered=_enrollment.digest(self.store.text("offered") or "")))
        return change

    def prove(self):
        """None where the server answers this host over what runs now, else the reason. The beat is sent: it is the enrollment's first one.

        A refusal is an answer too: whatever it says of the token or of a rate limit, the way to the server is open.
        """
        if not self.reports:
            return None
        pending = self.store.load("pending") or {}
        left = max(2, int(pending.get("deadline", 0) - self.clock()) - 1)
        self.settings = dict(self.settings, max_wait=left, timeout=min(left, self.settings.get("timeout") or 15))
        self.through = True
        self.store.save("state", dict(self.memory(), not_before=0))  # a rate limit of before must not stand in for an answer
        shown = self.beat(check=False)
        return shown["error"]["text"] if shown["error"] and shown["error"]["kind"] in UNREACHED else None

    def accept(self):
        """Record the config that was proven: what the server issued and what was written."""
        offered, armed = self.store.text("offered"), self.store.load("pending") or {}
        if offered is None or not self.enrollment.get("peer_id"):
            return
        self.note(file_hash=_enrollment.digest(_enrollment.read_text(self.config_path) or ""))
        if self.platform == "windows":  # whose agent cannot render a config to compare, and so keeps what it was made with
            self.note(settings=_enrollment.digest(self.store.text("settings") or ""))
        if armed.get("offered") in (None, _enrollment.digest(offered)):
            self.store.save("issued", offered)
            self.note(hash=_enrollment.digest(offered))
            self.store.drop("offered")

    def note(self, **values):
        """Put values into the enrollment, as it is on the disk now."""
        self.enrollment = dict(self.store.load("enrollment") or {}, **values)
        self.store.save("enrollment", self.enrollment)

    @property
    def config_path(self):
        """Where the config of the interface lies."""
        return _observe.config_path(self.store, self.interface)

    def apply(self):
        """The work of the apply unit: take the armed step, prove it, wait for its confirmation, else go back; returns the verdict."""
        return _change.run_armed(self.run, self.services, self.store, prove=self.prove, accept=self.accept, sleep=self.sleep, clock=self.clock)

    # -- what it is like

    def show(self, state=None, link=None):
        """The host's state for a person or a program; reads, asks nobody."""
        state = self.memory() if state is None else state
        link = link or self.connection(self.running())
        shown = {key: self.enrollment.get(key) for key in ("peer_id", "peer_name", "url", "interface", "reporting", "hash")}
        shown.update(link, enrolled=bool(self.enrollment.get("peer_id")), version=_verify.VERSION)
        for key in ("peer_enabled", "last_beat", "last_try", "last_check", "not_before", "error", "refused", "requests"):
            shown[key] = state.get(key)
        shown["clock_behind"] = _clock.behind(state, self.now())
        shown["verdict"] = self.store.load("verdict")
        shown["pending"] = self.store.load("pending") is not None
        return shown
