"""Packages: what is at hand first, an update only where something is missing, and whoever holds the lock is told and waited for."""
from __future__ import annotations

import types

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.action import gatecontrol_packages as action_module

from connections import Connection, action

LOCKED = {"failed": True, "rc": 100, "msg":
          "'/usr/bin/apt-get -y install' failed: E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 "
          "(unattended-upgr)\nE: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?\n"}
MISSING = {"failed": True, "msg": "No package matching 'wireguard-tools' is available"}
DONE = {"changed": True, "ansible_facts": {"gatecontrol_url": "x"}, "cache_update_time": 1, "stdout": "x" * 1000, "diff": {}}
UPDATE = {"changed": True, "rc": 0, "stdout": "", "stderr":
          "W: Failed to fetch http://vendor/InRelease  Connection timed out\nW: Some index files failed to download."}


@pytest.fixture
def play(monkeypatch):
    """Runs the action against answers in turn: its result, what was run, and what was said."""
    now, warned = [0.0], []
    monkeypatch.setattr(action_module, "time", types.SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)))
    monkeypatch.setattr(action_module, "Display", lambda: types.SimpleNamespace(warning=warned.append))

    def run(*answers, check=False, there="", **args):
        asked = action(action_module.ActionModule, Connection(), **dict({"names": ["wireguard-tools"], "manager": "apt"}, **args))
        asked._task.check_mode, left, ran = check, list(answers), []
        asked._low_level_execute_command = lambda command, **how: {"stdout": there}

        def execute(name, arguments, task_vars=None):
            ran.append((name.rpartition(".")[2], arguments))
            now[0] += arguments.get("lock_timeout", 1)
            return dict(left.pop(0) if len(left) > 1 else left[0])
        asked._execute_module = execute
        return asked.run(task_vars={"inventory_hostname": "web01"}), ran, warned
    return run


def test_what_is_at_hand_is_installed_without_an_update(play):
    result, ran, warned = play(DONE)
    assert result == {"changed": True} and warned == []
    (name, arguments), = ran
    assert name == "apt" and arguments == {"name": ["wireguard-tools"], "install_recommends": False, "update_cache": False, "lock_timeout": 5}


def test_the_lists_are_updated_where_a_package_is_not_found(play):
    result, ran, _warned = play(MISSING, UPDATE, DONE)
    assert result == {"changed": True} and [name for name, _arguments in ran] == ["apt", "command", "apt"] and "update" in ran[1][1]["argv"]


def test_what_the_package_manager_said_is_told(play):
    result, _ran, _warned = play(MISSING, UPDATE, MISSING)
    assert result["failed"] and result["failure"]["kind"] == "packages" and "Connection timed out" in result["msg"] and "No package matching" in result["msg"]


def test_who_holds_the_lock_is_told_and_waited_for(play):
    result, ran, warned = play(LOCKED, DONE, wait=300)
    assert result["changed"] and len(ran) == 2 and len(warned) == 1
    assert "web01" in warned[0] and "process 812 (unattended-upgr)" in warned[0] and "295 s" in warned[0] and "gatecontrol_package_wait" in warned[0]
    assert ran[1][1]["lock_timeout"] > 250


def test_the_wait_has_an_end(play):
    result, ran, _warned = play(LOCKED, wait=30)
    assert result["failed"] and "process 812" in result["msg"] and "within 30 s" in result["msg"] and len(ran) < 20


def test_in_check_mode_nothing_is_updated(play):
    result, ran, _warned = play(MISSING, check=True)
    assert result["changed"] and len(ran) == 1


@pytest.mark.parametrize("there, module", [
    ("apt-get /usr/bin/apt-get\n", "apt"), ("dnf /usr/bin/dnf-3\n", "dnf"), ("dnf /usr/bin/dnf5\ndnf5 /usr/bin/dnf5\n", "dnf5"),
    ("zypper /usr/bin/zypper\n", "command"), ("pacman /usr/bin/pacman\n", "command"), ("\x1b[31mapt-get /x; touch y\npacman /usr/bin/pacman\n", "command")])
def test_the_package_manager_that_is_there(play, there, module):
    result, ran, _warned = play(DONE, manager="auto", there=there)
    assert result["changed"] and ran[0][0] == module


def test_no_package_manager_is_said(play):
    result, ran, _warned = play(DONE, manager="auto", there="brew; /x\n")
    assert result["failed"] and "wireguard-tools" in result["msg"] and ran == []


@pytest.mark.parametrize("name", ["-o=x", "a b", "$(x)", "", "x" * 200, "{{ x }}\n"])
def test_a_name_that_is_none_is_refused(play, name):
    result, ran, _warned = play(DONE, names=[name])
    assert result["failed"] and "gatecontrol_packages" in result["msg"] and ran == []


def test_zypper_and_its_lock(play):
    locked = {"failed": True, "rc": 7, "msg": "non-zero return code", "stderr": "System management is locked by the application with pid 4711 (zypper).\n"}
    result, ran, warned = play(locked, {"changed": True, "stdout": "Nothing to do."}, manager="zypper")
    assert result == {"changed": False} and "process 4711 (zypper)" in warned[0] and "ZYPP_LOCK_TIMEOUT=5" in ran[0][1]["argv"]


def test_homebrew_in_its_own_folder(play):
    result, ran, _warned = play({"changed": True}, manager="homebrew", homebrew="/usr/local")
    (_name, arguments), = ran
    assert result["changed"] and arguments["chdir"] == "/usr/local"
    assert "/usr/local/bin/brew" in arguments["argv"] and "HOMEBREW_NO_AUTO_UPDATE=1" in arguments["argv"]


def test_resolvconf_by_systemd_resolved(play):
    result, ran, _warned = play({"changed": True}, names=[], resolvectl="/usr/bin/resolvectl")
    assert result["changed"] and ran == [("file", {"src": "/usr/bin/resolvectl", "dest": "/usr/local/sbin/resolvconf", "state": "link"})]
