# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's service manager: units asked, started, stopped and enabled.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import os
import re
import time

BANNER = re.compile("[\u2500-\u257f]")  # box drawing, in which wireguard-go says that the kernel should do this
SYSTEM_VERSION = "System/Library/CoreServices/SystemVersion.plist"  # every macOS has it, and nothing else does


def system(root="/"):
    """The system of the host whose files lie below root: "macos" or "linux"."""
    return "macos" if os.path.exists(os.path.join(root, SYSTEM_VERSION)) else "linux"


def kind(root="/"):
    """The class of the service manager of the host whose files lie below root."""
    return Launchd if system(root) == "macos" else Systemd


def meant_for(root, path):
    """Whether a file that a play names is meant for this host: it is not where another service manager has its units."""
    return not any(path.startswith(folder + "/") for other in (Systemd, Launchd) if other != kind(root) for folder in other.FOLDERS)


class ServiceError(Exception):
    """The service manager refused. str: one sentence with its own words."""


class Systemd:
    """systemd by systemctl. run(argv, stdin=None) -> (rc, out, err) runs a command and raises OSError where there is none."""

    NAME, FOLDERS = "systemd", ("/etc/systemd/system",)  # where units lie
    OURS, UNIT_FILES = re.compile("gatecontrol-"), (".service", ".timer")  # how the collection's files begin there, and how units end

    def __init__(self, run, root="/"):
        self._run, self._root = run, root

    def name(self, unit):
        """What the service manager itself calls a unit."""
        return unit

    def path(self, unit):
        """The absolute path of a unit's file."""
        return "%s/%s" % (self.FOLDERS[0], unit)

    def available(self):
        """Whether systemd is the init system (sd_booted(3))."""
        return os.path.isdir(os.path.join(self._root, "run/systemd/system"))

    def show(self, units, properties):
        """{unit: {property: value}} of all units, in one call. A unit that does not exist has LoadState "not-found"."""
        out = self._systemctl("show", "--property=" + ",".join(properties), "--", *units)
        answers = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.strip("\n").split("\n\n")]
        return {unit: answers[at] if at < len(answers) else {} for at, unit in enumerate(units)}

    def stopping(self):
        """Whether the machine is going down."""
        return self._run(["systemctl", "is-system-running"])[1].strip() == "stopping"

    def start(self, *units, limit=30):
        """Start and wait up to `limit` seconds; an error carries what the first unit wrote. A longer start goes on in the background."""
        try:
            self._systemctl("start", "--", *units, limit=limit)
        except ServiceError as error:
            raise ServiceError("%s%s" % (error, self._last_words(units[0]))) from None

    def start_no_block(self, *units):
        """Queue the start and return at once."""
        self._systemctl("start", "--no-block", "--", *units)

    def stop_no_block(self, *units):
        """Queue the stop and return at once."""
        self._systemctl("stop", "--no-block", "--", *units)

    def stop(self, *units):
        """Stop and wait."""
        self._systemctl("stop", "--", *units)

    def restart(self, *units):
        """Stop, start and wait."""
        self._systemctl("restart", "--", *units)

    def enable(self, *units):
        """Start at boot from now on."""
        self._systemctl("enable", "--quiet", "--", *units)

    def disable(self, *units):
        """Do not start at boot any more."""
        self._systemctl("disable", "--quiet", "--", *units)

    def daemon_reload(self, *_paths, enable=()):
        """Read changed unit files; paths: those that changed or went away, enable: units that start at boot from now on."""
        if enable:
            self.enable(*enable)  # reads them as well, says systemctl(1), and on a small host that is most of what it costs
        else:
            self._systemctl("daemon-reload")

    def reset_failed(self, *units):
        """Forget failures and start limits; units that have none are no error."""
        self._run(["systemctl", "reset-failed", "--", *units])

    def _systemctl(self, *words, limit=90):
        # wg-quick may wait for a name to resolve without end, and its unit has no time limit of its own.
        rc, out, err = self._run(["timeout", str(limit), "systemctl", "--no-ask-password", *words])
        if rc == 124:
            err = "it takes longer than %d s" % limit
        if rc:
            said = " ".join((err or out).split()) or "exit status %d" % rc
            raise ServiceError("systemctl %s failed: %s" % (" ".join(word for word in words if word != "--"), said))
        return out

    def _last_words(self, unit):
        # wg-quick traces each command as "[#] ..."; what remains are the errors. A program that finds the journal behind its errors, as resolvectl
        # does, writes there itself (journal). A key has no business in a message.
        try:
            start = self.show([unit], ["InvocationID"])[unit]["InvocationID"]
            out = self._run(["journalctl", "--output=cat", "--no-pager", "_TRANSPORT=stdout", "_TRANSPORT=journal", "_SYSTEMD_INVOCATION_ID=" + start])[1]
        except (ServiceError, OSError, KeyError):
            return ""
        lines, last = [], ""
        for line in out.splitlines():
            if line.startswith("[#]"):
                last = line[3:].strip()
            elif "File exists" in line and " route add " in last:
                lines.append("%s (%s: the host has a route to that network already; narrow gatecontrol_allowed_ips)" % (line.strip(), last))
            elif re.search("[A-Za-z]", line) and not BANNER.match(line):
                lines.append(line.strip())
        lines = [re.sub(r"[A-Za-z0-9+/]{40,}=*", "(masked)", line) for line in lines]
        return "; it wrote: %s" % " / ".join(lines[-4:]) if lines else ""


