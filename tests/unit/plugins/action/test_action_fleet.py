"""The fleet's action: in the controller's own process; how long a batch will take is said before it waits."""
from __future__ import annotations

import types

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.action import gatecontrol_fleet as action_module
from ansible_collections.callmetechie.gatecontrol.plugins.action import gatecontrol_report, gatecontrol_token
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _batch, _play

from connections import Connection, action

HOST = {"host": "web01", "name": "web01"}
REACH = {"url": "https://gate.example.com", "admin_user": "admin", "admin_password": "open-sesame"}
DONE = {"changed": True, "hosts": {}, "requests": 3}


def spent():
    return _api.ApiError("this batch needs 160 requests", "rate_limited", seconds=1500, retry_after=600, needed=160, left=40, limit=100)


@pytest.fixture(autouse=True)
def forgetful():
    """Nothing that another test has noted is known."""
    _play.remember({})
    yield
    _play.remember({})


@pytest.fixture
def said(monkeypatch):
    """What was shown."""
    texts = []
    monkeypatch.setattr(action_module, "Display", lambda: types.SimpleNamespace(warning=texts.append))
    return texts


@pytest.fixture
def settled(monkeypatch):
    """(pace) of each time the server was to be asked; the answers are taken from a list."""
    asked, answers = [], []

    def settle(params, check_mode, notes=None, hosts=None, pace=False):
        asked.append(pace)
        notes.setdefault("sessions", {}).setdefault("key", {"cookie": "c", "csrf": "f"})
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)
    monkeypatch.setattr(_batch, "settle", settle)
    return asked, answers


def run(task_vars=None, strategy="linear", **args):
    asked = action(action_module.ActionModule, Connection(), **dict(REACH, **args))
    asked._task.play = types.SimpleNamespace(strategy=strategy)
    return asked.sent, asked.run(task_vars=dict({"inventory_hostname": "web01", "hostvars": {}}, **(task_vars or {})))


def test_a_batch_that_fits_is_done_without_a_module(said, settled):
    settled[1].append(DONE)
    sent, result = run(state="present", pace=True)
    assert settled[0] == [False] and sent == [] and result["hosts"] == {} and result["session"] == {"cookie": "c", "csrf": "f"} and said == []


@pytest.mark.parametrize("pace", [True, "yes"])
def test_one_that_does_not_says_so_and_goes_on(said, settled, pace):
    settled[1].extend([spent(), DONE])
    _sent, result = run(pace=pace)
    assert settled[0] == [False, True] and result["changed"]
    assert len(said) == 1 and "leaves 40 of the 160 requests" in said[0] and "(26 minutes)" in said[0]


@pytest.mark.parametrize("pace", [False, None, "no"])
def test_who_does_not_want_to_wait_is_told(said, settled, pace):
    settled[1].append(spent())
    _sent, result = run(**({} if pace is None else {"pace": pace}))
    assert result["failed"] and result["failure"]["kind"] == "rate_limited" and len(settled[0]) == 1 and said == []


def test_logins_that_are_used_up_are_not_waited_for(said, settled):
    settled[1].append(_api.ApiError("5 logins in 15 minutes are allowed", "rate_limited", 429, retry_after=800))
    _sent, result = run(pace=True)
    assert result["failed"] and len(settled[0]) == 1 and said == []


def test_a_login_serves_the_whole_run_and_is_in_no_result_twice(settled):
    settled[1].extend([DONE, DONE])
    assert "session" in run()[1] and "session" not in run()[1]
    assert _play.remembered()["sessions"] == {"key": {"cookie": "c", "csrf": "f"}}


# ---------------------------------------------------------------- the hosts of a batch

def ask(host="web01", **args):
    """What a host registers of its own task."""
    return run({"inventory_hostname": host}, part="ask", hosts=[{"host": host, "name": host, **args.pop("own", {})}], **args)[1]


def batch(hostvars, settled, **args):
    """The hosts that are settled when the first of a batch does so, or the failure's text."""
    names = list(hostvars)
    settled[1][:] = [DONE]
    seen = {}

    def settle(params, check_mode, notes=None, hosts=None, pace=False):
        seen["hosts"] = hosts
        return dict(DONE)
    _batch.settle, before = settle, _batch.settle
    try:
        result = run({"inventory_hostname": names[0], "hostvars": hostvars, "ansible_play_batch": names, "ansible_play_hosts": names,
                      "ansible_play_hosts_all": names}, part="batch", **args)[1]
    finally:
        _batch.settle = before
    return [host["host"] for host in seen.get("hosts", [])], result


def test_the_numbers_of_an_inventory_may_be_text():
    asked = ask(own={"wanted_id": "11", "peer_id": "4", "adopt": "yes"})["asked"]
    assert (asked["host"]["wanted_id"], asked["host"]["peer_id"], asked["host"]["adopt"]) == (11, 4, True)


def test_what_a_host_asked_for_holds_no_secret():
    asked = ask(client_token="gc_" + "a" * 96)
    assert "sesame" not in str(asked) and REACH["admin_password"] not in str(asked) and "gc_" not in str(asked)


def test_all_that_have_asked_are_settled_once(settled):
    hostvars = {name: {_batch.ASKED: ask(name)} for name in ("web01", "web02")}
    hostvars["web03"] = {}
    found, result = batch(hostvars, settled)
    assert found == ["web01", "web02"]
    for variables in hostvars.values():
        variables[_batch.SETTLED] = result
    hostvars["web02"][_batch.ASKED] = ask("web02")
    assert batch(hostvars, settled)[0] == ["web02"], "what was settled is not asked for again"


