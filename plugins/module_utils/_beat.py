# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A beat: what the agent of a host does every minute or so, beside a change of its tunnel.

`agent` is an _agent.Agent; `state` its memory, into which each part puts what it found.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import contextlib
import os
import time

from . import _api, _change, _clock, _facts, _lock, _observe, _plan, _repair, _services, _way, _wgconf

REFUSED_WAIT = (300, 21600)  # seconds before a config that failed is tried again: doubled from the first to the second
UNREACHED = ("network", "proxy", "tls", "redirect", "protocol", "server", "options")  # errors that prove no way to the server
SILENT_MOST = 86400  # seconds for which a rate limit is believed
MOMENT = 3  # seconds that a beat waits for whoever else is at work on the host
LOCAL = ("options", "settings", "textfile", "file")  # errors of the host itself, which the next beat has too
PASSING = ("rate_limited", "config")  # errors of a beat that did its work


def standing(state):
    """Why the beats fail, where that is no matter of one beat; None where they do not. A config that was refused is no failure of the beat."""
    error = state.get("error")
    if not error or error["kind"] in PASSING or (error["kind"] not in LOCAL and state.get("failures", 0) < 2):
        return None
    return error["text"]


def silenced(state, now):
    """Whether the token's rate limit is used up. A time that lies further ahead than any limit is not believed: the clock was put back since."""
    return now < (state.get("not_before") or 0) <= now + SILENT_MOST


