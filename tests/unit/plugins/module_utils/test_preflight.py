"""What would stop an enrollment is told in one sentence, and nothing is changed; hosts are folders and answers of programs."""
from __future__ import annotations

import json
import os
import pathlib
import types

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment, _facts, _http, _points, _preflight, _prospect, _wgconf

ADDRESSES = [
    {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}]},
    {
        "ifname": "eth0",
        "addr_info": [
            {"local": "192.168.1.7", "prefixlen": 24},
            {"local": "fe80::1", "prefixlen": 64},
            {"local": "2001:db8::7", "prefixlen": 64},
        ],
    },
    {"ifname": "wg0", "addr_info": [{"local": "10.8.0.2", "prefixlen": 32}]},
    {"ifname": "docker0", "addr_info": [{"local": "172.17.0.1", "prefixlen": 16}]},
]
KEY = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
CONFIG = "[Interface]\nPrivateKey = %s\nAddress = 10.8.0.2/32\n\n[Peer]\nPublicKey = %s\nEndpoint = %s\nAllowedIPs = %s\n"


class Machine:
    """A host below a folder. programs: {first words of a command: (rc, out, err)}; commands that are not there answer 127."""

    def __init__(self, root: pathlib.Path, booted: bool = True):
        self.root, self.asked = root, []
        self.programs = {"/usr/bin/python3": (0, "3.11\n", ""), "ip link": (0, "", ""), "ip -j": (0, json.dumps(ADDRESSES), "")}
        for path, text in (("etc/machine-id", "0" * 31 + "1\n"), ("etc/os-release", 'ID=debian\nVERSION_ID="12"\n'), ("dev/net/tun", ""),
                           ("proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n"), ("proc/sys/net/ipv4/conf/all/src_valid_mark", "0\n")):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        if booted:
            (root / "run/systemd/system").mkdir(parents=True)
        self.store = _enrollment.Store(str(root))
        services = types.SimpleNamespace(NAME="systemd", available=(root / "run/systemd/system").is_dir)
        self.host = _facts.Host(self.store, self.run, services)

    def run(self, argv, stdin=None):
        self.asked.append(argv)
        words = " ".join(argv)
        return next((answer for begin, answer in self.programs.items() if words.startswith(begin)), (127, "", "%s: No such file or directory" % argv[0]))

    def look(self, **given) -> dict:
        """{point: (outcome, text)}"""
        return {point["name"]: (point["outcome"], point["text"]) for point in _preflight.Preflight(self.host, **given).look()}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Machine(tmp_path)


def files(root: pathlib.Path) -> dict:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_good_host_has_no_obstacle_and_is_not_changed(machine):
    before = files(machine.root)
    seen = machine.look(allowed_ips=["10.8.0.0/24"])
    assert list(seen) == list(_preflight.ORDER) and {outcome for outcome, _text in seen.values()} == {"pass", "n/a"}
    assert files(machine.root) == before and machine.look()["sysctl"] == ("pass", "can be set")


@pytest.mark.parametrize("backend", ["kernel", "wireguard-go"])
def test_a_tun_device_is_needed_only_without_wireguard_in_the_kernel(machine, backend):
    (machine.root / "dev/net/tun").unlink()
    if backend == "wireguard-go":
        machine.programs.update({"ip link": (2, "", "Error: Unknown device type."), "wireguard-go --version": (0, "0.0.20220316", "")})
    outcome, text = machine.look()["tun device"]
    assert outcome == ("n/a" if backend == "kernel" else "fail")
    assert backend == "kernel" or text.startswith("/dev/net/tun: No such file or directory, and WireGuard is not in this host's kernel; ")


def test_a_container_that_may_not_change_networks_is_told_so(machine):
    (machine.root / "proc/self/status").write_text("CapEff:\t00000000a80425fb\n")  # as podman gives it
    assert machine.look()["capability"][0] == "fail" and "CAP_NET_ADMIN is missing" in machine.look()["capability"][1]


