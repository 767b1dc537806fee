"""The EXAMPLES of the modules run as they stand: a real ansible-playbook, with only the server's URL put in place of the example's.
Those of gatecontrol_tunnel and gatecontrol_agent need systemd and run in molecule/default.

They write below /etc and /var/lib, so they run in a mount namespace of their own where these are overlays that vanish with it.
"""
from __future__ import annotations

import ast
import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
EXAMPLE_URL = "https://gate.example.com"
OVERLAYS = """
set -e
mount -t tmpfs none "$1"
for place in etc var/lib; do
  mkdir -p "$1/$place.new" "$1/$place.work"
  mount -t overlay overlay -o "lowerdir=/$place,upperdir=$1/$place.new,workdir=$1/$place.work" "/$place"
done
shift
exec "$@"
"""


def examples(module: str) -> str:
    """The EXAMPLES text of a module."""
    tree = ast.parse((CHECKOUT / "plugins/modules" / (module + ".py")).read_text(encoding="utf-8"))
    return next(node.value.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "EXAMPLES")


def play(tmp_path, tasks: list, variables: dict) -> None:
    """Run tasks on a host "web01" that is this machine (root). Fails where a task does, or warns."""
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "vars": variables, "tasks": tasks}]),
                                       encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "GATECONTROL_"))}
    environment.update(HOME=str(tmp_path), ANSIBLE_COLLECTIONS_PATH=str(CHECKOUT / "build"), ANSIBLE_REMOTE_TEMP=str(tmp_path / "remote"))
    (tmp_path / "ns").mkdir()
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", OVERLAYS, "sh", str(tmp_path / "ns"), str(pathlib.Path(sys.executable).parent / "ansible-playbook"),
         "-i", "web01,", "-c", "local", "-e", json.dumps({"ansible_python_interpreter": sys.executable}), str(tmp_path / "play.yml")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "WARNING" not in done.stderr, done.stderr
    assert not any(variables[name] in done.stdout + done.stderr for name in variables if "token" in name or "password" in name)


@pytest.mark.parametrize("module", ["gatecontrol_info", "gatecontrol_peer", "gatecontrol_config", "gatecontrol_status", "gatecontrol_fleet",
                                    "gatecontrol_token", "gatecontrol_host_info"])
def test_examples_run_as_they_stand(gates, tmp_path, module):
    gate = gates("fixed", "--subnet", "10.66.0.0/24")
    text = examples(module)
    assert (EXAMPLE_URL in text) == (module != "gatecontrol_host_info")  # which asks the host
    tasks = yaml.safe_load(text.replace(EXAMPLE_URL, gate.url))
    for peer in gate.peers(""):
        gate.delete(peer["id"])
    for name in {"gatecontrol_fleet": ["web07", "db02", *map("other%d".__mod__, range(8))], "gatecontrol_token": ["web01"]}.get(module, []):
        gate.add(name)  # the example speaks of it, or of a fifth of all
    variables = {"gatecontrol_token": gate.token(), "gatecontrol_peers_token": gate.peers_token, "gatecontrol_admin_password": "LoopbackTest123!"}
    if module in ("gatecontrol_config", "gatecontrol_status"):  # these stand for a host that has a peer, or is enrolled
        peer = gate.add("web01")
        variables.update(gatecontrol_token=gate.token(peer_id=peer["id"]), gatecontrol_peer_id=peer["id"])
        tasks.insert(0, {"name": "Enroll the host the examples speak of", "callmetechie.gatecontrol.gatecontrol_peer": {
            "url": gate.url, "token": "{{ gatecontrol_token }}", "peer_id": "{{ gatecontrol_peer_id }}"}})
    gate.seen()
    play(tmp_path, tasks, variables)
    login = ["GET /login 200", "POST /login 302", "GET /dashboard 200"]
    lists = ["GET /users 200", "GET /peers 200", "GET /tokens 200"]
    expected = {
        "gatecontrol_info": ["GET ping 200", "GET /peers 200"],
        "gatecontrol_peer": ["GET ping 200", "POST register 201", "GET /peers 200", "POST /peers 201", "GET /peers 200",
                             "DELETE /peers/%d 200"],
        "gatecontrol_config": ["GET config 200"] * 3,
        "gatecontrol_status": ["GET config 200", "POST heartbeat 200", "POST heartbeat 200"],
        "gatecontrol_fleet": [*login, *lists, "GET /license 200", *["POST /peers 201", "POST /users/1/tokens 201"] * 2,
                              *lists, *["DELETE /peers/%d 200"] * 2],  # one login serves the whole play
        "gatecontrol_token": [*login, *lists, "POST /users/1/tokens 201", *lists],
        "gatecontrol_host_info": [],
    }[module]
    calls = gate.calls()
    assert [call if "DELETE" not in call else "DELETE /peers/%d 200" for call in calls] == expected
    assert not os.path.exists("/etc/gatecontrol/enrollment.json")
