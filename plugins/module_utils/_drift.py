# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What on a host differs from what a play wants of it; the tunnel and its services among it.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import os

from . import _agent, _api, _beat, _enrollment, _observe, _plan, _proof, _reach, _repair, _services, _verify, _wgconf


class Drift(list):
    """Sentences for people; codes: what program code goes by, one for each sentence."""

    def __init__(self):
        super().__init__()
        self.codes = []

    def add(self, code, *sentences):
        """Note differences of one code."""
        self.extend(sentences)
        self.codes += [code] * len(sentences)


class Comparison:
    """An agent's host, and what a play wants of it, as _verify.wanted has it."""

    def __init__(self, agent, wanted):
        self.agent, self.wanted, self.store, self.drift = agent, wanted, agent.store, Drift()

    def answer(self):
        """Compare; one request to the server, nothing is changed.

        Returns {"in_sync": bool, "drift": [text], "codes": [one for each text], "host": what a play needs to go on, "tunnel", "server",
        "peer_fields", "now", "proof" (see _proof)} and what show shows.
        """
        agent, wanted, drift, state = self.agent, self.wanted, self.drift, self.agent.memory()
        running = None
        try:
            running = agent.running()
        except _observe.MissingTool as err:
            drift.add("tool_missing", str(err))
        answer = agent.show(state, agent.connection(running))
        answer.update(host=agent.host.facts(), tunnel=None, server={"asked": False}, peer_fields=None, now=agent.now(),
                      proof=_proof.of_host(self.store, agent.config_path, wanted.get("challenge")))
        if wanted.get("state") == "absent":
            drift.add("left", *(path + " is there" for path in agent.host.parts()))
            if (running is not None or "tool_missing" in drift.codes) and agent.enrollment.get("interface"):  # another's tunnel is not for this to take away
                drift.add("interface_left", "the interface %s is there" % agent.interface)
        else:
            self.enrollment()
            self.files()
            answer["tunnel"] = self.tunnel(running, answer["beside_tunnel"] or [])
            self.services(state)
            if wanted.get("check", True) and not drift:
                answer["server"] = self.server(state)
            answer["peer_fields"] = self.fields()
            if answer["peer_fields"] is False:  # after the server was asked: whether the peer is there matters more
                drift.add("peer_fields", "the peer has not been given what the play wants of it on the server")
        if answer["pending"]:
            drift.add("change_pending", "a change of the tunnel is under way")
        answer.update(in_sync=not drift, drift=list(drift), codes=drift.codes)
        bare = drift and running is None and wanted.get("state") != "absent"
        answer["host"]["needs"] = agent.host.needs() if bare else []
        answer["host"]["obstacles"] = self.obstacles() if bare and not agent.enrollment.get("peer_id") else []
        return answer

    def obstacles(self):
        """What would stop an enrollment here, one sentence each."""
        from . import _preflight  # a host that is enrolled does without

        look = _preflight.Preflight(self.agent.host, self.wanted.get("networks"), self.wanted.get("interface") or self.agent.interface)
        return [point["text"] for point in look.look() if point["outcome"] == "fail"]

    def enrollment(self):
        """The enrollment, the token and what became of the settings."""
        agent, wanted, record, drift = self.agent, self.wanted, self.agent.enrollment, self.drift
        try:
            agent.check_identity()
        except _agent.AgentError as err:
            drift.add(err.kind, str(err))
            return
        if wanted.get("url") and wanted["url"] != record.get("url"):
            drift.add("other_server", "the enrollment is with %s" % record.get("url"))
        if wanted.get("interface") and wanted["interface"] != record.get("interface"):
            drift.add("other_interface", "the enrollment uses the interface %s" % record.get("interface"))
        if wanted.get("token") and wanted["token"] != record.get("token_digest"):
            drift.add("other_token", "the token given is not the one on the host")
        if agent.reports and _enrollment.digest(agent.token) != record.get("token_digest"):
            drift.add("token_changed", "the token file was changed")
        if record.get("settings") not in (None, _enrollment.digest(self.store.text("settings") or "")):
            drift.add("settings_unused", "the settings have not reached the tunnel: an earlier change failed or was undone")

    def fields(self):
        """Whether the peer was given what the play wants of it. None without a wish, for a peer that is ephemeral, another host's or on another server."""
        record, wanted = self.agent.enrollment, self.wanted
        if not wanted.get("fields") or record.get("fields") == "ephemeral" or record.get("fingerprint") != self.agent.fingerprint or (
                wanted.get("url") not in (None, record.get("url"))):
            return None
        return wanted["fields"] == record.get("fields")

    def files(self):
        """The agent's settings and its own files."""
        if self.wanted.get("settings") and self.wanted["settings"] != _enrollment.digest(self.store.text("settings") or ""):
            self.drift.add("settings_changed", "the agent's settings differ")
        folder = os.path.dirname(self.store.path("token"))
        if os.path.isdir(folder) and os.stat(folder).st_mode & 0o77:
            self.drift.add("readable", "/%s can be read by others than root" % _enrollment.ETC)
        for path, digest in sorted((self.wanted.get("files") or {}).items()):
            if not _services.meant_for(self.store.root, path):
                continue
            text = _enrollment.read_text(os.path.join(self.store.root, path.lstrip("/")))
            if text is None:
                self.drift.add("file_missing", path + " is missing")
            elif _verify.program_digest(path, text) != digest:
                self.drift.add("file_changed", path + " differs")

    def tunnel(self, running, beside):
        """The config and what runs; returns the step that the planner would take, None where there is no config to go by.

        beside: why packets pass beside the tunnel.
        """
        agent, drift = self.agent, self.drift
        text = _enrollment.read_text(agent.config_path)
        if text is None or _enrollment.digest(text) != agent.enrollment.get("file_hash"):
            gone = text is None
            drift.add("config_missing" if gone else "config_changed", "%s %s" % (agent.config_path, "is missing" if gone else "was changed"))
            return None
        try:
            config = _wgconf.parse(text, allow_hooks=True)
            issued = self.store.text("issued")
            # After a run that was cut off, or whose change was rolled back, settings and file both are as they were written.
            if issued is not None and agent.rendered(issued) != text:
                drift.add("config_policy", "%s is not what the local policy makes of the server's config" % agent.config_path)
        except _wgconf.ConfigError as err:
            drift.add("config_unusable", "%s: %s" % (agent.config_path, err))
            return None
        kept = _reach.kept_path(self.store, agent.interface)
        plan = _plan.plan(config, running, config, kept)
        drift.add("beside_tunnel", *beside)
        drift.add("tunnel", *(reason for reason in plan.reasons if reason not in beside))
        if running is not None and running.unseen == () and not _repair.way_is_kept(agent, config):
            drift.add("way_not_kept", "the way kept for the controller is not the one that this host needs now")
        if running is not None and not _reach.spared(self.store, config, kept, agent.interface):
            drift.add("networkd", "systemd-networkd is not told to leave the tunnel's rules and routes alone")
        off = _repair.resolver_off(agent, config, running)
        if off:
            drift.add("resolver_off", off)
        return dict({"action": plan.action, "reasons": plan.reasons}, **({"unseen": list(running.unseen)} if running and running.unseen else {}))

    def services(self, state):
        """The units, and whether the timer has been at work."""
        agent, drift = self.agent, self.drift
        if not agent.services.available():
            drift.add("service_manager", "%s does not run here" % _services.kind(self.store.root).NAME)
            return
        units = [_observe.unit_of(agent.interface), _agent.RECOVER] + [_agent.TIMER, _agent.BEAT] * agent.reports
        seen = agent.services.show(units, ("ActiveState", "UnitFileState"))
        for unit in units:
            if unit == _agent.BEAT:
                continue
            if unit != _agent.RECOVER and seen[unit].get("ActiveState") != "active":
                drift.add("unit_inactive", "%s is %s" % (agent.services.name(unit), seen[unit].get("ActiveState")))
            if seen[unit].get("UnitFileState") != "enabled":
                drift.add("unit_disabled", "%s is not enabled at boot" % agent.services.name(unit))
        if agent.reports:
            self.beats(state, seen[_agent.BEAT].get("ActiveState"))

    def beats(self, state, unit):
        """Whether the timer's beats do their work; unit: what the service manager calls the state of their unit."""
        agent, drift = self.agent, self.drift
        why = _beat.standing(state)
        if why:
            drift.add("beat_failing", "the agent's beats fail: %s" % why)
        elif unit == "failed" and not state.get("error"):
            drift.add("beat_failing", "the agent's beats fail: %s does, `journalctl -u %s` says why" % (_agent.BEAT, _agent.BEAT))
        silent = agent.now() - state.get("last_try", 0)
        if not drift and silent > 3 * agent.settings.get("heartbeat_interval", 60) + 30 and not _beat.silenced(state, agent.now()):
            drift.add("beat_silent", "the agent has not beaten for %d s" % silent)

    def server(self, state):
        """The one request of a steady run: has the server another config?"""
        agent = self.agent
        if not agent.reports:
            return {"asked": False, "last_check": state.get("last_check")}
        if _beat.silenced(state, agent.now()):
            return {"asked": False, "not_before": state["not_before"]}
        try:
            updated = agent.api(max_wait=0).config_check(agent.enrollment["peer_id"], agent.enrollment.get("hash")) is not None
        except _api.ApiError as err:
            words = _beat.explained(agent, err)
            self.drift.add("server", "the server: %s" % words)
            return {"asked": True, "error": dict(err.failure, text=words)}
        if updated:
            self.drift.add("config_new", "the server has a new config")
        return {"asked": True, "updated": updated}


def verify(agent, wanted):
    """What an agent's host is like beside what a play wants, as Comparison.answer gives it."""
    return Comparison(agent, wanted).answer()
