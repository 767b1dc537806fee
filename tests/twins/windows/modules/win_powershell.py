"""The stand-in of ansible.windows.win_powershell, for the one script there is: the agent's own."""
from __future__ import annotations

import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ansible.windows.plugins.module_utils import machine

MARKER = "gatecontrol-agent:"


def main():
    module = AnsibleModule(argument_spec={
        "script": {"type": "str"}, "parameters": {"type": "dict"}, "depth": {"type": "int", "default": 2},
        "sensitive_parameters": {"type": "list", "elements": "dict", "no_log": True}}, supports_check_mode=True)
    params = module.params
    if "The agent of a Windows host enrolled into GateControl." not in params["script"][:600]:
        module.fail_json(msg="the stand-in knows no such script")
    if module.check_mode and "[CmdletBinding(SupportsShouldProcess)]" not in params["script"]:
        module.exit_json(changed=True, msg="skipped, running in check mode")
    windows, given = machine.here(), dict(params["parameters"])
    verb = given.pop("Command")
    word = given.pop("Word", "")
    if windows.breaks("win_powershell " + verb):
        module.fail_json(msg="", error=[{"exception": {"message": "Access is denied."}}])
    sensitive = {entry["name"]: entry["value"] for entry in params["sensitive_parameters"] or []}
    _status, output = machine.powershell(verb, word, sensitive.pop("Texts", None), module.check_mode)
    if given or sensitive or not output.startswith(MARKER):
        module.fail_json(msg="", error=[{"exception": {"message": output.strip()[-500:]}}])
    answer = json.loads(output[len(MARKER):])
    if answer.get("failed"):
        module.fail_json(msg="", error=[{"exception": {"message": answer["msg"]}}])
    module.exit_json(changed=bool(answer.get("changed")), result=answer, output=[])


if __name__ == "__main__":
    main()