def timestamp(seconds):
    """ISO-8601 UTC with milliseconds, as the server writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + ".%03dZ" % (seconds % 1 * 1000)


def told(err):
    """An error in words; of an OSError the path and what the system says of it."""
    return "%s: %s" % (err.filename or "this host", err.strerror or err) if isinstance(err, OSError) else str(err)


def heal(agent):
    """See that a change which no process is at any more, or whose process hangs, is ended: by its own unit, for a beat cannot change the network."""
    found = _change.state_of(agent.store, agent.clock)
    if found not in ("interrupted", "overdue"):
        return
    with contextlib.suppress(_services.ServiceError):  # verify tells of the change, and of the unit
        if found == "overdue":
            agent.services.stop_no_block(_change.APPLY)
        else:
            agent.services.start_no_block(_change.APPLY)


def mend(agent, running):
    """Have what the tunnel has lost put back by a unit of its own, before the server is asked, which may not be reached without it."""
    try:
        if _repair.ills(agent, running):
            agent.services.start_no_block(_repair.UNIT)
    except (_observe.TunnelError, _services.ServiceError):
        pass  # a beat is sent all the same, and says what passes beside the tunnel; the next one tries again


def report(agent, state, running, link, check, at_once):
    """Send what is due to the server, and put into `state` what came of it. running, link: the tunnel; check, at_once: as Agent.beat has them."""
    now, failures = agent.now(), state.get("failures", 0)
    state["connected_since"] = min(state.get("connected_since", now), now) if link["status"] == "connected" else None
    state.update(not_before=0, last_try=now, error=None, failures=0)
    try:
        _talk(agent, state, running, link, check, at_once)
    except _api.ApiError as err:
        state["error"] = {"kind": err.kind, "text": explained(agent, err)}
        if check and err.kind in UNREACHED:  # the server may be reached by its own tunnel only
            _follow_names(agent, running, False)
        if err.kind == "rate_limited":
            state["not_before"] = now + min(err.details["retry_after"], SILENT_MOST)
        else:
            state["failures"] = failures + 1
    state["requests"] = agent.requests


def _talk(agent, state, running, link, check, at_once):
    now, peer, since = state["last_try"], agent.enrollment["peer_id"], state["connected_since"]
    # All tries of a beat end before the next beat begins.
    api = agent.api(min(agent.settings.get("max_wait", 60), max(5, agent.settings.get("heartbeat_interval", 60) - 15)))
    end = api.clock() + api.max_wait
    state["peer_enabled"] = api.heartbeat(
        peer, connected=since is not None, rxBytes=link["rx_bytes"], txBytes=link["tx_bytes"], uptime=0 if since is None else int(now - since),
        hostname=os.uname().nodename.split(".")[0].lower())
    state.update(last_beat=now, clock=_clock.noted(state, now, _clock.server_time(api.date)))
    state["server"] = agent.server_addresses() or state.get("server")
    changing = agent.store.load("pending")
    if check and not changing:
        state["error"] = _follow_names(agent, running, agent.went_beside)
    if not state.get("reported"):
        state["reported"] = link["status"]
    elif state["reported"] != link["status"] and not changing:
        api.max_wait = max(0, end - api.clock())
        api.status(peer, link["status"], timestamp(now))
        state["reported"] = link["status"]
    if check and not changing:
        if at_once or not 0 <= now - state.get("last_check", 0) < agent.settings.get("sync_interval", 300) - 5:
            api.max_wait = max(0, end - api.clock())
            _check(agent, state, api, at_once)
        unusable = (state.get("refused") or {}).get("text")
        if unusable:
            state["error"] = {"kind": "config", "text": unusable}


def remember(agent, state):
    """Keep what a beat found; not while a change is under way, whose own beat is kept. Raises OSError."""
    try:
        with agent.lock(limit=MOMENT):
            noted = agent.memory().get("last_check", 0)  # by a play, meanwhile
            agent.store.save("state", dict(state, last_check=max(noted, state.get("last_check", 0)) or None))
    except _lock.Busy:
        pass


def explained(agent, err):
    """The text of an ApiError; where the clock is wrong, that is most likely why."""
    clock = _clock.told(agent.memory(), agent.now()) if err.kind in UNREACHED else None
    return "%s; %s: set it" % (err, clock) if clock else str(err)


def _follow_names(agent, running, dead):
    """Move the endpoints that do not answer and whose names have other addresses by now; the error where that fails, else None.

    dead: whether the tunnel is known to carry nothing, however new its handshake is. WireGuard asks for a name once, when the tunnel starts.
    """
    if running is None or not (dead or any(_plan.is_stale(peer["handshake"], agent.now()) for peer in running.peers.values())):
        return None
    config, name = _observe.applied(agent.config_path), _observe.real_name(agent.store.root, agent.interface)
    try:
        resolve = _way.resolver(agent.run, agent.store, agent.interface)
        moved = list(_plan.moved_endpoints(config, running, None if dead else agent.now(), resolve)) if config else []
        with agent.lock(MOMENT) if moved else contextlib.nullcontext():
            for key, endpoint in moved:
                _observe.command(agent.run, ["wg", "set", name, "peer", key, "endpoint", endpoint])
    except _lock.Busy:
        return None  # a change is under way, and brings its own endpoint
    except _observe.TunnelError as err:
        return {"kind": "tunnel", "text": "the endpoint could not be moved: %s" % err}
    return None


def _check(agent, state, api, at_once):
    """Ask for a new config and start its application, which is a unit of its own: the beat's cannot change the network."""
    offer = api.config_check(agent.enrollment["peer_id"], agent.enrollment.get("hash"))
    now = state["last_check"] = agent.now()
    before = refused = state.get("refused") or {}
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
        with agent.alone(limit=MOMENT):
            agent.stage(offer["config"])
            agent.launch("server", agent.enrollment.get("controller"))
    except _wgconf.ConfigError as err:
        refused["text"] = "the server's config was refused and the tunnel left as it is: %s" % err
    except (_lock.Busy, _change.Underway):
        state.update(refused=before or None, last_check=0)  # a play is at it: the next beat asks again
    except (_facts.AgentError, _observe.TunnelError, _services.ServiceError, OSError) as err:
        refused["text"] = "the server's config was not applied and the tunnel left as it is: %s" % told(err)
