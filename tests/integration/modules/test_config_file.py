"""gatecontrol_config: alone on a host, and on an enrolled one."""
from __future__ import annotations

import os

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment, _wgconf

ALL = pytest.mark.parametrize("gate", ["1.5.2", "1.50.12", "1.118.2", "fixed"], indirect=True)


@pytest.fixture
def alone(gate):
    """What a host without an enrollment is given."""
    peer = gate.add(gate.name())
    gate.seen()
    return {"url": gate.url, "token": gate.token(peer_id=peer["id"]), "peer_id": peer["id"]}


@pytest.fixture
def dest(host):
    return host.root / "etc/wireguard/wg0.conf"


@ALL
def test_a_file_is_written_once(gate, host, alone, dest):
    checked = host.ok("config", check=True, dest=str(dest), **alone)
    assert checked["changed"] and not dest.exists() and not dest.parent.exists()
    result = host.ok("config", dest=str(dest), **alone)
    assert result["changed"] and result["dest"] == str(dest) and result["full_tunnel"] and "config" not in result
    assert dest.stat().st_mode & 0o777 == 0o600 and dest.parent.stat().st_mode & 0o777 == 0o700
    config = _wgconf.parse(dest.read_text())
    assert config.peers[0]["AllowedIPs"] == ["0.0.0.0/0"] and not host.store.load("enrollment")
    again = host.ok("config", dest=str(dest), **alone)
    assert not again["changed"] and gate.calls() == ["GET config 200"] * 3
    for shown in (checked, result):
        assert "(masked" in shown["diff"]["after"] and config.interface["PrivateKey"] not in str(shown)
        assert config.peers[0]["PresharedKey"] not in str(shown) and "Endpoint = vpn.example.com:51820" in shown["diff"]["after"]


def test_the_text_goes_out_on_demand_and_its_hash_tells_of_changes(gate, host, alone):
    first = host.ok("config", return_config=True, **alone)
    assert not first["changed"] and first["config"].startswith("[Interface]\n") and first["updated"] and not host.files()
    assert not host.ok("config", hash=first["hash"], **alone)["updated"]
    gate.set(alone["peer_id"], dns="10.8.0.53")
    changed = host.ok("config", hash=first["hash"], return_config=True, **alone)
    assert changed["updated"] and changed["hash"] != first["hash"] and "10.8.0.53" in changed["config"]


def test_the_local_policy_has_the_last_word(gate, host, alone, dest):
    result = host.ok("config", dest=str(dest), allowed_ips=["10.8.0.0/24", "10.9.0.0/16"], dns=[], mtu=1380, table="off", fwmark="0x10",
                     listen_port=51999,
                     persistent_keepalive=0, **alone)
    config = _wgconf.parse(dest.read_text())
    assert config.peers[0]["AllowedIPs"] == ["10.8.0.0/24", "10.9.0.0/16"] and "PersistentKeepalive" not in config.peers[0]
    assert {key: config.interface.get(key) for key in ("DNS", "MTU", "Table", "FwMark", "ListenPort")} == {
        "DNS": None, "MTU": 1380, "Table": "off", "FwMark": 16, "ListenPort": 51999}
    assert not result["full_tunnel"] and result["hash"] != _enrollment.digest(dest.read_text())


@pytest.mark.parametrize("given, word", [
    ({"allow_endpoints": ["other.example.com"]}, "endpoint"), ({"allow_allowed_ips": ["10.8.0.0/24"]}, "0.0.0.0/0"),
    ({"allow_dns": ["192.0.2.0/24"]}, "DNS"),
    ({"allowed_ips": ["10.8.0.0/99"]}, "local value"), ({"mtu": 5}, "local value"), ({"table": "x"}, "local value"),
    ({"dns": ["a;b"]}, "local value")])
def test_what_leaves_the_policys_bounds_is_not_written(host, alone, dest, given, word):
    assert word in host.fails("config", "policy", dest=str(dest), **alone, **given) and not dest.exists()


