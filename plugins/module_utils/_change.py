# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change with a way back: armed, taken, proven, confirmed, else undone; and ended where it was interrupted.

`run`, `services`, `store` as _step takes them.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import time

from . import _enrollment, _lock, _observe, _pace, _plan, _reach, _run, _step, _wgconf

APPLY = "gatecontrol-apply.service"
SILENT = 300  # seconds without a handshake after which a Mac's tunnel is started anew
BOOTED = "var/run/gatecontrol.booted"  # on macOS, which empties that folder at boot: what a reboot interrupted has been ended


class Underway(_observe.TunnelError):
    """Another change is under way. One sentence."""


def arm(store, interface, confirm_by="controller", timeout=40, kept=None, clock=time.monotonic, sleep=time.sleep):
    """Prepare the change to the candidate; returns its id. The caller then starts the unit that calls run_armed, with start_no_block.

    confirm_by: "controller" waits for confirm(), "server" takes the proof of run_armed for it. timeout: seconds to prove the step in, and again
    to confirm it in. kept: the kept path of reachability, put in place with the change, None for none. Nothing of the tunnel is touched.
    Raises TunnelError while another change is under way, ConfigError for a candidate that does not parse.
    """
    _observe.unit_of(interface)
    with _lock.held(store, sleep=sleep, clock=clock):
        candidate = store.text("candidate") or ""
        _wgconf.parse(candidate, allow_hooks=True)
        change, verdict, now = store.load("pending"), store.load("verdict"), clock()
        if change and not (verdict and verdict["id"] == change["id"]):
            if starting(change, now):
                raise Underway("another change of %s is under way; try again in %d s" % (
                    change["interface"], _pace.longest(change.get("timeout", timeout))))
            # It was interrupted: its way back is still the way to what worked last.
            change.pop("begun", None)
        else:
            change, old = {}, _enrollment.read_text(_observe.config_path(store, interface))
            if verdict:
                store.save("earlier", verdict)
            store.drop("pending", "verdict")
            change["had_config"] = old is not None
            if old is not None:
                store.save("last_good", old)
        store.drop("confirm")
        offered = store.text("offered")
        change.update(id=os.urandom(16).hex(), word=None, interface=interface, confirm_by=confirm_by, armed=now, timeout=timeout,
                      deadline=now + _pace.START + timeout, kept=kept, candidate=_enrollment.digest(candidate),
                      offered=None if offered is None else _enrollment.digest(offered))
        store.save("pending", change)
    return change["id"]


def starting(change, now):
    """Whether a change was armed only just, and its unit is still to begin."""
    return "begun" not in change and change["armed"] <= now <= change["armed"] + _pace.START


def run_armed(run, services, store, prove=None, accept=None, sleep=time.sleep, clock=time.monotonic, probe=None):
    """Take the armed step, prove it, wait for its confirmation, else go back. Returns the verdict, None where nothing is pending.

    prove(until) -> None or the reason why the server is not reached by then; accept(change) records a success, and may be called twice;
    probe(interface, address, port, payload) sends a datagram. The verdict, also saved: {id, word, ok, reason, action, reasons, ended
    (Unix time)}; action and reasons are the plan's. Any failure whatsoever leads back to the config of before, by the change's deadline.
    What another process began and did not end is only gone back from.
    """
    with _lock.held(store, _pace.START, sleep, clock):
        change = store.load("pending")
        if change is None:
            return None
        if not starting(change, clock()) or (store.load("verdict") or {}).get("id") == change["id"]:
            return recover(run, services, store, live=True, accept=accept, sleep=sleep, clock=clock)
        verdict = {"id": change["id"], "ok": False, "reason": None, "action": None, "reasons": []}
        try:
            reason = _go(run, services, store, change, verdict, (prove, sleep, clock, probe or _datagram))
        except Exception as error:  # whatever it was, the host must find its way back
            reason = str(error) or type(error).__name__
        if reason:
            _run.bound(run, clock() + _pace.STEP)
            reason = _go_back(run, services, store, change, reason)
        _run.bound(run, None)
        verdict.update(ok=reason is None, reason=reason, word=change.get("word"))
        return _finish(store, change, verdict, accept)


