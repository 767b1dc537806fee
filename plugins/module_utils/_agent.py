# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent does on an enrolled host: a beat, a change of config with a way back, and the answer to "is all as it should be".

The same file runs in the modules and, installed as the package "gatecontrol", in the agent's own units.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import base64
import json
import os
import pwd
import re
import shutil
import time

from . import _api, _change, _enrollment, _observe, _plan, _reach, _services, _verify, _wgconf

TIMER = "gatecontrol-beat.timer"
BEAT = "gatecontrol-beat.service"
APPLY = "gatecontrol-apply.service"
RECOVER = "gatecontrol-recover.service"

# Where a unit's programs lie, whatever the PATH of the caller. Homebrew's bash has to come before that of macOS, which is too old for wg-quick.
PATH = "/opt/homebrew/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOMEBREW = ("opt/homebrew", "usr/local")  # its prefix on Apple Silicon, on Intel
HANDSHAKE_FRESH = 180  # seconds; the server itself calls a peer online until then
REFUSED_WAIT = (300, 21600)  # seconds before a config that failed is tried again: doubled from the first to the second
UNREACHED = ("network", "proxy", "tls", "redirect", "protocol", "server", "options")  # errors that prove no way to the server
LISTS = ("allowed_ips", "dns", "allow_endpoints", "allow_allowed_ips", "allow_dns")  # of the policy
SILENT_MOST = 86400  # seconds for which a rate limit is believed

# The agent's memory, state.json: times are Unix times, intervals seconds.
NUMBER, TEXT = (int, float), str
MEMORY = {
    "not_before": NUMBER, "last_try": NUMBER, "last_beat": NUMBER, "last_check": NUMBER, "connected_since": NUMBER, "requests": NUMBER,
    "peer_enabled": bool, "reported": TEXT, "error": {"kind": TEXT, "text": TEXT},
    "refused": {"hash": TEXT, "wait": NUMBER, "again": NUMBER, "text": (str, type(None))}}


class AgentError(Exception):
    """The agent cannot do its work on this host. One sentence; kind: not_enrolled, clone, settings, lockout."""

    def __init__(self, message, kind):
        super().__init__(message)
        self.kind = kind


def machine_fingerprint(root="/", run=None):
    """SHA-256 over this machine's id, 64 lower-case hex: stable per host, and the id itself (which systemd asks to keep) is not told.

    run runs ioreg, which knows a Mac's id. Raises AgentError where /etc/machine-id is missing, as in an image that was never booted.
    """
    if _services.system(root) == "macos":
        out = run(["ioreg", "-rd1", "-c", "IOPlatformExpertDevice"])[1] if run else ""
        found = re.search(r'"IOPlatformUUID" = "([0-9A-Fa-f-]{36})"', out)
        if not found:
            raise AgentError("ioreg names no IOPlatformUUID on this host; run `ioreg -rd1 -c IOPlatformExpertDevice` there", "settings")
        return _enrollment.digest("gatecontrol machine " + found.group(1).lower())
    machine_id = (_enrollment.read_text(os.path.join(root, "etc/machine-id")) or "").strip()
    if not re.fullmatch(r"[0-9a-f]{32}", machine_id):
        raise AgentError("/etc/machine-id holds no machine id; run systemd-machine-id-setup on this host", "settings")
    return _enrollment.digest("gatecontrol machine " + machine_id)


