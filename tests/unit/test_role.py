"""The role's options: argument_specs.yml, defaults and what the role uses say the same."""
from __future__ import annotations

import pathlib
import re

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.validation import check_type_bool, check_type_int
from ansible_collections.callmetechie.gatecontrol.plugins.lookup import gatecontrol_agent
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _options

ROLE = pathlib.Path(__file__).parents[2] / "roles" / "gatecontrol"
SPECS = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]
OPTIONS = SPECS["main"]["options"]
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
AGENT = {"gatecontrol_" + name: make for name, make in dict(gatecontrol_agent.SETTINGS, **gatecontrol_agent.POLICY).items()}
MODULES = {path.stem for path in (ROLE.parents[1] / "plugins" / "modules").glob("*.py")}
# A default that reads the environment holds a secret or an address: validation would print it with the spec, so the description names it.
FROM_ENVIRONMENT = {
    name: re.search(r"lookup\('ansible\.builtin\.env', '(\w+)'\)", value).group(1) for name, value in DEFAULTS.items() if "{{" in str(value)}
# What an inventory may hold for an option, by its type; where that says more, by its name.
TYPICAL = {"str": "web01", "path": "/etc/ssl/ca.pem", "int": "25", "bool": "yes", "list": ["10.8.0.0/24"], "dict": {"wg": "wireguard-tools"}}
SPECIAL = {"gatecontrol_state": "absent", "gatecontrol_system": "macos", "gatecontrol_auth_header": "x-api-key",
           "gatecontrol_table": 51820, "gatecontrol_fwmark": 51820, "gatecontrol_name": 12, "gatecontrol_dns": [],
           "gatecontrol_allow_dns": "10.8.0.1,10.8.0.2", "gatecontrol_validate_certs": False}


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
    assert "gatecontrol_url" in names
    assert names - (MODULES - set(OPTIONS)) | set(AGENT) == set(OPTIONS) | set(SPECS["gone"]["options"])


def test_the_agent_s_settings_have_the_types_of_the_options():
    kinds = {"bool": check_type_bool, "int": check_type_int}
    assert {name: make for name, make in AGENT.items() if make} == {
        name: kinds[OPTIONS[name]["type"]] for name in AGENT if name in DEFAULTS and OPTIONS[name]["type"] in kinds}


def test_the_agent_s_settings_are_those_that_the_modules_take():
    assert set(gatecontrol_agent.POLICY) == set(_options.POLICY) and set(_options.REACH) < set(gatecontrol_agent.SETTINGS)


@pytest.mark.parametrize("path", sorted({*ROLE.rglob("tasks/**/*.yml"), *ROLE.parents[1].glob("playbooks/*.yml")}), ids=lambda path: path.name)
def test_nothing_is_delegated_to_the_controller(path):
    """A delegated task runs by variables, such as ansible_remote_tmp, that a host's facts can set; the controller's work is done in Ansible's own process."""
    assert not re.search(r"\b(delegate_to|ansible_connection|local_action)\b.*:", path.read_text())


def test_entry_point():
    assert list(SPECS) == ["main", "gone"]


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


def test_types_take_what_an_inventory_holds():
    result = ArgumentSpecValidator(OPTIONS).validate({name: SPECIAL.get(name, TYPICAL[option["type"]]) for name, option in OPTIONS.items()})
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


def test_includes_take_the_role_s_own_files():
    """By a bare name, an included file's includes are looked for beside the playbook too, where other files may have these names."""
    for path in (ROLE / "tasks").glob("*/*.yml"):
        for target in re.findall(r"include_tasks: (.+)", path.read_text()):
            assert target.startswith('"{{ role_path }}/tasks/') and (ROLE / target.strip('"').partition("/")[2]).is_file()