@pytest.mark.parametrize("allowed_ips, outcome", [(None, "fail"), (["0.0.0.0/0"], "fail"), ("10.8.0.0/24,::/0", "fail"), (["10.8.0.0/24"], "n/a")])
def test_a_read_only_sysctl_stops_a_full_tunnel_alone(machine, monkeypatch, allowed_ips, outcome):
    monkeypatch.setattr(os, "access", lambda path, mode: not path.endswith("src_valid_mark"))
    seen = machine.look(allowed_ips=allowed_ips)["sysctl"]
    assert seen[0] == outcome and (outcome == "n/a" or "Read-only file system" in seen[1] and "gatecontrol_allowed_ips" in seen[1])


@pytest.mark.parametrize("allowed_ips, device", [
    ("192.168.1.0/24", "eth0"), ("10.8.0.0/24, 192.168.1.99/24", "eth0"), (["2001:db8::/64"], "eth0"), (["172.17.0.0/16"], "docker0"),
    (["192.168.0.0/16"], None), (["10.8.0.2/32"], None), (["fe80::/64"], None), (["127.0.0.0/8"], None), (["0.0.0.0/0", "::/0"], None)])
def test_networks_of_its_own_do_not_go_into_the_tunnel(machine, allowed_ips, device):
    outcome, text = machine.look(allowed_ips=allowed_ips)["networks"]
    assert outcome == ("fail" if device else "pass")
    assert not device or "this host's own network on %s" % device in text and "RTNETLINK answers: File exists" in text


def test_without_routes_of_its_own_a_tunnel_may_have_any_network(machine):
    assert machine.look(allowed_ips=["192.168.1.0/24"], table="off")["networks"][0] == "n/a"
    machine.programs["ip -j"] = (127, "", "")
    assert machine.look(allowed_ips=["192.168.1.0/24"])["networks"] == ("n/a", "ip is not installed yet")


def test_no_python_no_systemd_no_root_are_told(machine, monkeypatch):
    machine.programs["/usr/bin/python3"] = (1, "3.6\n", "")
    (machine.root / "run/systemd/system").rmdir()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    seen = machine.look()
    assert [name for name, (outcome, _text) in seen.items() if outcome == "fail"] == ["root", "python", "systemd"]
    assert "/usr/bin/python3 (it is 3.6)" in seen["python"][1]


@pytest.mark.parametrize("endpoint, allowed_ips, inside", [
    ("203.0.113.9:51820", "203.0.113.0/24", "203.0.113.0/24"), ("gate.example.com:51820", "10.8.0.0/24, 198.51.100.0/24", "198.51.100.0/24"),
    ("[2001:db8::9]:51820", "2001:db8::/32", "2001:db8::/32"), ("203.0.113.9:51820", "10.8.0.0/24", None), ("203.0.113.9:51820", "0.0.0.0/0", None),
    ("203.0.113.9:51820", "0.0.0.0/1, 128.0.0.0/1", None), ("unknown.example.com:51820", "203.0.113.0/24", None)])
def test_a_tunnel_does_not_swallow_its_own_packets(endpoint, allowed_ips, inside):
    config = _wgconf.parse(CONFIG % (KEY, KEY, endpoint, allowed_ips))
    names = {"gate.example.com": ["198.51.100.9"], "unknown.example.com": []}
    said = _preflight.endpoint_inside(config, lambda name: names.get(name, [name]))
    assert (said is None) if inside is None else "lies in %s of AllowedIPs" % inside in said
    config.interface["Table"] = "off"
    assert _preflight.endpoint_inside(config, lambda name: names.get(name, [name])) is None


