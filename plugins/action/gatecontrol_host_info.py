# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the agent that is already on the host; sends the module only where it is not."""
from __future__ import annotations

import base64
import json

from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.release import __version__
try:
    from ansible.template import Templar, trust_as_template
except ImportError:
    raise AnsibleError("callmetechie.gatecontrol needs ansible-core 2.19 or newer, and this is %s; install a newer one on the controller"
                       % __version__) from None

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment, _gate, _play, _said, _verify  # the rest where it is needed
from ansible_collections.callmetechie.gatecontrol.plugins.plugin_utils._gated import Gated

PATIENCE = 60  # seconds for an answer; a server that does not answer is given up after 15

# Ansible loads its filters, tests and lookups where they are first used, which is the process that each task of each host has of its own. Used here, in the
# play's own process, they are loaded once for all hosts.
WARM = ("{{ lookup('callmetechie.gatecontrol.gatecontrol_agent', 'launcher') ~ lookup('ansible.builtin.env', 'HOME')"
        " | default('') | int | bool is defined }}")
Templar(loader=DataLoader()).template(trust_as_template(WARM))


class ActionModule(Gated):
    """A steady host costs one low-level command: no payload, no interpreter discovery, and it works under become."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _checked, params = self.validate_argument_spec(argument_spec=_verify.HOST_INFO)
        if params["token"]:
            params["token_digest"] = _enrollment.digest(params["token"].strip())
        try:
            _play.check_facts((task_vars or {}).get("inventory_hostname", ""), task_vars or {})
            wanted = dict(_verify.wanted(params), challenge=_play.CHALLENGE)
        except ValueError as err:
            return dict(result, failed=True, msg=str(err), failure={"kind": "options", "status": None})
        except _play.PlayError as err:
            return dict(result, failed=True, msg=str(err), failure=err.failure)
        windows = _verify.is_windows(self, task_vars)
        if windows:
            answer = self._ask_windows(wanted, task_vars)
        else:
            answer = self._ask_agent(wanted) or self._ask_module(wanted, task_vars)
        if not answer.get("failed") and (answer["host"]["system"] == "windows") is not windows:
            return dict(result, failed=True, failure={"kind": "answer", "status": None},
                        msg="the host says that it runs %s, which is not how it was asked, and nothing was changed; if it is true, set gatecontrol_system=%s "
                            "for it" % ((answer["host"]["system"],) * 2))
        if params["peers_token"] and answer.get("in_sync") and answer.get("reporting") == "none" and params["check"]:
            self._ask_server(params, wanted, answer, windows)
        result.update(answer)
        return result

    def _ask_agent(self, wanted):
        """What the agent of this release answers, None where there is no such agent."""
        words = base64.b64encode(json.dumps(wanted).encode("utf-8")).decode("ascii")
        # timeout(1), where there is one, ends an agent that hangs.
        done = self._low_level_execute_command("$(command -v timeout >/dev/null && echo timeout %d) /%s verify %s" % (PATIENCE, _verify.LAUNCHER, words))
        try:
            answer = _gate.marked(done.get("stdout") or "", _verify.MARKER)
            if answer and answer.get("version") == _verify.VERSION:
                return dict(_said.VERIFY_ANSWER(answer), changed=False, asked="agent")
        except _gate.Refused:
            pass  # a damaged agent; the module says what is wrong
        return None

    def _ask_module(self, wanted, task_vars):
        """What the module says that stands in for the agent; without a whole answer a failure."""
        answer = self.module("gatecontrol_host_info", {"wanted": wanted}, task_vars)
        missing = [] if answer.get("failed") else [name for name in _said.NEEDED if name not in answer]
        if missing:
            return {"failed": True, "changed": False, "failure": {"kind": "answer", "status": None},
                    "msg": f"the host's answer is not of the form it must have: {missing[0]} is missing; look into the Python and the agent on that host"}
        return dict(answer, changed=False, asked="module")

    def _ask_windows(self, wanted, task_vars):
        from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _windows

        if (task_vars or {}).get("ansible_become") is None:  # the role's task asks for root before it knows the system; a host's own way stays
            self._connection.set_become_plugin(None)
        return dict(_windows.ask(self, "verify", _windows.wanted(wanted), task_vars, _said.VERIFY_ANSWER), changed=False)

    def _ask_server(self, params, wanted, answer, windows):
        """The config check of a host without a token of its own, from here and at most every sync_interval.

        The token goes to the server that the play names, never to one that the host names.
        """
        options = dict(params["settings"] or {}, **(params["controller"] or {}))
        url = wanted["url"] or options.get("url") and _verify.normal_url(options["url"])
        if not url or answer["url"] != url or not answer["peer_id"]:
            self._note(answer, "other_server", "the enrollment is with a server that the play does not name")
            return
        if answer["now"] - (answer.get("last_check") or 0) < options.get("sync_interval", 300):
            return
        from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _options, _windows

        try:
            api = _api.Api(dict(options, url=url, token=_options.secret(params, "peers_token"), max_wait=0))
            updated = api.peer_config(answer["peer_id"])["hash"] != answer["hash"]
            answer["server"] = {"asked": True, "updated": updated}
            if updated:
                self._note(answer, "config_new", "the server has a new config")
            elif not self._task.check_mode:
                self._low_level_execute_command(_windows.command("checked") if windows else "/%s checked" % _verify.LAUNCHER)  # notes the time there
        except _api.ApiError as err:
            answer["server"] = {"asked": True, "error": dict(err.failure, text=str(err))}
            self._note(answer, "server", "the server: %s" % err)

    @staticmethod
    def _note(answer, code, sentence):
        """A difference that was seen from here."""
        answer.update(drift=answer["drift"] + [sentence], codes=answer.get("codes", []) + [code], in_sync=False)