def client_platform():
    """X-Client-Platform of this machine, such as "linux"."""
    return os.uname().sysname.lower()


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
        self.platform, self._fingerprint = platform or client_platform(), fingerprint
        self.services = services or _services.kind(store.root)(run, store.root)
        self.settings = store.load("settings") or {}
        self.enrollment = store.load("enrollment") or {}
        self.interface = self.enrollment.get("interface") or self.settings.get("interface") or "wg0"
        self.token = (store.text("token") or "").strip()
        self._api = None

    # -- the host's own affairs

    @property
    def fingerprint(self):
        """What stands for this machine. Raises AgentError as machine_fingerprint does."""
        return self._fingerprint or machine_fingerprint(self.store.root, self.run)

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
                "platform": self.platform, "fingerprint": self.enrollment["fingerprint"]}, sleep=self.sleep)
        return self._api

    def publish(self, shown):
        """Write the metrics where the settings want them. Raises AgentError where that directory is missing."""
        folder = self.settings.get("textfile")
        if folder and not os.path.isdir(folder):
            raise AgentError("the directory %s for the metrics is missing; create it or correct gatecontrol_textfile_dir" % folder, "settings")
        if folder:
            _enrollment.write_text(os.path.join(folder, "gatecontrol.prom"), metrics(shown), 0o644)

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

        status: connected, reconnecting, disconnected or error (no peer); handshake_age in seconds, None where there was none.
        """
        if running is None:
            return {"status": "disconnected", "handshake_age": None, "rx_bytes": 0, "tx_bytes": 0}
        peers = running.peers.values()
        latest = max([peer["handshake"] for peer in peers] or [0])
        age = max(0, int(self.now() - latest)) if latest else None
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
        link = self.connection(self.running())
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
            state["last_beat"] = now
            changing = self.store.load("pending")
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
            state["error"] = {"kind": err.kind, "text": str(err)}
            if err.kind == "rate_limited":
                state["not_before"] = now + min(err.details["retry_after"], SILENT_MOST)
        state["requests"] = self._api.requests if self._api else 0
        self.store.save("state", state)
        return self.show(state, link)

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
        shown["verdict"] = self.store.load("verdict")
        shown["pending"] = self.store.load("pending") is not None
        return shown

    def verify(self, wanted):
        """Compare the host with what a play wants; one request to the server, nothing is changed.

        wanted: as _verify.wanted has it.
        Returns {"in_sync": bool, "drift": [text], "host": what a play needs to go on, "tunnel", "server"} and what show shows.
        """
        drift, state = [], self.memory()
        running = self.running()
        answer = self.show(state, self.connection(running))
        answer.update(host=self.facts(), tunnel=None, server={"asked": False}, peer_fields=None, drift=drift, now=self.now())
        if wanted.get("state") == "absent":
            drift += [path + " is there" for path in self.parts()] + ["the interface %s is there" % self.interface] * (
                running is not None and bool(self.enrollment.get("interface")))  # another's tunnel is not for this to take away
        else:
            self._compare_enrollment(wanted, drift)
            self._compare_files(wanted, drift)
            answer["tunnel"] = self._compare_tunnel(running, drift)
            self._compare_services(drift, state)
            if wanted.get("check", True) and not drift:
                answer["server"] = self._ask(state, drift)
            answer["peer_fields"] = self._compare_fields(wanted)
            if answer["peer_fields"] is False:  # after the server was asked: whether the peer is there matters more
                drift.append("the peer has not been given what the play wants of it on the server")
        if answer["pending"]:
            drift.append("a change of the tunnel is under way")
        answer["in_sync"] = not drift
        answer["host"]["needs"] = self.needs() if drift and running is None and wanted.get("state") != "absent" else []
        return answer

    def facts(self):
        """What a play has to know of this host before it changes it, without facts being gathered."""
        system, release = _services.system(self.store.root), {}
        if system == "macos":
            text = _enrollment.read_text(os.path.join(self.store.root, _services.SYSTEM_VERSION)) or ""
            release = {"ID": "macos", "VERSION_ID": "".join(re.findall(r"<key>ProductVersion</key>\s*<string>([^<]*)", text))}
        for line in (_enrollment.read_text(os.path.join(self.store.root, "etc/os-release")) or "").splitlines() if system == "linux" else ():
            key, _equals, value = line.partition("=")
            release[key] = value.strip().strip('"')
        return {"system": system, "distribution": release.get("ID", ""), "like": release.get("ID_LIKE", "").split(),
                "version": release.get("VERSION_ID", ""), "service_manager": self.services.NAME if self.services.available() else None,
                "fingerprint": self.fingerprint, "hostname": os.uname().nodename,
                "resolvectl": shutil.which("resolvectl", path=PATH), "homebrew": self._homebrew() if system == "macos" else None}

    def _homebrew(self):
        """Homebrew's prefix and the user it belongs to, who alone may install with it; None where there is none."""
        for prefix in HOMEBREW:
            brew = os.path.join(self.store.root, prefix, "bin/brew")
            if os.path.exists(brew):
                return {"prefix": "/" + prefix, "owner": pwd.getpwuid(os.stat(brew).st_uid).pw_name}
        return None

    def needs(self, config=None):
        """Tools that are missing for a tunnel, or for this Config; "resolvconf-link" where resolvectl can stand in for resolvconf."""
        def missing(*tools):
            return not any(shutil.which(tool, path=PATH) for tool in tools)
        mac = _services.system(self.store.root) == "macos"
        found = [tool for tool in ("wg", "wg-quick") + (() if mac else ("ip",)) if missing(tool)]
        if missing("wireguard-go") and (mac or _observe.backend(self.run) is None):
            found.append("wireguard-go")
        if mac:  # which brings the rest
            return found
        if config and config.interface.get("DNS") and missing("resolvconf"):
            resolved = os.path.isdir(os.path.join(self.store.root, "run/systemd/resolve")) and not missing("resolvectl")
            found.append("resolvconf-link" if resolved else "resolvconf")
        if config and _wgconf.is_full_tunnel(config):
            found += ["nft"] * missing("nft", "iptables-restore") + ["sysctl"] * missing("sysctl")
        return found

    def parts(self):
        """Paths of what the collection has on this host, the tunnel aside: files of the installation, folders."""
        files, kind = set(self.store.load("installed") or {}) | {"/" + _verify.LAUNCHER}, _services.kind(self.store.root)
        for folder in kind.FOLDERS:
            place = os.path.join(self.store.root, folder.lstrip("/"))
            files |= {"%s/%s" % (folder, name) for name in (os.listdir(place) if os.path.isdir(place) else []) if kind.OURS.match(name)}
        folders = ["/" + folder for folder in (_verify.LIBRARY, _enrollment.ETC, _enrollment.VAR)]
        return [path for path in sorted(files) + folders if os.path.lexists(os.path.join(self.store.root, path.lstrip("/")))]

    def _compare_enrollment(self, wanted, drift):
        try:
            self.check_identity()
        except AgentError as err:
            drift.append(str(err))
            return
        if wanted.get("url") and wanted["url"] != self.enrollment.get("url"):
            drift.append("the enrollment is with %s" % self.enrollment.get("url"))
        if wanted.get("interface") and wanted["interface"] != self.enrollment.get("interface"):
            drift.append("the enrollment uses the interface %s" % self.enrollment.get("interface"))
        if wanted.get("token") and wanted["token"] != self.enrollment.get("token_digest"):
            drift.append("the token given is not the one on the host")
        if self.reports and _enrollment.digest(self.token) != self.enrollment.get("token_digest"):
            drift.append("the token file was changed")
        if self.enrollment.get("settings") not in (None, _enrollment.digest(self.store.text("settings") or "")):
            drift.append("the settings have not reached the tunnel: an earlier change failed or was undone")

    def _compare_fields(self, wanted):
        """Whether the peer was given what the play wants of it. None without a wish, for a peer that is ephemeral, another host's or on another server."""
        record = self.enrollment
        if not wanted.get("fields") or record.get("fields") == "ephemeral" or record.get("fingerprint") != self.fingerprint or (
                wanted.get("url") not in (None, record.get("url"))):
            return None
        return wanted["fields"] == record.get("fields")

    def _compare_files(self, wanted, drift):
        if wanted.get("settings") and wanted["settings"] != _enrollment.digest(self.store.text("settings") or ""):
            drift.append("the agent's settings differ")
        folder = os.path.dirname(self.store.path("token"))
        if os.path.isdir(folder) and os.stat(folder).st_mode & 0o77:
            drift.append("/%s can be read by others than root" % _enrollment.ETC)
        for path, digest in sorted((wanted.get("files") or {}).items()):
            if not _services.meant_for(self.store.root, path):
                continue
            text = _enrollment.read_text(os.path.join(self.store.root, path.lstrip("/")))
            if text is None or _verify.program_digest(path, text) != digest:
                drift.append("%s %s" % (path, "is missing" if text is None else "differs"))

    def _compare_tunnel(self, running, drift):
        text = _enrollment.read_text(self.config_path)
        if text is None or _enrollment.digest(text) != self.enrollment.get("file_hash"):
            drift.append("%s %s" % (self.config_path, "is missing" if text is None else "was changed"))
            return None
        try:
            config = _wgconf.parse(text, allow_hooks=True)
            issued = self.store.text("issued")
            # After a run that was cut off, or whose change was rolled back, settings and file both are as they were written.
            if issued is not None and self.rendered(issued) != text:
                drift.append("%s is not what the local policy makes of the server's config" % self.config_path)
        except _wgconf.ConfigError as err:
            drift.append("%s: %s" % (self.config_path, err))
            return None
        plan = _plan.plan(config, running, config, _reach.kept_path(self.store, self.interface))
        drift += plan.reasons
        return dict({"action": plan.action, "reasons": plan.reasons}, **({"unseen": list(running.unseen)} if running and running.unseen else {}))

    def _compare_services(self, drift, state):
        if not self.services.available():
            drift.append("%s does not run here" % _services.kind(self.store.root).NAME)
            return
        units = [_observe.unit_of(self.interface), RECOVER] + [TIMER] * self.reports
        seen = self.services.show(units, ("ActiveState", "UnitFileState"))
        for unit in units:
            if unit != RECOVER and seen[unit].get("ActiveState") != "active":
                drift.append("%s is %s" % (self.services.name(unit), seen[unit].get("ActiveState")))
            if seen[unit].get("UnitFileState") != "enabled":
                drift.append("%s is not enabled at boot" % self.services.name(unit))
        silent = self.now() - state.get("last_try", 0)
        if self.reports and not drift and silent > 3 * self.settings.get("heartbeat_interval", 60) + 30 and state.get("not_before", 0) < self.now():
            drift.append("the agent has not beaten for %d s" % silent)

    def _ask(self, state, drift):
        """The one request of a steady run: has the server another config?"""
        if not self.reports:
            return {"asked": False, "last_check": state.get("last_check")}
        if state.get("not_before", 0) > self.now():
            return {"asked": False, "not_before": state["not_before"]}
        try:
            updated = self.api(max_wait=0).config_check(self.enrollment["peer_id"], self.enrollment.get("hash")) is not None
        except _api.ApiError as err:
            drift.append("the server: %s" % err)
            return {"asked": True, "error": dict(err.failure, text=str(err))}
        if updated:
            drift.append("the server has a new config")
        return {"asked": True, "updated": updated}


