"""The tunnel's action: armed over one connection, confirmed over another."""
from __future__ import annotations

import json
import shlex
import types

import pytest
from ansible.plugins.connection import ConnectionBase
from ansible_collections.callmetechie.gatecontrol.plugins.action import gatecontrol_tunnel as action_module
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _verify

from connections import AGENT, Connection, action

GOOD = {"id": "7", "ok": True, "reason": None}
BAD = {"id": "7", "ok": False, "reason": "no answer from the WireGuard peer abcdefgh… at 192.0.2.1:51820"}
OPTIONS = {"timeout": 10, "ssh_extra_args": "-o Compression=no"}


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only while the action sleeps, and a second with each reset."""
    now = [0.0]
    monkeypatch.setattr(action_module, "time", types.SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)))
    return now


@pytest.fixture
def script(tmp_path):
    def make(body):
        path = tmp_path / "agent"
        path.write_text('#!/bin/sh\necho "$@" >>%s\n%s\n' % (tmp_path / "words", body), encoding="utf-8")
        path.chmod(0o755)
        return path
    return make


def line(verdict):
    return "echo " + shlex.quote(_verify.MARKER + json.dumps(verdict))


def change(connection, armed="7", **args):
    asked = action(action_module.ActionModule, connection, **args)
    asked.answer = {"changed": True, "action": "restart", **({"armed": armed} if armed else {})}
    return asked, asked.run(task_vars={})


def ours(connection):
    """The commands sent to the agent."""
    return [command for command in connection.commands if AGENT in command]


def test_a_change_is_armed_and_confirmed_over_a_new_connection(script, tmp_path, clock):
    connection = Connection(script("echo banner; " + line(GOOD)))
    asked, result = change(connection, interface="wg3", staged=True)
    (name, arguments), = asked.sent
    assert (
        name == "callmetechie.gatecontrol." + action_module.MODULE
        and arguments["arm"] is True
        and arguments["interface"] == "wg3"
        and arguments["staged"] is True
    )
    assert "ssh_connection" in arguments and "SSH_CONNECTION" in connection.commands[0]
    assert result == {"changed": True, "action": "restart"} and connection.resets == 1
    assert (tmp_path / "words").read_text("ascii") == "confirm 7\n"
    assert connection.options == OPTIONS
    assert connection.seen == [{"timeout": 3, "ssh_extra_args": "-o Compression=no " + action_module.KEEPALIVE}]


def test_the_word_goes_over_one_new_connection_and_comes_back_over_another(script, tmp_path, clock):
    """What the host hands out once the step is taken: only a connection made after that proves the way."""
    connection = Connection(script('if [ "$2" = 7 ]; then %s; else %s; fi' % (line({"confirm": "w"}), line(GOOD))))
    _asked, result = change(connection)
    assert result == {"changed": True, "action": "restart"} and connection.resets == 2
    assert (tmp_path / "words").read_text("ascii") == "confirm 7\nconfirm w\n" and connection.options == OPTIONS


def test_a_word_whose_verdict_was_lost_is_brought_again(script, tmp_path, clock):
    words = tmp_path / "words"
    connection = Connection(script('if [ "$2" = 7 ]; then %s; elif [ "$(wc -l <%s)" -lt 4 ]; then exit 1; else %s; fi' % (
        line({"confirm": "w"}), words, line(GOOD))))
    _asked, result = change(connection)
    assert not result.get("failed") and words.read_text("ascii").split("\n")[1:4] == ["confirm w"] * 3


def test_the_hosts_view_of_the_connection_is_asked_without_become_and_only_if_not_given(script, clock, monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.9 50022 198.51.100.1 22")
    connection = Connection(script(line(GOOD)))
    asked, _result = change(connection)
    assert asked.sent[0][1]["ssh_connection"] == "192.0.2.9 50022 198.51.100.1 22"
    connection = Connection(script(line(GOOD)))
    asked, _result = change(connection, ssh_connection="1.2.3.4 5 6.7.8.9 22")
    assert asked.sent[0][1]["ssh_connection"] == "1.2.3.4 5 6.7.8.9 22" and len(connection.commands) == 1


def test_it_comes_back_again_and_again(script, clock):
    connection = Connection(script(line(GOOD)))
    plain, connection.reset = connection.reset, lambda: plain() or setattr(connection, "lost", int(connection.resets < 9))
    _asked, result = change(connection)
    assert not result.get("failed") and connection.resets == 9 and len(ours(connection)) == 9 and connection.options == OPTIONS


def test_a_reset_that_fails_is_another_try(script, clock):
    connection = Connection(script(line(GOOD)))
    plain = connection.reset

    def reset():
        plain()
        if connection.resets < 3:
            raise action_module.AnsibleError("Cannot reset connection")
    connection.reset = reset
    _asked, result = change(connection)
    assert not result.get("failed") and connection.resets == 3


def test_what_a_connection_says_in_the_host_s_words_is_shown_clean(script, clock):
    """An SSH server's banner stands in the error of a connection that could not be made."""
    connection = Connection(script(line(GOOD)))

    def reset():
        raise action_module.AnsibleError("Failed to connect to the host via ssh: \x1b[2J\u202e\x07 go away\n" + "x" * 5000)
    connection.reset = reset
    _asked, result = change(connection, confirm_timeout=20)
    assert result["failure"]["kind"] == "unreachable" and "go away" in result["msg"] and result["msg"].isprintable() and len(result["msg"]) < 600


