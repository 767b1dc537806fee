"""Notes what the play's variables of every host are in the end, and how each host fared."""
from __future__ import annotations

DOCUMENTATION = """
name: hostile_vars
type: notification
short_description: Variables of every host at the end
description: For tests.
"""

import json
import os

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "notification", "hostile_vars"

    def v2_playbook_on_play_start(self, play):
        self.play = play

    def v2_playbook_on_stats(self, stats):
        manager = self.play.get_variable_manager()
        known = {}
        for host in [*manager._inventory.get_hosts(), manager._inventory.get_host("localhost")]:
            if host is not None:
                found = manager.get_vars(play=self.play, host=host, include_hostvars=False)
                known[host.name] = {"vars": {str(name): value for name, value in found.items() if name not in ("vars", "hostvars", "groups")},
                                    "stats": stats.summarize(host.name), "groups": sorted(group.name for group in host.get_groups())}
        with open(os.environ["HOSTILE_VARS"], "w", encoding="utf-8") as handle:
            json.dump(known, handle, default=str)
