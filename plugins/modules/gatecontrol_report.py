#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_report
short_description: Write a report on the controller
version_added: 1.0.0
description:
  - Writes what the filters P(callmetechie.gatecontrol.gatecontrol_report#filter) and P(callmetechie.gatecontrol.gatecontrol_page#filter) made into the files
    C(gatecontrol-report.json) and C(gatecontrol-report.html) of a folder, or any report into one file as JSON.
  - It always writes on the controller, in Ansible's own process, whatever host the task is for; no connection is used and no variable of a host has a part
    in it.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.attributes
options:
  dir:
    description: An existing folder on the controller, for page and JSON.
    type: path
  dest:
    description: A file in an existing folder on the controller, for the JSON alone.
    type: path
  report:
    description: The report.
    type: dict
    required: true
  page:
    description: The page's text. It goes with O(dir).
    type: str
seealso:
  - plugin: callmetechie.gatecontrol.gatecontrol_report
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Write the report
  callmetechie.gatecontrol.gatecontrol_report:
    dir: /var/www/fleet
    report: "{{ report }}"
    page: "{{ report | callmetechie.gatecontrol.gatecontrol_page(lookup('ansible.builtin.file', 'report.html.j2')) }}"
  run_once: true
"""

RETURN = r"""
files:
  description: The files' paths.
  returned: success
  type: list
  elements: str
  sample: [/var/www/fleet/gatecontrol-report.json, /var/www/fleet/gatecontrol-report.html]
"""

import json
import os

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment, _options

SPEC = {"dir": {"type": "path"}, "dest": {"type": "path"}, "report": {"type": "dict", "required": True}, "page": {"type": "str"}}
REQUIRED_BY = {"dir": ["page"], "page": ["dir"]}


def work(module):
    folder, dest = module.params["dir"], module.params["dest"]
    written = json.dumps(module.params["report"], indent=4, sort_keys=True, ensure_ascii=False) + "\n"
    texts = {dest: written} if dest else {}
    if folder:
        name = os.path.join(folder, "gatecontrol-report.")
        texts.update({name + "json": written, name + "html": module.params["page"]})
    if not texts:
        module.fail_json(msg="nothing was named to write to; give dir and page, or dest", failure={"kind": "options", "status": None})
    changed = [path for path, text in texts.items() if _enrollment.read_text(path) != text]
    for place, option in ((folder, "gatecontrol_report_dir"), (dest and os.path.dirname(dest), "gatecontrol_check_json")):
        if place and not os.path.isdir(place):
            module.fail_json(msg="%s is no folder on the controller; correct %s" % (place, option), failure={"kind": "file", "status": None})
    for path in changed if not module.check_mode else ():
        _enrollment.write_text(path, texts[path], 0o644)
    return {"changed": bool(changed), "files": list(texts)}


def main():
    _options.run_module(work, argument_spec=SPEC, required_by=REQUIRED_BY)


if __name__ == "__main__":
    main()
