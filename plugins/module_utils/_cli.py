# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's command line: what each word does, and what the agent says to a person, to a play and to Prometheus.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import time

from . import _agent, _beat, _change, _clock, _drift, _enrollment, _facts, _lock, _observe, _pace, _repair, _services, _verify, _wgconf

# name -> words that follow
COMMANDS = {"show": 0, "beat": 0, "sync": 0, "verify": 1, "confirm": 1, "checked": 0, "apply": 0, "restore": 0, "recover": 0, "repair": 0, "tend": 0}


def command(store, run, name, words, as_json=False):
    """What the launcher does: (exit status, text to print)."""
    try:
        agent = _agent.Agent(store, run)
        if name in WORK:
            return WORK[name](agent, *words)
        shown = agent.show() if name == "show" else beaten(agent, name == "sync")
    except (_agent.AgentError, _observe.TunnelError, _services.ServiceError, _wgconf.ConfigError) as err:
        return 1, str(err)
    except OSError as err:
        return 1, "%s; %s" % (_beat.told(err), "run this as root" if os.geteuid() else "look into the path and its rights")
    failed = bool(shown["error"] and name != "show")
    return int(failed), json.dumps(shown, sort_keys=True) if as_json else described(shown)


def beaten(agent, now):
    """Make a beat; returns what it shows. Of one that ended early memory and metrics tell as well."""
    try:
        shown = agent.beat(now=now)
    except (_agent.AgentError, _observe.TunnelError, OSError) as err:
        if agent.reports:
            _note_failure(agent, "file" if isinstance(err, OSError) else getattr(err, "kind", "tunnel"), _beat.told(err))
        raise
    publish(agent, shown)
    return shown


def _note_failure(agent, kind, text):
    state = agent.memory()
    state.update(last_try=agent.now(), failures=state.get("failures", 0) + 1, error={"kind": kind, "text": text})
    with contextlib.suppress(_lock.Busy, OSError), agent.lock(_beat.MOMENT):
        agent.store.save("state", state)
    with contextlib.suppress(_agent.AgentError, _observe.TunnelError, OSError):  # the tunnel itself may be what cannot be looked at
        publish(agent, agent.show(state, {"handshake_age": None, "rx_bytes": None, "tx_bytes": None, "beside_tunnel": None}))


def _checked(agent):
    with agent.lock():
        agent.store.save("state", dict(agent.memory(), last_check=agent.now()))
    return 0, None


def _repaired(agent):
    with agent.alone(limit=_pace.TURN):
        done = _repair.repair(agent)
    return 0, "\n".join("put right: " + sentence for sentence in done) or None


def _restore(agent):
    if agent.services.stopping():
        return 0, None  # the boot that follows recovers
    verdict = _change.recover(agent.run, agent.services, agent.store, live=True, accept=agent.accept)
    return 0, verdict and verdict["reason"]


def _recover(agent):
    mark = os.path.join(agent.store.root, _change.BOOTED) if agent.services.NAME == "launchd" else None
    if mark and os.path.exists(mark):
        return 0, None  # the job was loaded anew, and the host was not booted
    clock = _clock.set_forward(agent.memory())  # the machine boots, and nothing has begun to work yet
    verdict = _change.recover(agent.run, agent.services, agent.store, accept=agent.accept)
    if mark:
        _enrollment.write_text(mark, "", 0o644)
    return 0, "\n".join(filter(None, (clock, verdict and verdict["reason"]))) or None


def _apply(agent):
    verdict = agent.apply() or {"ok": True, "reason": "nothing is pending"}
    return int(not verdict["ok"]), verdict["reason"] or "the new config is in use"


def _answer(value):
    return 0, _verify.MARKER + json.dumps(value)


WORK = {
    "verify": lambda agent, wanted: _answer(_drift.verify(agent, json.loads(base64.b64decode(wanted)))),
    "confirm": lambda agent, word: _answer(_change.confirm(agent.store, word, sleep=agent.sleep)),
    "checked": _checked, "restore": _restore, "recover": _recover, "apply": _apply, "repair": _repaired,
    "tend": lambda agent: (0, _change.tend(agent.run, agent.services, agent.store, agent.interface, agent.accept, agent.now, agent.sleep, agent.clock))}