def test_a_host_cannot_ask_for_another_one_and_facts_ask_for_nobody(settled):
    hostvars = {"web01": {_batch.ASKED: ask("web01")}, "web02": {_batch.ASKED: ask("web01")},
                "web03": {_batch.ASKED: ask("web03"), "ansible_facts": {_batch.ASKED: {}}}}
    assert batch(hostvars, settled)[0] == ["web01"]


@pytest.mark.parametrize("name, value", [
    ("proxy", "http://evil:3128"), ("ca_path", "/tmp/evil.pem"), ("validate_certs", False), ("admin_user", "other"), ("admin_password", "other"),
    ("url", "https://evil.example.com")])
def test_hosts_that_differ_in_where_secrets_go_are_refused_together(settled, name, value):
    found, result = batch({"web01": {_batch.ASKED: ask("web01")}, "web02": {_batch.ASKED: ask("web02", **{name: value})}}, settled)
    assert found == [] and result["failed"] and "nothing was made" in result["msg"]
    assert ("gatecontrol_" + name in result["msg"] and "web02" in result["msg"]) if name != "url" else "evil.example.com" in result["msg"]
    assert value in ("other", False) or name == "url" or value not in result["msg"]


def test_one_spelling_of_a_type_is_another_one(settled):
    found, _result = batch({"web01": {_batch.ASKED: ask("web01", validate_certs=True)}, "web02": {_batch.ASKED: ask("web02", validate_certs="yes")}}, settled,
                           validate_certs="true")
    assert found == ["web01", "web02"]


def test_where_fields_are_kept_only_the_other_one_is_refused(settled):
    found, result = batch({"web01": {_batch.ASKED: ask("web01", state="kept")},
                           "web02": {_batch.ASKED: ask("web02", state="kept", url="https://two.example.com")}}, settled, state="kept")
    assert found == ["web01"] and "another server" in result["hosts"]["web02"]["msg"]


def test_who_has_nothing_to_delete_costs_no_login(settled):
    hostvars = {"web01": {_batch.ASKED: ask("web01", state="absent")}}
    assert batch(hostvars, settled, state="absent")[0] == [] and settled[0] == []
    _play.remember({REACH["url"]: {"made": {"web01": 7}}})
    hostvars = {"web01": {_batch.ASKED: ask("web01", state="absent")}}
    assert batch(hostvars, settled, state="absent")[0] == ["web01"], "what this run has made for it goes"


@pytest.mark.parametrize("part", ["ask", "batch"])
@pytest.mark.parametrize("strategy", ["free", "ansible.builtin.free", "host_pinned"])
def test_hosts_that_go_on_by_themselves_are_refused(settled, part, strategy):
    _sent, result = run(strategy=strategy, part=part, hosts=[HOST])
    assert result["failed"] and "strategy is %s" % strategy in result["msg"] and "nothing was made" in result["msg"] and settled[0] == []


def test_debug_is_linear_too():
    assert "asked" in run(strategy="debug", part="ask", hosts=[HOST])[1]


@pytest.mark.parametrize("fact", ["gatecontrol_url", "gatecontrol_admin_user", "gatecontrol_ca_path", "__gatecontrol_fleet_state", "ansible_gatecontrol_proxy",
                                  "omit", "lookup"])
@pytest.mark.parametrize("part", ["ask", "batch"])
def test_facts_that_set_the_collection_s_variables_are_refused(settled, fact, part):
    _sent, result = run({"ansible_facts": {"distribution": "Debian", fact: "\x1b[31mx"}}, part=part, hosts=[HOST])
    assert result["failed"] and "web01" in result["msg"] and fact in result["msg"] and "\x1b" not in result["msg"] and settled[0] == []


def test_a_host_whose_facts_say_that_it_is_another_is_refused_and_not_by_that_one_s_name(settled):
    _sent, result = run({"ansible_facts": {"inventory_hostname": "web01"}}, part="ask", hosts=[HOST])
    assert result["failed"] and "the facts of this host set inventory_hostname" in result["msg"] and "web01" not in result["msg"] and settled[0] == []


@pytest.mark.parametrize("facts, written", [({"gatecontrol_report_dir": "x"}, False), ({"distribution": "Debian"}, True)])
def test_a_host_has_no_say_in_where_a_report_is_written(tmp_path, facts, written):
    asked = action(gatecontrol_report.ActionModule, Connection(), dir=str(tmp_path), report={"hosts": []}, page="x")
    result = asked.run(task_vars={"inventory_hostname": "web01", "ansible_facts": facts})
    assert result.get("failed", False) is not written and (tmp_path / "gatecontrol-report.html").exists() is written


@pytest.mark.parametrize("facts, words", [({}, "tokens need the administrator's login"), ({"omit": "x"}, "the facts of web01 set omit")])
def test_tokens_are_looked_after_without_a_host(monkeypatch, facts, words):
    for name in ("GATECONTROL_ADMIN_USER", "GATECONTROL_ADMIN_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    connection = Connection()
    asked = action(gatecontrol_token.ActionModule, connection, url="https://gate.example.com", peer="web01")
    result = asked.run(task_vars={"inventory_hostname": "web01", "ansible_facts": facts})
    assert result["failed"] and words in result["msg"] and asked.sent == [] and connection.commands == []
