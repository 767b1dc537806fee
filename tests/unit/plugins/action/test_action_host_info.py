"""The observing action: the agent's word where there is one, the module where there is not."""
from __future__ import annotations

import base64
import importlib.util
import json
import re
import shlex

import ansible.template
import pytest
from ansible.errors import AnsibleError
from ansible_collections.callmetechie.gatecontrol.plugins.action import gatecontrol_host_info as action_module
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _enrollment, _play, _verify

from connections import AGENT, ANSWER, HASH, Connection, action

NAME = "callmetechie.gatecontrol.gatecontrol_host_info"
TOKEN = "gc_" + "ab" * 48


@pytest.fixture
def script(tmp_path):
    """Makes the agent a shell script; its words lie in the file words."""
    def make(body):
        path = tmp_path / "agent"
        path.write_text('#!/bin/sh\necho "$@" >>%s\n%s\n' % (tmp_path / "words", body), encoding="utf-8")
        path.chmod(0o755)
        return path
    return make


def line(answer):
    return "echo " + shlex.quote(_verify.MARKER + json.dumps(answer))


def ask(connection, **args):
    asked = action(action_module.ActionModule, connection, **args)
    asked.answer = dict(ANSWER, in_sync=False)
    return asked, asked.run(task_vars={})


def test_the_agent_is_asked_with_digests_and_no_module_is_sent(script, tmp_path):
    connection = Connection(script(line(ANSWER)))
    settings = {"url": "https://gate.example.com", "proxy": "http://user:secret@proxy:3128", "heartbeat_interval": 60}
    asked, result = ask(connection, url="https://gate.example.com/", token=" %s\n" % TOKEN, settings=settings, launcher="print()\n",
                        units={"/etc/a.timer": "x"})
    assert result["asked"] == "agent" and result["in_sync"] and result["changed"] is False and asked.sent == []
    assert len(connection.commands) == 1 and "secret" not in connection.commands[0] and TOKEN not in connection.commands[0]
    verb, words = (tmp_path / "words").read_text("ascii").split()
    wanted = json.loads(base64.b64decode(words))
    assert verb == "verify" and wanted == dict(_verify.wanted(
        {"url": "https://gate.example.com/", "token_digest": _enrollment.digest(TOKEN), "settings": settings, "launcher": "print()\n",
         "units": {"/etc/a.timer": "x"}}), challenge=_play.CHALLENGE)
    assert "secret" not in json.dumps(result) and TOKEN not in json.dumps(result)


def test_a_url_that_is_none_is_an_error_and_asks_nobody(script):
    connection = Connection(script(line(ANSWER)))
    _asked, result = ask(connection, url="https://user:hidden-word@")
    assert result["failed"] and "gatecontrol_url" in result["msg"] and result["failure"]["kind"] == "options" and connection.commands == []
    assert "hidden-word" not in result["msg"]


def test_banners_do_no_harm(script):
    noise = "echo 'Authorized use only!'; echo '%s garbage'; echo warning >&2" % _verify.MARKER
    _asked, result = ask(Connection(script("%s; %s; echo bye" % (noise, line(ANSWER)))))
    assert result["asked"] == "agent"


