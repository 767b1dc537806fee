"""The inventory plugin through ansible-inventory, against the embedded server."""
from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

import collection


@pytest.fixture
def inventory(gates, tmp_path):
    """(era) -> (gate, run): run(**options) gives the JSON of `ansible-inventory --list`, or raises with what it printed."""
    def make(era="1.118.2", *arguments):
        gate = gates(era, "--rate-limit", "999", *arguments)

        def run(name="gatecontrol.yml", token=None, more=(), after=(), folder=False, **options):
            source = tmp_path / name
            source.write_text(yaml.safe_dump({"plugin": "callmetechie.gatecontrol.gatecontrol", "url": gate.url, **options}), encoding="utf-8")
            environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(collection.link()), GATECONTROL_PEERS_TOKEN=token or gate.peers_token,
                               ANSIBLE_INVENTORY_UNPARSED_FAILED="true", ANSIBLE_LOCALHOST_WARNING="false")
            words = [*more, "-i", str(source.parent if folder else source), *after, "--list"]
            done = subprocess.run([os.path.join(os.path.dirname(sys.executable), "ansible-inventory"), *words], cwd=tmp_path,
                                  env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise AssertionError(done.stderr)
            # Texts from outside are shown as unsafe, which they are.
            return json.loads(done.stdout, object_hook=lambda found: found.get("__ansible_unsafe", found)), done.stderr
        return gate, run
    return make


def members(listed, group):
    return set(listed.get(group, {}).get("hosts", []))


@pytest.mark.parametrize("era", ["1.5.2", "1.118.2"])
def test_peers_become_hosts_with_groups_and_variables(inventory, era):
    gate, run = inventory(era)
    web, off = gate.name("inv"), gate.name("inv")
    made = gate.add(web, tags="web, front-end")
    gate.add(off)
    gate.set(off, enabled="0")
    listed, errors = run(groups={"mine": "gatecontrol_peer.name.startswith('inv')"}, compose={"number": "gatecontrol_peer.id"},
                         keyed_groups=[{"key": "gatecontrol_peer.enabled | string", "prefix": "on"}])
    variables = listed["_meta"]["hostvars"][web]
    assert variables["ansible_host"] == made["address"].split("/")[0] and variables["number"] == made["id"]
    peer = variables["gatecontrol_peer"]
    assert peer["tags"] == ["web", "front-end"] and peer["enabled"] and not peer["online"] and peer["handshake_age"] is None
    assert "key" not in str(sorted(peer)) and errors == ""
    assert web in members(listed, "tag_web") & members(listed, "tag_front_end") & members(listed, "enabled") & members(listed, "offline")
    assert off in members(listed, "disabled") and {web, off} <= members(listed, "never_seen") & members(listed, "mine")
    assert web in members(listed, "on_True") and off in members(listed, "on_False")


def test_groups_are_those_asked_for(inventory):
    gate, run = inventory()
    name = gate.name("inv")
    gate.add(name, tags="web")
    listed = run(group_by=["tag"])[0]
    assert name in members(listed, "tag_web") and not {"enabled", "offline", "never_seen"} & set(listed)


def test_the_cache_spares_the_server(inventory):
    gate, run = inventory()
    gate.add(gate.name("inv"))
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": "kept", "cache_timeout": 300}
    first = run(**cache)[0]
    gate.seen()
    assert run(**cache)[0]["_meta"]["hostvars"].keys() == first["_meta"]["hostvars"].keys() and gate.calls() == []
    run()
    assert gate.calls() == ["GET /peers 200"]


def test_many_peers_are_read_page_by_page(inventory):
    gate, run = inventory("fixed", "--subnet", "10.9.0.0/22")
    for number in range(260):
        gate.add("many%03d" % number)
    gate.seen()
    listed = run()[0]
    assert {"many%03d" % number for number in range(260)} <= members(listed, "enabled")
    assert gate.calls() == ["GET /peers 200"] * 2


def test_names_that_meet_are_reported_and_not_overwritten(inventory):
    gate, run = inventory()
    first, second = gate.name("inv pair "), None
    second = first.replace(" ", "_")
    kept = gate.add(first)["id"]
    left = gate.add(second)["id"]
    listed, errors = run()
    assert listed["_meta"]["hostvars"][second]["gatecontrol_peer"]["id"] == kept and "id %d is left out" % left in " ".join(errors.split())


def test_a_host_that_another_inventory_has_too_is_the_same_host_and_keeps_its_connection(inventory, tmp_path):
    """A host that enrolls itself may choose its peer's name; so it cannot have another one's play come to it."""
    gate, run = inventory()
    named, addressed, alone = (gate.name("inv") for _number in range(3))
    peer, _other, own = [gate.add(name, tags="web") for name in (named, addressed, alone)]
    hosts = {named: {"rack": 4}, addressed: {"ansible_host": "192.0.2.7", "ansible_port": 2222}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"racks": {"hosts": hosts}}}}), encoding="utf-8")
    compose = {"ansible_host": "gatecontrol_peer.address", "ansible_port": "22", "ansible_connection": "'local'", "number": "gatecontrol_peer.id"}
    for options in ({}, {"compose": compose}):
        listed, errors = run(more=["-i", str(tmp_path / "hosts.yml")], **options)
        variables = listed["_meta"]["hostvars"]
        assert {name: value for name, value in variables[named].items() if name.startswith("ansible_")} == {}
        assert {name: value for name, value in variables[addressed].items() if name.startswith("ansible_")} == hosts[addressed]
        assert variables[named]["rack"] == 4 and variables[named]["gatecontrol_peer"]["id"] == peer["id"]
        assert variables[alone]["ansible_host"] == own["address"].split("/")[0]
        assert "are called %s;" % named not in " ".join(errors.split())
        assert named in members(listed, "racks") & members(listed, "tag_web")
    assert variables[named]["number"] == peer["id"] and variables[alone]["ansible_connection"] == "local"


