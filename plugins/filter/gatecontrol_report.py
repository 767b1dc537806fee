# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state of a fleet, from what its hosts and its server said: as data, as a table for a terminal, as a page."""
from __future__ import annotations

import time

import jinja2

from ansible.errors import AnsibleFilterError

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _agent, _clock, _fleet

SEEN = "__gatecontrol_seen"  # where the role keeps what it observed on a host
STALE = 86400  # seconds, as in the inventory plugin
# Worst first.
STATES = {
    "unreachable": "gave no answer",
    "rolled_back": "took its last change back and is not as it should be",
    "disabled": "has a peer that is disabled on the server",
    "drifted": "differs from what server or inventory say",
    "stale": "had no handshake for a long time",
    "pending": "is not enrolled yet, or a change is under way",
    "enrolled": "is as it should be",
    "absent": "is meant not to be enrolled, and is not",
}
WELL = ("enrolled", "absent")
COLUMNS = ("host", "state", "peer", "tunnel", "handshake", "received", "sent", "why")


def classify(seen, enabled, handshake_age, stale_after=STALE):
    """(state, [reasons]) of a host.

    seen: what gatecontrol_host_info gave, failed or not. enabled: the peer, as the server or else the last beat says it, None where neither does.
    handshake_age: seconds, None for never.
    """
    if "in_sync" not in seen:
        return "unreachable", [" ".join(str(seen.get("msg") or "it was not asked").removeprefix("Task failed: ").split())]
    drift, verdict = list(seen["drift"]), seen.get("verdict") or {}
    if seen["enrolled"] and enabled is False:
        return "disabled", ["the administrator has disabled this peer"]
    if not seen["in_sync"] and verdict.get("ok") is False:
        return "rolled_back", [str(verdict.get("reason"))] + drift
    if not seen["enrolled"]:
        return ("absent", []) if seen["in_sync"] else ("pending", drift[:1])
    if not seen["in_sync"]:
        error = (seen.get("error") or {}).get("text")
        return "pending" if seen.get("pending") else "drifted", drift + [error] * bool(error and "the server: " + error not in drift)
    if handshake_age is None or handshake_age > stale_after:
        return "stale", ["no handshake yet" if handshake_age is None else "the latest handshake was %s ago" % duration(handshake_age)]
    return "enrolled", []


def entry(host, seen, peer, stale_after, now):
    """One host of the report. peer: its record on the server, as _fleet.slim gives it, or None. Bytes are counted as the host sees them."""
    answered, known = "in_sync" in seen, peer or {}
    told = seen if answered and seen["enrolled"] else {"rx_bytes": known.get("tx_bytes"), "tx_bytes": known.get("rx_bytes")}
    age = seen.get("handshake_age")
    if age is None and known.get("handshake"):
        age = max(0, int(now - known["handshake"]))
    enabled = known.get("enabled", seen.get("peer_enabled"))
    state, reasons = classify(seen, enabled, age, stale_after)
    behind = _clock.behind(seen, seen.get("now", now))
    if behind:
        reasons = reasons + ["its clock is %s behind its own last record" % duration(behind)]
    system = seen.get("host") or {}
    return {
        "host": str(host), "state": state, "reasons": reasons, "peer_id": seen.get("peer_id") or known.get("id"),
        "peer_name": seen.get("peer_name") or known.get("name"), "enabled": enabled, "address": known.get("address") or None,
        "expires_at": known.get("expires_at"), "tunnel": told.get("status"), "handshake_age": age, "rx_bytes": told["rx_bytes"], "tx_bytes": told["tx_bytes"],
        "beat_age": _clock.age(seen["last_beat"], seen.get("now", now)) if seen.get("last_beat") else None, "reporting": seen.get("reporting"),
        "system": " ".join(filter(None, (system.get("distribution"), system.get("version")))) or None}


