"""What the variables of a host make of its agent."""
from __future__ import annotations

import configparser
import pathlib
import re

import pytest
import yaml
from ansible.errors import AnsibleLookupError, AnsibleUndefinedVariable
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar, trust_as_template

from ansible_collections.callmetechie.gatecontrol.plugins.lookup import gatecontrol_agent
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _options, _pace, _peer

ROLE = pathlib.Path(__file__).resolve().parents[4] / "roles/gatecontrol"
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text("utf-8"))
SYSTEMD = "/etc/systemd/system/gatecontrol-"


def asked(*terms, host="web01", **variables):
    known = dict({name: value for name, value in DEFAULTS.items() if "{{" not in str(value)}, inventory_hostname=host,
                 gatecontrol_url="https://gate.example.com", **variables)
    templar = Templar(loader=DataLoader(), variables=known)
    return lookup_loader.get("callmetechie.gatecontrol.gatecontrol_agent", loader=DataLoader(), templar=templar).run(list(terms), known)


def test_settings_are_those_of_the_variables():
    settings, = asked("settings", gatecontrol_timeout="20", gatecontrol_keep_reachable="no", gatecontrol_dns=[], gatecontrol_mtu=None,
                      gatecontrol_proxy=trust_as_template("http://{{ inventory_hostname }}.example.com:3128"), gatecontrol_textfile_dir="/srv/metrics")
    assert (settings["timeout"], settings["keep_reachable"], settings["proxy"]) == (20, False, "http://web01.example.com:3128")
    assert settings["textfile"] == "/srv/metrics" and settings["send_version"] is True and "ca_path" not in settings
    assert settings["policy"] == {"allow_hooks": False, "dns": [], "kill_switch": False}
    assert asked("settings", gatecontrol_description="mine")[0]["send_version"] is False


@pytest.mark.parametrize("variables, error, words", [
    ({"gatecontrol_timeout": "soon"}, AnsibleLookupError, "gatecontrol_timeout"),
    ({"gatecontrol_allow_hooks": "perhaps"}, AnsibleLookupError, "gatecontrol_allow_hooks"),
    ({"gatecontrol_ca_path": trust_as_template("{{ nowhere }}")}, AnsibleUndefinedVariable, "nowhere")])
def test_a_value_that_is_none_is_an_error_that_names_it(variables, error, words):
    with pytest.raises(error, match=words):
        asked("settings", **variables)


def test_without_the_role_s_defaults_units_are_those_of_wg0_and_60_seconds():
    known = {"inventory_hostname": "web01"}
    lookup = lookup_loader.get("callmetechie.gatecontrol.gatecontrol_agent", loader=DataLoader(), templar=Templar(loader=DataLoader(), variables=known))
    assert lookup.run(["units"], known) == asked("units") and lookup.run(["settings"], known) == [{"send_version": True, "policy": {}}]


def test_the_peer_s_fields_are_told_apart_where_the_controller_can_set_them():
    secret = {"gatecontrol_admin_password": "x"}
    wanted = {"gatecontrol_tags": ["web"], "gatecontrol_peer_keepalive": 25}
    assert asked("peer_fields", **wanted) == asked("peer_fields", **secret) == [""]
    digests = [asked("peer_fields", **fields)[0] for fields in (
        {**wanted, **secret}, {**wanted, **secret, "gatecontrol_group_id": 2}, {**wanted, **secret, "gatecontrol_tags": []})]
    assert len(set(digests)) == 3 and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
    assert asked("peer_fields", gatecontrol_peers_token="gc_x", gatecontrol_dns=["9.9.9.9"], gatecontrol_group_id=None, **wanted) == digests[:1]
    assert asked("peer_fields", gatecontrol_tags=["b", "a "], gatecontrol_peer_keepalive="25", **secret) == asked(
        "peer_fields", gatecontrol_tags="a,b", gatecontrol_peer_keepalive=25, **secret)
    # Without the vault's password, or facts, there is nothing to compare.
    for closed in ({"gatecontrol_admin_password": trust_as_template("{{ vault }}")}, dict(secret, gatecontrol_description=trust_as_template("{{ fact }}"))):
        assert asked("peer_fields", **{**wanted, **closed}) == [""]


