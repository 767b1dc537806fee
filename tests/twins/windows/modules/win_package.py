"""The stand-in of ansible.windows.win_package: installing the MSI puts WireGuard's programs into the tree."""
from __future__ import annotations

import hashlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ansible.windows.plugins.module_utils import machine


def main():
    module = AnsibleModule(argument_spec={
        "path": {"type": "str"}, "arguments": {"type": "raw"}, "checksum": {"type": "str"},
        "checksum_algorithm": {"type": "str", "default": "sha1", "choices": ["md5", "sha1", "sha256", "sha384", "sha512"]},
        "creates_path": {"type": "str"}, "proxy_url": {"type": "str"}, "state": {"type": "str", "default": "present"}}, supports_check_mode=True)
    windows, params = machine.here(), module.params
    if os.path.exists(windows.path(params["creates_path"])):
        module.exit_json(changed=False, rc=0)
    source = windows.path(params["path"])
    if not os.path.exists(source):
        module.fail_json(msg="the file at the path '%s' cannot be reached" % params["path"])
    with open(source, "rb") as handle:
        found = hashlib.new(params["checksum_algorithm"], handle.read()).hexdigest()
    if params["checksum"] and params["checksum"] != found:
        module.fail_json(msg="The checksum for %s did not match: expected %s, got %s" % (params["path"], params["checksum"], found))
    if windows.breaks("win_package"):
        module.fail_json(msg="unexpected rc from 'msiexec.exe': see rc, stdout, and stderr for more information", rc=1603)
    if not module.check_mode:
        os.makedirs(os.path.dirname(windows.path(params["creates_path"])), exist_ok=True)
        with open(windows.path(params["creates_path"]), "w", encoding="utf-8") as handle:
            handle.write("a program\n")
        with windows.change() as state:
            state["packages"].append("WireGuard")
    module.exit_json(changed=True, rc=0, reboot_required=False)


if __name__ == "__main__":
    main()
