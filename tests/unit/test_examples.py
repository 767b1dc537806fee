"""The files in docs/examples are what their pages say, and Ansible takes them."""
from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
import yaml

CHECKOUT = pathlib.Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "docs" / "examples"
REPOSITORY = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["repository"] + ".git"
PLAYBOOKS = sorted(path for path in EXAMPLES.glob("*.yml") if isinstance(yaml.safe_load(path.read_text()), list))


def test_there_are_playbooks():
    assert [path.name for path in PLAYBOOKS] == ["local.yml", "mint.yml"]


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_ansible_takes_the_playbook(path, tmp_path):
    environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(CHECKOUT / "build"), ANSIBLE_LOCALHOST_WARNING="false", ANSIBLE_HOME=str(tmp_path))
    playbook = pathlib.Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run([str(playbook), "--syntax-check", "-i", "host,", str(path)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "[WARNING]" not in done.stderr, done.stdout + done.stderr


def test_user_data_fits_the_playbook_it_names():
    text = (EXAMPLES / "cloud-init.yml").read_text()
    assert text.startswith("#cloud-config\n")
    data = yaml.safe_load(text)
    play = yaml.safe_load((EXAMPLES / data["ansible"]["pull"]["playbook_name"]).read_text())[0]
    (secret,) = data["write_files"]
    assert secret["permissions"] == "0600" and yaml.safe_load(secret["content"]).keys() == {"gatecontrol_peer_id", "gatecontrol_token"}
    named = [task["ansible.builtin.include_vars"]["file"] for task in play["tasks"] if "ansible.builtin.include_vars" in task]
    assert named == [secret["path"]] == [play["tasks"][-1]["ansible.builtin.file"]["path"]]
    (command,) = data["ansible"]["galaxy"]["actions"]
    assert command[-1] == "git+" + REPOSITORY


def test_the_image_has_the_releases_the_tests_have():
    pins = dict(line.split(";")[0].split("==") for line in (CHECKOUT / "tests/requirements.txt").read_text().splitlines()[::-1] if "==" in line)
    wanted = yaml.safe_load((EXAMPLES / "execution-environment.yml").read_text())["dependencies"]
    assert [collection["name"] for collection in wanted["galaxy"]["collections"]] == [REPOSITORY]
    assert wanted["ansible_core"]["package_pip"] == "ansible-core==" + pins["ansible-core"]
    assert wanted["ansible_runner"]["package_pip"] == "ansible-runner==" + pins["ansible-runner"]