BROKEN = {
    "garbage": "head -c 300 /dev/urandom | base64", "nothing": "true", "half": "echo '%s{\"version\": \"1.0'" % _verify.MARKER,
    "a list": line([1]), "a text": line("x"), "null": line(None), "an error": "echo 'Traceback' >&2; exit 1",
    "another release": line(dict(ANSWER, version="0.9.0")), "a newer release": line(dict(ANSWER, version="9.0.0")), "no release": line({"in_sync": True}),
    "killed": "kill -9 $$",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_another_answer_sends_the_module_with_the_same_question(script, broken):
    asked, result = ask(Connection(script(BROKEN[broken])), url="https://gate.example.com", token=TOKEN)
    assert result["asked"] == "module" and not result["in_sync"]
    (name, arguments), = asked.sent
    assert name == NAME and set(arguments) == {"wanted"} and arguments["wanted"]["token"] == _enrollment.digest(TOKEN) and TOKEN not in json.dumps(arguments)


@pytest.mark.parametrize("there", ["absent", "no program"])
def test_no_agent_sends_the_module(tmp_path, there):
    script = tmp_path / "agent"
    if there == "no program":
        script.write_text("x", encoding="ascii")
    asked, result = ask(Connection(script))
    assert result["asked"] == "module" and len(asked.sent) == 1


def test_an_agent_that_hangs_is_given_up(script, monkeypatch):
    monkeypatch.setattr(action_module, "PATIENCE", 1)
    _asked, result = ask(Connection(script("sleep 25")))
    assert result["asked"] == "module"


def test_a_host_without_timeout_is_asked_too(script):
    connection = Connection(script(line(ANSWER)))
    plain = connection.exec_command
    connection.exec_command = lambda command, **how: plain("PATH=/nonexistent; " + command, **how)
    _asked, result = ask(connection)
    assert result["asked"] == "agent"


def test_it_goes_by_become(script):
    connection = Connection(script(line(ANSWER)), become="sudo")
    connection.exec_command = lambda command, **how: connection.commands.append(command) or (0, (_verify.MARKER + json.dumps(ANSWER)).encode(), b"")
    _asked, result = ask(connection)
    assert result["asked"] == "agent" and "sudo" in connection.commands[0] and AGENT in connection.commands[0]


class Api:
    """The server as a peers token sees it."""

    asked = []

    @staticmethod
    def hash():
        return HASH

    def __init__(self, options):
        self.asked.append(options)

    def peer_config(self, peer_id):
        return {"hash": self.hash()}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(Api, "asked", [])
    monkeypatch.setattr(_api, "Api", Api)
    return Api


PEERS = {"peers_token": TOKEN, "controller": {"ca_path": "/here"},
         "settings": {"url": "https://gate.example.com", "ca_path": "/on/the/host", "sync_interval": 300}}


def silent():
    raise _api.ApiError("no answer", "network")


@pytest.mark.parametrize("hash_,drift", [
    (lambda: HASH, []), (lambda: "bb" * 32, ["the server has a new config"]), (silent, ["the server: no answer"])])
def test_for_a_host_without_a_token_the_controller_asks(script, tmp_path, server, monkeypatch, hash_, drift):
    monkeypatch.setattr(server, "hash", staticmethod(hash_))
    _asked, result = ask(Connection(script(line(dict(ANSWER, reporting="none")))), **PEERS)
    options, = server.asked
    assert options["token"] == TOKEN and options["ca_path"] == "/here" and options["max_wait"] == 0
    assert result["drift"] == drift and result["in_sync"] is (not drift) and result["server"]["asked"]
    noted = [words.split()[0] for words in (tmp_path / "words").read_text("ascii").splitlines()]
    assert noted == ["verify"] + ["checked"] * (not drift)


def test_in_check_mode_the_host_is_not_told(script, tmp_path, server):
    asked = action(action_module.ActionModule, Connection(script(line(dict(ANSWER, reporting="none")))), **PEERS)
    asked._task.check_mode = True
    assert asked.run(task_vars={})["server"] == {"asked": True, "updated": False}
    assert [words.split()[0] for words in (tmp_path / "words").read_text("ascii").splitlines()] == ["verify"]


@pytest.mark.parametrize("given", ["not a token", "gc_a b"])
def test_a_peers_token_that_is_none_is_said(script, server, given):
    _asked, result = ask(Connection(script(line(dict(ANSWER, reporting="none")))), peers_token=given, settings=PEERS["settings"])
    assert server.asked == [] and len(result["drift"]) == 1 and "peers_token" in result["drift"][0] and given not in result["drift"][0]


@pytest.mark.parametrize("answer,options", [
    ({"reporting": "full"}, {}), ({"reporting": "none", "last_check": 701}, {}), ({"reporting": "none", "in_sync": False}, {}),
    ({"reporting": "none"}, {"check": False}), ({"reporting": "none"}, {"peers_token": None})])
def test_else_the_controller_asks_nobody(script, server, answer, options):
    _asked, result = ask(Connection(script(line(dict(ANSWER, **answer)))), **dict(PEERS, **options))
    assert server.asked == [] and result["server"] == {"asked": False}


def test_an_ansible_that_is_too_old_is_told_in_one_sentence(monkeypatch):
    """Before 2.19 there is no trust_as_template."""
    monkeypatch.delattr(ansible.template, "trust_as_template")
    source = importlib.util.spec_from_file_location("too_old", action_module.__file__)
    with pytest.raises(AnsibleError) as caught:
        source.loader.exec_module(importlib.util.module_from_spec(source))
    assert re.fullmatch(r"callmetechie.gatecontrol needs ansible-core 2.19 or newer, and this is \S+; install a newer one on the controller", str(caught.value))