def _go(run, services, store, change, verdict, means):
    """The way there: step, proof, confirmation. Returns the reason why it is to be undone, None where it is to stay.

    Each part sets the deadline anew, since none is to lose what another took: see docs/lockout.md. means: (prove, sleep, clock, probe).
    """
    prove, sleep, clock, probe = means
    timeout, begun = change["timeout"], clock()
    _set(store, change, begun=begun, deadline=begun + _pace.STEP + timeout)
    _run.bound(run, begun + _pace.STEP)
    if "ran" not in change:
        unit = _observe.unit_of(change["interface"])
        state = services.show([unit], ["UnitFileState"])[unit]
        _set(store, change, ran=_observe.dump(run, change["interface"], store.root) is not None, enabled=state.get("UnitFileState") == "enabled",
             kept_before=_reach.kept_path(store, change["interface"]))
    _reach.mark(run, store, change["interface"], change["kept"])
    sleep(1)  # the answer to whoever armed this should have left the host
    begin = clock()
    step, proof = _take(run, services, store, change)
    verdict.update(action=step.action, reasons=step.reasons)
    taken = clock()
    took = min(taken - begin, _pace.STEP)  # and so long the way back takes as well
    _set(store, change, deadline=taken + timeout + took)
    _run.bound(run, taken + timeout)
    reason = _prove(run, store.root, change["interface"], proof, taken + timeout * 0.6, sleep, clock, probe)
    reason = reason or (prove(taken + timeout) if prove else None)
    if reason or change["confirm_by"] != "controller":
        return reason
    end = clock() + timeout
    _set(store, change, word=os.urandom(16).hex(), deadline=end + took)
    return _await(store, change, end, took, sleep, clock)


def _await(store, change, end, took, sleep, clock):
    """None once the controller has brought the word, else the reason.

    It needs two logins, one to fetch the word and one to bring it. Where the first is slow, the second is given as long as that one took.
    """
    begin, fetched = clock(), False
    while True:
        said = (store.text("confirm") or "").strip()
        if said == change["word"]:
            return None
        if said == change["id"] and not fetched:
            fetched, end = True, end + min(clock() - begin, change["timeout"])
            _set(store, change, deadline=end + took)
        if clock() > end:
            return "the controller did not come back over a new connection within %.0f s" % (end - begin)
        sleep(0.2)


def _set(store, change, **values):
    change.update(values)
    store.save("pending", change)


def _finish(store, change, verdict, accept):
    if "ended" not in verdict:
        verdict["ended"] = int(time.time())
        store.save("verdict", verdict)
    if verdict["ok"] and accept:
        try:
            accept(change)
        except OSError as error:  # a full disk: the next beat tries again
            with contextlib.suppress(OSError):
                store.save("verdict", dict(verdict, unrecorded="%s: %s" % (error.filename or "this host", error.strerror or error)))
            raise
    verdict.pop("unrecorded", None)
    if change.get("candidate") in (None, _enrollment.digest(store.text("candidate") or "")):
        store.drop("candidate")  # another one is newer: a play stored it while this was taken
    store.drop("confirm", "last_good")
    store.drop("pending")  # last: while it is there, whatever interrupts is recovered from
    return verdict


