"""The playbook as a user runs it: what is shown fits 80 columns, the exit status tells, the JSON says the same, Ctrl-C leaves nothing."""
from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import collection
import pytest
from checked import Checked

PLAYBOOK = pathlib.Path(sys.executable).with_name("ansible-playbook")
INVENTORY = ("here ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n"
             "gone ansible_host=127.0.0.1 ansible_port=9 ansible_ssh_common_args='-o StrictHostKeyChecking=no'\n")


@pytest.fixture
def play(server, tmp_path):
    """Begins the playbook with these variables; a process."""
    (tmp_path / "hosts").write_text(INVENTORY, encoding="ascii")

    def begin(**variables) -> subprocess.Popen:
        given = dict({"gatecontrol_url": server.server.url, "gatecontrol_check_json": str(tmp_path / "check.json")}, **variables)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE", "GATECONTROL", "COLUMNS"))}
        environment.update(ANSIBLE_COLLECTIONS_PATH=str(collection.link()), ANSIBLE_NOCOLOR="1", ANSIBLE_LOCALHOST_WARNING="false", LC_ALL="C.UTF-8")
        return subprocess.Popen([PLAYBOOK, "-i", tmp_path / "hosts", "callmetechie.gatecontrol.check", "-e", json.dumps(given)], cwd=tmp_path, env=environment,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return begin


def shown(output: str) -> list:
    """The lines of points on the terminal."""
    return [line for line in output.splitlines() if line.startswith('        "')]


def login(server: Checked) -> dict:
    return {"gatecontrol_" + name: value for name, value in server.secrets["login"].items()}


def test_a_server_that_is_good(server, play, tmp_path):
    process = play(gatecontrol_check_write=True, **login(server))
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    report = json.loads((tmp_path / "check.json").read_text())
    assert report["ok"] and report["hosts"] == {} and report["requests"] <= 25 and report["logins"] == 1 and report["version"] == "1.118.2"
    assert len(shown(output)) >= len(report["points"]) > 25 and max(map(len, shown(output))) <= 80
    assert server.peers() == [] and server.minted() == [] and login(server)["gatecontrol_admin_password"] not in output + str(report)


def test_what_failed_is_named_and_the_exit_status_tells(server, play, tmp_path):
    process = play(gatecontrol_check_hosts="all", **{"gatecontrol_peers_token": "gc_" + "0" * 96})
    output = process.communicate(timeout=120)[0]
    report = json.loads((tmp_path / "check.json").read_text())
    assert process.returncode == 2 and not report["ok"] and report["failing"] == ["peers token", "any way"], output
    assert "the server: peers token, any way; " in output and "gone: connection" in output and max(map(len, shown(output))) <= 80
    assert report["hosts"]["gone"]["failing"] == ["connection"] and "Connection refused" in report["hosts"]["gone"]["points"][0]["text"]
    points = {point["name"]: point["outcome"] for point in report["hosts"]["here"]["points"]}
    assert points["server"] == points["clock"] == points["interface"] == "pass"


def test_without_a_secret_it_says_which_there_are(server, play):
    process = play()
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 2 and "no secret was given for the server; set gatecontrol_admin_user" in " ".join(output.split())


def test_ctrl_c_leaves_nothing(server, play):
    server.server.fault("delay", path="/api/*", seconds=0.3)
    server.server.ask("log", clear=True)
    process = play(gatecontrol_check_write=True, **login(server))
    end = time.monotonic() + 60
    while not server.server.log(method="POST", path="/api/v1/users/*/tokens") and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    end = time.monotonic() + 60
    while (server.peers() or server.minted()) and time.monotonic() < end:
        time.sleep(0.5)
    assert process.returncode != 0 and server.peers() == [] and server.minted() == []
    assert server.server.log(method="DELETE", path="/api/v1/peers/*")