def metrics(shown):
    """The text of a Prometheus textfile."""
    name = re.sub(r'[\\"\n]', "_", str(shown["peer_name"]))
    labels = '{peer="%s",interface="%s"}' % (name, shown["interface"])
    values = (
        ("beat_success", "gauge", "1 if the last beat was answered", int(shown["last_beat"] == (shown["last_try"] or 0))),
        ("config_refused", "gauge", "1 if the server's config cannot be used here", int(bool((shown["refused"] or {}).get("text")))),
        ("last_beat_timestamp_seconds", "gauge", "when a beat was last answered", shown["last_beat"]),
        ("peer_enabled", "gauge", "1 if the server has the peer enabled", None if shown["peer_enabled"] is None else int(shown["peer_enabled"])),
        ("handshake_age_seconds", "gauge", "since the latest handshake", shown["handshake_age"]),
        ("receive_bytes_total", "counter", "received through the tunnel", shown["rx_bytes"]),
        ("transmit_bytes_total", "counter", "sent through the tunnel", shown["tx_bytes"]),
    )
    lines = []
    for name, kind, words, value in values:
        if value is not None:
            name = "gatecontrol_" + name
            lines += ["# HELP %s %s" % (name, words), "# TYPE %s %s" % (name, kind), "%s%s %s" % (name, labels, value)]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- the command line

