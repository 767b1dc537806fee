"""A machine enrolls itself: docs/examples/cloud-init.yml played by cloud-init, with ansible-pull and the connection local, and a token of its own."""
from __future__ import annotations

import shutil
import subprocess

import collection
import pytest
import yaml
from scenario import CHECKOUT

EXAMPLES = CHECKOUT / "docs" / "examples"
GIVEN = "/srv/pull"  # on the machine: the repositories it pulls
# Of all that cloud-init does with a machine, what the user data asks for.
MODULES = {"cloud_init_modules": ["write_files"], "cloud_config_modules": [], "cloud_final_modules": ["package_update_upgrade_install", "ansible"],
           "datasource_list": ["NoCloud"], "network": {"config": "disabled"}, "ssh_deletekeys": False}
SEED = "/var/lib/cloud/seed/nocloud"


def repository(folder) -> None:
    """Make a folder a git repository with one commit."""
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "-q", "-m", "All"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


def copy_to(room, host: str, source, target: str) -> None:
    subprocess.run(["podman", "cp", "%s/." % source, "%s:%s" % (room.record["hosts"][host]["container"], target)], check=True, capture_output=True)


@pytest.fixture
def machine(room):
    """A host that is not enrolled, with cloud-init on it; afterwards that is gone, and the host enrolled by the scenario's own play."""
    host = room.hosts[-1]
    room.ask("reset")  # logins of earlier tests
    room.play(gatecontrol_state="absent", limit=host).ok()
    try:
        room.on(host, "mkdir -p %s %s && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends cloud-init"
                " && systemctl disable -q cloud-init.target cloud-init-local cloud-init-main cloud-init-network cloud-config cloud-final" % (GIVEN, SEED),
                timeout=180)
        yield host
    finally:
        room.on(host, "DEBIAN_FRONTEND=noninteractive apt-get purge -y -qq cloud-init; rm -rf %s /var/lib/cloud /etc/cloud /root/.ansible" % GIVEN, timeout=120)
        room.play(limit=host).ok()


def test_a_machine_enrolls_itself(room, machine, tmp_path):
    (tmp_path / "given").mkdir()
    fleet = tmp_path / "given" / "fleet"
    fleet.mkdir()
    play = yaml.safe_load((EXAMPLES / "local.yml").read_text())
    play[0]["vars"].update({name: room.known[name] for name in ("gatecontrol_url", "gatecontrol_ca_path")},
                           gatecontrol_allowed_ips=[room.described["room_settings"]["allowed_ips"]])
    (fleet / "local.yml").write_text(yaml.safe_dump(play, sort_keys=False))
    shutil.copytree(collection.copy(tmp_path), tmp_path / "given" / "collection", ignore=shutil.ignore_patterns(".git"))
    for folder in (fleet, tmp_path / "given" / "collection"):
        repository(folder)
    copy_to(room, machine, tmp_path / "given", GIVEN)

    mark, peer = room.mark_log(), room.ask("peer", action="add", peer="self")[0]
    token = room.token(machine, peer_id=peer["id"])
    data = yaml.safe_load((EXAMPLES / "cloud-init.yml").read_text())
    data["ansible"]["pull"]["url"] = "file://%s/fleet" % GIVEN
    data["ansible"]["galaxy"]["actions"][0][-1] = "git+file://%s/collection" % GIVEN
    data["write_files"][0]["content"] = yaml.safe_dump({"gatecontrol_peer_id": peer["id"], "gatecontrol_token": token})
    seed = tmp_path / "seed"
    seed.mkdir()
    (seed / "meta-data").write_text("instance-id: %s\n" % machine)
    (seed / "user-data").write_text("#cloud-config\n" + yaml.safe_dump(data))
    copy_to(room, machine, seed, SEED)
    room.on(machine, "cat > /etc/cloud/cloud.cfg <<'EOF'\n%s\nEOF\nrm -rf /etc/cloud/cloud.cfg.d" % yaml.safe_dump(MODULES))

    said = room.on(machine, "set -e; cloud-init init --local; cloud-init init; cloud-init modules --mode config; cloud-init modules --mode final", timeout=240)
    assert "failed=0" in said and token not in said, said
    shown = room.shown(machine)
    assert (shown["peer_name"], shown["status"], shown["reporting"]) == ("self", "connected", "full")
    assert room.on(machine, "systemctl is-active gatecontrol-beat.timer; ls /etc/gatecontrol-enroll.yml 2>&1 | grep -c 'No such'").split() == ["active", "1"]
    beats = room.log(since=mark, token=machine, event="heartbeat", status=200)
    assert beats and {entry["peer_id"] for entry in beats} == {peer["id"]}
    again = room.on(machine, "cd; ansible-pull --url file://%s/fleet local.yml" % GIVEN, timeout=120)
    assert "failed=0" in again and "changed=0" in again.rpartition("PLAY RECAP")[2], again
    room.play(gatecontrol_state="absent", limit=machine).ok()
    assert "self" not in room.peers()
