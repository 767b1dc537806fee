"""A server of each era passes its check with every secret, within its requests, and what is told of it is true."""
from __future__ import annotations

import datetime

import pytest
from checked import ERAS, Checked, failed, outcomes, text
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

WAYS = ("by login", "by peers token", "by register", "by bound token")


@pytest.mark.parametrize("server", ERAS, indirect=True)
def test_a_server_passes_with_all_secrets_and_nothing_stays(server):
    report = server.check("login", "peers", "client")
    assert failed(report) == set() and report["ok"] and report["logins"] == 1
    assert report["version"] == {"fixed": "1.119.0"}.get(server.era, server.era)
    assert server.peers() == [] and server.minted() == [] and text(report, "nothing stays").endswith("gone")
    open_ways = [name for name in WAYS if outcomes(report)[name] == "pass"]
    assert open_ways == {
        "1.5.2": ["by peers token", "by register", "by bound token"], "1.50.12": ["by login", "by peers token", "by register"],
        "1.118.2": ["by login", "by peers token"], "fixed": ["by login", "by peers token", "by register"]}[server.era]
    asked = {"make a peer", "peer's config", "policy", "client config", "unchanged", "changed", "heartbeat", "status", "disable", "delete", "nothing stays"}
    asked |= set() if server.era == "1.5.2" else {"mint a token", "peer info", "revoke"}
    asked |= {"register"} if server.era in ("1.50.12", "fixed") else set()
    assert {name for name in asked if outcomes(report)[name] != "pass"} == set()


@pytest.mark.parametrize("server", ERAS, indirect=True)
@pytest.mark.parametrize("secret", ["login", "peers"])
def test_a_server_passes_with_one_secret_of_the_controller(server, secret):
    report = server.check(secret)
    # No token can be minted before 1.16.0, so that a login alone enrolls nobody there.
    assert failed(report) == ({"any way"} if (secret, server.era) == ("login", "1.5.2") else set())
    assert server.peers() == [] and outcomes(report)["nothing stays"] == "pass"
    assert server.era == "1.5.2" or server.minted() == []


@pytest.mark.parametrize(
    "server, way",
    [("1.5.2", "by register"), ("1.50.12", "by register"), ("1.118.2", None), ("fixed", "by register")],
    indirect=["server"],
)
def test_a_client_token_is_looked_at_and_nothing_is_written(server, way):
    seen = len(server.server.log())
    report = server.check("client")
    assert failed(report) == (set() if way else {"any way"}) and outcomes(report)["make a peer"] == "n/a"
    assert {row["method"] for row in server.server.log()[seen:] if "method" in row} == {"GET"} and report["logins"] == 0
    if not way:
        assert "gatecontrol_peers_token" in text(report, "any way") and "leaves a peer behind" in text(report, "by register")


@pytest.mark.parametrize("server", ["1.50.12", "1.118.2", "fixed"], indirect=True)
def test_a_bound_token_is_told_from_one_that_is_not(server):
    server.server.ask("peer", action="add", peer="web01")
    number = server.server.ask("peer", action="list", peer="web01")[0]["id"]
    server.secrets["bound"] = {"token": server.server.token("client", name="bound", peer_id=number), "peer_id": number}
    server.secrets["mistaken"] = dict(server.secrets["bound"], peer_id=number + 1)
    report = server.check("bound", write=False)
    assert failed(report) == set() and outcomes(report)["by bound token"] == "pass" and "web01" in text(report, "client token")
    report = server.check("mistaken", write=False)
    assert failed(report) == {"client token", "any way"} and "gatecontrol_peer_id" in text(report, "client token")


def test_a_token_s_machine_binding_is_left_alone(server):
    """The first fingerprint that is sent may stay the token's: it is the host's to send."""
    server.server.ask("settings", values={"machine_binding": "global"})
    server.server.ask("peer", action="add", peer="web01")
    number = server.server.ask("peer", action="list", peer="web01")[0]["id"]
    server.secrets["bound"] = {"token": server.server.token("client", name="machine", peer_id=number), "peer_id": number}
    report = server.check("login", "bound")
    assert failed(report) == set() and "machine" in text(report, "client token")
    host = server.admin()
    assert [token["machine_fingerprint"] for token in host.tokens() if token["name"] == "machine"] == [None]


