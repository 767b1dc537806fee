"""The fleet's action: how long a batch will take is said before it waits."""
from __future__ import annotations

import types

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.action import gatecontrol_fleet as action_module

from connections import Connection, action

SPENT = {"failed": True, "msg": "this batch needs 160 requests", "failure": {
    "kind": "rate_limited", "status": None, "seconds": 1500, "retry_after": 600, "needed": 160, "left": 40, "limit": 100}}
DONE = {"changed": True, "hosts": {}}


@pytest.fixture
def said(monkeypatch):
    """What was shown, each time with how often the module had run."""
    texts = []
    monkeypatch.setattr(action_module, "Display", lambda: types.SimpleNamespace(warning=texts.append))
    return texts


def run(*answers, **args):
    asked, answers = action(action_module.ActionModule, Connection(), **args), list(answers)

    def execute(name, arguments, task_vars=None):
        asked.sent.append((name, arguments))
        return answers.pop(0)
    asked._execute_module = execute
    return asked.sent, asked.run(task_vars={})


def test_a_batch_that_fits_is_one_run(said):
    sent, result = run(DONE, state="present", pace=True)
    assert sent == [(action_module.MODULE, {"state": "present", "pace": False})] and result == DONE and said == []


@pytest.mark.parametrize("pace", [True, "yes"])
def test_one_that_does_not_says_so_and_goes_on(said, pace):
    sent, result = run(SPENT, DONE, pace=pace)
    assert [arguments["pace"] for _name, arguments in sent] == [False, pace] and result == DONE
    assert len(said) == 1 and "leaves 40 of the 160 requests" in said[0] and "(26 minutes)" in said[0]


@pytest.mark.parametrize("pace", [False, None, "no"])
def test_who_does_not_want_to_wait_is_told(said, pace):
    sent, result = run(SPENT, pace=pace)
    assert len(sent) == 1 and result == SPENT and said == []


def test_logins_that_are_used_up_are_not_waited_for(said):
    logins = {"failed": True, "msg": "5 logins in 15 minutes are allowed", "failure": {"kind": "rate_limited", "status": 429, "retry_after": 800}}
    sent, result = run(logins, pace=True)
    assert len(sent) == 1 and result == logins and said == []


def test_the_login_of_the_first_run_serves_the_second(said):
    session = {"cookie": "c", "csrf": "f"}
    sent, result = run(dict(SPENT, session=session), DONE, pace=True)
    assert sent[1][1]["session"] == session and result == dict(DONE, session=session)
