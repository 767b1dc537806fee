# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of a play that would get what another one has."""
from __future__ import annotations

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _enrollment, _fleet


def known(name, variables):
    """What _fleet.twins takes of a host: what it is to get in this run, else what the role saw of it, else what the inventory says."""
    entry, seen = variables.get("__gatecontrol_identity"), variables.get("__gatecontrol_seen") or {}
    if entry:
        return dict(entry, new=True, url=_api.normal_url(entry["url"]))
    token = variables.get("gatecontrol_token")
    entry = {"host": name, "token_digest": _enrollment.digest(token.strip()) if token else None}
    if seen.get("enrolled"):
        entry.update(url=seen["url"], name=seen["peer_name"], peer_id=seen["peer_id"], fingerprint=seen["host"]["fingerprint"])
    return entry


def gatecontrol_twins(hosts, hostvars):
    """{host: why it is refused}"""
    return {host: str(error) for host, error in _fleet.twins([known(host, hostvars[host]) for host in hosts if host in hostvars]).items()}


class FilterModule:
    """Filters on the hosts of a play."""

    def filters(self):
        return {"gatecontrol_twins": gatecontrol_twins}
