#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_tunnel
short_description: A WireGuard interface runs what its config file says, with a way back
version_added: 1.0.0
description:
  - Compares the config with what runs and takes the smallest step between them. Nothing where nothing differs, a live C(wg syncconf) and the routes where
    only peers differ, a restart of C(wg-quick@) otherwise.
  - Every step has to be proven by an answer of the WireGuard peer and, on an enrolled host, of the server. If it is not, the config and the
    interface of before come back and the task fails with the reason.
  - Over SSH the step is taken by a unit of the agent on the host, and the controller has to come back over a new connection to confirm it.
    So a change that cuts the controller off is undone by the host itself. Without the agent, and over other connections, the proof alone decides.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.attributes
options:
  interface:
    description: The interface, and the name of its config in C(/etc/wireguard).
    type: str
    default: wg0
  state:
    description:
      - V(up) has the tunnel run and start at boot, V(down) stopped and not started at boot, V(absent) takes its config away as well.
      - V(absent) stops the agent's timer where the host is enrolled with this interface and has systemd or launchd, since a beat would bring the tunnel
        back with the server's next config. M(callmetechie.gatecontrol.gatecontrol_agent) with O(callmetechie.gatecontrol.gatecontrol_agent#module:enabled=true)
        starts it again, and so does a boot.
    type: str
    choices: [up, down, absent]
    default: up
  staged:
    description: Whether the candidate that M(callmetechie.gatecontrol.gatecontrol_config) staged is applied. Without it the file in C(/etc/wireguard) is.
    type: bool
    default: false
  confirm_timeout:
    description: Seconds, from its beginning, in which a change has to be proven and confirmed.
    type: int
    default: 40
  keep_reachable:
    description:
      - Whether what comes in beside the tunnel is answered beside it, where the config would lead the answers into the tunnel. Marks, rules and routes for it
        come and go with the tunnel.
    type: bool
    default: true
  ssh_connection:
    description: The controller's connection as the host sees it, as in E(SSH_CONNECTION). Set by the action.
    type: str
  arm:
    description: Whether a change is only armed, for a controller that confirms it. Set by the action.
    type: bool
    default: false
seealso:
  - module: callmetechie.gatecontrol.gatecontrol_config
"""

EXAMPLES = r"""
- name: Run the tunnel as /etc/wireguard/wg0.conf says
  callmetechie.gatecontrol.gatecontrol_tunnel:
    interface: wg0

- name: Take the tunnel away
  callmetechie.gatecontrol.gatecontrol_tunnel:
    interface: wg0
    state: absent
"""

RETURN = r"""
action:
  description: The step that was or would be taken, V(none), V(sync), V(restart), V(up) or V(down).
  returned: success
  type: str
  sample: sync
reasons:
  description: What differed.
  returned: success
  type: list
  elements: str
  sample: ["peer 3q2+7w8x…: allowed IPs differ: + 10.9.0.0/16"]
rolled_back:
  description: Whether the change was undone.
  returned: failure of a change
  type: bool
armed:
  description: The change's id where it was only armed.
  returned: with O(arm)
  type: str
unseen:
  description: What cannot be seen on this host, and so is not compared. C(routes) and C(DNS) on macOS, where every change is a restart.
  returned: success, while the interface is there
  type: list
  elements: str
kept:
  description: The commands that keep the controller's way open, null where nothing is in its way.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import (
    _agent,
    _change,
    _enrollment,
    _observe,
    _options,
    _plan,
    _reach,
    _repair,
    _step,
    _wgconf,
)


def gone(module, agent, interface, unit, absent):
    """The tunnel does not run; with absent its config is away too."""
    if _reach.runs_through(agent.run, interface, module.params["ssh_connection"], agent.store.root):
        raise _agent.AgentError("this play reaches the host through %s itself, and taking it away would cut the play off in the middle, so nothing was "
                                "changed; reach the host at another address (ansible_host)" % interface, "lockout")
    managed = agent.services.available()
    timer = agent.services.show([_agent.TIMER], ["ActiveState"])[_agent.TIMER] if managed and absent else {}
    beats = agent.enrollment.get("interface") == interface and timer.get("ActiveState") == "active"
    if beats and not module.check_mode:
        agent.services.stop(_agent.TIMER, _agent.BEAT)  # a change that the last beat began would bring everything back
    with _options.alone(module, agent, make=False):
        return take_away(module, agent, unit, absent, beats)


