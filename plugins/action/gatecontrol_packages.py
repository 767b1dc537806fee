# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs packages with the modules of ansible-core: what is at hand first, an update of the lists only where something is not found."""
from __future__ import annotations

import re
import time
import typing as t

from ansible.utils.display import Display

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _gate
from ansible_collections.callmetechie.gatecontrol.plugins.plugin_utils._gated import Gated

QUICK, PAUSE = 5, 3  # seconds for the first try at a lock, before anybody is told; between two tries
LIST_PATIENCE = 20  # seconds for a repository's answer
NAME = re.compile(r"[A-Za-z0-9@][A-Za-z0-9+._:=~@/-]{0,127}")
HOLDER = re.compile(r"(?:process|pid|PID) (\d{1,10})(?: \(([\w./ :-]{1,60})\))?")
# What is read of a module that runs a command, here and not in the task's result.
SPOKEN = {"stdout": _gate.opaque(_gate.OUTPUT), "stderr": _gate.opaque(_gate.OUTPUT)}


class Manager(t.NamedTuple):
    """A package manager. install: (names, seconds for its lock) -> (module, its arguments); update: seconds -> argv, None where install sees to it.

    locked, missing, telling: what its output says where it is locked, does not find a package, and in lines that tell a reason.
    """
    name: str
    install: t.Callable[[list[str], int], tuple[str, dict[str, t.Any]]]
    update: t.Callable[[int], list[str]] | None
    locked: str
    missing: str
    telling: str


def run(*argv: str) -> tuple[str, dict[str, t.Any]]:
    """A command with the language that its output is read in."""
    return "ansible.builtin.command", {"argv": ["env", "LC_ALL=C", *argv]}


def _apt(names: list[str], seconds: int) -> tuple[str, dict[str, t.Any]]:
    return "ansible.builtin.apt", {"name": names, "install_recommends": False, "update_cache": False, "lock_timeout": seconds}


def _dnf(module: str) -> t.Callable[[list[str], int], tuple[str, dict[str, t.Any]]]:
    return lambda names, seconds: ("ansible.builtin." + module, {"name": names, "lock_timeout": seconds})


def _homebrew(prefix: str) -> t.Callable[[list[str], int], tuple[str, dict[str, t.Any]]]:
    def install(names: list[str], _seconds: int) -> tuple[str, dict[str, t.Any]]:
        path = f"PATH={prefix}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        module, arguments = run(path, "HOMEBREW_NO_AUTO_UPDATE=1", "NONINTERACTIVE=1", prefix + "/bin/brew", "install", "--quiet", *names)
        return module, dict(arguments, chdir=prefix)  # the folder that sudo begins in may be closed to Homebrew's user
    return install


LISTS = [option for name, value in (("Retries", 1), ("http::Timeout", LIST_PATIENCE), ("https::Timeout", LIST_PATIENCE))
         for option in ("-o", f"Acquire::{name}={value}")]
ERRORS = r"^\s*(?:[EW]:|Err:|Error:|error:|Problem:|Abort|fatal).*"
MANAGERS = {manager.name: manager for manager in (
    Manager("apt", _apt, lambda seconds: ["apt-get", "-q", "update", "-o", f"DPkg::Lock::Timeout={seconds}", *LISTS],
            r"Could not get lock|Unable to acquire the dpkg frontend lock|Unable to lock|Failed to lock apt",
            r"No package matching|Unable to locate package|installation candidate|Failed to fetch|Unable to fetch|404 ", ERRORS),
    # Both fetch what they lack of their lists by themselves.
    Manager("dnf", _dnf("dnf"), None, r"[Ww]aiting for process|lockfile is held|Failed to (?:obtain|acquire).*lock", "$.", ERRORS),
    Manager("dnf5", _dnf("dnf5"), None, r"[Ww]aiting for process|Failed to (?:obtain|acquire).*lock", "$.", ERRORS),
    Manager("zypper", lambda names, seconds: run(f"ZYPP_LOCK_TIMEOUT={seconds}", "zypper", "--non-interactive", "--no-refresh", "install",
                                                 "--no-recommends", *names),
            lambda seconds: ["env", f"ZYPP_LOCK_TIMEOUT={seconds}", "zypper", "--non-interactive", "refresh"],
            "System management is locked", r"not found in package names|No provider of|not found on medium|File .* not found",
            r"^.*(?:not found|No provider|Problem|[Ee]rror|locked|Skipping|failed).*"),
    Manager("pacman", lambda names, seconds: run("pacman", "-S", "--noconfirm", "--needed", *names), lambda seconds: ["pacman", "-Sy"],
            "unable to lock database", "target not found|failed retrieving file|could not (?:find|register).*database", ERRORS),
)}
PROBE = "for name in apt-get dnf dnf5 zypper pacman; do path=$(command -v $name) && echo \"$name $(readlink -f \"$path\")\"; done; true"


