# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a play has to know of a host: its system, its fingerprint, the tools it lacks, and what the collection has put there.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import os
import pwd
import re
import shutil

from . import _enrollment, _observe, _services, _verify, _wgconf

# Where a unit's programs lie, whatever the PATH of the caller. Homebrew's bash has to come before that of macOS, which is too old for wg-quick.
PATH = "/opt/homebrew/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOMEBREW = ("opt/homebrew", "usr/local")  # its prefix on Apple Silicon, on Intel
METRICS = "gatecontrol.prom"  # in the folder of the settings' textfile


class AgentError(Exception):
    """The agent cannot do its work on this host. One sentence; kind: not_enrolled, clone, settings, lockout, resolver."""

    def __init__(self, message, kind):
        super().__init__(message)
        self.kind = kind


def machine_fingerprint(root="/", run=None):
    """SHA-256 over this machine's id, 64 lower-case hex: stable per host, and the id itself (which systemd asks to keep) is not told.

    run runs ioreg, which knows a Mac's id. Raises AgentError where /etc/machine-id is missing, as in an image that was never booted.
    """
    if _services.system(root) == "macos":
        out = run(["ioreg", "-rd1", "-c", "IOPlatformExpertDevice"])[1] if run else ""
        found = re.search(r'"IOPlatformUUID" = "([0-9A-Fa-f-]{36})"', out)
        if not found:
            raise AgentError("ioreg names no IOPlatformUUID on this host; run `ioreg -rd1 -c IOPlatformExpertDevice` there", "settings")
        return _enrollment.digest("gatecontrol machine " + found.group(1).lower())
    machine_id = (_enrollment.read_text(os.path.join(root, "etc/machine-id")) or "").strip()
    if not re.fullmatch(r"[0-9a-f]{32}", machine_id):
        raise AgentError("/etc/machine-id holds no machine id; run systemd-machine-id-setup on this host", "settings")
    return _enrollment.digest("gatecontrol machine " + machine_id)


def client_platform():
    """X-Client-Platform of this machine, such as "linux"."""
    return os.uname().sysname.lower()


class Host:
    """One host. store: its files; run: (argv, stdin=None) -> (rc, out, err); services: its service manager; fingerprint: where it is not this machine's."""

    def __init__(self, store, run, services, fingerprint=None):
        self.store, self.run, self.services, self._fingerprint = store, run, services, fingerprint

    @property
    def fingerprint(self):
        """What stands for the machine. Raises AgentError as machine_fingerprint does."""
        if not self._fingerprint:  # once: a Mac is asked by a process
            self._fingerprint = machine_fingerprint(self.store.root, self.run)
        return self._fingerprint

    def facts(self):
        """What a play has to know of this host before it changes it, without facts being gathered."""
        system, release = _services.system(self.store.root), {}
        if system == "macos":
            text = _enrollment.read_text(os.path.join(self.store.root, _services.SYSTEM_VERSION)) or ""
            release = {"ID": "macos", "VERSION_ID": "".join(re.findall(r"<key>ProductVersion</key>\s*<string>([^<]*)", text))}
        for line in (_enrollment.read_text(os.path.join(self.store.root, "etc/os-release")) or "").splitlines() if system == "linux" else ():
            key, _equals, value = line.partition("=")
            release[key] = value.strip().strip('"')
        return {"system": system, "distribution": release.get("ID", ""), "like": release.get("ID_LIKE", "").split(),
                "version": release.get("VERSION_ID", ""), "service_manager": self.services.NAME if self.services.available() else None,
                "fingerprint": self.fingerprint, "hostname": os.uname().nodename,
                "resolvectl": shutil.which("resolvectl", path=PATH), "homebrew": self._homebrew() if system == "macos" else None}

    def _homebrew(self):
        """Homebrew's prefix and the user it belongs to, who alone may install with it; None where there is none."""
        for prefix in HOMEBREW:
            brew = os.path.join(self.store.root, prefix, "bin/brew")
            if os.path.exists(brew):
                return {"prefix": "/" + prefix, "owner": pwd.getpwuid(os.stat(brew).st_uid).pw_name}
        return None

    def needs(self, config=None):
        """Tools that are missing for a tunnel, or for this Config; "resolvconf-link" where resolvectl can stand in for resolvconf."""
        def missing(*tools):
            return not any(shutil.which(tool, path=PATH) for tool in tools)
        mac = _services.system(self.store.root) == "macos"
        found = [tool for tool in ("wg", "wg-quick") + (() if mac else ("ip",)) if missing(tool)]
        if missing("wireguard-go") and (mac or _observe.backend(self.run) is None):
            found.append("wireguard-go")
        if mac:  # which brings the rest
            return found
        if config and config.interface.get("DNS") and missing("resolvconf"):
            resolved = os.path.isdir(os.path.join(self.store.root, "run/systemd/resolve")) and not missing("resolvectl")
            found.append("resolvconf-link" if resolved else "resolvconf")
        if config and _wgconf.is_full_tunnel(config):
            found += ["nft"] * missing("nft", "iptables-restore") + ["sysctl"] * missing("sysctl")
        return found

    def parts(self):
        """Paths of what the collection has on this host, the tunnel aside: files of the installation, metrics, folders."""
        files, kind = set(self.store.load("installed") or {}) | {"/" + _verify.LAUNCHER}, _services.kind(self.store.root)
        for folder in kind.FOLDERS:
            place = os.path.join(self.store.root, folder.lstrip("/"))
            files |= {"%s/%s" % (folder, name) for name in (os.listdir(place) if os.path.isdir(place) else []) if kind.OURS.match(name)}
        metrics = (self.store.load("settings") or {}).get("textfile")
        if metrics:
            files.add(os.path.join(metrics, METRICS))
        folders = ["/" + folder for folder in (_verify.LIBRARY, _enrollment.ETC, _enrollment.VAR)]
        return [path for path in sorted(files) + folders if os.path.lexists(os.path.join(self.store.root, path.lstrip("/")))]
