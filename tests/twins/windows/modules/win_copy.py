"""The stand-in of ansible.windows.win_copy, as its real action plugin calls it: which files differ, then each of them."""
from __future__ import annotations

import hashlib
import os
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ansible.windows.plugins.module_utils import machine


def digest(path):
    try:
        with open(path, "rb") as handle:
            return hashlib.sha1(handle.read(), usedforsecurity=False).hexdigest()
    except FileNotFoundError:
        return None


def main():
    kind = {"type": "list", "elements": "dict"}
    module = AnsibleModule(argument_spec={
        "src": {"type": "str"}, "dest": {"type": "str"}, "_copy_mode": {"type": "str"}, "_original_basename": {"type": "str"},
        "files": kind, "directories": kind, "symlinks": kind, "force": {"type": "bool"}, "backup": {"type": "bool"}}, supports_check_mode=True)
    windows, params = machine.here(), module.params
    if windows.breaks("win_copy " + os.path.basename(params["dest"].replace("\\", "/"))):
        module.fail_json(msg="Access to the path '%s' is denied." % params["dest"])
    if params["_copy_mode"] == "query":
        folder = windows.path(params["dest"])
        differ = [entry for entry in params["files"] if digest(os.path.join(folder, entry["dest"])) != entry["checksum"]]
        module.exit_json(changed=bool(differ), files=differ, directories=[], symlinks=[])
    place = windows.path(params["dest"])
    os.makedirs(os.path.dirname(place), exist_ok=True)
    shutil.copyfile(params["src"], place)
    module.exit_json(changed=True, dest=params["dest"], checksum=digest(place))


if __name__ == "__main__":
    main()