def test_a_change_that_was_rolled_back_fails_with_the_units_reason(script, clock):
    connection = Connection(script(line(BAD)))
    _asked, result = change(connection)
    assert result["failed"] and result["rolled_back"] is True and result["changed"] is False and BAD["reason"] in result["msg"]
    assert result["failure"] == {"kind": "rolled_back", "status": None} and connection.options == OPTIONS


def test_a_host_that_never_comes_back(script, clock):
    connection = Connection(script(line(GOOD)))
    plain, connection.reset = connection.reset, lambda: plain() or setattr(connection, "lost", 1)
    _asked, result = change(connection, confirm_timeout=20)
    assert result["failed"] and result["rolled_back"] is None and result["failure"]["kind"] == "unreachable" and "No route to host" in result["msg"]
    assert 80 <= clock[0] < 82 and "\n" not in result["msg"] and connection.options == OPTIONS
    assert [options["timeout"] for options in connection.seen[:5]] == [3, 3, 3, 10, 10], "a slow host is given its own time in the end"


@pytest.mark.parametrize("answer", ["echo 'Traceback (most recent call last):'; exit 1", "true", line(None), "echo '%s{\"ok\": tru'" % _verify.MARKER,
                                    "printf ' \\n' >&2; exit 255", "echo 'sudo: a password is required' >&2; exit 1"])
def test_an_answer_that_is_no_verdict_is_asked_for_again_until_the_end(script, clock, answer):
    connection = Connection(script(answer))
    plain, connection.reset = connection.reset, lambda: plain() or clock.__setitem__(0, clock[0] + 10)
    _asked, result = change(connection)
    assert (
        result["failed"]
        and result["failure"]["kind"] == "unreachable"
        and 5 < connection.resets < (35 if "null" in answer else 15)
        and connection.options == OPTIONS
    )
    assert "restores its last good config by itself" in result["msg"] and "\n" not in result["msg"]


def test_a_verdict_that_comes_late(script, tmp_path, clock):
    connection = Connection(script('if [ "$(wc -l <%s)" -gt 2 ]; then %s; else %s; fi' % (tmp_path / "words", line(GOOD), line(None))))
    _asked, result = change(connection)
    assert not result.get("failed") and connection.resets == 3


def test_the_connection_is_as_it_was_even_if_something_unforeseen_happens(script, clock):
    connection = Connection(script(line(GOOD)))

    def reset():
        raise KeyboardInterrupt
    connection.reset = reset
    with pytest.raises(KeyboardInterrupt):
        change(connection)
    assert connection.options == OPTIONS


@pytest.mark.parametrize("transport", ["local", "podman"])
def test_over_another_connection_the_module_decides_alone(script, clock, transport):
    connection = Connection(script(line(GOOD)), transport=transport)
    asked, result = change(connection, armed=None)
    assert asked.sent[0][1]["arm"] is False and not asked.sent[0][1].get("ssh_connection")
    assert ours(connection) == [] and connection.resets == 0 and result["changed"]


@pytest.mark.parametrize("seen, armed", [("192.0.2.9 50022 198.51.100.1 22", True), ("UNKNOWN 65535 UNKNOWN 65535", False), ("", False)])
def test_any_plugin_whose_connection_can_be_made_anew_confirms(script, clock, monkeypatch, seen, armed):
    monkeypatch.setenv("SSH_CONNECTION", seen)
    connection = Connection(script(line(GOOD)), transport="ansible.netcommon.libssh")
    asked, result = change(connection, armed="7" if armed else None)
    assert asked.sent[0][1]["arm"] is armed and asked.sent[0][1]["ssh_connection"] == (seen if armed else "")
    assert (connection.resets > 0) is armed and not result.get("failed")


def test_a_connection_that_cannot_be_made_anew_proves_nothing(script, clock, monkeypatch):
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.9 50022 198.51.100.1 22")
    monkeypatch.setattr(Connection, "reset", ConnectionBase.reset)
    asked, _result = change(Connection(script(line(GOOD)), transport="odd"), armed=None)
    assert asked.sent[0][1]["arm"] is False


def test_a_change_that_could_not_be_recorded_is_told(script, clock):
    connection = Connection(script(line(dict(GOOD, unrecorded="/etc/gatecontrol/issued.conf: No space left on device"))))
    _asked, result = change(connection)
    assert result["failed"] and "is in use" in result["msg"] and "No space left on device" in result["msg"] and result["failure"]["kind"] == "file"


@pytest.mark.parametrize("armed,args", [(None, {}), (None, {"state": "absent"}), (None, {"state": "down"})])
def test_what_was_not_armed_is_not_confirmed(script, clock, armed, args):
    connection = Connection(script(line(GOOD)))
    asked, _result = change(connection, armed=armed, **args)
    assert connection.resets == 0 and ours(connection) == [] and asked.sent[0][1]["arm"] is (args.get("state", "up") == "up")


def test_a_module_that_failed_is_not_confirmed(script, clock):
    connection = Connection(script(line(GOOD)))
    asked = action(action_module.ActionModule, connection)
    asked.answer = {"failed": True, "msg": "no"}
    assert asked.run(task_vars={}) == {"failed": True, "msg": "no"} and connection.resets == 0


def test_it_goes_by_become(script, clock):
    connection = Connection(script(line(GOOD)), become="sudo")
    connection.exec_command = lambda command, **how: connection.commands.append(command) or (0, (_verify.MARKER + json.dumps(GOOD)).encode(), b"")
    _asked, result = change(connection)
    assert not result.get("failed") and "sudo" not in connection.commands[0] and "sudo" in connection.commands[1]