def take_away(module, agent, unit, absent, beats):
    """With the host to this module alone."""
    interface = agent.interface
    enabled = agent.services.available() and agent.services.show([unit], ["UnitFileState"])[unit].get("UnitFileState") == "enabled"
    try:
        running = agent.running()
    except _observe.MissingTool:  # a host whose packages are gone is to be left too
        running = _observe.Running()
    there = running is not None or enabled or (absent and _enrollment.read_text(agent.config_path) is not None)
    changed = beats or there
    if changed and not module.check_mode:
        if absent:
            _step.remove(agent.run, agent.services, agent.store, interface)
            if _observe.present(agent.store.root, interface):
                module.warn("%s still runs, since the programs that take it away are gone; it goes with the next boot" % interface)
        else:
            _step.apply(agent.run, agent.services, agent.store, interface, _plan.plan(None, running), None)
            agent.services.disable(unit)
    before, after = {"tunnel": "there" if there else "gone"}, {"tunnel": "gone"}
    if beats:
        before["timer"], after["timer"] = "active", "inactive"
    return {"changed": changed, "action": "none" if running is None else "down", "reasons": [], "kept": None, "diff": {"before": before, "after": after}}


def work(module):
    params, agent = module.params, _options.agent(module)
    interface = agent.interface = params["interface"]
    unit = _observe.unit_of(interface)
    if params["state"] != "up":
        return gone(module, agent, interface, unit, params["state"] == "absent")
    with _options.alone(module, agent):
        return up(module, agent, interface, unit)


def up(module, agent, interface, unit):
    """The tunnel runs as its config says, or its change is armed."""
    params = module.params
    if not agent.services.available():
        raise _agent.AgentError("systemd is not running on this host, and wg-quick@.service runs the tunnel; use a host that is booted with systemd",
                                "settings")
    agent.settings["keep_reachable"] = params["keep_reachable"]
    path = agent.config_path
    live, candidate = _enrollment.read_text(path), agent.store.text("candidate") if params["staged"] else None
    text = live if candidate is None else candidate
    if text is None and params["staged"] and module.check_mode:
        # In check mode nothing was staged; gatecontrol_config told what it would write.
        return {"changed": True, "action": "restart", "reasons": ["%s is missing" % path], "kept": None,
                "diff": {"before": {"tunnel": "gone"}, "after": {"tunnel": "there"}}}
    if text is None:
        raise _agent.AgentError("there is no %s; write it with gatecontrol_config first" % path, "settings")
    config = _wgconf.parse(text, allow_hooks=True)
    ssh_connection = params["ssh_connection"]
    reach = agent.reachability(text, ssh_connection)
    kept, running = reach["kept"], agent.running()
    plan = _plan.plan(config, running, _observe.applied(path), kept)
    enabled = agent.services.show([unit], ["UnitFileState"])[unit].get("UnitFileState") == "enabled"
    unkept = kept != _reach.kept_path(agent.store, interface) or not _reach.spared(agent.store, config, kept, interface)
    result = {"changed": plan.action != "none" or text != live or not enabled or unkept, "action": plan.action, "reasons": plan.reasons,
              "kept": [" ".join(words) for words in kept] if kept else None,
              "unseen": list(running.unseen if running else ()),
              "diff": {"before": _wgconf.mask(live or "") if running else "", "after": _wgconf.mask(text),
                       "before_header": interface + " as it runs", "after_header": "%s (%s)" % (interface, "; ".join(plan.reasons) or "as it runs")}}
    off = _repair.resolver_off(agent, config, running)
    if off:
        module.warn(off)
    if reach["through"]:
        module.warn("this play reaches the host through %s itself: a change of it cuts the play's own connection for a moment" % interface)
    return result if module.check_mode else dict(result, **bring_about(module, agent, plan, config, kept, text, candidate is not None))


def bring_about(module, agent, plan, config, kept, text, staged):
    """What is missing for the tunnel to run as this config says. staged: whether it lies there as the candidate. Returns what the result has of it."""
    params, ssh_connection = module.params, module.params["ssh_connection"]
    if ssh_connection and agent.enrollment and agent.enrollment.get("controller") != ssh_connection:
        agent.note(controller=ssh_connection)
    if plan.action == "none":
        _reach.keep(agent.run, agent.services, agent.store, agent.interface, kept)
        _step.apply(agent.run, agent.services, agent.store, agent.interface, plan, config, kept, text)
        if staged:
            agent.accept()
            agent.store.drop("candidate")
        return {}
    if not staged:
        agent.store.save("candidate", text)
        agent.store.drop("offered")  # one that was rolled back may lie there, and is not what runs next
    armable = params["arm"] and agent.services.show([_agent.APPLY], ["LoadState"])[_agent.APPLY].get("LoadState") == "loaded"
    if armable:
        return {"armed": agent.launch("controller" if ssh_connection else "server", ssh_connection, params["confirm_timeout"])}
    agent.arm("server", ssh_connection, params["confirm_timeout"])
    verdict = agent.apply()
    if not verdict["ok"]:
        module.fail_json(msg=_change.failed(agent.interface, verdict), rolled_back=True, failure={"kind": "rolled_back", "status": None})
    return {}


def main():
    _options.run_module(work, argument_spec=_options.TUNNEL)


if __name__ == "__main__":
    main()
