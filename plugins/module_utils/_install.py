# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent's files are on the host, or are gone: library, launcher, units, settings.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import importlib
import os
import shutil
import sys

from . import _agent, _enrollment

INTERPRETERS = ("/usr/bin/python3", "/usr/libexec/platform-python", "/usr/local/bin/python3")


def sources():
    """{name in _agent.MODULES: its text}, taken from the very code that runs, in a module's payload and on the controller alike."""
    package = __name__.rpartition(".")[0]
    found = {"__init__": ""}
    for name in _agent.MODULES:
        full = "%s.%s" % (package, name)
        found[name] = importlib.import_module(full).__spec__.loader.get_source(full)
    return found


def interpreter(run, preferred=None):
    """The path of a Python from 3.9 on for the launcher's first line; it must outlive the play, so the system's own comes first. Raises AgentError."""
    for path in (preferred,) if preferred else INTERPRETERS + (sys.executable,):
        if path and run([path, "-c", "import sys; sys.exit(sys.version_info < (3, 9))"])[0] == 0:
            return path
    raise _agent.AgentError("no Python from 3.9 on was found at %s; install python3 or set interpreter" % (preferred or ", ".join(INTERPRETERS)), "settings")


class Installation:
    """agent: the Agent of this host. launcher: its text. units: {absolute path: text}. settings: dict or None."""

    def __init__(self, agent, launcher, units, settings, python=None):
        self.agent, self.store = agent, agent.store
        program = "#!%s -IS\n%s" % (interpreter(agent.run, python), launcher)
        self.files = {_agent.LIBRARY_FILE % name: (text, 0o644) for name, text in sources().items()}
        self.files["/" + _agent.LAUNCHER] = (program, 0o755)
        self.files.update({path: (text, 0o644) for path, text in (units or {}).items()})
        if settings is not None:
            self.files[self.store.path("settings")] = (_agent.settings_text(settings), 0o600)

    def _place(self, path):
        return os.path.join(self.store.root, path.lstrip("/"))

    def differences(self):
        """Paths of files that are missing, differ, or are left over from an earlier installation."""
        found = [path for path, (text, mode) in sorted(self.files.items())
                 if _enrollment.read_text(self._place(path)) != text or os.stat(self._place(path)).st_mode & 0o777 != mode]
        return found + sorted(set(self.store.load("installed") or {}) - set(self.files))

    def write(self, paths):
        """Bring these of the differences about; the manager is told when a unit is among them."""
        for path in paths:
            if path in self.files:
                text, mode = self.files[path]
                folder = os.path.dirname(self._place(path))
                if not os.path.isdir(folder) and not path.startswith("/etc/gatecontrol"):
                    os.makedirs(folder, 0o755)
                _enrollment.write_text(self._place(path), text, mode)
            else:
                _enrollment.remove_file(self._place(path))
        if paths:
            self.store.save("installed", {path: _agent.program_digest(path, text) for path, (text, _mode) in self.files.items()})
        if any(path.endswith((".service", ".timer")) for path in paths):
            self.agent.services.daemon_reload()


def set_timer(agent, enabled, changed_paths, check_mode=False):
    """Have the timer run and start at boot, or neither; returns whether that changes anything."""
    services = agent.services
    seen = services.show([_agent.TIMER, _agent.RECOVER], ("ActiveState", "UnitFileState"))
    want = ("active", "enabled") if enabled else ("inactive", "disabled")
    recover = enabled and seen[_agent.RECOVER].get("UnitFileState") != "enabled"
    differs = (seen[_agent.TIMER].get("ActiveState"), seen[_agent.TIMER].get("UnitFileState")) != want
    if enabled:
        differs = differs or any(path.endswith("/" + _agent.TIMER) for path in changed_paths)
    elif seen[_agent.TIMER].get("ActiveState") != "active" and seen[_agent.TIMER].get("UnitFileState") != "enabled":
        differs = False
    if check_mode or not (differs or recover):
        return differs or recover
    if enabled:
        services.enable(_agent.RECOVER)
        services.enable(_agent.TIMER)
        services.restart(_agent.TIMER)
    else:
        services.stop(_agent.TIMER)
        services.disable(_agent.TIMER)
    return True


def remove(agent, check_mode=False):
    """Take the agent and everything the collection keeps on this host away; returns what was there."""
    store = agent.store
    installed = sorted(store.load("installed") or {})
    found = [path for path in installed if os.path.lexists(os.path.join(store.root, path.lstrip("/")))]
    folders = [os.path.join(store.root, folder) for folder in (_agent.LIBRARY, _enrollment.ETC, _enrollment.VAR)]
    found += [folder for folder in folders if os.path.isdir(folder)]
    if check_mode or not found:
        return found
    units = [os.path.basename(path) for path in found if path.endswith((".service", ".timer"))]
    for unit in units:
        agent.services.stop(unit)
        agent.services.disable(unit)
    for path in installed + ["/" + _agent.LAUNCHER]:
        _enrollment.remove_file(os.path.join(store.root, path.lstrip("/")))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    if units:
        agent.services.daemon_reload()
    return found
