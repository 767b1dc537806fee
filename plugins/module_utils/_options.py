# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument specs shared by the modules, and the way from a module's options to an API and to a host's files.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import base64
import contextlib
import json

from ansible.module_utils.basic import AnsibleModule, env_fallback

from . import _agent, _api, _enrollment, _facts, _observe, _peer, _run, _services, _verify, _wgconf

# How the server is reached. The same names stand in the agent's settings; they have no defaults here, so that those settings count.
REACH = {
    "url": {"type": "str", "fallback": (env_fallback, ["GATECONTROL_URL"])},
    "ca_path": {"type": "path"},
    "validate_certs": {"type": "bool"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},  # a path, not the key
    "proxy": {"type": "str", "no_log": True},
    "no_proxy": {"type": "str"},
    "timeout": {"type": "int"},
    "max_wait": {"type": "int"},
    "allow_http": {"type": "bool"},
    "auth_header": {"type": "str", "choices": list(_api.TOKEN_HEADERS)},
}
TOKEN = {
    "token": {"type": "str", "no_log": True, "fallback": (env_fallback, ["GATECONTROL_TOKEN"])},
    "token_file": {"type": "path", "no_log": False},  # a path, not the token
}
PEERS_TOKEN = {"peers_token": {"type": "str", "no_log": True, "fallback": (env_fallback, ["GATECONTROL_PEERS_TOKEN"])}}
ADMIN = {
    "admin_user": {"type": "str", "fallback": (env_fallback, ["GATECONTROL_ADMIN_USER"])},
    "admin_password": {"type": "str", "no_log": True, "fallback": (env_fallback, ["GATECONTROL_ADMIN_PASSWORD"])},
}
SESSION = dict(ADMIN, session={"type": "dict", "no_log": True}, token_user={"type": "str", "no_log": False})
IDENTITY = {
    "machine_fingerprint": {"type": "str"},
    "client_platform": {"type": "str"},
    "send_version": {"type": "bool"},
}
# A host that runs no Python: what lies there is handed over as texts, and what is to lie there is returned. They hold secrets.
FILES = {"files": {"type": "dict", "no_log": True}}
# What a server-issued config may hold, and what is put in its place.
POLICY = {
    "allow_hooks": {"type": "bool"},
    "allowed_ips": {"type": "list", "elements": "str"},
    "dns": {"type": "list", "elements": "str"},
    "mtu": {"type": "int"},
    "table": {"type": "str"},
    "fwmark": {"type": "str"},
    "listen_port": {"type": "int"},
    "persistent_keepalive": {"type": "int", "no_log": False},  # seconds
    "allow_endpoints": {"type": "list", "elements": "str"},
    "allow_allowed_ips": {"type": "list", "elements": "str"},
    "allow_dns": {"type": "list", "elements": "str"},
    "kill_switch": {"type": "bool"},
}
# What the server keeps of a peer, beside its name.
PEER_FIELDS = {
    "description": {"type": "str"},
    "tags": {"type": "list", "elements": "str"},
    "peer_dns": {"type": "list", "elements": "str"},
    "peer_keepalive": {"type": "int", "no_log": False},  # seconds
    "expires_at": {"type": "str"},
    "group_id": {"type": "int"},
}
INTERFACE = {"interface": {"type": "str", "default": "wg0"}}
TUNNEL = dict(
    INTERFACE, state={"type": "str", "choices": ["up", "down", "absent"], "default": "up"}, staged={"type": "bool", "default": False},
    confirm_timeout={"type": "int", "default": 40}, keep_reachable={"type": "bool", "default": True}, ssh_connection={"type": "str"},
    arm={"type": "bool", "default": False})
# A host as gatecontrol_fleet takes it.
FLEET_HOST = dict(
    PEER_FIELDS, host={"type": "str", "required": True}, name={"type": "str", "required": True}, wanted_id={"type": "int"}, peer_id={"type": "int"},
    enrolled_as={"type": "str"}, proof={"type": "str"}, adopt={"type": "bool"}, named={"type": "bool"}, fingerprint={"type": "str"},
    token={"type": "bool", "default": True, "no_log": False}, token_id={"type": "int", "no_log": False})
FLEET = dict(
    REACH, **PEERS_TOKEN, **SESSION,
    state={"type": "str", "choices": ["present", "absent", "kept", "expired", "rotated", "confirmed", "listed"], "default": "present"},
    part={"type": "str", "choices": ["whole", "ask", "batch"], "default": "whole"}, client_token={"type": "str", "no_log": True},
    keys={"type": "bool", "default": False, "no_log": False}, names={"type": "list", "elements": "str", "default": []}, max_percent={"type": "int"},
    others={"type": "int", "default": 0}, pace={"type": "bool", "default": False}, adopt={"type": "bool", "default": False},
    hosts={"type": "list", "elements": "dict", "default": [], "options": FLEET_HOST})
CHECK = dict(
    REACH, **TOKEN, **PEERS_TOKEN, **ADMIN, token_user=SESSION["token_user"], peer_id={"type": "int"}, settings={"type": "dict"},
    write={"type": "bool", "default": False}, width={"type": "int", "default": 80})
HOST_CHECK = dict(
    REACH, **INTERFACE, allowed_ips=POLICY["allowed_ips"], tunnel={"type": "dict"}, packages={"type": "dict"}, own_packages={"type": "dict"},
    install={"type": "bool", "default": True}, width={"type": "int", "default": 80})


