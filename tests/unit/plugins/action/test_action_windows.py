"""The actions on a Windows host: the installed agent is asked, else the collection's own is sent; a change is confirmed over a new connection."""
from __future__ import annotations

import base64
import json
import types

import pytest
from ansible.plugins.loader import become_loader
from ansible_collections.callmetechie.gatecontrol.plugins.action import (
    gatecontrol_config, gatecontrol_host_info, gatecontrol_peer, gatecontrol_tunnel, gatecontrol_windows)
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _verify, _windows

import connections
from connections import Connection, action

ANSWER = dict(connections.ANSWER, host=dict(connections.ANSWER["host"], system="windows", distribution="windows", service_manager="windows"))
WINDOWS = {"gatecontrol_system": "windows"}
OFFERED = {"src": "/here/agent.ps1", "dest": "gatecontrol_agent.ps1", "checksum": "x"}


class Windows(Connection):
    """A connection at whose far end powershell.exe answers what a test says, one answer for each command, the last one for ever."""

    def __init__(self, *answers, transport="winrm"):
        super().__init__(transport=transport)
        self.answers = list(answers)

    def exec_command(self, command, in_data=None, sudoable=True):
        self.commands.append(command)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return (0, (_verify.MARKER + json.dumps(answer) + "\r\n").encode(), b"") if answer else (1, b"", b"The argument to -File does not exist.")


def words(command):
    """The words that a line gives to the agent."""
    script = base64.b64decode(command.rstrip("'").split()[-1]).decode("utf-16-le")
    return script.partition(".ps1\" ")[2].partition(";")[0].split()


def ask(connection, task_vars=None, check_mode=False, sent=None, **args):
    asked = action(gatecontrol_host_info.ActionModule, connection, **args)
    asked._task.check_mode, asked.answer = check_mode, sent or {"failed": True, "msg": "no PowerShell"}
    return asked, asked.run(task_vars=task_vars or {})


@pytest.mark.parametrize("transport, task_vars", [("winrm", {}), ("psrp", {}), ("ssh", WINDOWS)])
def test_the_installed_agent_answers_and_nothing_is_sent(transport, task_vars):
    connection = Windows(ANSWER, transport=transport)
    asked, result = ask(connection, task_vars, url="https://gate.example.com", launcher="x", settings={"url": "x"})
    assert result["in_sync"] and result["asked"] == "agent" and result["changed"] is False and asked.sent == []
    command, = connection.commands
    question = json.loads(base64.b64decode(words(command)[1]))
    assert "powershell.exe" in command and list(question["files"]) == [_windows.AGENT]


def test_a_url_that_is_none_is_an_error_and_asks_nobody():
    connection = Windows(ANSWER)
    _asked, result = ask(connection, WINDOWS, url="gate.example.com")
    assert result["failed"] and "gatecontrol_url" in result["msg"] and result["failure"]["kind"] == "options" and connection.commands == []


@pytest.mark.parametrize("task_vars, kept", [({}, False), ({"ansible_become": True}, True)])
def test_root_is_asked_for_by_the_host_s_own_words_only(task_vars, kept):
    connection = Windows(ANSWER)
    connection.become = become_loader.get("sudo")
    connection.become.set_options(direct={"become_user": "root"})
    ask(connection, dict(WINDOWS, **task_vars))
    assert ("sudo" in connection.commands[0]) is kept


def test_a_host_that_says_it_is_another_is_not_asked_so():
    connection = Windows(None)
    asked, _result = ask(connection, {"gatecontrol_system": "linux"}, sent=connections.ANSWER)
    assert asked.sent[0][0] == "callmetechie.gatecontrol.gatecontrol_host_info"


@pytest.mark.parametrize("task_vars, system", [({"gatecontrol_system": "linux"}, "windows"), (WINDOWS, "linux")])
def test_a_host_that_says_it_is_another_than_it_was_asked_as_is_refused(task_vars, system):
    """What runs Windows is sent files by another collection's code, and the controller asks the server in its place."""
    said = dict(ANSWER, host=dict(ANSWER["host"], system=system))
    _asked, result = ask(Windows(said), task_vars, sent=dict(said, changed=False))
    assert result["failed"] and "gatecontrol_system=" + system in result["msg"] and "host" not in result


@pytest.mark.parametrize("lacking, sent", [
    ([{"src": "/etc/shadow", "dest": "x"}], []), ([{"src": "/here/agent.ps1", "dest": "y"}], [OFFERED]), ("/etc/shadow", []), ([None, {}, {"src": {}}], []),
    ([OFFERED, {"src": "/etc/shadow", "dest": "x"}], [OFFERED])], ids=["another", "ours", "text", "types", "both"])