def _take(run, services, store, change):
    """Take the armed step; returns (plan, (config, what ran before))."""
    interface, text = change["interface"], store.text("candidate") or ""
    if _enrollment.digest(text) != change.get("candidate", _enrollment.digest(text)):
        raise _observe.TunnelError("the config that was armed is not the one that lies there now; run the play again")
    path = _observe.config_path(store, interface)
    config = _wgconf.parse(text, allow_hooks=True)
    running = _observe.observe(run, interface, store.root, change["kept"])
    step = _plan.plan(config, running, _observe.applied(path), change["kept"])
    _reach.keep(run, services, store, interface, change["kept"])
    _step.apply(run, services, store, interface, step, config, change["kept"], limit=_pace.STEP * 3 // 4)
    return step, (config, running if step.action in ("sync", "none") else None)


def _go_back(run, services, store, change, reason):
    """Restore the tunnel of before; returns the reason, with what failed on the way."""
    try:
        interface, text = change["interface"], store.text("last_good") if change["had_config"] else None
        if "ran" not in change:
            return reason  # nothing was touched yet
        if change["had_config"] and text is None:
            return reason + "; there was no way back: the last good config is gone"
        kept = change["kept_before"]
        _reach.keep(run, services, store, interface, kept)
        try:
            if text is None or not change["ran"]:
                raise _observe.TunnelError("there was no tunnel")
            config = _wgconf.parse(text, allow_hooks=True)
            step = _plan.plan(config, _observe.observe(run, interface, store.root, kept), _observe.applied(_observe.config_path(store, interface)), kept)
            _step.apply(run, services, store, interface, step, config, kept, text)
        except (_observe.TunnelError,) + _step.ERRORS:
            _step.put_back(run, services, store, interface, text, text is not None and change["ran"], 30)
        if not change["enabled"]:
            services.disable(_observe.unit_of(interface))
    except (_observe.TunnelError,) + _step.ERRORS as error:
        return "%s; the way back failed too: %s" % (reason, error)
    return reason


def _targets(config):
    """(address, port, payload) of datagrams that may draw an answer through the tunnel: its DNS servers, the usual places of a gateway."""
    question = b"\x47\x43\x01\x00\x00\x01" + bytes(7) + b"\x00\x02\x00\x01"  # DNS: the root's name servers
    networks = [ipaddress.ip_network(network) for network in _plan.allowed_networks(config)]
    own = [ipaddress.ip_interface(address) for address in config.interface["Address"]]
    near = [ipaddress.ip_network((one.ip, one.max_prefixlen - 8), strict=False) for one in own]
    found = {(entry, 53, question) for entry in config.interface.get("DNS", []) if _wgconf.is_literal(entry)}
    found |= {(str(network[min(1, network.num_addresses - 1)]), 9, b"") for network in near + networks if network.prefixlen}
    return sorted(target for target in found if any(ipaddress.ip_address(target[0]) in network for network in networks))


def _datagram(interface, address, port, payload):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            if hasattr(socket, "SO_BINDTODEVICE"):  # elsewhere the routes lead there
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            sender.sendto(payload, (address, port))
        except OSError:
            pass  # the handshake decides


def _prove(run, root, interface, proof, limit, sleep, clock, probe):
    """None once a peer has answered since the step, else the reason.

    An answer is a newer handshake or more bytes received; after a change of the endpoint, at the new one."""
    config, before = proof
    peers = [peer["PublicKey"] for peer in config.peers if "Endpoint" in peer]
    old, first, next_probe = before.peers if before else {}, None, 0
    while peers:
        running = _observe.dump(run, interface, root)
        if running is None:
            return "the interface went away"
        first = first or running
        for key in peers:
            live, known = running.peers.get(key, {}), old.get(key, {})
            settled = not known or known["endpoint"] == first.peers[key]["endpoint"] or live["endpoint"] == first.peers[key]["endpoint"]
            if live and settled and (live["rx"] > known.get("rx", 0) or live["handshake"] > known.get("handshake", 0)):
                return None
        if clock() > limit:
            return "no answer from the WireGuard peer %s… at %s" % (peers[0][:8], running.peers.get(peers[0], {}).get("endpoint"))
        if clock() >= next_probe:
            next_probe = clock() + 1
            for address, port, payload in _targets(config):
                probe(_observe.real_name(root, interface) or interface, address, port, payload)
        sleep(0.1)
    return None


def confirm(store, word, wait=60, sleep=time.sleep, clock=time.monotonic):
    """Ask for a change's verdict by its id, or confirm the change by the word that this gives once the step is taken and proven.

    Returns {"confirm": word} or the verdict, None where neither came within `wait` seconds. A connection made before the step proves
    nothing, however late its command runs: bring the word over a NEW one, made after the word was given. Another change may have been armed since
    this one ended.
    """
    end, said = clock() + wait, False
    while True:
        change = store.load("pending") or {}
        for verdict in filter(None, (store.load("verdict"), store.load("earlier"))):
            if word in (verdict["id"], verdict.get("word")) and (change.get("id") != verdict["id"] or "unrecorded" in verdict):
                return verdict
        lost = _lost(change, word, clock())
        if lost:
            return {"id": word, "ok": False, "reason": lost, "action": None, "reasons": []}
        if change.get("word") and change["id"] == word:
            if not store.text("confirm"):
                with contextlib.suppress(OSError):  # it only tells that the controller was here
                    store.save("confirm", word)
            return {"confirm": change["word"]}
        if change.get("word") == word:
            if not said:  # once: the unit may be clearing up already
                store.save("confirm", word)
            said = True
        if clock() >= end:
            return None
        sleep(0.1)


def _lost(change, word, now):
    """Why the change of an id or word, which has no verdict, will get none; None where it may."""
    if word not in (change.get("id"), change.get("word")):
        return "this host knows nothing of the change any more; look into journalctl -u %s" % APPLY
    if "begun" not in change and not starting(change, now):
        return "its unit %s did not begin within %d s, and nothing was changed; look into journalctl -u %s" % (APPLY, _pace.START, APPLY)
    return None


def recover(run, services, store, live=False, accept=None, sleep=time.sleep, clock=time.monotonic):
    """End a change that was interrupted; returns its verdict, None where there is none, or where it is only just to begin.

    live=False: at boot, before wg-quick starts: only files are restored. live=True: the interface as well, after the unit was killed.
    """
    with _lock.held(store, _pace.START, sleep, clock):
        change, verdict = store.load("pending"), store.load("verdict")
        if change is None:
            return None
        if verdict and verdict["id"] == change["id"]:
            return _finish(store, change, verdict, accept)
        if live and starting(change, clock()):
            return None
        _run.bound(run, clock() + _pace.STEP)
        if live:
            reason = _go_back(run, services, store, change, "the change was interrupted")
        else:
            reason = "the host was rebooted in the middle of the change"
            path, text = _observe.config_path(store, change["interface"]), store.text("last_good")
            if "ran" in change:
                _reach.keep(run, services, store, change["interface"], change["kept_before"])
                if not change["had_config"]:
                    _enrollment.remove_file(path)
                elif text is not None:
                    _enrollment.write_text(path, text)
                if not change["enabled"]:
                    services.disable(_observe.unit_of(change["interface"]))
        verdict = {"id": change["id"], "word": change.get("word"), "ok": False, "reason": reason, "action": None, "reasons": []}
        return _finish(store, change, verdict, accept)


def state_of(store, clock=time.monotonic):
    """What became of the change that is pending: None where none is, "starting", "working", "overdue" (its process should have ended it) or
    "interrupted" (no process is at it). Raises OSError."""
    change = store.load("pending")
    if change is None:
        return None
    now = clock()
    if not _lock.is_free(store):
        over = change["armed"] <= now and now > change["deadline"] + 4 * _pace.LATE
        return "overdue" if over else "working"
    return "starting" if starting(change, now) and not (store.load("verdict") or {}).get("id") == change["id"] else "interrupted"


def tend(run, services, store, interface, accept=None, now=time.time, sleep=time.sleep, clock=time.monotonic):
    """Keep a Mac's tunnel running: after a boot, after wireguard-go ended, after a sleep that it did not survive. Returns what was done, or None.

    A change under way is left alone, and ended if whoever was at it is gone. Raises TunnelError, ServiceError, OSError.
    """
    end = clock() + 60
    while not os.path.exists(os.path.join(store.root, BOOTED)):
        if clock() > end:
            raise _observe.TunnelError("a change that a reboot interrupted may be pending: gatecontrol-recover has not run since the boot")
        sleep(0.5)
    change, path = store.load("pending"), _observe.config_path(store, interface)
    if change:
        state = state_of(store, clock)
        if state == "overdue":
            services.stop(APPLY)
        if state in ("starting", "working"):
            return None
        verdict = recover(run, services, store, live=True, accept=accept, sleep=sleep, clock=clock)
        return failed(interface, verdict) if verdict and not verdict["ok"] else None
    config = _observe.applied(path)
    if config is None:
        return None
    running = _observe.observe(run, interface, store.root)
    if running is not None:
        begun = os.stat(os.path.join(store.root, _observe.NAMES, interface + ".name")).st_mtime
        silent = [now() - max(begun, running.peers.get(peer["PublicKey"], {}).get("handshake", 0))
                  for peer in config.peers if "Endpoint" in peer and peer.get("PersistentKeepalive")]
        if not silent or min(silent) < SILENT:
            return None
    _step.bring_down(run, store, interface)
    _step.bring_up(run, store, interface)
    return "%s was started, since %s" % (interface, "no peer had answered for %d s" % min(silent) if running else "it was not there")


def failed(interface, verdict):
    """The sentence for a change that was undone, or that a Windows host could not undo yet."""
    if verdict.get("back") is False:
        return "the change of %s failed, and the tunnel is not as it was before: %s" % (interface, verdict["reason"])
    return "the change of %s was rolled back and the tunnel is as it was before: %s" % (interface, verdict["reason"])