def test_mode_owner_group_and_backup(host, alone, dest):
    host.ok("config", dest=str(dest), mode="0640", owner="nobody", group="65534", **alone)
    seen = dest.stat()
    assert seen.st_mode & 0o777 == 0o640 and (seen.st_uid, seen.st_gid) == (65534, 65534)
    assert not host.ok("config", dest=str(dest), mode="0640", owner="65534", group="nogroup", **alone)["changed"]
    assert not host.ok("config", dest=str(dest), mode="u=rw,g=r,o=", **alone)["changed"]
    assert host.ok("config", dest=str(dest), mode="g+w,o+r", **alone)["changed"] and dest.stat().st_mode & 0o777 == 0o664
    host.ok("config", dest=str(dest), mode="0640", **alone)
    checked = host.ok("config", check=True, dest=str(dest), **alone)
    assert checked["changed"] and dest.stat().st_mode & 0o777 == 0o640
    before = dest.read_text()
    result = host.ok("config", dest=str(dest), owner="root", group="root", backup=True, **alone)
    assert result["changed"] and "backup_file" not in result and os.stat(dest).st_uid == 0
    result = host.ok("config", dest=str(dest), backup=True, mtu=1300, **alone)
    assert open(result["backup_file"], encoding="ascii").read() == before and os.stat(result["backup_file"]).st_mode & 0o077 == 0


@pytest.mark.parametrize("given, word", [
    ({"mode": "rw"}, "mode rw"), ({"mode": "9999"}, "mode 9999"), ({"mode": 0o640}, "mode 416"), ({"mode": "640"}, "mode 640"), ({"mode": "u=q"}, "mode u=q"),
    ({"mode": "00640"}, "mode 00640"), ({"owner": "no-such"}, "owner no-such"), ({"group": "no-such"}, "group no-such")])
def test_rights_that_are_none_are_told_before_anything_is_asked(gate, host, alone, dest, given, word):
    assert word in host.fails("config", "options", dest=str(dest), **alone, **given) and gate.calls() == []


def test_a_destination_that_cannot_be_written(host, alone):
    (host.root / "a-file").write_text("x")
    assert "a-file" in host.fails("config", "file", dest=str(host.root / "a-file/wg0.conf"), **alone)
    (host.root / "folder").mkdir()
    assert "folder" in host.fails("config", "file", dest=str(host.root / "folder"), **alone)


@ALL
def test_a_peers_token_reads_any_config(gate, host, alone, dest):
    del alone["token"]
    assert host.ok("config", dest=str(dest), peers_token=gate.peers_token, **alone)["changed"]
    assert gate.calls() == ["GET /peers/%d/config 200" % alone["peer_id"]]
    assert not host.ok("config", dest=str(dest), peers_token=gate.peers_token, **alone)["changed"]


@ALL
def test_an_enrolled_host_needs_no_secret_and_asks_by_hash(gate, host, alone, dest):
    first = host.ok("peer", **alone)
    gate.seen()
    staged = host.ok("config", url=gate.url, hash=first["hash"], stage=True, allowed_ips=["10.8.0.0/24"])
    assert gate.calls() == [] and staged["hash"] == first["hash"] and "10.8.0.0/24" in host.store.text("candidate")
    host.store.save("issued", host.store.text("offered"))
    host.store.save("enrollment", dict(host.record, hash=first["hash"]))
    for _run in range(2):
        result = host.ok("config", dest=str(dest))  # the URL is the enrollment's
    assert not result["changed"] and not result["updated"] and gate.calls() == ["GET config/check 200"] * 2
    gate.set(alone["peer_id"], dns="10.8.0.53")
    before = host.files()
    checked = host.ok("config", check=True, dest=str(dest))
    assert checked["changed"] and checked["updated"] and host.files() == before
    assert host.ok("config", dest=str(dest))["changed"] and "DNS = 10.8.0.53" in dest.read_text()


def test_a_damaged_file_is_written_anew(host, alone, dest):
    host.ok("config", dest=str(dest), **alone)
    good = dest.read_text()
    dest.write_bytes(b"\xff\xfe" + good.encode())
    result = host.ok("config", dest=str(dest), **alone)
    assert result["changed"] and dest.read_text() == good
    assert "PrivateKey" not in result["diff"]["before"].replace("PrivateKey = (masked", "")


@pytest.mark.parametrize("given, word", [({}, "peer_id"), ({"peer_id": 5}, "token")])
def test_what_is_missing_is_named(gate, host, given, word):
    assert word in host.fails("config", "options", url=gate.url, **given)
    assert "GATECONTROL_URL" in host.fails("config", "options", **given)
