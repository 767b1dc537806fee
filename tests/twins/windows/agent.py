"""The stand-in of gatecontrol_agent.ps1 on a machine that is a directory tree: the collection's agent for Linux, told what differs on Windows.

  agent.py TREE VERB [WORD] [-WhatIf]

It shows what the role does with an agent's answers. It does not show that PowerShell gives them.
"""
from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(CHECKOUT / "build")]

import machine as machines  # noqa: E402
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import (  # noqa: E402
    _agent, _beat, _change, _drift, _enrollment, _facts, _observe, _plan, _repair, _verify, _wgconf, _windows)

ROOT = "C:\\ProgramData\\GateControl"
SAYS = "this is a stand-in in Python: there is no PowerShell here"
READ = ("enrollment", "token", "intent", "issued", "offered", "settings")
WIREGUARD = "C:\\Program Files\\WireGuard\\wireguard.exe"
# What lives on systemd and on the routes of Linux.
_beat.heal = _beat.mend = lambda *words: None
_repair.beside = lambda agent, running: None


class Store(_enrollment.Store):
    """The host's files, all in one folder."""

    def path(self, name):
        return os.path.join(self.root, os.path.basename(_enrollment.FILES[name]))


class Host(_facts.Host):
    """What the machine is like."""

    machine = None

    def facts(self):
        return {"system": "windows", "distribution": "windows", "like": [], "version": "10.0", "service_manager": "windows", "resolvectl": None,
                "fingerprint": self.fingerprint, "hostname": self.machine.state["hostname"]}

    def needs(self, config=None):
        return [] if os.path.exists(self.machine.path(WIREGUARD)) else ["wireguard"]

    def parts(self):
        return [ROOT] * os.path.isdir(self.store.root) + ["the scheduled task " + name for name in self.machine.state["tasks"]]


class Comparison(_drift.Comparison):
    """The machine beside what a play wants of it."""

    def obstacles(self):
        return []  # the agent of Windows names none

    def files(self):
        state = self.agent.machine.state
        if self.wanted.get("settings") and self.wanted["settings"] != _enrollment.digest(self.store.text("settings") or ""):
            self.drift.add("settings_changed", "the agent's settings differ")
        if os.path.isdir(self.store.root) and state["readers"].get(ROOT) != ["SYSTEM", "Administrators"]:
            self.drift.add("readable", "%s can be read by others than SYSTEM and the administrators" % ROOT)
        for path, digest in self.wanted.get("files", {}).items():
            text = _enrollment.read_text(self.agent.machine.path(path))
            if text is None or _enrollment.digest(text) != digest:
                self.drift.add("file_missing" if text is None else "file_changed", "%s %s" % (path, "is missing" if text is None else "differs"))

    def tunnel(self, running, beside):
        path = self.agent.config_path
        text = _enrollment.read_text(path)
        if text is None or _enrollment.digest(text) != self.agent.enrollment.get("file_hash"):
            self.drift.add("config_missing" if text is None else "config_changed", "%s %s" % (path, "is missing" if text is None else "was changed"))
            return None
        plan = self.agent.plan(_wgconf.parse(text, allow_hooks=True), running)
        self.drift.add("tunnel", *plan.reasons)
        return {"action": plan.action, "reasons": plan.reasons}

    def services(self, state):
        agent, machine = self.agent, self.agent.machine.state
        service = machine["services"].get(agent.service, {})
        if service.get("state") != "running":
            self.drift.add("unit_inactive", "the service %s is %s" % (agent.service, service.get("state", "missing")))
        if service.get("start") != "automatic":
            self.drift.add("unit_disabled", "the service %s does not start at boot" % agent.service)
        for verb in ("beat", "apply") if agent.reports else ("apply",):
            task = machine["tasks"].get("\\GateControl\\" + verb)
            if not task:
                self.drift.add("unit_missing", "the scheduled task \\GateControl\\%s is missing" % verb)
                continue
            if not task["enabled"]:
                self.drift.add("unit_disabled", "the scheduled task \\GateControl\\%s is disabled" % verb)
            if not task["actions"][0]["arguments"].endswith('"%s" %s' % (_windows.AGENT, verb)) or task["username"] != "SYSTEM":
                self.drift.add("file_changed", "the scheduled task \\GateControl\\%s runs something else" % verb)
            interval = max(60, agent.settings.get("heartbeat_interval", 60))
            if verb == "beat" and task["triggers"][0]["repetition"]["interval"] != "PT%dS" % interval:
                self.drift.add("file_changed", "the scheduled task \\GateControl\\beat does not run every %d s" % interval)


