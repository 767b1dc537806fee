"""The EXAMPLES of the modules that change a host's tunnel and agent run on a host as they stand, only with this room's URL in the example's place."""
from __future__ import annotations

import ast
import shutil

import yaml
from scenario import CHECKOUT


def examples(module: str) -> str:
    """The EXAMPLES text of a module."""
    tree = ast.parse((CHECKOUT / "plugins/modules" / (module + ".py")).read_text(encoding="utf-8"))
    return next(node.value.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "EXAMPLES")


def test_examples_run_as_they_stand(room, tmp_path):
    host = "deb13"
    units = "ls /etc/systemd/system/gatecontrol-* /usr/local/sbin/gatecontrol-agent 2>/dev/null; systemctl is-enabled gatecontrol-beat.timer 2>&1; true"
    # The example looks its file up where the role keeps it, in a folder "files" beside the play.
    shutil.copytree(CHECKOUT / "roles/gatecontrol/files", tmp_path / "files")

    def play(module):
        tasks = yaml.safe_load(examples(module).replace("https://gate.example.com", room.url))
        watch = {"name": "Look", "ansible.builtin.shell": units, "changed_when": False}
        play = {"hosts": "all", "gather_facts": False, "become": True, "tasks": [step for task in tasks for step in (task, watch)]}
        (tmp_path / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
        run = room.play(playbook=tmp_path / "play.yml", limit=host).ok()
        return [task["name"] for task in tasks], run, [entry["result"]["stdout_lines"] for entry in run.of(host, "Look")]

    names, run, _seen = play("gatecontrol_tunnel")
    assert run.changed(host) == names[1:], "the tunnel ran as its file says, until it was taken away"
    assert "wg0" not in room.on(host, "ls /sys/class/net /etc/wireguard")
    room.play(limit=host, gatecontrol_state="absent").ok()
    names, run, seen = play("gatecontrol_agent")
    assert run.changed(host) == names
    assert len(seen[0]) == 7 and seen[0][-1] == "enabled", seen[0]
    assert not any("/" in line for line in seen[1]), seen[1]
    room.play(limit=host, gatecontrol_adopt=True).ok()
    assert not room.play(limit=host).ok().changed(host)