def test_a_host_is_sent_no_file_that_it_was_not_offered(lacking, sent):
    asked = gatecontrol_windows.only_offered(lambda **how: {"files": lacking, "directories": [{"src": "/etc"}], "changed": True})
    assert asked(module_name="ansible.windows.win_copy", module_args={"files": [OFFERED]}) == {"files": sent, "directories": [], "changed": True}


@pytest.mark.parametrize("answer", [None, dict(ANSWER, version="0.9.0")])
def test_without_an_answer_the_collection_s_agent_is_sent(answer):
    asked, result = ask(Windows(answer), sent={"result": dict(ANSWER, in_sync=False), "changed": False})
    (name, arguments), = asked.sent
    assert name == "ansible.windows.win_powershell" and arguments["script"] == _windows.agent_text() and arguments["parameters"]["Command"] == "verify"
    assert result["asked"] == "module" and not result["in_sync"]


@pytest.mark.parametrize("sent", [
    {"failed": True, "error": [{"exception": {"message": "Access is denied."}}]}, {"failed": True, "msg": "x"}, {"changed": True}])
def test_no_answer_at_all_is_a_failure_and_not_a_host_without_enrollment(sent):
    _asked, result = ask(Windows(None), sent=sent)
    assert result["failed"] and "could not be asked" in result["msg"] and "enrolled" not in result


def test_in_check_mode_the_agent_is_told():
    connection = Windows(ANSWER)
    ask(connection, check_mode=True)
    assert words(connection.commands[0])[-1] == "-WhatIf"


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(gatecontrol_tunnel, "time", types.SimpleNamespace(
        monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)))
    return now


def change(connection, **args):
    asked = action(gatecontrol_tunnel.ActionModule, connection, **args)
    return asked.run(task_vars={})


def test_a_change_is_confirmed_over_a_new_connection(clock):
    connection = Windows({"changed": True, "action": "up", "armed": "7"}, {"confirm": "w"}, {"id": "7", "ok": True, "reason": None})
    result = change(connection, interface="wg3", confirm_timeout=20)
    assert result["changed"] and result["action"] == "up" and "armed" not in result and connection.resets == 2
    assert [words(command) for command in connection.commands[1:]] == [["confirm", "7"], ["confirm", "w"]]
    question = json.loads(base64.b64decode(words(connection.commands[0])[1]))
    assert question == {"state": "up", "interface": "wg3", "timeout": 20}


def test_a_change_that_was_undone_fails_with_its_reason(clock):
    connection = Windows({"changed": True, "armed": "7"}, {"id": "7", "ok": False, "reason": "no answer from the WireGuard peer"})
    result = change(connection)
    assert result["failed"] and result["rolled_back"] is True and "no answer" in result["msg"]


def test_a_change_that_could_not_be_undone_yet_is_not_said_to_be(clock):
    connection = Windows({"changed": True, "armed": "7"}, {"id": "7", "ok": False, "back": False, "reason": "no answer; the way back failed too"})
    result = change(connection)
    assert result["failed"] and result["rolled_back"] is False and result["changed"] is True
    assert "not as it was before: no answer; the way back failed too" in result["msg"]


def test_a_host_that_never_comes_back(clock):
    connection = Windows({"changed": True, "armed": "7"}, None)
    result = change(connection, confirm_timeout=20)
    assert result["failed"] and result["failure"]["kind"] == "unreachable" and 80 <= clock[0] < 82


@pytest.mark.parametrize("answer", [{"changed": False, "action": "none"}, {"failed": True, "msg": "there is no config of wg0; stage it first"}])
def test_what_was_not_armed_is_not_confirmed(clock, answer):
    connection = Windows(answer)
    result = change(connection)
    assert connection.resets == 0 and {key: result[key] for key in answer} == answer


@pytest.mark.parametrize("kind, given, words", [
    (gatecontrol_config, {}, "not enrolled"), (gatecontrol_peer, {"name": "pc1"}, "no secret was given")], ids=["config", "peer"])
@pytest.mark.parametrize("facts", [{}, {"gatecontrol_url": "https://evil.example"}], ids=["honest", "hostile"])
def test_what_a_windows_host_needs_of_the_server_is_asked_by_the_controller(kind, given, words, facts, monkeypatch):
    monkeypatch.delenv("GATECONTROL_TOKEN", raising=False)
    connection = Windows({})
    given = dict(given, files={}, url="https://gate.example.com", machine_fingerprint="ab" * 32, client_platform="windows")
    asked = action(kind.ActionModule, connection, **given)
    asked._task.action = kind.__name__.rpartition(".")[2]
    found = asked.run(task_vars={"inventory_hostname": "pc1", "hostvars": {}, "ansible_facts": facts})
    assert found["failed"] and (found["failure"]["kind"] == "play") is bool(facts)
    assert ("the facts of pc1 set gatecontrol_url" if facts else words) in found["msg"]
    assert asked.sent == [] and connection.commands == []