class Agent(_agent.Agent):
    """One run on the machine."""

    def __init__(self, machine):
        self.machine = machine
        root = machine.path(ROOT)
        super().__init__(Store(root), None, fingerprint=_enrollment.digest(machine.state["machine_guid"]), platform="windows", clock=time.time)
        self.host = Host(self.store, None, self.services, self.fingerprint)
        self.host.machine = machine
        if machine.state["root_store"]:
            self.settings = dict(self.settings, ca_path=machine.state["root_store"])
        self.settings.update(client_cert=None, client_key=None)

    # -- what Windows tells

    @property
    def service(self):
        return "WireGuardTunnel$" + self.interface

    @property
    def config_path(self):
        return os.path.join(self.store.root, "tunnel", self.interface + ".conf")

    def running(self):
        service = self.machine.state["services"].get(self.service)
        if not service or service["state"] != "running":
            return None
        running, config = _observe.Running(), _wgconf.parse(service["config"], allow_hooks=True)
        running.private_key = config.interface["PrivateKey"]
        for peer in config.peers:
            answers = self.machine.state["peer_answers"] and peer.get("Endpoint") == service["endpoints"].get(peer["PublicKey"])
            running.peers[peer["PublicKey"]] = {
                "handshake": int(time.time()) if answers else 0, "rx": 92 if answers else 0, "tx": 148, "endpoint": peer.get("Endpoint"), "config": peer}
        return running

    def plan(self, config, running):
        """As Get-Plan."""
        if running is None:
            return _plan.Plan("up", ["the interface is not there"])
        applied, restart, sync = _observe.applied(self.config_path) or config, [], []
        live = _wgconf.parse(self.machine.state["services"][self.service]["config"], allow_hooks=True)
        for name in set(config.interface) | set(live.interface) | set(applied.interface):
            if config.interface.get(name) not in (live.interface.get(name),) or config.interface.get(name) != applied.interface.get(name):
                restart.append("%s changes" % name)
        before = {peer["PublicKey"]: peer for peer in live.peers}
        for peer in config.peers:
            old = before.pop(peer["PublicKey"], None)
            if old is None or old["AllowedIPs"] != peer["AllowedIPs"]:
                restart.append("peer %s...: allowed IPs differ" % peer["PublicKey"][:8])
            elif old != peer:
                sync.append("peer %s...: differs" % peer["PublicKey"][:8])
        restart += ["peer %s...: should not be there" % key[:8] for key in before]
        return _plan.Plan("restart" if restart else "sync" if sync else "none", restart + sync)

    # -- the tunnel

    def start(self):
        """/installtunnelservice: the service runs what the file says now."""
        if self.machine.breaks("installtunnelservice"):
            raise _agent.AgentError("wireguard.exe /installtunnelservice failed: the tunnel service did not start", "settings")
        with open(self.config_path, encoding="utf-8") as handle:
            text = handle.read()
        config = _wgconf.parse(text, allow_hooks=True)
        with self.machine.change() as state:
            known = state.setdefault("endpoints", {})
            for peer in config.peers:
                known.setdefault(peer["PublicKey"], peer.get("Endpoint"))
            state["services"][self.service] = {"state": "running", "start": "automatic", "config": text, "endpoints": known}

    def stop(self):
        with self.machine.change() as state:
            state["services"].pop(self.service, None)

    def change(self, wanted, check):
        """As Invoke-ChangeRequest."""
        self.interface = wanted.get("interface") or self.interface
        if wanted["state"] == "absent":
            there = self.service in self.machine.state["services"] or os.path.exists(self.config_path)
            if there and not check:
                self.stop()
                _enrollment.remove_file(self.config_path)
            return {"changed": there, "action": "down" if there else "none", "reasons": []}
        live, candidate = _enrollment.read_text(self.config_path), None if check else self.store.text("candidate")
        if candidate is None and not check:
            raise _agent.AgentError("no config of %s is staged, so nothing was changed; run the play again" % self.interface, "settings")
        text = live if candidate is None else candidate
        if text is None:
            return {"changed": True, "action": "up", "reasons": ["there is no config yet"]}
        plan = self.plan(_wgconf.parse(text, allow_hooks=True), self.running())
        automatic = self.machine.state["services"].get(self.service, {}).get("start") == "automatic"
        result = {"changed": plan.action != "none" or text != live or not automatic, "action": plan.action, "reasons": plan.reasons}
        if check:
            return result
        if plan.action == "none":
            if text != live:
                _enrollment.write_text(self.config_path, text)
            with self.machine.change() as state:
                state["services"][self.service]["start"] = "automatic"
            if candidate is not None:
                self.accept()
                self.store.drop("candidate")
            return result
        result["armed"] = self.new_change("controller", wanted.get("timeout") or 40)
        self.start_apply()
        return result

    def new_change(self, confirm_by, timeout):
        change = self.store.load("pending")
        if change and time.time() <= change["deadline"] + 60:
            raise _agent.AgentError("another change of %s is under way; try again in a minute" % self.interface, "settings")
        if not change:
            old = _enrollment.read_text(self.config_path)
            self.store.drop("verdict")
            change = {"had_config": old is not None}
            if old is not None:
                self.store.save("last_good", old)
        self.store.drop("confirm")
        now = time.time()
        change.update(id=os.urandom(16).hex(), word=None, interface=self.interface, confirm_by=confirm_by, armed=now, deadline=now + timeout,
                      offered=_enrollment.digest(self.store.text("offered") or ""))
        self.store.save("pending", change)
        with self.machine.change() as state:
            state["tasks"]["\\GateControl\\restore"] = {"enabled": True, "username": "SYSTEM", "at": change["deadline"] + 30}
        return change["id"]

    def start_apply(self):
        """Start the scheduled task."""
        if "\\GateControl\\apply" not in self.machine.state["tasks"]:
            raise _agent.AgentError("the scheduled task \\GateControl\\apply is missing", "settings")
        subprocess.Popen([sys.executable, __file__, self.machine.tree, "apply"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL, start_new_session=True)

    def apply(self):
        """As Invoke-Apply."""
        change = self.store.load("pending")
        if not change:
            return None
        if time.time() > change["deadline"] or "ran" in change:
            return self.restore()
        verdict, reason = {"id": change["id"], "action": None, "reasons": []}, None
        try:
            time.sleep(1)
            change["ran"] = self.running() is not None
            self.store.save("pending", change)
            text = self.store.text("candidate")
            plan = self.plan(_wgconf.parse(text, allow_hooks=True), self.running())
            verdict.update(action=plan.action, reasons=plan.reasons)
            self.stop()
            _enrollment.write_text(self.config_path, text)
            self.start()
            if not any(peer["handshake"] for peer in self.running().peers.values()):
                time.sleep(1)
                reason = "no answer from the WireGuard peer"
            reason = reason or self.prove()
            if not reason and change["confirm_by"] == "controller":
                change["word"] = os.urandom(16).hex()
                self.store.save("pending", change)
                while not reason and (self.store.text("confirm") or "").strip() != change["word"]:
                    if time.time() > change["deadline"] - 2:
                        reason = "the controller did not come back over a new connection within %d s" % (change["deadline"] - change["armed"])
                    time.sleep(0.1)
        except Exception as error:  # as in the agent: whatever it was, the host must find its way back
            reason = str(error) or type(error).__name__
        if reason:
            self.undo(change)
        return self.finish(dict(verdict, ok=not reason, reason=reason, word=change["word"]))

    def undo(self, change):
        if "ran" not in change:
            return
        self.stop()
        if not change["had_config"]:
            _enrollment.remove_file(self.config_path)
            return
        _enrollment.write_text(self.config_path, self.store.text("last_good"))
        if change["ran"]:
            self.machine.state["breaks"].clear()
            self.start()

    def restore(self):
        """As Restore-Change."""
        change = self.store.load("pending")
        if not change:
            return None
        self.undo(change)
        return self.finish({"id": change["id"], "word": change["word"], "ok": False, "reason": "the change was interrupted", "action": None, "reasons": []})

    def finish(self, verdict):
        verdict["ended"] = int(time.time())
        self.store.save("verdict", verdict)
        if verdict["ok"]:
            self.accept()
        self.store.drop("confirm", "last_good", "candidate")
        self.store.drop("pending")
        with self.machine.change() as state:
            state["tasks"].pop("\\GateControl\\restore", None)
            if state["reachable"] == "old" and not verdict["ok"]:
                state["reachable"] = True  # what was in the way of new connections is undone
        return verdict

    # -- a play's work

    def protect(self, check):
        there = os.path.isdir(self.store.root)
        changed = not there or self.machine.state["readers"].get(ROOT) != ["SYSTEM", "Administrators"]
        if changed and not check:
            os.makedirs(self.store.root, exist_ok=True)
            with self.machine.change() as state:
                state["readers"][ROOT] = ["SYSTEM", "Administrators"]
        return {"changed": changed}

    def schedule(self, wanted, check):
        """As Set-Schedule."""
        interval, changed = max(60, wanted.get("interval", 60)), []
        begin = datetime.datetime(2026, 1, 1) + datetime.timedelta(seconds=wanted.get("offset", 0))
        for verb in ("apply", "beat"):
            if self.machine.breaks("schedule " + verb) and verb in wanted["verbs"]:
                raise _agent.AgentError("Access is denied.", "settings")
            task = {"enabled": True, "username": "SYSTEM", "actions": [{"arguments": '-File "%s" %s' % (_windows.AGENT, verb)}],
                    "triggers": [{"type": "boot"}] if verb == "apply" else [
                        {"type": "time", "start_boundary": begin.isoformat(), "repetition": {"interval": "PT%dS" % interval}}]}
            name = "\\GateControl\\" + verb
            needed, there = verb in wanted["verbs"], self.machine.state["tasks"].get(name)
            if (needed and there == task) or (not needed and not (there and wanted.get("only"))):
                continue
            changed.append(verb)
            with self.machine.change() if not check else contextlib.nullcontext({"tasks": {}}) as state:
                state["tasks"].pop(name, None)
                if needed:
                    state["tasks"][name] = task
        return {"changed": bool(changed), "names": changed}

    def read(self, token_file):
        token = _enrollment.read_text(self.machine.path(token_file)) if token_file else None
        if token_file and token is None:
            raise _agent.AgentError("gatecontrol_token_file %s does not exist; correct the path" % token_file, "settings")
        return {"changed": False, "files": dict({name: self.store.text(name) for name in READ}, config=_enrollment.read_text(self.config_path)), "token": token}

    def put(self, texts, check):
        if self.machine.breaks("store"):
            raise _agent.AgentError("There is not enough space on the disk.", "settings")
        names = [name for name, text in texts.items() if self.store.text(name) != text]
        for name in sorted(names, key="enrollment".__eq__) if not check else ():
            if texts[name] is None:
                self.store.drop(name)
            else:
                self.store.save(name, texts[name])
        return {"changed": bool(names), "names": names}

    def remove(self, check):
        found = self.host.parts()
        if found and not check:
            shutil.rmtree(self.store.root, ignore_errors=True)
            with self.machine.change() as state:
                state["tasks"].clear()
                state["readers"].pop(ROOT, None)
        return {"changed": bool(found)}


def do(tree, verb, word, check):
    """(exit status, output)."""
    agent = Agent(machines.Machine(tree))
    question = json.loads(base64.b64decode(word)) if verb in ("verify", "change", "schedule") else None
    try:
        if verb == "verify":
            answer = dict(Comparison(agent, question).answer(), stand_in=SAYS)
        elif verb == "confirm":
            answer = _change.confirm(agent.store, word, clock=agent.clock)
        elif verb in ("show", "beat", "sync"):
            return 0, json.dumps(agent.show() if verb == "show" else agent.beat(now=verb == "sync"))
        elif verb in ("apply", "restore"):
            return 0, json.dumps(getattr(agent, verb)())
        elif verb == "checked":
            agent.store.save("state", dict(agent.memory(), last_check=agent.now()))
            return 0, ""
        elif verb == "change":
            answer = agent.change(question, check)
        elif verb == "schedule":
            answer = agent.schedule(question, check)
        elif verb == "store":
            answer = agent.put(json.loads(sys.stdin.read()), check)
        else:
            answer = agent.read(word) if verb == "read" else getattr(agent, verb)(check)
    except (_agent.AgentError, _wgconf.ConfigError) as err:
        return 1, _verify.MARKER + json.dumps({"failed": True, "msg": str(err)})
    return 0, _verify.MARKER + json.dumps(answer)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "-WhatIf"]
    if len(words) not in (2, 3) or not re.fullmatch("[a-z]+", words[1]):
        sys.exit(__doc__)
    status, text = do(words[0], words[1], words[2] if len(words) == 3 else "", "-WhatIf" in sys.argv)
    print(text)
    sys.exit(status)
