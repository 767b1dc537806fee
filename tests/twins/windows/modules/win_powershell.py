"""The stand-in of ansible.windows.win_powershell, for the one script there is: the agent's own."""
from __future__ import annotations

import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ansible.windows.plugins.module_utils import machine

MARKER = "gatecontrol-agent:"


# The real module's result has all of these, whatever comes of the script.
ALWAYS = {"result": {}, "output": [], "error": [], "warning": [], "verbose": [], "debug": [], "information": [], "host_out": "", "host_err": ""}


def failed(module, message):
    """As the real module answers a script that throws: no msg, and a result that is empty."""
    module.exit_json(**dict(ALWAYS, failed=True, changed=True, error=[{"exception": {"message": message}}]))


def main():
    module = AnsibleModule(argument_spec={
        "script": {"type": "str"}, "parameters": {"type": "dict"}, "depth": {"type": "int", "default": 2},
        "sensitive_parameters": {"type": "list", "elements": "dict", "no_log": True}}, supports_check_mode=True)
    params = module.params
    if "The agent of a Windows host enrolled into GateControl." not in params["script"][:600]:
        module.fail_json(msg="the stand-in knows no such script")
    if module.check_mode and "[CmdletBinding(SupportsShouldProcess)]" not in params["script"]:
        module.exit_json(**dict(ALWAYS, changed=True, msg="skipped, running in check mode"))
    windows, given = machine.here(), dict(params["parameters"])
    verb = given.pop("Command")
    word = given.pop("Word", "")
    if windows.breaks("win_powershell " + verb):
        failed(module, "Access is denied.")
    sensitive = {entry["name"]: entry["value"] for entry in params["sensitive_parameters"] or []}
    parts = [sensitive.pop(name) for name in ["Texts"] + ["Texts%d" % number for number in range(2, 9)] if name in sensitive]
    if any(len(part) > 65536 for part in parts):
        module.fail_json(msg="length ('%d') must be less than or equal to '65536'" % max(map(len, parts)), **ALWAYS)
    _status, output = machine.powershell(verb, word, "".join(parts) if parts else None, module.check_mode)
    if given or sensitive or not output.startswith(MARKER):
        failed(module, output.strip()[-500:])
    answer = json.loads(output[len(MARKER):])
    if answer.get("failed"):
        failed(module, answer["msg"])
    said = dict(ALWAYS, changed=bool(answer.get("changed")))
    said["result"] = answer
    module.exit_json(**said)


if __name__ == "__main__":
    main()