def described(shown):
    """What show shows, for a person."""
    if not shown["enrolled"]:
        return "not enrolled"

    def ago(seconds):
        age = _clock.age(seconds, time.time()) if seconds else None
        return "never" if not seconds else "at a time that this clock has yet to come to" if age is None else "%d s ago" % age

    lines = [
        ("peer", "%s (id %s) on %s" % (shown["peer_name"], shown["peer_id"], shown["url"])),
        ("tunnel", "%s, %s; %s" % (shown["interface"], shown["status"], "no handshake yet" if shown["handshake_age"] is None
                                   else "handshake %d s ago, received %d bytes, sent %d bytes" % (
                                       shown["handshake_age"], shown["rx_bytes"], shown["tx_bytes"]))),
        ("beat", "answered %s, config %s" % (
            ago(shown["last_beat"]), "asked for " + ago(shown["last_check"]) if shown["last_check"] else "as enrolled") if shown["reporting"] == "full"
         else "none: this host has no token of its own"),
    ]
    if shown["clock_behind"]:
        lines.append(("clock", "%s: set it" % _clock.sentence(shown["clock_behind"])))
    if shown["beside_tunnel"]:
        lines.append(("tunnel", "traffic passes beside it: %s" % "; ".join(shown["beside_tunnel"])))
    if shown["left_out"]:
        lines.append(("config", "IPv6 is switched off on this host, so these are left out: %s" % ", ".join(shown["left_out"])))
    if shown["peer_enabled"] is False:
        lines.append(("server", "the administrator has disabled this peer"))
    if _beat.silenced(shown, time.time()):
        lines.append(("server", "the rate limit is used up, silent for %d s" % (shown["not_before"] - time.time())))
    if shown["error"]:
        lines.append(("error", shown["error"]["text"]))
    if shown["verdict"] and not shown["verdict"].get("ok"):
        lines.append(("config", "the last change was rolled back: %s" % shown["verdict"].get("reason")))
    return "\n".join("%-8s%s" % line for line in lines)


def publish(agent, shown):
    """Write the metrics where the settings want them; where that does not work, it stands in the agent's memory and in shown["error"]."""
    folder, trouble = agent.settings.get("textfile"), None
    if not folder:
        return
    try:
        if os.path.isdir(folder):
            _enrollment.write_text(os.path.join(folder, _facts.METRICS), metrics(shown), 0o644)
        else:
            trouble = "the directory %s for the metrics is missing, or the agent's unit does not see it; create it or correct " \
                      "gatecontrol_textfile_dir" % folder
    except OSError as err:
        trouble = "the metrics cannot be written: %s; the agent's unit writes by the rights of root's own files alone: give the directory to root, or " \
                  "correct gatecontrol_textfile_dir" % _beat.told(err)
    if trouble and not shown["error"]:
        shown["error"] = {"kind": "textfile", "text": trouble}
        with contextlib.suppress(_lock.Busy), agent.lock(_beat.MOMENT):
            agent.store.save("state", dict(agent.memory(), error=shown["error"]))


def metrics(shown):
    """The text of a Prometheus textfile."""
    name = re.sub(r'[\\"\n]', "_", str(shown["peer_name"]))
    labels = '{peer="%s",interface="%s"}' % (name, shown["interface"])
    values = (
        ("beat_success", "gauge", "1 if the last beat was answered", int(shown["last_beat"] == (shown["last_try"] or 0))),
        ("failing_beats", "gauge", "beats in a row that went wrong", shown["failures"] or 0),
        ("change_pending", "gauge", "1 while a change of the tunnel is under way, or was not ended", int(shown["pending"])),
        ("config_refused", "gauge", "1 if the server's config cannot be used here", int(bool((shown["refused"] or {}).get("text")))),
        ("last_beat_timestamp_seconds", "gauge", "when a beat was last answered", shown["last_beat"]),
        ("peer_enabled", "gauge", "1 if the server has the peer enabled", None if shown["peer_enabled"] is None else int(shown["peer_enabled"])),
        ("beside_tunnel", "gauge", "1 if traffic passes beside the tunnel", None if shown["beside_tunnel"] is None else int(bool(shown["beside_tunnel"]))),
        ("handshake_age_seconds", "gauge", "since the latest handshake", shown["handshake_age"]),
        ("clock_behind_seconds", "gauge", "by which the clock is behind the host's own last record", shown["clock_behind"]),
        ("receive_bytes_total", "counter", "received through the tunnel", shown["rx_bytes"]),
        ("transmit_bytes_total", "counter", "sent through the tunnel", shown["tx_bytes"]),
    )
    lines = []
    for name, kind, words, value in values:
        if value is not None:
            name = "gatecontrol_" + name
            lines += ["# HELP %s %s" % (name, words), "# TYPE %s %s" % (name, kind), "%s%s %s" % (name, labels, value)]
    return "\n".join(lines) + "\n"
