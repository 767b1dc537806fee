# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts may say: the schemas of the agent's answers and of the results of the modules that run on hosts. On the controller only.

What is not named here reaches no result. A key that the agent or a module gains has to be added here, and a test compares both.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import re
import typing as t

from . import _gate
from ._gate import data, flag, integer, listing, number, opaque, optional, pattern, record, table, text, word

DIGEST = pattern("[0-9a-f]{64}", "a SHA-256 digest")
KIND = pattern("[a-z][a-z_-]{0,39}", "a word")
CHANGE = pattern("[0-9A-Za-z-]{1,64}", "the number of a change")
HOSTNAME = pattern(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?", "a host name")
INTERFACE = pattern(r"(?!\.\.?$)[a-zA-Z0-9_=+.-]{1,15}", "the name of an interface")
IDENTIFIER = pattern("[A-Za-z0-9._+-]{0,64}", "a plain identifier")  # of os-release
URL = pattern("https?://[A-Za-z0-9._:/~%\\[\\]-]{1,500}", "a URL")
RELEASE = pattern("[0-9A-Za-z][0-9A-Za-z.+-]{0,39}", "a release")
USER = pattern("[A-Za-z_][A-Za-z0-9_.-]{0,63}", "the name of a user")
WHEN = optional(number(0, 1e11))  # seconds since 1970
BYTES = integer(0, 2 ** 63)
PEER_ID = integer(1, 2 ** 53)
REASONS = listing(text(300), 100)
# Where the agent looks for programs.
RESOLVECTL = word(*(f"{folder}/resolvectl" for folder in (
    "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/homebrew/bin")))

_FAILURE = {"kind": KIND, "status": optional(integer(0, 999))}


def failure(value: t.Any) -> dict[str, t.Any]:
    """`failure` of a result, its details included: what a play decides by."""
    return dict(table(optional(data(1, 300)), 20)(value), **record(_FAILURE, ("kind",))(value))


HOST = record({
    "system": word("linux", "macos", "windows"), "distribution": IDENTIFIER, "like": listing(IDENTIFIER, 20), "version": IDENTIFIER,
    "service_manager": optional(word("systemd", "launchd", "windows")), "fingerprint": DIGEST, "hostname": HOSTNAME, "resolvectl": optional(RESOLVECTL),
    "homebrew": optional(record({"prefix": word("/opt/homebrew", "/usr/local"), "owner": USER}, ("prefix", "owner"))),
    "needs": listing(KIND, 20), "obstacles": listing(text(), 20)}, ("system", "distribution", "like", "service_manager", "fingerprint", "hostname"))
SERVER = record({
    "asked": flag, "updated": flag, "last_check": WHEN, "not_before": WHEN, "error": lambda value: dict(failure(value), **record({"text": text()})(value))})
VERDICT = {"id": CHANGE, "ok": flag, "reason": optional(text()), "action": optional(KIND), "reasons": REASONS, "ended": WHEN, "unrecorded": optional(text()),
           "back": flag}

VERIFY = {
    "version": RELEASE, "in_sync": flag, "drift": listing(text(), 100), "codes": listing(KIND, 100), "enrolled": flag,
    "peer_id": optional(PEER_ID), "peer_name": optional(text(255)),
    "reporting": optional(word("full", "none")), "url": optional(URL), "interface": optional(INTERFACE), "hash": optional(DIGEST), "status": KIND,
    "handshake_age": optional(integer(0, 10 ** 11)), "rx_bytes": BYTES, "tx_bytes": BYTES, "peer_enabled": optional(flag), "last_beat": WHEN,
    "beside_tunnel": optional(listing(text(300), 100)), "left_out": listing(text(60), 1000),
    "last_try": WHEN, "last_check": WHEN, "not_before": WHEN, "now": number(0, 1e11), "error": optional(record({"kind": KIND, "text": text()}, ("kind",))),
    "refused": optional(record({"hash": DIGEST, "text": optional(text()), "again": WHEN})), "requests": optional(integer(0, 10 ** 6)),
    "clock_behind": optional(number(0, 1e11)), "failures": optional(integer(0, 10 ** 9)),
    "verdict": optional(record(VERDICT, ("ok",))), "pending": flag, "peer_fields": optional(flag), "server": SERVER, "host": HOST, "proof": optional(DIGEST),
    "tunnel": optional(record({"action": KIND, "reasons": REASONS, "unseen": listing(text(40), 20)}))}
NEEDED = ("version", "in_sync", "drift", "enrolled", "peer_id", "peer_name", "reporting", "url", "interface", "status", "now", "pending", "server", "host")
VERIFY_ANSWER = record(VERIFY, NEEDED)
CONFIRM = {"confirm": CHANGE}
# verdict or word, never both
CONFIRM_ANSWER = record(dict(VERDICT, **CONFIRM))

ABOUT_SERVER = record({"url": URL, "version": optional(text(40)), "timestamp": optional(text(40)), "register": word("broken", "works")})
PLAN = {"action": KIND, "reasons": REASONS}
HASH = optional(DIGEST)
FILES = opaque(4 * 1024 * 1024)

# What _prospect looks at on a host before it is enrolled, in its order; the connection is the action's own point.
POINTS = ("connection", "enrollment", "root", "python", "systemd", "wireguard", "tun device", "capability", "sysctl", "networks", "interface", "packages",
          "DNS tool", "sandbox", "server", "clock", "endpoint")

# name of the module -> what it may return beside COMMON
MODULES: dict[str, dict[str, t.Callable[[t.Any], t.Any]]] = {
    "gatecontrol_agent": {"files": listing(text(300), 200)},
    "gatecontrol_config": {
        "hash": DIGEST, "updated": flag, "config": opaque(1024 * 1024), "files": FILES, "dest": text(4096), "backup_file": text(4096),
        "needs": listing(KIND, 20), "plan": record(PLAN), "full_tunnel": flag},
    "gatecontrol_host_check": {
        "points": listing(record({"name": word(*POINTS), "outcome": word("pass", "fail", "n/a"), "text": text()}, ("name", "outcome", "text")), len(POINTS))},
    "gatecontrol_host_info": VERIFY,
    "gatecontrol_info": {
        "server": ABOUT_SERVER,
        "permissions": optional(table(optional(data(2)), 100)), "scopes": optional(listing(text(100), 100)), "peers": listing(data(), 100000)},
    "gatecontrol_peer": {
        "peer": optional(record({"id": optional(PEER_ID), "name": optional(text(255)), "enabled": optional(flag), "address": optional(text(100))})),
        "created": flag, "adopted": flag, "reporting": word("full", "none"), "hash": HASH, "config": opaque(1024 * 1024), "files": FILES,
        "server": optional(ABOUT_SERVER)},
    "gatecontrol_status": {
        "status": KIND, "reported": flag, "peer_enabled": optional(flag), "handshake_age": optional(integer(0, 10 ** 11)), "rx_bytes": BYTES,
        "tx_bytes": BYTES},
    "gatecontrol_tunnel": dict(
        PLAN, rolled_back=optional(flag), armed=CHANGE, unseen=listing(text(40), 20), kept=optional(listing(text(100), 40))),
}


def _diff(value: t.Any) -> t.Any:
    """A diff: texts or dictionaries for before and after, alone or in a list."""
    if isinstance(value, list):
        return [_diff(part) for part in value[:20]]
    side: t.Callable[[t.Any], t.Any] = lambda part: _gate.clean_lines(part) if isinstance(part, str) else data(6)(part)
    return record({"before": side, "after": side, "prepared": side, "before_header": text(300), "after_header": text(300)})(value)


def warnings(value: t.Any) -> list[str]:
    """Warnings as texts; modules and ansible-core hand them over as objects of their own."""
    found = []
    for warning in list(value)[:20] if isinstance(value, (list, tuple)) else []:
        event = warning.get("event") if isinstance(warning, dict) else getattr(warning, "event", None)
        message = event.get("msg") if isinstance(event, dict) else getattr(event, "msg", warning)
        if isinstance(message, str):
            found.append(_gate.clean(message))
    return found


COMMON: dict[str, t.Callable[[t.Any], t.Any]] = {
    "changed": flag, "failed": flag, "skipped": flag, "msg": text(2000), "rc": integer(-2 ** 31, 2 ** 31), "failure": failure, "diff": _diff,
    "warnings": warnings}
ANSIBLES_OWN = ("invocation", "exception", "deprecations", "add_host", "add_group")  # keys of a result that ansible-core takes for its own
_SCRIPT = {
    "result": optional(table(data(5, 1024 * 1024, as_it_is=True), 100)),
    "error": optional(listing(record({"exception": optional(record({"message": optional(text())}))}), 20))}
# Modules of the Windows collections that the role runs on hosts, as gatecontrol_windows knows them.
WINDOWS: dict[str, dict[str, t.Callable[[t.Any], t.Any]]] = {
    "ansible.windows.win_powershell": _SCRIPT, "ansible.windows.win_copy": {}, "ansible.windows.win_package": {"reboot_required": flag}}
# What ansible-core makes of a module that gave no result; shown as it is, but for a person.
TROUBLE = {"module_stdout": 2000, "module_stderr": 4000}


def result(name: str, answer: t.Any, fields: dict[str, t.Callable[[t.Any], t.Any]]) -> dict[str, t.Any]:
    """What a module's result says within its schema; everything else, facts and Ansible's own keys among it, is dropped.

    name: of the module, for the message; fields: its schema, beside COMMON.
    A value of a wrong form makes the result a failure that names the key, and nothing of the answer is kept.
    """
    if not isinstance(answer, dict):
        answer = {}
    try:
        found = record(dict(COMMON, **fields))(answer)
    except _gate.Refused as err:
        return {"failed": True, "changed": False, "failure": {"kind": "answer", "status": None},
                "msg": f"the host's answer to {name} is not of the form it must have: {err}; look into the Python and the agent on that host"}
    if found.get("failed"):
        for key, most in TROUBLE.items():
            if answer.get(key):
                found[key] = _gate.clean_lines(answer[key], most)
    return found


def tunnel(answer: dict[str, t.Any]) -> dict[str, t.Any]:
    """What the agent of Windows says of a change, within the schema of gatecontrol_tunnel. Raises Refused."""
    return record(dict(COMMON, **MODULES["gatecontrol_tunnel"]))(answer)


def ssh_connection(output: str) -> str:
    """The last line of an output, if it is two addresses and two ports as in SSH_CONNECTION, else nothing."""
    line = (output[-2000:].strip().splitlines() or [""])[-1].strip()
    return line if re.fullmatch(r"(?:[0-9A-Fa-f:.]{2,45}(?:%[0-9A-Za-z._-]{1,15})? [0-9]{1,5} ?){2}", line) else ""


def powershell_error(done: dict[str, t.Any]) -> str:
    """What a failed run of PowerShell said, in one line."""
    errors = done.get("error") if isinstance(done.get("error"), list) else []
    words = [str((error.get("exception") or {}).get("message") or "") if isinstance(error, dict) and isinstance(error.get("exception"), dict) else str(error)
             for error in errors[:5]]
    return _gate.clean("; ".join(filter(None, words)) or done.get("msg") or "no answer")