# name -> words that follow
COMMANDS = {"show": 0, "beat": 0, "sync": 0, "verify": 1, "confirm": 1, "checked": 0, "apply": 0, "restore": 0, "recover": 0, "tend": 0}


def command(store, run, name, words, as_json=False):
    """What the launcher does: (exit status, text to print)."""
    try:
        agent = Agent(store, run)
        if name == "verify":
            return 0, _verify.MARKER + json.dumps(agent.verify(json.loads(base64.b64decode(words[0]))))
        if name == "confirm":
            return 0, _verify.MARKER + json.dumps(_change.confirm(store, words[0], sleep=agent.sleep))
        if name == "checked":
            store.save("state", dict(agent.memory(), last_check=agent.now()))
            return 0, None
        if name in ("recover", "restore"):
            if name == "restore" and agent.services.stopping():
                return 0, None  # the boot that follows recovers
            mark = os.path.join(store.root, _change.BOOTED) if agent.services.NAME == "launchd" else None
            if mark and os.path.exists(mark):
                return 0, None  # the job was loaded anew, and the host was not booted
            verdict = _change.recover(run, agent.services, store, live=name == "restore", accept=agent.accept)
            if mark:
                _enrollment.write_text(mark, "", 0o644)
            return 0, verdict and verdict["reason"]
        if name == "tend":
            return 0, _change.tend(run, agent.services, store, agent.interface, agent.accept, agent.now, agent.sleep, agent.clock)
        if name == "apply":
            verdict = agent.apply() or {"ok": True, "reason": "nothing is pending"}
            return int(not verdict["ok"]), verdict["reason"] or "the new config is in use"
        shown = agent.show() if name == "show" else agent.beat(now=name == "sync")
        if name != "show":
            agent.publish(shown)
    except (AgentError, _observe.TunnelError, _services.ServiceError, _wgconf.ConfigError) as err:
        return 1, str(err)
    except OSError as err:
        advice = "run this as root" if os.geteuid() else "look into the path and its rights"
        return 1, "%s: %s; %s" % (err.filename or "this host", err.strerror or err, advice)
    failed = bool(shown["error"] and name != "show")
    return int(failed), json.dumps(shown, sort_keys=True) if as_json else described(shown)


