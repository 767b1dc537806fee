# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Python starts the agent: one of the system's own, from 3.9 on, whatever Ansible was given.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import glob
import os
import re
import sys

from . import _services
from ._facts import AgentError

# The system's own comes first; then the latest of those that lie beside it, as on Enterprise Linux 8 and SUSE 15, whose
# own is 3.6.
NAMED = ("/usr/bin/python3", "/usr/libexec/platform-python")
BESIDE = ("/usr/bin/python3.[0-9]*", "/usr/local/bin/python3", "/usr/local/bin/python3.[0-9]*")
ON_A_MAC = (
    "/Library/Developer/CommandLineTools/usr/bin/python3",
    "/usr/bin/python3",
    "/usr/local/bin/python3",
    "/opt/homebrew/bin/python3",
)
HOMES = re.compile(
    r"/(home|root|Users|tmp|var/tmp|run/user)/"
)  # what is here goes with its user, or with the next boot
ASK = "import sys; print('%d.%d' % sys.version_info[:2]); sys.exit(sys.version_info < (3, 9))"


def candidates(root="/"):
    """Paths to try, in their order; that of this very process comes last."""
    if (
        _services.system(root) == "macos"
    ):  # Apple's own, without which /usr/bin/python3 only offers to install it; Homebrew's
        return [*ON_A_MAC, sys.executable]
    found = list(NAMED)
    for pattern in BESIDE:
        numbered = [path for path in glob.glob(pattern) if re.fullmatch(r"python3(\.\d+)?", os.path.basename(path))]
        found += sorted(
            numbered,
            key=lambda path: int(path.rpartition(".")[2]) if "." in os.path.basename(path) else 0,
            reverse=True,
        )
    return [*found, sys.executable]


def whose(path):
    """Why root must not run an interpreter at every beat: somebody else can replace or remove it. None where it may."""
    for place in (os.path.abspath(path), os.path.realpath(path)):
        if HOMES.match(place):
            return "it lies in a home or temporary folder"
        if os.path.exists(os.path.join(os.path.dirname(os.path.dirname(place)), "pyvenv.cfg")):
            return "it is a virtual environment's"
    try:
        owner = os.stat(path)
    except OSError:
        return None
    if _services.system() != "macos" and (
        owner.st_uid not in (0, os.geteuid()) or owner.st_mode & 0o022
    ):  # Homebrew's is its user's
        return "others than root can change it"
    return None


def interpreter(run, preferred=None):
    """The path of a Python for the agent's first line. Raises AgentError with what was tried, and why not."""
    tried = []
    for path in dict.fromkeys(filter(None, [preferred] if preferred else candidates())):
        rc, out, _err = run([path, "-IS", "-c", ASK])
        why = (
            whose(path)
            if rc == 0
            else (
                "it is %s" % out.strip() if re.fullmatch(r"\d+\.\d+\s*", out or "") else "it is missing or does not run"
            )
        )
        if not why:
            return path
        tried.append((path, why))
    raise AgentError(
        "no Python from 3.9 on was found at %s that may start the agent; install one of the system's own, such as the"
        " package python3 or python3.11"
        % ", ".join("%s (%s)" % one for one in tried),
        "settings",
    )
