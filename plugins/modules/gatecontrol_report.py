#!/usr/bin/python
# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gatecontrol_report
short_description: Write a report on a fleet on the controller
version_added: 1.0.0
description:
  - Writes what the filters P(callmetechie.gatecontrol.gatecontrol_report#filter) and P(callmetechie.gatecontrol.gatecontrol_page#filter) made into the files
    C(gatecontrol-report.json) and C(gatecontrol-report.html).
  - It always writes on the controller, in Ansible's own process, whatever host the task is for; no connection is used and no variable of a host has a part
    in it.
author:
  - CallMeTechie (@CallMeTechie)
extends_documentation_fragment:
  - callmetechie.gatecontrol.attributes
options:
  dir:
    description: An existing folder on the controller.
    type: path
    required: true
  report:
    description: The report.
    type: dict
    required: true
  page:
    description: The page's text.
    type: str
    required: true
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

SPEC = {"dir": {"type": "path", "required": True}, "report": {"type": "dict", "required": True}, "page": {"type": "str", "required": True}}
REQUIRED_BY = {}


def work(module):
    texts = {"json": json.dumps(module.params["report"], indent=4, sort_keys=True, ensure_ascii=False) + "\n", "html": module.params["page"]}
    changed, files = [], []
    if not os.path.isdir(module.params["dir"]):
        module.fail_json(
            msg="%s is no folder on the controller; correct gatecontrol_report_dir" % module.params["dir"],
            failure={"kind": "file", "status": None},
        )
    for end, text in texts.items():
        path = os.path.join(module.params["dir"], "gatecontrol-report." + end)
        files.append(path)
        if _enrollment.read_text(path) != text:
            changed.append(path)
            if not module.check_mode:
                _enrollment.write_text(path, text, 0o644)
    return {"changed": bool(changed), "files": files}


def main():
    _options.run_module(work, argument_spec=SPEC)


if __name__ == "__main__":
    main()
