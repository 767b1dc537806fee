# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent does on an enrolled host: a beat, and a change of config with a way back.

The same file runs in the modules and, installed as the package "gatecontrol", in the agent's own units.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import contextlib
import time

from . import _api, _beat, _change, _clock, _enrollment, _facts, _lock, _observe, _pace, _plan, _reach, _repair, _run, _services, _verify, _way, _wgconf
from ._facts import AgentError

TIMER = "gatecontrol-beat.timer"
BEAT = "gatecontrol-beat.service"
APPLY = _change.APPLY
RECOVER = "gatecontrol-recover.service"

HANDSHAKE_FRESH = 180  # seconds; the server itself calls a peer online until then
LISTS = ("allowed_ips", "dns", "allow_endpoints", "allow_allowed_ips", "allow_dns")  # of the policy

# The agent's memory, state.json: times are Unix times, intervals seconds.
NUMBER, TEXT = (int, float), str
MEMORY = {
    "failures": NUMBER, "not_before": NUMBER, "last_try": NUMBER, "last_beat": NUMBER, "last_check": NUMBER, "connected_since": NUMBER, "requests": NUMBER,
    "clock": NUMBER, "peer_enabled": bool, "reported": TEXT, "server": {"host": TEXT, "addresses": TEXT}, "error": {"kind": TEXT, "text": TEXT},
    "refused": {"hash": TEXT, "wait": NUMBER, "again": NUMBER, "text": (str, type(None))}}


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
        """What the tunnel is like: {"status", "handshake_age", "rx_bytes", "tx_bytes", "beside_tunnel"}.

        status: connected, reconnecting, disconnected or error (no peer); handshake_age in seconds, None where there was none
        or where the clock went back behind it; beside_tunnel: sentences that say why packets pass beside the tunnel, None where that
        cannot be told.
        """
        beside = _repair.beside(self, running)
        if running is None:
            return {"status": "disconnected", "handshake_age": None, "rx_bytes": 0, "tx_bytes": 0, "beside_tunnel": beside}
        peers = running.peers.values()
        latest = max([peer["handshake"] for peer in peers] or [0])
        age = _clock.age(latest, self.now()) if latest else None
        status = "error" if not peers else "connected" if age is not None and age <= HANDSHAKE_FRESH else "reconnecting"
        return {"status": status, "handshake_age": age, "beside_tunnel": beside,
                "rx_bytes": sum(peer["rx"] for peer in peers), "tx_bytes": sum(peer["tx"] for peer in peers)}

    def beat(self, check=True, now=False):
        """Report to the server and ask for a new config when that is due; returns what `show` shows.

        check: whether the config may be asked for; now: even if it is not due, and if an offer was refused before.
        What went wrong with the server or its config stands in the result's "error" ({kind, text}). Raises AgentError, TunnelError, OSError.
        """
        self.check_identity()
        _beat.heal(self)
        state = self.memory()
        if not self.reports:
            return self.show(state)
        running = self.running()
        link = self.connection(running)
        _beat.mend(self, running)
        if _beat.silenced(state, self.now()):
            return self.show(state, link)
        _beat.report(self, state, running, link, check, now)
        _beat.remember(self, state)
        return self.show(state, link)

    def server_addresses(self):
        """Where requests of this run have reached the server, {"host", "addresses"}; None where that is not known."""
        return self._way and self._way.reached()

    @property
    def went_beside(self):
        """Whether a request of this run left beside the tunnel, which did not carry it."""
        return self._way is not None and self._way.went_beside

    @property
    def requests(self):
        """How many requests this run has sent."""
        return self._api.requests if self._api else 0

    # -- a new config

    def lock(self, limit=_lock.PATIENCE, make=True):
        """Hold the host's lock, as _lock.held does."""
        return _lock.held(self.store, limit, self.sleep, self.clock, make)

    @contextlib.contextmanager
    def alone(self, limit=_lock.PATIENCE, make=True):
        """Hold the host's lock while no change is under way. One that is, is waited for; one that was interrupted is ended first.

        limit: seconds to wait. make: as _lock.held takes it. Raises Busy, Underway, and what a way back raises.
        """
        end = self.clock() + limit
        while True:
            with self.lock(max(0, end - self.clock()), make):
                found = _change.state_of(self.store, self.clock) if not isinstance(self.store, _enrollment.Texts) else None
                if found == "interrupted":
                    _change.recover(self.run, self.services, self.store, live=True, accept=self.accept, sleep=self.sleep, clock=self.clock)
                if found != "starting":
                    self.enrollment = self.store.load("enrollment") or {}  # as whoever was waited for has left it
                    yield
                    return
            if self.clock() >= end:
                raise _change.Underway("a change of %s was armed and has not ended within %d s; try again in a minute" % (self.interface, limit))
            self.sleep(0.5)

    def stage(self, offered, policy=None):
        """Turn the server's text into the candidate; returns its text. Raises ConfigError, and nothing is written then.

        policy: options of _options.POLICY, the settings' own unless given.
        """
        text = self.rendered(offered, policy)
        with self.alone():
            self.store.save("offered", offered)
            self.store.save("candidate", text)
        return text

    def rendered(self, offered, policy=None, ipv6=None):
        """The file that belongs to a server's text under a local policy. Raises ConfigError.

        ipv6: whether the host has IPv6, None: as it is now; where it has none, what needs it is left out.
        """
        policy = self.settings.get("policy") or {} if policy is None else policy
        # Ansible lets a list be given as "a,b", and the role hands it on as it was given.
        policy = {key: [entry.strip() for entry in value.split(",") if entry.strip()] if key in LISTS and isinstance(value, str) else value
                  for key, value in policy.items()}
        config = _wgconf.parse(offered, allow_hooks=bool(policy.get("allow_hooks")))
        config = _wgconf.override(config, **{key: policy.get(key) for key in (
            "allowed_ips", "dns", "mtu", "table", "fwmark", "listen_port", "persistent_keepalive")})
        bounds = {"endpoints": "allow_endpoints", "allowed_ips": "allow_allowed_ips", "dns": "allow_dns"}
        _wgconf.check_policy(config, **{key: policy.get(option) for key, option in bounds.items()})
        if self.platform == "linux" and not (_observe.ipv6(self.store.root) if ipv6 is None else ipv6):
            config = _plan.without_ipv6(config)[0]
        return _wgconf.render(_wgconf.for_windows(config, policy.get("kill_switch")) if self.platform == "windows" else config)

    def reachability(self, text, ssh_connection):
        """What a config's text would do to a controller's connection (_reach.reachability); nothing is kept where nothing is to be kept reachable.

        A path that is kept already stays where this connection cannot tell whether it is needed: there is none, or it runs through the tunnel.
        """
        config, root = _wgconf.parse(text, allow_hooks=True), self.store.root
        if _services.system(root) == "macos":
            reach = _reach.reachability_on_mac(self.run, config, _observe.real_name(root, self.interface), ssh_connection)
        else:
            reach = _reach.reachability(self.run, config, self.interface, ssh_connection, root)
        if not self.settings.get("keep_reachable", True):
            reach.update(kept=None, reason=None)
        elif not ssh_connection or reach["through"]:
            stay = [words for words in _reach.kept_path(self.store, self.interface) or () if "route" in words]
            reach["kept"] = ((reach["kept"] or []) + stay) or None
        return reach

    def arm(self, confirm_by, ssh_connection, timeout=None):
        """Arm the candidate; returns the change's id. Raises AgentError where the controller at ssh_connection could not be kept reachable."""
        text = self.store.text("candidate") or ""
        off = _repair.resolver_off(self, _wgconf.parse(text, allow_hooks=True), None)
        if off:
            raise AgentError("nothing was changed: " + off, "resolver")
        reach = self.reachability(text, ssh_connection)
        if reach["reason"] and not reach["through"]:
            raise AgentError("the new config would cut the controller off, so nothing was changed: %s; narrow gatecontrol_allowed_ips, or set "
                             "gatecontrol_keep_reachable=false" % reach["reason"], "lockout")
        return _change.arm(self.store, self.interface, confirm_by=confirm_by, timeout=timeout or self.settings.get("confirm_timeout", 40),
                           kept=reach["kept"], clock=self.clock, sleep=self.sleep)

    def launch(self, confirm_by, ssh_connection, timeout=None):
        """Arm the candidate and start the unit that takes it; returns the change's id. Raises as arm does, and ServiceError: nothing is armed then."""
        longest = max(_pace.UNIT, self.settings.get("confirm_timeout") or 0)
        if (timeout or 0) > longest:
            raise AgentError("confirm_timeout=%d is more than the %d s that %s was made for; set gatecontrol_confirm_timeout for the play that installs "
                             "the agent too" % (timeout, longest, self.services.name(APPLY)), "settings")
        change = self.arm(confirm_by, ssh_connection, timeout)
        try:
            self._rest()
            self.services.start_no_block(APPLY)
        except _services.ServiceError:
            self.store.drop("pending", "last_good")
            raise
        return change

    def _rest(self):
        """Wait until the unit of the change before, whose work is done, has ended: systemd takes a start until then for the one that is under way."""
        end = self.clock() + 10
        while self.services.show([APPLY], ["ActiveState"])[APPLY].get("ActiveState") in ("activating", "deactivating") and self.clock() < end:
            self.sleep(0.1)

    def prove(self, until=None):
        """None where the server answers this host over what runs now, else the reason. The beat is sent: it is the enrollment's first one.

        until: when the answer has to be there, by this agent's clock; the deadline of the change unless given.
        A refusal is an answer too: whatever it says of the token or of a rate limit, the way to the server is open.
        """
        if not self.reports:
            return None
        self.check_identity()
        left = max(2, (until or (self.store.load("pending") or {}).get("deadline", 0)) - self.clock())
        self.settings = dict(self.settings, max_wait=int(left), timeout=min(max(1, int(left)), self.settings.get("timeout") or 15))
        state = dict(self.memory(), not_before=0)  # a rate limit of before must not stand in for an answer
        running, self.through = self.running(), True
        link = self.connection(running)
        in_time, _nothing = _run.within(left, lambda: _beat.report(self, state, running, link, False, False))
        if not in_time:
            return "the server did not answer within %d s over the new tunnel" % left
        self.store.save("state", state)
        return state["error"]["text"] if state["error"] and state["error"]["kind"] in _beat.UNREACHED else None

    def accept(self, change=None):
        """Record the config that a change (as in pending) has proven: what the server issued and what was written. Raises OSError.

        Without a change it is the one that lies there now.
        """
        offered, change = self.store.text("offered"), change or {}
        if not self.enrollment.get("peer_id") or (change["offered"] if "offered" in change else offered) is None:
            return
        values = {"file_hash": change.get("candidate") or _enrollment.digest(_enrollment.read_text(self.config_path) or "")}
        if self.platform == "windows":  # whose agent cannot render a config to compare, and so keeps what it was made with
            values["settings"] = _enrollment.digest(self.store.text("settings") or "")
        # Another one may have been fetched since: it is that one's change that records it.
        mine = offered is not None and change.get("offered") in (None, _enrollment.digest(offered))
        if mine:
            self.store.save("issued", offered)
            values["hash"] = _enrollment.digest(offered)
        self.note(**values)
        if mine:
            self.store.drop("offered")

    def note(self, **values):
        """Put values into the enrollment, as it is on the disk now."""
        self.enrollment = dict(self.store.load("enrollment") or {}, **values)
        self.store.save("enrollment", self.enrollment)

    def left_out(self, issued=None, policy=None):
        """What of the server's config (the one in use unless given) needs IPv6, which this host has switched off."""
        issued = self.store.text("issued") if issued is None else issued
        if self.platform != "linux" or not issued or _observe.ipv6(self.store.root):
            return []
        try:
            return _plan.without_ipv6(_wgconf.parse(self.rendered(issued, policy, ipv6=True), allow_hooks=True))[1]
        except _wgconf.ConfigError:
            return []

    @property
    def config_path(self):
        """Where the config of the interface lies."""
        return _observe.config_path(self.store, self.interface)

    def apply(self):
        """The work of the apply unit: take the armed step, prove it, wait for its confirmation, else go back; returns the verdict."""
        return _change.run_armed(
            self.run, self.services, self.store, prove=self.prove, accept=self.accept, sleep=self.sleep, clock=self.clock)

    # -- what it is like

    def show(self, state=None, link=None):
        """The host's state for a person or a program; reads, asks nobody."""
        state = self.memory() if state is None else state
        link = link or self.connection(self.running())
        shown = {key: self.enrollment.get(key) for key in ("peer_id", "peer_name", "url", "interface", "reporting", "hash")}
        shown.update(link, enrolled=bool(self.enrollment.get("peer_id")), version=_verify.VERSION)
        for key in ("peer_enabled", "last_beat", "last_try", "last_check", "not_before", "error", "failures", "refused", "requests"):
            shown[key] = state.get(key)
        shown["clock_behind"] = _clock.behind(state, self.now())
        shown["left_out"] = self.left_out()
        shown["verdict"] = self.store.load("verdict")
        shown["pending"] = self.store.load("pending") is not None
        return shown
