"""verify on a host that never saw the agent."""
from __future__ import annotations

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _agent, _drift, _enrollment


class NoServices:
    def available(self):
        return False


def test_a_fresh_host_is_compared_and_not_failed(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "machine-id").write_text("0123456789abcdef" * 2 + "\n")
    agent = _agent.Agent(_enrollment.Store(str(tmp_path)), lambda argv, stdin=None: (127, "", ""), services=NoServices())
    answer = _drift.verify(agent, {"state": "present", "files": {"/usr/local/sbin/gatecontrol-agent": "0" * 64}})
    assert not answer["in_sync"] and not answer["enrolled"]
    assert "this host is not enrolled; run the play with a secret for it" in answer["drift"]
    assert "/usr/local/sbin/gatecontrol-agent is missing" in answer["drift"]