def test_the_peer_s_fields_are_the_same_everywhere():
    assert set(gatecontrol_agent.PEER) == set(_peer.FIELDS) == set(_options.PEER_FIELDS)
    request = yaml.safe_load((ROLE / "tasks/fleet.yml").read_text("utf-8"))[0]["callmetechie.gatecontrol.gatecontrol_fleet"]["hosts"][0]
    assert set(_peer.FIELDS) <= set(request)


def test_other_words_are_refused():
    with pytest.raises(AnsibleLookupError, match="no packages of an agent"):
        asked("settings", "packages")


def test_units_hold_the_host_s_own_values():
    units, launcher = asked("units", "launcher", gatecontrol_interface="wg7", gatecontrol_heartbeat_interval=90, gatecontrol_textfile_dir="/srv/metrics")
    assert launcher == (ROLE / "files/gatecontrol_agent.py").read_text("utf-8")
    assert set(units) == {"/%s" % path.relative_to(ROLE / "files/units") for path in (ROLE / "files/units").rglob("*") if path.is_file()}
    assert not [path for path, text in units.items() if re.search("__[a-z]+__", text)]
    beat, timer = units[SYSTEMD + "beat.service"], units[SYSTEMD + "beat.timer"]
    assert "wg-quick@wg7.service" in beat and "TimeoutStartSec=120\n" in beat and "ReadWritePaths=-/srv/metrics\n" in beat
    assert "OnUnitActiveSec=90s\n" in timer and "Before=wg-quick@wg7.service" in units[SYSTEMD + "recover.service"]
    assert "ReadWritePaths=\n" in asked("units")[0][SYSTEMD + "beat.service"]
    for path, text in units.items():
        if path.startswith(SYSTEMD):
            parsed = configparser.RawConfigParser(strict=False, delimiters=("=",))
            parsed.read_string(text)
            assert parsed.sections()


@pytest.mark.parametrize("folder, word", [
    ("/srv/my metrics", '"-/srv/my metrics"'), ("/srv/100%", "-/srv/100%%"), ('/srv/a"b', '"-/srv/a\\"b"'), ("/srv/a\\b c", '"-/srv/a\\\\b c"')])
def test_a_path_is_one_word_of_a_unit(folder, word):
    units, = asked("units", gatecontrol_textfile_dir=folder)
    assert "ReadWritePaths=%s\n" % word in units[SYSTEMD + "beat.service"]


@pytest.mark.parametrize("timeout", [None, 5, 40, 600])
def test_every_unit_that_runs_as_root_has_an_end(timeout):
    units, = asked("units", **({} if timeout is None else {"gatecontrol_confirm_timeout": timeout}))
    services = {path: text for path, text in units.items() if path.endswith(".service")}
    ends = {path[len(SYSTEMD):]: [int(number) for number in re.findall(r"^TimeoutStartSec=(\d+)$", text, re.MULTILINE)] for path, text in services.items()}
    assert set(ends) == {"apply.service", "beat.service", "recover.service", "repair.service"} and all(len(found) == 1 for found in ends.values())
    assert ends["apply.service"][0] >= _pace.longest(timeout or 40) and ends["recover.service"][0] > _pace.START and ends["repair.service"][0] > 2 * _pace.TURN
    assert "ExecStopPost=/usr/local/sbin/gatecontrol-agent restore\n" in units[SYSTEMD + "apply.service"]
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", units[SYSTEMD + "apply.service"], re.MULTILINE).group(1)) > _pace.STEP


@pytest.mark.parametrize("interval", [1, 3, 60, 3600])
def test_each_host_begins_at_an_offset_of_its_own(interval):
    firsts = []
    for number in range(50):
        units, = asked("units", host="web%02d" % number, gatecontrol_heartbeat_interval=interval)
        assert units == asked("units", host="web%02d" % number, gatecontrol_heartbeat_interval=interval)[0]
        firsts.append(int(re.search("OnActiveSec=([0-9]+)s", units[SYSTEMD + "beat.timer"]).group(1)))
    assert 1 <= min(firsts) and max(firsts) <= interval and len(set(firsts)) > min(interval, 50) // 2