def gatecontrol_report(hosts, hostvars, peers=None, server_error=None, stale_after=STALE, fail_on=None, now=None):
    """The report on these hosts. peers: the server's list as gatecontrol_info gives it, None where it was not asked; server_error: why not."""
    fail_on = [state for state in STATES if state not in WELL] if fail_on is None else list(fail_on)
    unknown = sorted(set(fail_on) - set(STATES))
    if unknown:
        raise AnsibleFilterError("%s is no state of a host; take some of %s" % (", ".join(unknown), ", ".join(STATES)))
    now = time.time() if now is None else now
    listed = [_fleet.slim(peer) for peer in peers or []]
    by_id, by_name = {peer["id"]: peer for peer in listed}, {peer["name"]: peer for peer in listed}
    entries, held, servers = [], set(), set()
    for host in hosts:
        known = hostvars[host]
        seen = known.get(SEEN) or {}
        peer = by_id.get(seen["peer_id"]) if seen.get("peer_id") else by_name.get(known.get("gatecontrol_name") or host)
        entries.append(entry(host, seen, peer, int(stale_after), now))
        held.add(entries[-1]["peer_id"])
        servers.add(seen.get("url"))
    worst = list(STATES)
    entries.sort(key=lambda found: (worst.index(found["state"]), found["host"]))
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)), "servers": sorted(filter(None, servers)), "stale_after": int(stale_after),
        "counts": {state: sum(found["state"] == state for found in entries) for state in STATES},
        "attention": sum(found["state"] not in WELL for found in entries),
        "failing": [found["host"] for found in entries if found["state"] in fail_on], "hosts": entries,
        "peers_without_host": None if peers is None else [
            {"id": peer["id"], "name": peer["name"], "address": peer["address"], "enabled": peer["enabled"], "expires_at": peer["expires_at"],
             "handshake_age": max(0, int(now - peer["handshake"])) if peer["handshake"] else None}
            for peer in listed if peer["id"] not in held and peer["type"] != "gateway"],
        "server_error": server_error}


def duration(seconds):
    """Seconds in the unit a person would take."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return "%d %s" % (seconds // size, unit)
    return "%d s" % seconds


def size(count):
    """Bytes in the unit a person would take."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            break
        count, unit = count / 1024, "TiB"
    return ("%d %s" if unit == "B" else "%.1f %s") % (count, unit)


def shown(found):
    """An entry of the report in words, by the names of COLUMNS."""
    age, reasons = found["handshake_age"], found["reasons"]
    peer = "%s (%s)" % (found["peer_name"], found["peer_id"]) if found["peer_id"] else "-"
    received, sent = ("-" if found[key] is None else size(found[key]) for key in ("rx_bytes", "tx_bytes"))
    return {"host": found["host"], "state": found["state"].replace("_", " "), "peer": peer, "tunnel": found["tunnel"] or "-",
            "handshake": duration(age) if age is not None else "-" if found["tunnel"] is None else "never", "received": received, "sent": sent,
            "why": "" if not reasons else reasons[0] + (" (and %d more)" % (len(reasons) - 1) if len(reasons) > 1 else "")}


def gatecontrol_table(report, width=160):
    """The report as lines for a terminal of this width; the worst hosts stand last, above the counts, where one looks when a play has ended."""
    worst = list(STATES)
    rows = [dict(zip(COLUMNS, COLUMNS))] + [shown(found) for found in sorted(report["hosts"], key=lambda found: -worst.index(found["state"]))]
    wide = {name: max(len(row[name]) for row in rows) for name in COLUMNS}
    lines = []
    for row in rows:
        line = "  ".join(row[name].rjust(wide[name]) if name in ("handshake", "received", "sent") else row[name].ljust(wide[name])
                         for name in COLUMNS).rstrip()
        lines.append(line if len(line) <= width else line[:width - 1] + "…")
    counts = ", ".join("%d %s" % (number, state.replace("_", " ")) for state, number in report["counts"].items() if number)
    lines += ["", "hosts: %d%s" % (len(report["hosts"]), counts and " (%s)" % counts)]
    if report["peers_without_host"]:
        lines.append("peers on the server that no host of this report has: %d" % len(report["peers_without_host"]))
    return lines + ["the server was not asked for its peers: %s" % report["server_error"]] * bool(report["server_error"])


def gatecontrol_page(report, template):
    """The report as a page of HTML. template: its text, for Jinja, which escapes whatever the report holds."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(duration=duration, size=size)
    return environment.from_string(str(template)).render(report=report, states=STATES, well=WELL, fresh=_agent.HANDSHAKE_FRESH)


class FilterModule:
    """The three forms of the report."""

    def filters(self):
        return {"gatecontrol_report": gatecontrol_report, "gatecontrol_table": gatecontrol_table, "gatecontrol_page": gatecontrol_page}
