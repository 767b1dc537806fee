#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_agent
short_description: The agent is installed on a host, its timer runs, or both are gone
version_added: 1.0.0
description:
  - Installs the agent that beats, watches over the config and answers M(callmetechie.gatecontrol.gatecontrol_host_info).
    Its library is the collection's own code.
  - V(absent) takes away everything the collection keeps on the host, the enrollment and its token included, but not the tunnel
    (M(callmetechie.gatecontrol.gatecontrol_tunnel)) nor the peer on the server.
  - Needs systemd, or launchd on macOS.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.installation
  - callmetechie.gatecontrol.attributes
options:
  state:
    description: Whether the agent is on the host.
    type: str
    choices: [present, absent]
    default: present
  enabled:
    description: Whether the beat's timer runs and starts at boot. Left as it is when not given. Without O(launcher), nothing but the timer is looked after.
    type: bool
  interpreter:
    description: Path of the Python (3.9 or newer) the agent runs with. The system's own is found without it.
    type: path
seealso:
  - module: callmetechie.gatecontrol.gatecontrol_host_info
"""

EXAMPLES = r"""
# The role does the same. The lookup takes the role's options for what is not said here, such as gatecontrol_heartbeat_interval.
- name: Have the agent installed and its timer running
  callmetechie.gatecontrol.gatecontrol_agent:
    launcher: "{{ lookup('callmetechie.gatecontrol.gatecontrol_agent', 'launcher') }}"
    units: "{{ lookup('callmetechie.gatecontrol.gatecontrol_agent', 'units') }}"
    settings: "{{ lookup('callmetechie.gatecontrol.gatecontrol_agent', 'settings') }}"
    enabled: true
  vars:
    gatecontrol_url: https://gate.example.com

- name: Take the agent and everything it keeps away
  callmetechie.gatecontrol.gatecontrol_agent:
    state: absent
"""

RETURN = r"""
files:
  description: The files that were written or removed, or would be.
  returned: success
  type: list
  elements: str
  sample: [/usr/local/sbin/gatecontrol-agent]
"""

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _agent, _install, _options, _verify


def work(module):
    params, agent = module.params, _options.agent(module)
    _options.keep_secret((params["settings"] or {}).get("proxy"), module=module)
    if params["state"] == "absent":
        with _options.alone(module, agent, make=False):
            files = _install.remove(agent, module.check_mode)
        return {"changed": bool(files), "files": files, "diff": {"before": {"files": files}, "after": {"files": []}}}
    if not agent.services.available():
        raise _agent.AgentError("systemd is not running on this host, and the agent needs it for its timer; use a host that is booted with systemd",
                                "settings")
    files = []
    if params["launcher"]:
        installation = _install.Installation(agent, params["launcher"], params["units"], params["settings"], params["interpreter"])
        files = installation.differences()
        if files and not module.check_mode:
            with agent.alone():
                installation.write(files)
    timer = params["enabled"] is not None and _install.set_timer(agent, params["enabled"], module.check_mode)
    after = {"files": files, "timer": "changed" if timer else "unchanged"}
    return {"changed": bool(files) or timer, "files": files, "diff": {"before": {"files": [], "timer": "unchanged"}, "after": after}}


def main():
    _options.run_module(
        work, argument_spec=dict(_verify.INSTALLATION, state={"type": "str", "choices": ["present", "absent"], "default": "present"},
                                 enabled={"type": "bool"}, interpreter={"type": "path"}),
        required_if=[("state", "present", ["launcher", "enabled"], True)])


if __name__ == "__main__":
    main()