class ActionModule(Gated):
    """One package manager, asked again where it is locked or does not find a package; its own words where it fails."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        _checked, params = self.validate_argument_spec(argument_spec={
            "names": {"type": "list", "elements": "str", "default": []}, "wait": {"type": "int", "default": 300}, "resolvectl": {"type": "str"},
            "manager": {"type": "str", "choices": ["auto", "apt", "dnf", "zypper", "pacman", "homebrew"], "default": "auto"},
            "homebrew": {"type": "str", "choices": ["/opt/homebrew", "/usr/local"]}})
        wrong = [name for name in params["names"] if not NAME.fullmatch(name)]
        if wrong:
            return self.fail(result, f"{_gate.clean(wrong[0], 60)!r} is not the name of a package; correct gatecontrol_packages", "options")
        self._vars, self._wait, self._end, self._said, result["changed"] = task_vars, params["wait"], time.monotonic() + params["wait"], False, False
        if params["names"]:
            manager = self.manager(params)
            if manager is None:
                return self.fail(result, f"no package manager that the role knows is on this host (apt, dnf, zypper, pacman); install "
                                         f"{', '.join(params['names'])} by hand", "packages")
            result.update(self.install(manager, params["names"]))
        if params["resolvectl"] and not result.get("failed"):
            self.link(params["resolvectl"], result)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    @staticmethod
    def fail(result: dict[str, t.Any], sentence: str, kind: str) -> dict[str, t.Any]:
        return dict(result, failed=True, changed=False, msg=sentence, failure={"kind": kind, "status": None})

    def link(self, resolvectl: str, result: dict[str, t.Any]) -> None:
        """Let systemd-resolved serve wg-quick's resolvconf."""
        answer = self.ask("ansible.builtin.file", {"src": resolvectl, "dest": "/usr/local/sbin/resolvconf", "state": "link"})
        if answer.get("failed"):
            result.update(self.fail(
                result, f"/usr/local/sbin/resolvconf could not be made: {answer.get('msg')}; look into the path and its rights", "packages"))
        else:
            result["changed"] = result["changed"] or answer.get("changed", False)

    def manager(self, params: dict[str, t.Any]) -> Manager | None:
        """The one that was named, else the one that is there; which dnf it is, the host says."""
        if params["manager"] == "homebrew":
            return Manager("homebrew", _homebrew(params["homebrew"] or "/opt/homebrew"), None, "another active Homebrew .*process|Another active", "$.", ERRORS)
        if params["manager"] not in ("auto", "dnf"):
            return MANAGERS[params["manager"]]
        output = self._low_level_execute_command(PROBE).get("stdout") or ""
        there = dict(re.findall(r"^(apt-get|dnf5?|zypper|pacman) (/[\w./+-]{1,200})\s*$", output[-4096:], re.MULTILINE))
        wanted = ["dnf", "dnf5"] if params["manager"] == "dnf" else ["apt-get", "dnf", "dnf5", "zypper", "pacman"]
        for name in wanted:
            if name in there:
                return MANAGERS["apt" if name == "apt-get" else "dnf5" if there[name].endswith("/dnf5") else name]
        return None

    def ask(self, module: str, arguments: dict[str, t.Any]) -> dict[str, t.Any]:
        """What a module of ansible-core says: its outcome, and what it printed."""
        return self.passed(module, arguments, self._vars, SPOKEN)

    def install(self, manager: Manager, names: list[str]) -> dict[str, t.Any]:
        """Install, if need be after an update of the lists. A dictionary as a result is."""
        what, updated = ", ".join(names), ""
        answer = self.unlocked(manager, lambda seconds: manager.install(names, seconds))
        if answer.get("failed") and not self.holder(manager, answer) and re.search(manager.missing, said(answer)) and manager.update:
            if self._task.check_mode:
                return {"changed": True, "msg": f"the host's package lists would be updated, since they do not have {what}"}
            update = self.unlocked(manager, lambda seconds: run(*manager.update(seconds)))
            if not self.holder(manager, update):
                updated = words(manager, update) or "nothing"
                answer = self.unlocked(manager, lambda seconds: manager.install(names, seconds))
            else:
                answer = update
        if not answer.get("failed"):
            nothing = answer.get("skipped") or re.search(r"(?m)^Nothing to do\.|there is nothing to do$", answer.get("stdout") or "")
            return {"changed": self._task.check_mode or not nothing if manager.install(names, 0)[0].endswith("command") else answer.get("changed", False)}
        holder = self.holder(manager, answer)
        if holder:
            return self.fail({}, f"{manager.name} is held by {holder} and was not free within {self._wait} s, so {what} could not be installed; wait until "
                                 "it has ended, or give it longer with gatecontrol_package_wait", "packages")
        after = f" (after an update of the lists, which said: {updated})" if updated else ""
        reason = words(manager, answer) or "it gave no reason"
        return self.fail({}, f"{manager.name} could not install {what}{after}: {reason}; correct the host's repositories, or name the packages in "
                             "gatecontrol_packages", "packages")

    def unlocked(self, manager: Manager, step: t.Callable[[int], tuple[str, dict[str, t.Any]]]) -> dict[str, t.Any]:
        """The answer to a step once nobody holds the lock, or the last one within the time there is for it. Says whom it waits for."""
        while True:
            left = max(0, int(self._end - time.monotonic()))
            answer = self.ask(*step(left if self._said else min(QUICK, left)))
            holder = self.holder(manager, answer)
            left = int(self._end - time.monotonic())
            if not holder or left <= 0:
                return answer
            if not self._said:
                Display().warning(f"{(self._vars or {}).get('inventory_hostname', 'the host')}: {manager.name} is held by {holder}; it is waited for, "
                                  f"at most {left} s more (gatecontrol_package_wait).")
                self._said = True
            time.sleep(min(PAUSE, left))

    @staticmethod
    def holder(manager: Manager, answer: dict[str, t.Any]) -> str | None:
        """Who holds the lock, where a step failed for it."""
        if not answer.get("failed") or not re.search(manager.locked, said(answer)):
            return None
        found = HOLDER.search(said(answer))
        return "another program" if not found else f"process {found[1]}" + (f" ({found[2]})" if found[2] else "")


def said(answer: dict[str, t.Any]) -> str:
    """All that a step's answer says; the last part of it, where it is long."""
    return "\n".join(str(answer.get(key) or "")[-65536:] for key in ("msg", "stdout", "stderr"))


def words(manager: Manager, answer: dict[str, t.Any]) -> str:
    """The package manager's own reasons, each once, in one line."""
    lines = [re.sub(r"^'[^\n]*' failed: ", "", line) for line in said(answer).splitlines()]
    found = dict.fromkeys(_gate.clean(line, 200) for line in lines if re.match(manager.telling, line))
    return _gate.clean("; ".join(list(found)[:6]) or (answer.get("msg") if answer.get("failed") else "") or "", 700).rstrip(".;")
