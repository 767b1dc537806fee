# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent of a host is installed with, in one step."""
from __future__ import annotations

DOCUMENTATION = r"""
name: gatecontrol_agent
short_description: What the variables of a host make of its agent
version_added: 1.0.0
author:
  - CallMeTechie (@CallMeTechie)
description:
  - Gives what M(callmetechie.gatecontrol.gatecontrol_agent) installs, as the options of the role P(callmetechie.gatecontrol.gatecontrol#role) tell for
    a host. The role uses it; it is here for a play that installs the agent without the role.
  - An option that is not set is left out of the settings, and the agent goes by its own default. Without C(gatecontrol_interface) units are made for
    V(wg0), without C(gatecontrol_heartbeat_interval) for 60 seconds.
options:
  _terms:
    description:
      - V(settings), V(units) or V(launcher), the options of M(callmetechie.gatecontrol.gatecontrol_agent).
      - V(peer_fields), which stands for what the play wants of the host's peer on the server (O(ignore:gatecontrol_tags) and the like).
    type: list
    elements: str
    required: true
seealso:
  - module: callmetechie.gatecontrol.gatecontrol_agent
"""

EXAMPLES = r"""
- name: Show what the agent of each host would be told
  ansible.builtin.debug:
    msg: "{{ lookup('callmetechie.gatecontrol.gatecontrol_agent', 'settings') }}"
  vars:
    gatecontrol_url: https://gate.example.com
    gatecontrol_heartbeat_interval: 60
"""

RETURN = r"""
_raw:
  description:
    - One entry for each term. A dictionary of settings, the texts of the units by their absolute paths, or the launcher's text.
    - The digest of the peer's fields is empty where none is set, where the controller has no secret to bring them to the server, and where one of these
      variables comes to nothing.
  type: list
  elements: raw
"""

import hashlib
import os
import re

from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.module_utils.common.validation import check_type_bool as boolean, check_type_int as integer, check_type_list
from ansible.plugins.lookup import LookupBase

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment, _pace, _verify

UNITS = os.path.join(_verify.ROLE_FILES, "units")  # as they lie on a host, whatever its system; a host takes those of its own

# name -> what makes a value of it; the variable is called gatecontrol_NAME.
SETTINGS = {
    "url": None, "ca_path": None, "validate_certs": boolean, "client_cert": None, "client_key": None, "proxy": None, "no_proxy": None, "timeout": integer,
    "max_wait": integer, "allow_http": boolean, "auth_header": None, "interface": None, "heartbeat_interval": integer, "sync_interval": integer,
    "confirm_timeout": integer, "keep_reachable": boolean, "beside_tunnel": boolean, "textfile_dir": None}
POLICY = {
    "allow_hooks": boolean, "allowed_ips": None, "dns": None, "mtu": None, "table": None, "fwmark": None, "listen_port": None, "persistent_keepalive": None,
    "allow_endpoints": None, "allow_allowed_ips": None, "allow_dns": None, "kill_switch": boolean}
PEER = {
    "description": str, "tags": lambda tags: sorted(str(tag).strip() for tag in check_type_list(tags)), "expires_at": str,
    "peer_dns": lambda servers: [str(server).strip() for server in check_type_list(servers)], "peer_keepalive": integer, "group_id": integer}
SECRETS = {"peers_token": None, "admin_password": None}  # of the controller


def quoted(value: str) -> str:
    """A word of a unit's file: systemd takes blanks, quotes and backslashes for its own, and expands what begins with a percent sign."""
    value = value.replace("%", "%%")
    if not re.search(r"""[\s"'\\]""", value):
        return value
    return '"%s"' % value.replace("\\", "\\\\").replace('"', '\\"')


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        makers = {"settings": self._settings, "units": self._units, "launcher": lambda _variables: _verify.role_file("gatecontrol_agent.py"),
                  "peer_fields": self._peer_fields}
        unknown = sorted(set(terms) - set(makers))
        if unknown:
            raise AnsibleLookupError("there is no %s of an agent; ask for settings, units, launcher or peer_fields" % ", ".join(map(str, unknown)))
        return [makers[term](variables or {}) for term in terms]

    def _values(self, variables, names):
        """{name: value} of the variables that are set."""
        found = self._templar.template({name: variables["gatecontrol_" + name] for name in names if "gatecontrol_" + name in variables})
        for name, make in names.items():
            try:
                if make and found.get(name) is not None:
                    found[name] = make(found[name])
            except (TypeError, ValueError) as err:
                raise AnsibleLookupError("gatecontrol_%s: %s" % (name, err)) from err
        return {name: value for name, value in found.items() if value is not None}

    def _settings(self, variables):
        settings = self._values(variables, SETTINGS)
        if "textfile_dir" in settings:
            settings["textfile"] = settings.pop("textfile_dir")
        # The server writes the client's version into the description, so a description of one's own forbids sending it.
        return dict(settings, send_version="gatecontrol_description" not in variables, policy=self._values(variables, POLICY))

    def _peer_fields(self, variables):
        try:
            fields = self._values(variables, PEER)
            known = fields and any(self._values(variables, SECRETS).values())
        except AnsibleError:  # a vault that is closed, a fact that was not gathered
            known = False
        return _enrollment.digest(_verify.settings_text(fields)) if known else ""

    def _units(self, variables):
        settings = self._values(variables, {name: SETTINGS[name] for name in ("interface", "heartbeat_interval", "textfile_dir", "confirm_timeout")})
        interval = max(settings.get("heartbeat_interval", 60), 1)
        offset = int(hashlib.sha256(variables["inventory_hostname"].encode("utf-8")).hexdigest()[:8], 16)
        marks = {
            "interface": settings.get("interface", "wg0"), "interval": interval, "first": offset % interval + 1, "offset": offset % max(interval // 4, 1),
            "timeout": _pace.beat(interval), "apply": int(_pace.unit(settings.get("confirm_timeout"))),
            "textfile": quoted("-" + settings["textfile_dir"]) if "textfile_dir" in settings else ""}
        found = {}
        for folder, _folders, names in os.walk(UNITS):
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), UNITS)
                text = _verify.role_file(os.path.join("units", path))
                for mark, value in marks.items():
                    text = text.replace("__%s__" % mark, str(value))
                found["/" + path] = text
        return found
