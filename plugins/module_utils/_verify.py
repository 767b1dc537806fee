# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a play asks the agent that is already on a host, and how its answer is found: the part of both that each of them needs.

A play over hosts that are as they should be loads this and little else: Ansible compiles a collection's code anew in every run.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import importlib.util
import json
import os
import re
import urllib.parse

from . import _enrollment

VERSION = "1.0.0"  # of the collection, and so of the agent that it installs
LIBRARY = "usr/local/lib/gatecontrol"  # holds the package "gatecontrol"
LIBRARY_FILE = "/" + LIBRARY + "/gatecontrol/%s.py"
LAUNCHER = "usr/local/sbin/gatecontrol-agent"
MODULES = (  # what the agent is made of
    "_agent", "_answers", "_api", "_beat", "_change", "_cli", "_clock", "_drift", "_enrollment", "_facts", "_http",
    "_line", "_lock", "_names", "_observe", "_pace", "_plan", "_points", "_preflight", "_proof", "_python", "_reach",
    "_repair", "_run", "_services", "_step", "_verify", "_way", "_wgconf", "_x25519")
ROLE_FILES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "roles/gatecontrol/files")  # on the controller
MARKER = "gatecontrol-agent:"  # begins the one line of JSON that verify and confirm answer, whatever a banner prints before

# What an installation of the agent consists of, beside the collection's own code.
# The texts are no secrets, but have no business in a result or a log either.
INSTALLATION = {"launcher": {"type": "str", "no_log": True}, "units": {"type": "dict", "no_log": True}, "settings": {"type": "dict"}}
HOST_INFO = dict(
    INSTALLATION, state={"type": "str", "choices": ["present", "absent"], "default": "present"}, url={"type": "str"}, interface={"type": "str"},
    token={"type": "str", "no_log": True}, token_digest={"type": "str", "no_log": False}, peers_token={"type": "str", "no_log": True},
    controller={"type": "dict"}, peer_fields={"type": "str"}, check={"type": "bool", "default": True})


def settings_text(settings):
    """The canonical text of the agent's settings: two settings are the same if these texts are."""
    return json.dumps({key: value for key, value in settings.items() if value is not None}, indent=1, sort_keys=True) + "\n"


def program_digest(path, text):
    """SHA-256 of an installed file; the launcher's first line is left out, since it names the interpreter found on the host."""
    return _enrollment.digest(text.split("\n", 1)[1] if path == "/" + LAUNCHER and text.startswith("#!") else text)


def role_file(name):
    """The text of one of the role's files, on the controller."""
    with open(os.path.join(ROLE_FILES, name), encoding="utf-8", newline="") as handle:
        return handle.read()


def sources():
    """{name in MODULES: its text}, taken from the very code that runs, in a module's payload and on the controller alike; nothing is loaded for it."""
    package = __name__.rpartition(".")[0]
    found = {"__init__": ""}
    for name in MODULES:
        full = "%s.%s" % (package, name)
        text = importlib.util.find_spec(full).loader.get_source(full)
        found[name] = text if isinstance(text, str) else text.decode("utf-8")  # Ansible's own loader of collections gives bytes
    return found


def normal_url(url):
    """A server's URL in one spelling: lower-case scheme and host, no default port, no trailing slash. Raises ValueError with a sentence."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
        good = re.fullmatch("[!-~]+", url) and parts.scheme.lower() in ("https", "http") and parts.hostname and not (
            "@" in parts.netloc or parts.query or parts.fragment)
    except ValueError:
        good = False
    if not good:
        shown = re.sub("[A-Za-z0-9+/=_]{20,}", "…", url.split("@")[-1])  # a token that was taken for the URL, or stands in it
        raise ValueError("the URL %r is not of the form https://gate.example.com; correct gatecontrol_url" % shown)
    host = "[%s]" % parts.hostname if ":" in parts.hostname else parts.hostname
    if port and port != {"https": 443, "http": 80}[parts.scheme.lower()]:
        host += ":%d" % port
    return "%s://%s%s" % (parts.scheme.lower(), host, parts.path.rstrip("/"))


def wanted(params):
    """What verify compares a host with, from options as HOST_INFO has them; no secret. Raises ValueError as normal_url does.

    {"state", "url", "interface", "check": bool, "token": SHA-256 or None, "fields": peer_fields or None, "settings": SHA-256 of settings_text,
    "files": {path: program_digest}, "networks": what is to go into the tunnel, None where the server decides}; who asks adds "challenge" (see _proof)
    """
    texts = dict({LIBRARY_FILE % name: text for name, text in sources().items()}, **(params.get("units") or {}))
    if params.get("launcher"):
        texts["/" + LAUNCHER] = params["launcher"]
    settings = params.get("settings")
    return {
        "state": params.get("state") or "present", "url": params.get("url") and normal_url(params["url"]), "interface": params.get("interface"),
        "check": params.get("check", True), "token": params.get("token_digest"), "fields": params.get("peer_fields") or None,
        "settings": _enrollment.digest(settings_text(settings)) if settings else None,
        "networks": ((settings or {}).get("policy") or {}).get("allowed_ips"),
        "files": {path: program_digest(path, text) for path, text in texts.items()} if params.get("launcher") else {}}


def is_windows(action, task_vars):
    """Whether an action's host runs the agent of Windows: as the play says (gatecontrol_system), else by its connection and shell."""
    system = (task_vars or {}).get("gatecontrol_system")
    if system:
        return action._templar.template(system) == "windows"
    return action._connection.transport in ("winrm", "psrp") or getattr(action._connection._shell, "_IS_WINDOWS", False) is True