def test_without_write_nothing_is_changed(server):
    seen = len(server.server.log())
    report = server.check("login", "peers", "client", write=False)
    changing = [row["path"] for row in server.server.log()[seen:] if row.get("method") not in (None, "GET")]
    assert report["ok"] and changing == ["/login"] and "make a peer" not in outcomes(report)


@pytest.mark.parametrize("server", ["fixed"], indirect=True)
def test_a_later_release_is_said_to_be_unknown_with_what_was_seen(server):
    report = server.check("login")
    assert "1.119.0 is later than 1.118.2, the latest release known" in text(report, "release") and report["version"] == "1.119.0"
    assert text(report, "register") == "works: the token's own peer is given back"


def test_many_peers_cost_no_more_than_one_request(server):
    server.server.ask("settings", values={"licence.vpn_peers": 253})
    names = server.server.ask("peer", action="add", peer="many", count=250)
    try:
        report = server.check("login")
        assert failed(report) == set() and text(report, "peers") == "at least 250" and text(report, "licence") == "room, of 253 peers"
        server.server.ask("peer", action="add", peer="more", count=3)
        assert failed(server.check("login")) >= {"licence"}
    finally:
        for made in names:
            server.server.ask("peer", action="delete", peer=str(made["id"]))


def test_what_an_earlier_check_left_is_named(server):
    server.server.ask("peer", action="add", peer="gatecontrol-check-00000000", values={"tags": "ephemeral", "expires_at": "2026-01-01T00:00:00.000Z"})
    report = server.check("login", write=False)
    assert failed(report) == {"peers"} and "gatecontrol_retire_names=gatecontrol-check-00000000" in text(report, "peers")


@pytest.mark.parametrize("wrong, point", [
    ({"admin_user": "admin", "admin_password": "wrong"}, "login"),
    ({"peers_token": "gc_" + "0" * 96}, "peers token"), ({"token": "gc_" + "0" * 96}, "client token")])
def test_a_secret_that_is_wrong_is_found(server, wrong, point):
    server.secrets["wrong"] = wrong
    report = server.check("wrong")
    assert failed(report) == {point, "any way"} and "0" * 96 not in str(report) and "LoopbackTest" not in str(report)
    assert outcomes(report)["make a peer"] == "n/a"


def test_a_token_of_a_wrong_scope_is_found(server):
    server.secrets["wrong"] = {"peers_token": server.server.token("client", name="noscope"), "token": server.server.token("peers", name="noscope2")}
    report = server.check("wrong")
    assert failed(report) == {"peers token", "client token", "any way"} and "needs the scope peers" in text(report, "peers token")


def test_a_server_that_is_not_there_is_one_point():
    from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _checking
    report = _checking.report({"options": {"url": "http://127.0.0.1:9", "timeout": 3}, "secrets": {"peers_token": "gc_" + "0" * 96, "token": "gc_" + "0" * 96},
                               "intervals": [60, 300], "policy": {}, "write": True})
    assert "server" in failed(report) and len(report["points"]) <= 3 and report["requests"] == 1


# --- certificates

def certificate(folder, begin: datetime.datetime, end: datetime.datetime) -> tuple:
    """The paths of a certificate for 127.0.0.1 and of its key."""
    import ipaddress
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gate")])
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(begin).not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256()))
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return tuple(map(str, paths))


@pytest.mark.parametrize("before, after, options, found", [
    (30, 60, {}, None), (89, 1, {}, "certificate"), (90, -1, {}, "server"), (30, 60, {"ca_path": None}, "server"),
    (30, 60, {"ca_path": None, "validate_certs": False}, "certificate")],
    ids=["good", "ends-tomorrow", "expired", "unknown-authority", "not-checked"])
def test_certificate(tmp_path, before, after, options, found):
    now = datetime.datetime.now(datetime.timezone.utc)
    cert, key = certificate(tmp_path, now - datetime.timedelta(days=before), now + datetime.timedelta(days=after))
    one = Checked("1.118.2", "--tls", cert, key)
    try:
        report = one.check("login", write=False, **dict({"ca_path": cert}, **options))
        assert (found in failed(report)) if found else report["ok"]
        assert found or text(report, "certificate").startswith("trusted, valid until 20")
    finally:
        one.server.stop()
