"""The role's options: argument_specs.yml, defaults and what the role uses say the same."""
from __future__ import annotations

import pathlib
import re

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROLE = pathlib.Path(__file__).parents[2] / "roles" / "gatecontrol"
SPECS = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]
OPTIONS = SPECS["main"]["options"]
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
MODULES = {path.stem for path in (ROLE.parents[1] / "plugins" / "modules").glob("*.py")}
# A default that reads the environment holds a secret or an address: validation would print it with the spec, so the description names it.
FROM_ENVIRONMENT = {
    name: re.search(r"lookup\('ansible\.builtin\.env', '(\w+)'\)", value).group(1) for name, value in DEFAULTS.items() if "{{" in str(value)}
# One value that fits each option without a default, in the form in which an inventory may hold it.
GIVEN = {
    "gatecontrol_url": "https://gate.example.com", "gatecontrol_token": "gc_x", "gatecontrol_token_file": "/etc/token", "gatecontrol_peers_token": "gc_y",
    "gatecontrol_ca_path": "/etc/ssl/ca.pem", "gatecontrol_controller_ca_path": "ca.pem", "gatecontrol_client_cert": "/etc/c.pem",
    "gatecontrol_client_key": "/etc/k.pem", "gatecontrol_proxy": "http://proxy.example.com:3128", "gatecontrol_no_proxy": "localhost",
    "gatecontrol_name": "web01", "gatecontrol_peer_id": "5", "gatecontrol_description": "rack 4", "gatecontrol_allowed_ips": ["10.8.0.0/24"], "gatecontrol_dns": [],
    "gatecontrol_mtu": "1380", "gatecontrol_table": 51820, "gatecontrol_fwmark": "0xca6c", "gatecontrol_listen_port": 51820,
    "gatecontrol_persistent_keepalive": "25", "gatecontrol_allow_endpoints": ["gate.example.com:51820"], "gatecontrol_allow_allowed_ips": ["10.0.0.0/8"],
    "gatecontrol_allow_dns": ["10.0.0.0/8"], "gatecontrol_textfile_dir": "/var/lib/node_exporter"}


def used():
    """Every public variable that a file of the role names, but for the names of modules, units and files."""
    found = set()
    for path in ROLE.rglob("*"):
        if path.is_file() and path.parent.name not in ("meta", "files") and path.suffix in (".yml", ".j2"):
            text = re.sub(r"callmetechie\.gatecontrol\.\w+|#.*|\bgatecontrol_agent\.py", "", path.read_text())
            found |= set(re.findall(r"(?<![\w.])gatecontrol_\w+", text))
    return found


def test_specs_hold_the_defaults():
    assert {name for name, option in OPTIONS.items() if "default" in option} == set(DEFAULTS) - set(FROM_ENVIRONMENT)
    assert {name: OPTIONS[name]["default"] for name in set(DEFAULTS) - set(FROM_ENVIRONMENT)} == \
        {name: value for name, value in DEFAULTS.items() if name not in FROM_ENVIRONMENT}


@pytest.mark.parametrize("name", sorted(FROM_ENVIRONMENT))
def test_description_names_the_variable_of_the_environment(name):
    assert "E(%s)" % FROM_ENVIRONMENT[name] in " ".join(OPTIONS[name]["description"])


def test_specs_hold_every_variable_that_the_role_uses():
    names = used()
    assert "gatecontrol_url" in names and not names & MODULES
    assert names == set(OPTIONS)


def test_entry_point():
    assert list(SPECS) == ["main"]


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_option_is_described(name):
    option = OPTIONS[name]
    text = option["description"] if isinstance(option["description"], str) else " ".join(option["description"])
    assert text.endswith(".") and option["type"]
    assert (option["type"] == "list") == ("elements" in option)
    if re.search("_(interval|timeout|wait|keepalive)$", name):
        assert text.startswith("Seconds")
    if name == "gatecontrol_mtu":
        assert "bytes" in text


def test_types_take_the_values_they_are_meant_for():
    assert set(GIVEN) == {name for name, option in OPTIONS.items() if "default" not in option}
    result = ArgumentSpecValidator(OPTIONS).validate(dict(GIVEN))
    assert result.error_messages == []
    taken = {name: type(value) for name, value in result.validated_parameters.items()}
    kinds = {"str": str, "path": str, "bool": bool, "int": int, "list": list, "dict": dict}
    assert taken == {name: kinds[option["type"]] for name, option in OPTIONS.items()}


@pytest.mark.parametrize("name, value", [
    ("gatecontrol_state", "gone"), ("gatecontrol_auth_header", "cookie"), ("gatecontrol_timeout", "soon"), ("gatecontrol_validate_certs", "perhaps"),
    ("gatecontrol_packages", "wireguard-tools"), ("gatecontrol_peer_id", "web01"), ("gatecontrol_mtu", "big")])
def test_types_refuse_other_values(name, value):
    (message,) = ArgumentSpecValidator(OPTIONS).validate({name: value}).error_messages
    assert name in message
