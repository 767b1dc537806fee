"""The inventory plugin on a server with a real hub: enrolled hosts are online, and are reached at their address in the tunnel."""
from __future__ import annotations

import json
import subprocess

import yaml
from scenario import CHECKOUT, clean_environment


def test_hosts_are_online_and_reached_through_the_tunnel(room, tmp_path):
    source = tmp_path / "gatecontrol.yml"
    source.write_text(yaml.safe_dump({
        "plugin": "callmetechie.gatecontrol.gatecontrol", "url": room.url, "ca_path": str(room.folder / "tls/ca.pem"),
        "compose": {"ansible_user": "'ops'", "ansible_python_interpreter": "'/usr/bin/python3'"}}), encoding="utf-8")
    environment = dict(
        clean_environment(),
        ANSIBLE_COLLECTIONS_PATH=str(CHECKOUT / "build"), GATECONTROL_PEERS_TOKEN=room.token("inventory", "peers"), ANSIBLE_FORKS="8",
        ANSIBLE_PRIVATE_KEY_FILE=str(room.folder / "id_ed25519"), ANSIBLE_SSH_CONTROL_PATH_DIR=str(tmp_path),
        ANSIBLE_SSH_COMMON_ARGS="-F /dev/null -o UserKnownHostsFile=%s/known -o StrictHostKeyChecking=accept-new" % tmp_path)

    def ansible(program: str, *words: str) -> str:
        """From the server's namespace, which the tunnel reaches."""
        return subprocess.run(["ip", "netns", "exec", room.netns, str(CHECKOUT / ".venv/bin" / program), "-i", str(source), *words], env=environment,
                              check=True, capture_output=True, text=True).stdout
    # A peer that an earlier test disabled and enabled is online again with its next handshake, which traffic brings about.
    assert [room.echo(host, 256) for host in room.hosts] == [256] * len(room.hosts)
    listed = json.loads(ansible("ansible-inventory", "--list"), object_hook=lambda found: found.get("__ansible_unsafe", found))
    for group in ("enabled", "online", "fresh"):
        assert set(listed[group]["hosts"]) >= set(room.hosts), group
    assert all(listed["_meta"]["hostvars"][host]["gatecontrol_peer"]["rx_bytes"] > 0 for host in room.hosts)
    said = ansible("ansible", ",".join(room.hosts), "-m", "ansible.builtin.command", "-a", "hostname", "-o")
    assert sorted(line.split(" | ")[0] for line in said.splitlines()) == sorted(room.hosts)
    assert all(line.split()[-1] == line.split(" | ")[0] for line in said.splitlines()), said
