# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's service manager: units asked, started, stopped and enabled.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import os
import re


class ServiceError(Exception):
    """The service manager refused. str: one sentence with its own words."""


class Systemd:
    """systemd by systemctl. run(argv, stdin=None) -> (rc, out, err) runs a command and raises OSError where there is none."""

    def __init__(self, run, root="/"):
        self._run, self._root = run, root

    def available(self):
        """Whether systemd is the init system (sd_booted(3))."""
        return os.path.isdir(os.path.join(self._root, "run/systemd/system"))

    def show(self, units, properties):
        """{unit: {property: value}} of all units, in one call. A unit that does not exist has LoadState "not-found"."""
        out = self._systemctl("show", "--property=" + ",".join(properties), "--", *units)
        answers = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.strip("\n").split("\n\n")]
        return dict(zip(units, answers))

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

    def daemon_reload(self):
        """Read changed unit files."""
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
        # wg-quick traces each command as "[#] ..."; what remains are the errors. A key has no business in a message.
        try:
            start = self.show([unit], ["InvocationID"])[unit]["InvocationID"]
            out = self._run(["journalctl", "--output=cat", "--no-pager", "_TRANSPORT=stdout", "_SYSTEMD_INVOCATION_ID=" + start])[1]
        except (ServiceError, OSError, KeyError):
            return ""
        lines = [re.sub(r"[A-Za-z0-9+/]{40,}=*", "(masked)", line.strip()) for line in out.splitlines() if not line.startswith("[#]")]
        return "; it wrote: %s" % " / ".join(lines[-4:]) if lines else ""