def test_a_config_that_cannot_work_here_is_refused_before_the_tunnel_is_touched(machine, monkeypatch):
    monkeypatch.setattr(_preflight._line, "addresses", lambda name, port, deadline: [(2, 1, 6, "", (name, port))])
    for allowed_ips, words in (
        ("192.168.1.0/24", "own network on eth0"),
        ("203.0.113.0/24", "lies in 203.0.113.0/24"),
        ("0.0.0.0/0", None),
        ("10.8.0.0/24", None),
    ):
        config = _wgconf.parse(CONFIG % (KEY, KEY, "203.0.113.9:51820", allowed_ips))
        if words is None:
            _preflight.check_config(machine.host, config, "wg0")
            continue
        with pytest.raises(_facts.AgentError, match="^the server's config cannot work on this host, and its tunnel was left as it is: .*" + words):
            _preflight.check_config(machine.host, config, "wg0")


@pytest.mark.parametrize("routes, good", [
    ([{"dst": "default", "dev": "eth0"}], False), ([{"dst": "203.0.113.0/25", "dev": "eth0"}], True), ([{"dst": "203.0.113.9", "dev": "eth0"}], True),
    ([{"dst": "203.0.113.0/25", "dev": "wg0"}], False), ([{"dst": "203.0.0.0/16", "dev": "eth0"}], False)])
def test_an_endpoint_that_a_narrower_route_leads_to_is_not_swallowed(machine, monkeypatch, routes, good):
    monkeypatch.setattr(_preflight._line, "addresses", lambda name, port, deadline: [(2, 1, 6, "", (name, port))])
    machine.programs = {"ip -4 -N -j route": (0, json.dumps(routes), ""), **machine.programs}
    config = _wgconf.parse(CONFIG % (KEY, KEY, "203.0.113.9:51820", "203.0.113.0/24"))
    if good:
        _preflight.check_config(machine.host, config, "wg0")
    else:
        with pytest.raises(_facts.AgentError, match="lies in 203.0.113.0/24"):
            _preflight.check_config(machine.host, config, "wg0")


# --- what only a check asks

def prospect(machine, monkeypatch, tools="", tunnel=None, record=None, options=None, **given):
    """{point: (outcome, text)} of a host with these tools."""
    monkeypatch.setattr(_facts.shutil, "which", lambda tool, path: "/usr/bin/" + tool if tool in tools.split() else None)
    agent = types.SimpleNamespace(store=machine.store, run=machine.run, host=machine.host, enrollment=record or {})
    names = {
        "debian": {
            "wg": "wireguard-tools",
            "wg-quick": "wireguard-tools",
            "ip": "iproute2",
            "resolvconf": "openresolv",
        },
        "rhel": {"wg": "wireguard-tools"},
    }
    given = dict({"interface": "wg0", "allowed_ips": None, "tunnel": tunnel, "packages": names, "own_packages": {}, "install": True}, **given)
    return {point["name"]: (point["outcome"], point["text"]) for point in _prospect.Prospect(agent, options or {}, given).look()}


def test_packages_are_named_or_missed(machine, monkeypatch):
    assert prospect(machine, monkeypatch)["packages"] == ("pass", "will be installed: iproute2, wireguard-tools")
    assert prospect(machine, monkeypatch, "wg wg-quick ip")["packages"] == ("pass", "all tools are here")
    assert prospect(machine, monkeypatch, install=False)["packages"] == (
        "fail",
        "wg, wg-quick, ip missing, and gatecontrol_install is false; install it before",
    )
    (machine.root / "etc/os-release").write_text('ID="rocky"\nID_LIKE="rhel centos fedora"\n')
    outcome, text = prospect(machine, monkeypatch)["packages"]
    assert outcome == "fail" and text.startswith("wg-quick, ip missing, and the role knows no package for it on rocky; ")
    assert prospect(machine, monkeypatch, own_packages={"wg-quick": "a", "ip": "b"})["packages"][0] == "pass"


