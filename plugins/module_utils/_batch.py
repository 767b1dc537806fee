# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gatecontrol_fleet does, as a module and as an action: from options to the Fleet, and from a play's batch of hosts to one run of it.

The role has each host of a batch say what it needs (ask), then settles all of it in one go (settle_batch); both in the controller's own process.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import time
import typing as t

from . import _api, _fleet, _options, _play, _session

# Option -> the variables that it is made of. They decide where the controller's secrets go, so they are the same for all hosts of a batch, facts aside.
REACH = {name: ("gatecontrol_" + name,) for name in (*_options.REACH, "peers_token", "admin_user", "admin_password", "token_user")}
REACH.update({name: (*REACH[name], "gatecontrol_controller_" + name) for name in ("ca_path", "client_cert", "client_key")})
# A host's own, which must not be made of what it says either.
OWN = ("gatecontrol_adopt", "gatecontrol_peer_id", "gatecontrol_token")
ASKED, SETTLED = "__gatecontrol_asked", "__gatecontrol_fleet"  # what the role registers of ask and settle_batch
OTHER_SERVER = ("one list of peers serves a batch, and this host has another server than the first one of it; run a play for the hosts of each (--limit)")


def settle(params: dict, check_mode: bool, notes: dict | None = None, hosts: list | None = None, pace: bool = False) -> dict:
    """Bring the peers of hosts to a state, by the options of gatecontrol_fleet; the result of the module.

    notes: what this run has noted of the server, as _play.remembered has it, and is added to; the session among it. Raises ApiError, PeerError.
    """
    notes, options = {} if notes is None else notes, _options.reach(params, None)
    key = reach_key(params)
    known = notes.setdefault("sessions", {}).get(key)
    api, user = _session.administrator(dict(params, session=params["session"] or known), options)
    if user and api.transport.fresh:
        notes["sessions"][key] = api.transport.fresh
        _options.keep_secret(*api.transport.fresh.values())
    peers_token = _options.secret(params, "peers_token")
    if not user and not peers_token:
        raise _api.ApiError("no secret was given for the server; set admin_user and admin_password, or peers_token", "options")
    fleet = _fleet.Fleet(api or _api.Api(dict(options, token=peers_token)), user, pace, _play.expected_proof, notes.setdefault(options["url"], {}))
    return _act(fleet, params, hosts, check_mode)


def _act(fleet: _fleet.Fleet, params: dict, hosts: list | None, check_mode: bool) -> dict:
    if hosts is None:
        hosts = [dict(host, adopt=params["adopt"] if host.get("adopt") is None else host["adopt"]) for host in params["hosts"]]
    hosts = hosts + [{"host": name, "name": name, "word": True} for name in params["names"]]
    if params["state"] == "listed":
        return dict(fleet.listed(), changed=False, requests=fleet.api.requests)
    found = {
        "present": lambda: fleet.present(hosts, check_mode),
        "kept": lambda: fleet.kept(hosts, check_mode),
        "absent": lambda: fleet.absent(hosts, params["max_percent"], params["others"], check_mode),
        "expired": lambda: fleet.expired(check_mode),
        "rotated": lambda: fleet.rotated(hosts, params["keys"], check_mode),
        "confirmed": lambda: fleet.confirmed(hosts, check_mode)}[params["state"]]()
    _options.keep_secret(*[host.get(key) for host in found.values() for key in ("token", "config")])
    done = {name: "gone" if host.get("deleted") else "made" if host.get("created") else "changed" for name, host in found.items() if host.get("changed")}
    return {"changed": bool(done), "hosts": found, "requests": fleet.api.requests, "diff": {"before": {}, "after": done}}


def reach_key(params: dict) -> str:
    """What stands for a server's address, the way to it and the login."""
    return _play.seal({name: params.get(name) for name in REACH})


# ---------------------------------------------------------------- the hosts of a play's batch

def check(action: t.Any, task_vars: dict, alone: bool = False) -> None:
    """Raise PlayError unless the controller's secrets may be used for the host of a task. alone: what is done needs nothing of the batch's other hosts."""
    host = task_vars["inventory_hostname"]
    if not alone:
        _play.check_strategy(action._task.play)
    _play.check_facts(host, task_vars)
    _play.check_values(action, host, task_vars, {name for names in REACH.values() for name in names} | set(OWN))