def reach(params, settings=None):
    """How to reach the server, as _api.Api takes it: the options given, then the agent's settings where those are about the same server.

    Raises ApiError (options) where no server is named.
    """
    known = (settings or {}).get("url")
    if not params["url"] and not known:
        raise _api.ApiError("no server was named; set url or GATECONTROL_URL", "options")
    url = _api.normal_url(params["url"] or known)
    base = settings if known and _api.normal_url(known) == url else {}
    return dict({key: base.get(key) if params[key] is None else params[key] for key in REACH}, url=url)


def api(options, identity=None):
    """The server as a module's token in the options sees it; on an enrolled host by the way that its agent takes beside a dead tunnel."""
    try:
        host = _agent.Agent(_enrollment.Store(), runner())
        dial = host.way(options).dial if host.enrollment.get("peer_id") else None
    except PermissionError:  # whoever may not read the enrollment, may not mark packets either
        dial = None
    return _api.Api(options, identity, dial=dial)


def own_settings():
    """The agent's settings of the machine the module runs on; None where there are none, or none that this user may read, as on a controller."""
    try:
        return _enrollment.Store().load("settings")
    except PermissionError:
        return None


def policy(params, settings):
    """The local policy: the options given, then the agent's settings."""
    known = settings.get("policy") or {}
    return {key: known.get(key) if params[key] is None else params[key] for key in POLICY}


def secret(params, name="token"):
    """A token given as an option or as a file, None where there is neither. Raises ApiError (options) for what cannot be a token."""
    value, path = params.get(name), params.get(name + "_file")
    if not value and path:
        value = _enrollment.read_text(path)
        if value is None:
            raise _api.ApiError("%s_file %s does not exist; correct the path" % (name, path), "options")
    value = (value or "").strip()
    if value and not value.startswith("gc_"):
        raise _api.ApiError("%s is not a GateControl token: it begins with gc_; create one in the web interface" % name, "options")
    if not all("!" <= character <= "~" for character in value):
        raise _api.ApiError("%s has a blank or another character no token has; copy it again" % name, "options")
    return value or None


def identity(params, settings=None, fingerprint=None):
    """Who the requests are about: this machine, or, in a delegated call, the one whose fingerprint and platform were given."""
    send = params["send_version"] if params["send_version"] is not None else (settings or {}).get("send_version", True)
    return {"version": _verify.VERSION if send else None, "platform": params["client_platform"] or _facts.client_platform(),
            "fingerprint": params["machine_fingerprint"] or fingerprint}


def runner():
    """What the rooms below run commands with: (argv, stdin=None) -> (rc, out, err)."""
    return _run.Runner(_facts.PATH if _services.system() == "macos" else None)  # a session over SSH does not look where Homebrew puts programs


def agent(module):
    """The agent's code on the host the module runs on, or for the one whose files were handed over."""
    other = {"platform": "client_platform", "fingerprint": "machine_fingerprint"} if module.params.get("files") is not None else {}
    return _agent.Agent(store(module.params), runner(), **{name: module.params[option] for name, option in other.items()})


def alone(module, the_agent, make=True):
    """The host to this module alone, as Agent.alone has it; nothing in check mode."""
    return contextlib.nullcontext() if module.check_mode else the_agent.alone(make=make)


def store(params):
    """The files of the host the module runs on, or those that were handed over."""
    return _enrollment.Store() if params.get("files") is None else _enrollment.Texts(params["files"])


def returned(found):
    """{"files": what is to be written (a text) and removed (None) on the host}, {} for the files of the host the module runs on.

    As base64 of JSON: what an option with no_log holds, such as the token, would be masked in a result that names it.
    """
    if not isinstance(found, _enrollment.Texts):
        return {}
    return {"files": base64.b64encode(json.dumps(found.changed).encode("utf-8")).decode("ascii")}


def keep_secret(*values, module=None):
    """Have values masked where results are shown; from ansible-core 2.22 on this is no longer done for what no_log options hold alone.

    module: for values that no option with no_log holds, so that ansible-core before 2.22 masks them too.
    """
    if module:
        module.no_log_values.update(value for value in values if value)
    try:
        from ansible.module_utils.secrets import register_secrets
    except ImportError:
        return
    register_secrets([value for value in values if value])


def run_module(work, argument_spec, **constraints):
    """Run a module: work(module) returns the result, and every error of the rooms below becomes one fail_json with `failure` beside `msg`."""
    module = AnsibleModule(argument_spec=argument_spec, supports_check_mode=True, **constraints)
    module.exit_json(**outcome(work, module))


def outcome(work, module):
    """The result of work(module); its errors go to module.fail_json, which does not return."""
    try:
        return work(module)
    except (_api.ApiError, _peer.PeerError) as err:
        module.fail_json(msg=str(err), failure=err.failure)
    except (_agent.AgentError, _wgconf.ConfigError) as err:
        module.fail_json(msg=str(err), failure={"kind": err.kind, "status": None})
    except (_services.ServiceError, _observe.TunnelError) as err:
        module.fail_json(msg=str(err), failure={"kind": "tunnel", "status": None})
    except OSError as err:
        module.fail_json(msg="%s: %s; look into the path and its rights" % (err.filename or "the host", err.strerror or err),
                         failure={"kind": "file", "status": None})
