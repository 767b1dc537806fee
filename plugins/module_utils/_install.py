# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's files are on the host, or are gone: library, launcher, units, settings.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import os
import shutil
import time

from . import _agent, _beat, _cli, _enrollment, _pace, _services, _verify  # _cli, so that a module's payload has all that an installation is made of
from ._python import interpreter

PARTS = _cli  # what is installed begins there
STARTED = "ExecMainStartTimestampMonotonic"  # of a unit, in microseconds, 0 where it has not run since the boot


class Installation:
    """agent: the Agent of this host. launcher: its text. units: {absolute path: text}, of which those of this host's service manager count.
    settings: dict or None."""

    def __init__(self, agent, launcher, units, settings, python=None):
        self.agent, self.store = agent, agent.store
        program = "#!%s -IS\n%s" % (interpreter(agent.run, python), launcher)
        self.folders = {"/" + _verify.LIBRARY: 0o755, os.path.dirname(_verify.LIBRARY_FILE): 0o755,
                        "/" + _enrollment.ETC: 0o700, "/" + _enrollment.VAR: 0o700}
        self.files = {_verify.LIBRARY_FILE % name: (text, 0o644) for name, text in _verify.sources().items()}
        self.files["/" + _verify.LAUNCHER] = (program, 0o755)
        self.files.update({path: (text, 0o644) for path, text in (units or {}).items() if _services.meant_for(self.store.root, path)})
        if settings is not None:
            self.files["/" + _enrollment.FILES["settings"]] = (_verify.settings_text(settings), 0o600)
        self.recover = agent.services.path(_agent.RECOVER) if agent.services.path(_agent.RECOVER) in self.files else None

    def _place(self, path):
        return os.path.join(self.store.root, path.lstrip("/"))

    def _mode(self, path):
        return os.stat(self._place(path)).st_mode & 0o777 if os.path.exists(self._place(path)) else None

    def differences(self):
        """Paths that are missing, differ, or are left over from an earlier installation; the unit that recovers, too, if it does not start at boot."""
        found = [path for path, mode in self.folders.items() if self._mode(path) != mode]
        found += [path for path, (text, mode) in sorted(self.files.items()) if _enrollment.read_text(self._place(path)) != text or self._mode(path) != mode]
        if self.recover and self.recover not in found:
            state = self.agent.services.show([_agent.RECOVER], ["UnitFileState"])[_agent.RECOVER]
            found += [self.recover] * (state.get("UnitFileState") != "enabled")
        return found + sorted(set(self.store.load("installed") or {}) - set(self.files))

    def write(self, paths):
        """Bring these of the differences about, and see that the agent starts. Raises AgentError."""
        for path in paths:
            if path in self.folders:
                os.makedirs(self._place(path), exist_ok=True)
                os.chmod(self._place(path), self.folders[path])
            elif path in self.files:
                os.makedirs(os.path.dirname(self._place(path)), 0o755, exist_ok=True)
                _enrollment.write_text(self._place(path), *self.files[path])
            else:
                _enrollment.remove_file(self._place(path))
        if not paths:
            return
        self.store.save("installed", {path: _verify.program_digest(path, text) for path, (text, _mode) in self.files.items()})
        units = [path for path in paths if path.endswith(self.agent.services.UNIT_FILES)]
        if units:
            self.agent.services.daemon_reload(*units, enable=[_agent.RECOVER] if self.recover in paths else [])
        # This compiles its library as well, which the beat's own unit may not write.
        rc, out, err = self.agent.run([self._place(_verify.LAUNCHER), "--help"])
        if rc:
            said = " ".join((err or out).split())
            raise _agent.AgentError("the agent was installed but does not start: %s; set interpreter to a Python that works" % said, "settings")


def set_timer(agent, enabled, check_mode=False):
    """Have the timer run and start at boot, or neither; returns whether that changes anything.

    Where the timer or what its beats go by is new, or its beats fail, one beat is made in the unit itself. Raises AgentError where that does not work.
    """
    units = agent.services.show([_agent.TIMER, _agent.BEAT], ("ActiveState", "UnitFileState", STARTED))
    seen, beat = units[_agent.TIMER], units[_agent.BEAT]
    differs = enabled != (seen.get("ActiveState") == "active") or enabled != (seen.get("UnitFileState") == "enabled")
    if differs and not check_mode:
        for step in (agent.services.enable, agent.services.start) if enabled else (agent.services.stop, agent.services.disable):
            step(_agent.TIMER)
    if enabled and not check_mode and (differs or beat.get("ActiveState") == "failed" or _beat.standing(agent.memory()) or is_new(agent, beat)):
        prove_beat(agent)
    return differs


def is_new(agent, beat):
    """Whether the beat's unit has not run since its settings or the unit itself were written. beat: what the unit's show says.

    What else makes beats, such as a change, sees more than the unit.
    """
    if agent.services.NAME != "systemd":
        return False
    ago = time.monotonic() - int(beat.get(STARTED) or "0") / 1e6
    paths = [agent.store.path("settings"), os.path.join(agent.store.root, agent.services.path(_agent.BEAT).lstrip("/"))]
    return any(time.time() - os.stat(path).st_mtime <= ago for path in paths if os.path.exists(path))


def prove_beat(agent):
    """One beat where the timer makes them. Raises AgentError where it fails for another reason than the server's."""
    if agent.services.NAME != "systemd" or not agent.enrollment.get("peer_id") or _beat.silenced(agent.memory(), agent.now()):
        return  # launchd's jobs see what this process sees; a token whose rate limit is used up has nothing to say
    try:
        agent.services.start(_agent.BEAT, limit=_pace.beat(agent.settings.get("heartbeat_interval")))
    except _services.ServiceError as err:
        error = agent.memory().get("error")
        if error and error["kind"] in (*_beat.PASSING, "server"):
            return  # the unit works
        hint = "; it sees no /tmp and no home directory of others, and reads and writes by the rights of root's own files alone: see " \
               "docs/troubleshooting.md"
        raise _agent.AgentError("the agent's own unit does not work, and the timer would fail like this each time: %s%s" % (
            error["text"] if error else err, hint), "settings") from None


def remove(agent, check_mode=False):
    """Take the agent and everything the collection keeps on this host away; returns the paths that were there."""
    found = agent.host.parts()
    if check_mode or not found:
        return found
    managed = agent.services.available()
    paths = [path for path in found if managed and path.endswith(agent.services.UNIT_FILES)]
    if paths:
        units = sorted(map(os.path.basename, paths), reverse=True)  # the timer before the service that it would start
        agent.services.stop(*units)
        agent.services.disable(*units)
    for path in found:
        place = os.path.join(agent.store.root, path.lstrip("/"))
        if os.path.isdir(place):
            shutil.rmtree(place)
        else:
            _enrollment.remove_file(place)
    if managed:
        agent.services.daemon_reload(*paths)
    return found
