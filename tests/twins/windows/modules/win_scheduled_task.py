"""The stand-in of community.windows.win_scheduled_task: tasks are kept, nothing starts them."""
from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ansible.windows.plugins.module_utils import machine


def main():
    flags = ("allow_demand_start", "start_when_available", "disallow_start_if_on_batteries", "stop_if_going_on_batteries", "enabled")
    texts = ("name", "description", "username", "run_level", "execution_time_limit")
    module = AnsibleModule(argument_spec=dict(
        {name: {"type": "bool"} for name in flags}, **{name: {"type": "str"} for name in texts}, path={"type": "str", "default": "\\"},
        state={"type": "str", "default": "present", "choices": ["present", "absent"]}, multiple_instances={"type": "int"},
        actions={"type": "list", "elements": "dict"}, triggers={"type": "list", "elements": "dict"}), supports_check_mode=True)
    windows, params = machine.here(), dict(module.params)
    name, state = params.pop("path").rstrip("\\") + "\\" + params.pop("name"), params.pop("state")
    if windows.breaks("win_scheduled_task " + name.rpartition("\\")[2]):
        module.fail_json(msg="failed to register the task: Access is denied.")
    wanted = None if state == "absent" else params
    changed = windows.state["tasks"].get(name) != wanted
    if changed and not module.check_mode:
        with windows.change() as kept:
            kept["tasks"].pop(name, None)
            if wanted:
                kept["tasks"][name] = wanted
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
