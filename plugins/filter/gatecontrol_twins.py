# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of a play that would get what another one has."""
from __future__ import annotations

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _enrollment, _play, _whose


def known(name, variables):
    """What _whose.twins takes of a host: what it is to get in this run, else what the role saw of it, else what the inventory says."""
    foreign = _play.foreign_facts(variables)  # a host that sets them is refused by itself, and takes no other one along
    entry, seen = variables.get("__gatecontrol_identity"), variables.get("__gatecontrol_seen") or {}
    if entry and "__gatecontrol_identity" not in foreign:
        return dict(entry, new=True, url=_api.normal_url(entry["url"]), name=entry.get("name") and str(entry["name"]), peer_id=number(entry.get("peer_id")))
    token = None if "gatecontrol_token" in foreign else variables.get("gatecontrol_token")
    entry = {"host": name, "token_digest": _enrollment.digest(str(token).strip()) if token else None}
    if seen.get("enrolled") and "__gatecontrol_seen" not in foreign:
        entry.update(url=seen["url"], name=str(seen["peer_name"]), peer_id=number(seen["peer_id"]), fingerprint=seen["host"]["fingerprint"])
    return entry


def number(value):
    """A peer's number, which an inventory may have as text; None for what is none."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def gatecontrol_twins(hosts, hostvars):
    """{host: why it is refused}"""
    return {host: str(error) for host, error in _whose.twins([known(host, hostvars[host]) for host in hosts if host in hostvars]).items()}


class FilterModule:
    """Filters on the hosts of a play."""

    def filters(self):
        return {"gatecontrol_twins": gatecontrol_twins}