class Launchd(Systemd):
    """launchd by launchctl, in the system domain. Units are named as systemd's: "gatecontrol-beat.timer" is com.callmetechie.gatecontrol-beat.

    A job is "active" while it is loaded, and "enabled" if it will be loaded at boot too. launchd knows no order of jobs, no stop commands
    and no templates, so _step itself starts and stops wg-quick, and wg-quick@.service is the one job that watches over the host's tunnel.
    """

    NAME, FOLDERS = "launchd", ("/Library/LaunchDaemons", "/etc/newsyslog.d")
    OURS, UNIT_FILES = re.compile(r"com\.callmetechie\.gatecontrol-|gatecontrol\.conf$"), (".plist",)
    PREFIX = "com.callmetechie."
    BUSY = 15  # seconds in which a job that was told to go has to be gone

    def available(self):
        """Whether launchd answers."""
        try:
            return self._run(["launchctl", "list"])[0] == 0
        except OSError:
            return False

    def path(self, unit):
        return "%s/%s.plist" % (self.FOLDERS[0], self.name(unit))

    def name(self, unit):
        stem, suffix = os.path.splitext(unit)
        return stem if suffix == ".plist" else self.PREFIX + ("gatecontrol-tunnel" if stem.startswith("wg-quick@") else stem)

    def _place(self, unit):
        return os.path.join(self._root, self.path(unit).lstrip("/"))

    def show(self, units, properties):
        """As Systemd.show, of LoadState, ActiveState and UnitFileState alone; two calls."""
        loaded = {line.split("\t")[-1] for line in self._launchctl("list").splitlines()}
        disabled = self._disabled()
        answers = {}
        for unit in units:
            label = self.name(unit)
            known = {"LoadState": "loaded" if os.path.exists(self._place(unit)) else "not-found", "ActiveState": "active" if label in loaded else "inactive",
                     "UnitFileState": "enabled" if label in loaded and label not in disabled else "disabled"}
            answers[unit] = {name: known[name] for name in properties if name in known}
        return answers

    def _disabled(self):
        # "disabled" since macOS 13, "true" before.
        return set(re.findall(r'"([^"]+)" => (?:disabled|true)', self._launchctl("print-disabled", "system")))

    def _loaded(self, label):
        return self._run(["launchctl", "print", "system/" + label])[0] == 0

    def stopping(self):
        """Never known here: a job that is ended by a shutdown is told so by a signal, and the next boot recovers."""
        return False

    def start(self, *units, limit=30):
        """Load jobs, which launchd then starts when their files say so; one that is loaded is started at once. launchd loads none that is disabled."""
        disabled = self._disabled()
        for unit in units:
            label = self.name(unit)
            if label in disabled:
                self._launchctl("enable", "system/" + label)
            if self._loaded(label):
                self._launchctl("kickstart", "system/" + label)
            else:
                self._load(unit)

    def start_no_block(self, *units):
        """Start jobs and return at once; one that is not loaded yet is."""
        for unit in units:
            if not self._loaded(self.name(unit)):
                self.start(unit)
            self._launchctl("kickstart", "system/" + self.name(unit))

    def _load(self, unit):
        if not os.path.exists(self._place(unit)):
            raise ServiceError("there is no %s; install the agent with gatecontrol_agent" % self.path(unit))
        self._launchctl("bootstrap", "system", self._place(unit))

    def stop(self, *units):
        """Unload and wait until they are gone: launchd refuses to load a job while it still takes it down. The job that this runs in stays."""
        for unit in units:
            if self.name(unit) == os.environ.get("XPC_SERVICE_NAME"):
                continue
            target, end = "system/" + self.name(unit), time.monotonic() + self.BUSY
            rc, out, err = self._run(["launchctl", "bootout", target])
            while self._loaded(self.name(unit)):
                if time.monotonic() > end:
                    raise ServiceError("launchctl bootout %s failed: %s" % (target, " ".join((err or out).split()) or "exit status %d" % rc))
                time.sleep(0.1)

    def stop_no_block(self, *units):
        self.stop(*units)

    def restart(self, *units):
        self.stop(*units)
        self.start(*units)

    def enable(self, *units):
        """Load at boot from now on, and now."""
        for unit in units:
            self._launchctl("enable", "system/" + self.name(unit))
            if not self._loaded(self.name(unit)):
                self._load(unit)

    def disable(self, *units):
        """Do not load at boot any more."""
        for unit in units:
            self._launchctl("disable", "system/" + self.name(unit))

    def daemon_reload(self, *paths, enable=()):
        """As Systemd.daemon_reload; jobs whose files went away go too, and launchd's memory of them."""
        for unit in [os.path.basename(path) for path in paths if path.endswith(self.UNIT_FILES)]:
            there, loaded = os.path.exists(self._place(unit)), self._loaded(self.name(unit))
            if loaded:
                self.stop(unit)
            if loaded and there:
                self._load(unit)
            elif not there and self.name(unit) in self._disabled():
                self._launchctl("enable", "system/" + self.name(unit))
        self.enable(*enable)

    def reset_failed(self, *units):
        """launchd has no start limits that would have to be forgotten."""

    def _launchctl(self, *words):
        rc, out, err = self._run(["launchctl", *words])
        if rc:
            raise ServiceError("launchctl %s failed: %s" % (" ".join(words), " ".join((err or out).split()) or "exit status %d" % rc))
        return out