def test_dns_has_a_tool_or_none(machine, monkeypatch):
    tools = "wg wg-quick ip"
    assert prospect(machine, monkeypatch, tools, {"dns": []})["DNS tool"][0] == "n/a"
    assert prospect(machine, monkeypatch, tools)["DNS tool"] == ("pass", "will be installed: openresolv")
    assert prospect(machine, monkeypatch, tools + " resolvconf")["DNS tool"] == ("pass", "resolvconf is here")
    (machine.root / "etc/os-release").write_text('ID="rocky"\nID_LIKE="rhel centos fedora"\n')
    outcome, text = prospect(machine, monkeypatch, tools, {"dns": ["10.8.0.1"]})["DNS tool"]
    assert outcome == "fail" and "install systemd-resolved, or give gatecontrol_dns an empty list" in text
    (machine.root / "run/systemd/resolve").mkdir()
    assert prospect(machine, monkeypatch, tools + " resolvectl")["DNS tool"] == ("pass", "systemd-resolved takes its place")


@pytest.mark.parametrize("answer, outcome, words", [
    ((0, "", ""), "pass", "can set it up"), ((226, "", ""), "fail", "226/NAMESPACE"),
    ((1, "", "Failed to start transient service unit: Access denied"), "fail", "Access denied")])
def test_a_sandbox_that_systemd_cannot_set_up_is_told(machine, monkeypatch, answer, outcome, words):
    machine.programs["timeout 20 systemd-run"] = answer
    seen = prospect(machine, monkeypatch, "systemd-run")["sandbox"]
    assert seen[0] == outcome and words in seen[1]


def test_an_interface_that_is_somebody_else_s_is_told(machine, monkeypatch):
    assert prospect(machine, monkeypatch)["interface"] == ("pass", "wg0 is free")
    (machine.root / "etc/wireguard").mkdir()
    (machine.root / "etc/wireguard/wg0.conf").touch()
    assert prospect(machine, monkeypatch)["interface"][0] == "fail"
    seen = prospect(machine, monkeypatch, record={"peer_id": 5, "peer_name": "web01", "url": "https://gate.example.com", "interface": "wg0"})
    assert seen["interface"][0] == "pass" and seen["enrollment"] == ("pass", "enrolled as web01 on https://gate.example.com")


def test_an_endpoint_that_is_not_resolved_or_has_no_way_is_told(machine, monkeypatch):
    def addresses(name, port, deadline):
        if name != "203.0.113.9":
            raise OSError(-2, "Name or service not known")
        return [(2, 1, 6, "", (name, port))]
    monkeypatch.setattr(_prospect._line, "addresses", addresses)
    tunnel = {"endpoint": "203.0.113.9:51820", "allowed_ips": ["10.8.0.0/24"], "dns": []}
    machine.programs["ip route get"] = (0, "", "")
    assert prospect(machine, monkeypatch, "ip", tunnel)["endpoint"][0] == "pass"
    machine.programs["ip route get"] = (2, "", "RTNETLINK answers: Network is unreachable")
    assert "Network is unreachable" in prospect(machine, monkeypatch, "ip", tunnel)["endpoint"][1]
    seen = prospect(machine, monkeypatch, "ip", dict(tunnel, endpoint="gate.example.com:51820"))["endpoint"]
    assert seen[0] == "fail" and "Name or service not known" in seen[1]


@pytest.mark.parametrize("date", ["Mon, 01 Jan 99999 00:00:00 GMT", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "yesterday", None])
def test_a_server_whose_date_is_none_is_reached_all_the_same(machine, monkeypatch, date):
    answer = _http.Response(401, {"date": date} if date else {}, "")
    monkeypatch.setattr(_http.HttpTransport, "request", lambda *_given: answer)
    seen = prospect(machine, monkeypatch, options={"url": "https://gate.example.com"})
    assert seen["server"] == ("pass", "https://gate.example.com answers")
    assert seen["clock"] == ("n/a", "the server does not tell its time")


def test_points_are_lines_of_a_width():
    points = [{"name": "tun device", "outcome": "fail", "text": "a long sentence " * 10}, {"name": "root", "outcome": "n/a", "text": ""}]
    lines = _points.lines(points, 68)
    assert max(map(len, lines)) <= 68 and lines[0].startswith("fail tun device  a long") and lines[-1] == "n/a  root"
    assert _points.failing(points) == ["tun device"]