def described(shown):
    """What show shows, for a person."""
    if not shown["enrolled"]:
        return "not enrolled"

    def ago(seconds):
        return "never" if not seconds else "%d s ago" % (time.time() - seconds)

    lines = [
        ("peer", "%s (id %s) on %s" % (shown["peer_name"], shown["peer_id"], shown["url"])),
        ("tunnel", "%s, %s; %s" % (shown["interface"], shown["status"], "no handshake yet" if shown["handshake_age"] is None
                                   else "handshake %d s ago, received %d bytes, sent %d bytes" % (
                                       shown["handshake_age"], shown["rx_bytes"], shown["tx_bytes"]))),
        ("beat", "answered %s, config %s" % (
            ago(shown["last_beat"]), "asked for " + ago(shown["last_check"]) if shown["last_check"] else "as enrolled") if shown["reporting"] == "full"
         else "none: this host has no token of its own"),
    ]
    if shown["peer_enabled"] is False:
        lines.append(("server", "the administrator has disabled this peer"))
    if (shown["not_before"] or 0) > time.time():
        lines.append(("server", "the rate limit is used up, silent for %d s" % (shown["not_before"] - time.time())))
    if shown["error"]:
        lines.append(("error", shown["error"]["text"]))
    if shown["verdict"] and not shown["verdict"].get("ok"):
        lines.append(("config", "the last change was rolled back: %s" % shown["verdict"].get("reason")))
    return "\n".join("%-8s%s" % line for line in lines)