def test_a_source_that_others_follow_is_refused_unless_the_user_says_that_they_name_no_hosts(inventory, tmp_path):
    gate, run = inventory()
    name = gate.name("inv")
    gate.add(name)
    gate.seen()
    later, folder = tmp_path / "hosts.yml", tmp_path / "folder"
    folder.mkdir()
    for path in (later, folder / "hosts.yml"):
        path.write_text(yaml.safe_dump({"all": {"hosts": {name: {}}}}), encoding="utf-8")
    for told, how in ((later, {"after": ["-i", str(later)]}), (folder / "hosts.yml", {"name": "folder/gatecontrol.yml", "folder": True})):
        listed, errors = run(**how)
        assert "%s is read after the peers of %s" % (told, gate.url) in " ".join(errors.split()) and "before_others: true" in errors
        assert listed["_meta"]["hostvars"].get(name, {}) == {} and gate.calls() == []
        assert run(**how, before_others=True)[0]["_meta"]["hostvars"][name]["gatecontrol_peer"]["name"] == name
        gate.seen()
    (folder / "gatecontrol.yml").unlink()
    for word in ("group_vars", "z.cfg"):
        (folder / word).mkdir()
    listed, errors = run(name="folder/last.gatecontrol.yml", folder=True)
    assert "is read after" not in errors and set(listed["_meta"]["hostvars"][name]) == {"gatecontrol_peer"}


def test_a_peer_called_like_a_group_changes_nothing_of_that_group(inventory, tmp_path):
    gate, run = inventory("fixed", "--subnet", "10.9.5.0/24")
    for name in ("racks", "online"):
        gate.add(name)
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"racks": {"hosts": {"r1": {}}}}}}), encoding="utf-8")
    keyed = [{"key": "gatecontrol_peer.name", "prefix": "on"}]
    listed, errors = run(more=["-i", str(tmp_path / "hosts.yml")], compose={"ansible_port": "22"}, keyed_groups=keyed)
    assert listed["_meta"]["hostvars"].get("r1", {}) == {} and "children" not in listed.get("on_racks", {})
    assert "a peer of %s is called racks like a group" % gate.url in " ".join(errors.split())
    assert set(listed["_meta"]["hostvars"]["racks"]) == {"ansible_host", "gatecontrol_peer"} and "racks" in members(listed, "enabled")


def test_names_with_a_meaning_of_their_own_do_no_harm(inventory):
    gate, run = inventory("fixed", "--subnet", "10.9.4.0/24")
    kept = {name: gate.add(name)["id"] for name in ("enabled", "tag_web", "plain")}
    left = {name: gate.add(name, tags="web")["id"] for name in ("localhost", "127.0.0.1", "all", "ungrouped")}
    gate.set("plain", tags="web")
    listed, errors = run()
    assert set(listed["_meta"]["hostvars"]) == set(kept) == members(listed, "enabled")
    assert members(listed, "tag_web") == {"plain"}
    for name, number in left.items():
        assert "is called %s, a name that Ansible keeps for itself; the one with the id %d is left out" % (name, number) in " ".join(errors.split())


def test_a_bad_token_is_told_in_the_servers_words(inventory):
    _gate, run = inventory()
    with pytest.raises(AssertionError, match="listing the peers failed"):
        run(token="gc_" + "0" * 96)
