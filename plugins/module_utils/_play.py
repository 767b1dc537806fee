# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller's processes of one run share, and what a play must be like before the controller's secrets are used. On the controller only.

Each task of each host has a process of its own, forked from the play's. What is made while this is loaded, in the play's own process, all of them have: the
key pair that hosts are challenged with, and a piece of memory that outlives the process that wrote it. The administrator's session and what this run made on
a server are kept there: in no variable, so no host can read or replace them, and in no file.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import base64
import hashlib
import hmac
import json
import mmap
import os
import re
import typing as t

from . import _proof, _x25519

_PRIVATE = os.urandom(32)
CHALLENGE = base64.b64encode(_x25519.multiply(_PRIVATE, _x25519.BASE_POINT)).decode("ascii")  # what every host of this run is challenged with
_KEY = os.urandom(32)
_MEMORY = mmap.mmap(-1, 1 << 24)  # anonymous and shared; the machine gives it no page that is not written
_HEAD = 8 + 32  # length and SHA-256 of what follows
OURS = re.compile(r"_*(ansible_)?_*gatecontrol_")  # names of variables that are the collection's
# What Ansible says a host is called, and what else templates are made of; a fact of the same name stands above it.
ANSIBLES = ("inventory_hostname", "inventory_hostname_short", "omit", "lookup", "query", "q", "now", "undef", "dict", "range", "namespace")


class PlayError(Exception):
    """The play is not one in which the controller's secrets may be used. One sentence."""

    failure = {"kind": "play", "status": None}


def expected_proof(public_key: str) -> str | None:
    """What a host answers to CHALLENGE that has the private key to this public one (base64)."""
    return _proof.of_key(base64.b64encode(_PRIVATE).decode("ascii"), public_key)


def seal(value: t.Any) -> str:
    """Something that tells whether two values are the same, within this run, and nothing else of them."""
    return hmac.new(_KEY, json.dumps(value, sort_keys=True, default=str).encode("utf-8"), hashlib.sha256).hexdigest()


def remembered() -> dict:
    """What this run's processes have noted so far, {} in a run that has noted nothing. Written by one process at a time, as under the linear strategy."""
    size = int.from_bytes(_MEMORY[:8], "big")
    text = _MEMORY[_HEAD:_HEAD + size]
    return json.loads(text) if size and hashlib.sha256(text).digest() == _MEMORY[8:_HEAD] else {}


def remember(notes: dict) -> None:
    """Keep notes for this run's other processes, in place of those that were there."""
    text = json.dumps(notes).encode("utf-8")
    if len(text) + _HEAD <= len(_MEMORY):
        _MEMORY[:_HEAD + len(text)] = len(text).to_bytes(8, "big") + hashlib.sha256(text).digest() + text


def check_strategy(play: t.Any) -> None:
    """Raise PlayError unless all hosts of a batch do a task before one of them does the next, as under linear and what is made of it."""
    name = play.strategy
    if name.rsplit(".")[-1] in ("linear", "debug"):
        return
    from ansible.plugins.loader import strategy_loader  # pylint: disable=ansible-bad-module-import  # on the controller only

    found = strategy_loader.get(name, class_only=True)
    if not any(one.__module__.endswith("strategy.linear") for one in getattr(found, "__mro__", ())):
        raise PlayError("the play's strategy is %s, under which each host would log in by itself and none would know of the others' peers, so nothing was "
                        "made; use the strategy linear (play keyword, ANSIBLE_STRATEGY or ansible.cfg)" % name)


def has_facts(variables: t.Mapping) -> bool:
    """Whether facts of a host are known, beside the interpreter that Ansible itself has found there."""
    return bool(set(variables.get("ansible_facts") or {}) - {"discovered_interpreter_python"})


def foreign_facts(variables: t.Mapping) -> list[str]:
    """Names of the collection's variables and of Ansible's own among the facts of a host: it has no business to set them, and facts stand above them."""
    return sorted(str(name) for name in variables.get("ansible_facts") or {} if OURS.match(str(name)) or str(name) in ANSIBLES)


def check_facts(host: str, variables: t.Mapping) -> None:
    """Raise PlayError where a host's facts name a variable of the collection's, or say that it is another host."""
    found = foreign_facts(variables)
    if found:
        host = "this host" if "inventory_hostname" in found else host
        # The name is the host's own text.
        shown = "".join(character if character.isascii() and character.isprintable() else "?" for character in found[0])[:60]
        raise PlayError("the facts of %s set %s%s, which a host has no business to, and no secret was used for it; look at what that host answers, clear its "
                        "fact cache, and set such variables in the inventory or with set_fact without cacheable"
                        % (host, shown, " and %d more" % (len(found) - 1) if len(found) > 1 else ""))


class _NoFacts(dict):
    """A fact cache in which nothing is."""

    def get(self, _host, _default=None):
        return {}


def check_values(action: t.Any, host: str, variables: t.Mapping, names: t.Iterable[str]) -> None:
    """Raise PlayError where variables of the collection's come out otherwise than they do without facts of this host or another.

    An inventory may make them of other variables, which a fact of the same name replaces, and of other hosts' (hostvars).
    """
    others = any(isinstance(variables.get(name), str) and "hostvars" in variables[name] for name in names)
    if not others and not has_facts(variables):
        return
    from ansible.template import Templar, trust_as_template  # pylint: disable=ansible-bad-module-import  # on the controller only

    texts = {name: trust_as_template("{{ %s | default(none) }}" % name) for name in sorted(names)}
    values = {name: action._templar.template(text) for name, text in texts.items()}
    manager = variables["hostvars"]._variable_manager
    facts, manager._fact_cache = manager._fact_cache, _NoFacts()  # in this process alone, which is the task's own; the cache itself is not touched
    try:
        plain = Templar(loader=action._loader, variables=manager.get_vars(play=action._task.play, host=manager._inventory.get_host(host), task=action._task))
        found = next((name for name in texts if not _comes_to(plain, texts[name], values[name])), None)
    finally:
        manager._fact_cache = facts
    if found:
        raise PlayError("a fact of %s%s changes %s, which must not depend on what a host says, and no secret was used for it; set it to a value that holds "
                        "without facts" % (host, " or another host" if others else "", found))


def _comes_to(templar: t.Any, text: str, value: t.Any) -> bool:
    try:
        return templar.template(text) == value
    except Exception:  # pylint: disable=broad-except  # whatever it is, it does not come out without facts
        return False