def ask(params: dict) -> dict:
    """What one host needs of the server, for settle_batch; not whether it may have it. Without a host nothing but what check says. Raises ApiError."""
    if not params["hosts"]:
        return {"changed": False}
    options, host = _options.reach(params, None), dict(params["hosts"][0])
    notes = _play.remembered().get(options["url"], {})
    if params["client_token"] and host["wanted_id"]:
        host["bound"] = _bound(options, params["client_token"], host["wanted_id"])
    return {"changed": False, "asked": {
        "at": time.monotonic_ns(), "url": options["url"], "reach": {name: _play.seal(params.get(name)) for name in REACH}, "host": host,
        "needed": params["state"] != "absent" or bool(host["peer_id"]) or host["host"] in notes.get("made", {})}}


def _bound(options: dict, token: str, number: int) -> int | None:
    """The number of a peer if the server says that a client token is bound to it; releases before 1.6.1 bind none, and do not know the question."""
    try:
        _api.Api(dict(options, token=_options.secret({"token": token}))).peer_info(number)
    except _api.ApiError:
        return None
    return number


def settle_batch(params: dict, task_vars: dict, check_mode: bool, pace: bool = False) -> dict:
    """Settle what the hosts of this batch have asked for since the last time. Raises ApiError, PeerError, PlayError."""
    asked, refused = asking(params, task_vars)
    hosts = [one["host"] for one in asked if one["needed"]]
    if asked and not hosts:
        return {"changed": False, "hosts": refused, "requests": 0, "settled": time.monotonic_ns()}
    notes = _play.remembered()
    try:
        result = settle(params, check_mode, notes, hosts, pace)
    finally:
        _play.remember(notes)
    return dict(result, settled=time.monotonic_ns(), **({"hosts": dict(result["hosts"], **refused)} if "hosts" in result else {}))


def asking(params: dict, task_vars: dict) -> tuple[list[dict], dict[str, dict]]:
    """(What hosts asked, {host: result of one that is not served}). Raises ApiError (options) where hosts differ in what decides where secrets go."""
    if params["names"] or params["state"] in ("expired", "listed"):
        return [], {}
    asked, refused = [], {}
    for name in _hosts(task_vars):
        variables = task_vars["hostvars"][name]
        one = (variables.get(ASKED) or {}).get("asked")
        if not one or _play.foreign_facts(variables) or one["host"]["host"] != name or one["at"] <= (variables.get(SETTLED) or {}).get("settled", 0):
            continue
        other = difference(params, one)
        if other and params["state"] == "kept":
            refused[name] = {"msg": OTHER_SERVER, "failure": {"kind": "options", "status": None}}
        elif other:
            raise _api.ApiError(disagreement(other, params, one, task_vars["inventory_hostname"]), "options")
        else:
            asked.append(one)
    return asked, refused


def _hosts(task_vars: dict) -> list[str]:
    """The batch. Hosts that failed are in no list of their own batch, and are to be retired all the same."""
    left = set(task_vars["ansible_play_hosts"])
    batch = list(task_vars["ansible_play_batch"])
    return batch + [name for name in task_vars["ansible_play_hosts_all"] if name not in left and name not in batch]


def difference(params: dict, asked: dict) -> str | None:
    """The first option in which a host differs from the one that the batch is settled for."""
    return next((name for name in REACH if asked["reach"].get(name) != _play.seal(params.get(name))), None)


def disagreement(name: str, params: dict, asked: dict, first: str) -> str:
    """The sentence about hosts that differ."""
    advice = "but one login and one list of peers serve a batch, and nothing was made"
    if name == "url":
        servers = sorted({_options.reach(params, None)["url"], asked["url"]})
        if len(servers) > 1:
            return "The hosts of this batch have %s as their server, %s; run a play for the hosts of each (--limit)." % (" and ".join(servers), advice)
    return "%s and %s differ in gatecontrol_%s, %s; give all hosts of the play the same, or run a play for the hosts of each (--limit)" % (
        first, asked["host"]["host"], name, advice)
