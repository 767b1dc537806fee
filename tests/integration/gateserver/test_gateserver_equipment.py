"""What makes the server test equipment: its process, its state, its log, its faults."""
from __future__ import annotations

import datetime
import hashlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
import requests
from gateserver.running import HERE, Refused, Server, ask


def verb(*arguments: str) -> str:
    return subprocess.run([sys.executable, HERE, *arguments], capture_output=True, text=True, check=True, timeout=60).stdout


# ---------------------------------------------------------------- process and state

def test_one_line_when_it_listens_and_a_clean_end():
    with Server("--era", "1.50.12", "--profile", "community") as server:
        assert server.told == {"url": server.url, "era": "1.50.12", "profile": "community"}
        assert "stand-in" in server.said()
        assert server.url.startswith("http://127.0.0.1:")
        assert server.stop() == 0
    assert server.said().count("\n") == 1


def test_the_verbs_of_the_command_line(start):
    client = start("fixed")
    url = ("--url", client.server.url)
    token = verb("token", *url, "cli", "client,peers", "").splitlines()[-1]
    assert token.startswith("gc_") and len(token) == 99
    peer = json.loads(verb("peer", *url, "add", "web01", "description=by hand"))[0]
    bound = verb("token", *url, "host", "client", str(peer["id"])).strip()
    assert client.get("client/config?peerId=%d" % peer["id"], bound).json()["peerName"] == "web01"
    assert json.loads(verb("peer", *url, "disable", "web01"))["enabled"] == 0
    assert json.loads(verb("peer", *url, "list"))[0]["description"] == "by hand"
    assert json.loads(verb("peer", *url, "expire", "web01"))["expires_at"] < "2001"
    assert json.loads(verb("settings", *url, "mtu=1380"))["mtu"] == "1380"
    fault = json.loads(verb("fault", *url, "on", "status", "--path", "*/ping", "--count", "1", "--status", "502"))[0]
    assert client.get("client/ping", token).status_code == 502
    assert json.loads(verb("fault", *url, "off", str(fault["id"]))) == []
    assert json.loads(verb("log", *url, "--event", "ping"))[-1]["status"] == 502
    assert json.loads(verb("log", *url, "--clear"))["cleared"] > 0 and json.loads(verb("log", *url)) == []
    json.loads(verb("reset", *url, "--sessions"))
    assert json.loads(verb("sweep", *url)) == {"expired": 0}
    failed = subprocess.run([sys.executable, HERE, "token", *url, "x", "nope"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1 and "has no scope nope" in failed.stderr


def test_it_ends_with_the_process_that_started_it():
    starter = ("import os, sys; sys.path.insert(0, %r); from running import Server\n"
               "print(Server('--era', 'fixed').url, flush=True); os.kill(os.getpid(), 9)" % HERE)
    url = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, timeout=60, check=False).stdout.strip()
    deadline = time.monotonic() + 10
    with pytest.raises(requests.ConnectionError):
        while time.monotonic() < deadline:
            requests.get(url + "/health", timeout=10)
            time.sleep(0.05)


@pytest.mark.parametrize(("arguments", "said"), [
    (["--era", "latest"], "latest is neither a release such as 1.50.12 nor fixed"),
    (["--admin", "nocolon"], "nocolon is not USER:PASSWORD"),
    (["--subnet", "10.8.0.1/24"], "10.8.0.1/24 is no IPv4 network with room for peers, such as 10.8.0.0/24"),
    (["--subnet", "10.8.0.0/31"], "10.8.0.0/31 is no IPv4 network"),
    (["--port", "65536"], "65536 is no whole number from 0 to 65535"),
    (["--port", "BUSY"], "cannot listen on 127.0.0.1 port BUSY: Address already in use"),
    (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1 port 0: Cannot assign requested address"),
    (["--tls", "NOTHING", "NOTHING"], "cannot use the certificate NOTHING with the key NOTHING: No such file"),
    (["--tls", "JUNK", "JUNK"], "they are no pair in PEM"),
    (["--state", "NOTHING/state"], "cannot keep the state in NOTHING/state: No such file"),
    (["--state", "JUNK"], "cannot keep the state in JUNK: file is not a database"),
    (["--rate-limit", "0"], "0 is no whole number from 1"),
    (["--endpoint", "gate.example.org:70000"], "gate.example.org:70000 is not HOST:PORT"),
    (["--wireguard", "a" * 16], "a is no name for an interface"),
    (["--echo", "7"], "--echo needs --wireguard"),
    (["--wireguard", "lo"], "there is already an interface lo"),
])
def test_what_cannot_start_says_why_and_leaves_nothing_behind(tmp_path, arguments, said):
    (tmp_path / "junk").write_text("junk" * 100)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        places = {"BUSY": str(busy.getsockname()[1]), "NOTHING": str(tmp_path / "nothing"), "JUNK": str(tmp_path / "junk")}

        def put(text):
            for name, place in places.items():
                text = text.replace(name, place)
            return text
        state = [] if "--state" in arguments else ["--state", str(tmp_path / "state")]
        failed = subprocess.run([sys.executable, HERE, "serve", *state, *map(put, arguments)], capture_output=True, text=True, timeout=60,
                                check=False)
    last = failed.stderr.splitlines()[-1]
    assert (failed.returncode, failed.stdout) == (2, "") and put(said) in last and last.startswith("gateserver"), failed.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["junk"]


def test_state_of_another_network_is_refused(start, tmp_path):
    client = start("fixed", "--state", str(tmp_path / "state"), "--subnet", "10.41.0.0/24")
    client.new_peer()
    client.server.stop()
    with pytest.raises(Refused, match="the state has peers outside of 10.42.0.0/24: give the --subnet it was made with"):
        Server("--state", str(tmp_path / "state"), "--subnet", "10.42.0.0/24")
    client.server.start()
    assert len(client.server.ask("peer", action="list")) == 1


@pytest.mark.parametrize(("arguments", "said"), [
    (["token", "x", "client", "77"], "there is no peer 77"),
    (["token", "x", ""], "a token needs a scope"),
    (["peer", "add"], "the new peer needs a name"),
    (["peer", "add", "web01", "colour=blue"], "a peer has no colour to set; there are name, "),
    (["peer", "set", "nobody", "dns=9.9.9.9"], "there is no peer nobody"),
    (["peer", "delete"], "which peer?"),
    (["fault", "on"], "which fault? There are status, drop"),
    (["fault", "off", "77"], "there is no fault 77"),
    (["fault", "on", "config", "--text", "@/nowhere"], "No such file or directory"),
    (["settings", "mtu=much"], "mtu is a whole number from 576 to 65535, not much"),
    (["settings", "endpoint=here"], "endpoint is HOST:PORT, not here"),
    (["settings", "server_key=short"], "server_key is new, none or a private key"),
    (["settings", "split_tunnel=all"], "split_tunnel is JSON such as"),
    (["settings", "licence.api_tokens=perhaps"], "licence.api_tokens is true or false, not perhaps"),
    (["settings", "nosuch=1"], "there is no setting nosuch; there are endpoint, "),
    (["log", "--url", "http://127.0.0.1:9"], "cannot ask http://127.0.0.1:9: "),
    (["log", "--url", "nowhere"], "cannot ask nowhere: "),
])
def test_what_a_verb_cannot_do_it_says(start, arguments, said):
    server = start("fixed").server
    failed = subprocess.run([sys.executable, HERE, arguments[0], "--url", server.url, *arguments[1:]], capture_output=True, text=True,
                            timeout=60, check=False)
    assert failed.returncode == 1 and failed.stderr.startswith("gateserver: ") and said in failed.stderr, failed.stderr
    assert failed.stderr.count("\n") == 1 and server.said().count("\n") == 1


@pytest.mark.parametrize("era", ["1.5.2", "fixed"])
def test_an_empty_setting_is_the_default(start, era):
    server = start(era).server
    before = server.ask("settings")
    assert before["mtu"] == (None if era == "1.5.2" else "1420")
    changes = {"mtu": "1380", "endpoint": "gate.example.org:1", "keepalive": "7", "licence.webhooks": "true", "server_key": "none"}
    assert server.ask("settings", values=changes) != before
    after = server.ask("settings", values=dict.fromkeys(changes, ""))
    assert after.pop("public_key") != before.pop("public_key") and after == before


def test_its_administration_needs_the_administrator(start):
    client = start("fixed", "--admin", "admin:LoopbackTest123!")
    with pytest.raises(Refused, match="needed"):
        ask(client.server.url, "log", {}, admin="admin:wrong")


def certificate(folder):
    """A CA of its own and a certificate for 127.0.0.1: paths of (CA, certificate, key)."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def made(name, issuer=None, issuer_key=None):
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or subject).public_key(key.public_key())
                   .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
                   .not_valid_after(now + datetime.timedelta(hours=1))
                   .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
                   .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False))
        authority_key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key((issuer_key or key).public_key())
        builder = builder.add_extension(authority_key_id, critical=False).add_extension(x509.KeyUsage(
            digital_signature=True, key_cert_sign=issuer is None, crl_sign=issuer is None, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False), critical=True)
        if issuer is not None:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        done = builder.sign(issuer_key or key, hashes.SHA256())
        (folder / (name + ".crt")).write_bytes(done.public_bytes(serialization.Encoding.PEM))
        (folder / (name + ".key")).write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return subject, key
    authority, authority_key = made("ca")
    made("server", authority, authority_key)
    return str(folder / "ca.crt"), str(folder / "server.crt"), str(folder / "server.key")


def test_https_with_a_ca_of_its_own(tmp_path):
    ca, crt, key = certificate(tmp_path)
    with Server("--era", "fixed", "--tls", crt, key) as server:
        assert server.url.startswith("https://")
        token = verb("token", "--url", server.url, "--cafile", ca, "t", "client").strip()
        assert requests.get(server.url + "/api/v1/client/ping", headers={"X-API-Token": token}, verify=ca, timeout=30).status_code == 200
        assert server.token("client").startswith("gc_")
        page = requests.get(server.url + "/login", verify=ca, timeout=30)
        assert "Secure" in page.headers["Set-Cookie"]


def test_state_survives_a_restart(start, tmp_path):
    client = start("1.50.12", "--state", str(tmp_path / "state"))
    token, session = client.host_token(), client.session()
    before = client.post("client/register", token, {"hostname": "web01"}).json()
    client.server.ask("settings", values={"allowed_ips": "10.8.0.0/24"})
    client.server.stop()
    client.server.start()
    after = client.get("client/config?peerId=%d" % before["peerId"], token).json()
    assert after["peerName"] == "web01" and after["config"] == before["config"].replace("0.0.0.0/0", "10.8.0.0/24")
    session.url = client.server.url
    assert session.call("GET", "peers").status_code == 200


def test_a_killed_server_loses_no_answered_write(start, tmp_path):
    """Peers are made on four connections at once; the server is killed in the middle, and started again."""
    client = start("fixed", "--state", str(tmp_path / "state"), "--subnet", "10.40.0.0/16", "--rate-limit", "100000")
    answered, port = [], int(client.server.url.rpartition(":")[2])

    def load(worker: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            for number in range(100_000):
                connection.request("POST", "/api/v1/peers", json.dumps({"name": "w%d-%d" % (worker, number)}),
                                   {"X-API-Token": client.admin, "Content-Type": "application/json"})
                answer = connection.getresponse()
                peer = json.loads(answer.read())["peer"]
                assert answer.status == 201
                answered.append((peer["id"], peer["name"], peer["allowedIps"], peer["publicKey"]))
        except (OSError, http.client.HTTPException):
            return  # the server is gone
    threads = [threading.Thread(target=load, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(answered) < 300 and time.monotonic() < deadline:
        time.sleep(0.01)
    client.server.kill()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive()
    assert len(answered) >= 300
    client.server.start()
    kept = {(row["id"], row["name"], row["allowed_ips"], row["public_key"]) for row in client.server.ask("peer", action="list")}
    assert set(answered) <= kept and len(kept) <= len(answered) + 4
    assert len({address for _id, _name, address, _key in kept}) == len(kept)


def work(server) -> float:
    """The seconds a server's process has worked so far: what other processes take meanwhile does not count."""
    with open("/proc/%d/stat" % server.process.pid, encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_load_that_one_core_carries(start, tmp_path):
    """Up in a second, 200 requests a second, 10,000 peers listed within two: of the server's own time."""
    client = start("fixed", "--state", str(tmp_path / "state"), "--subnet", "10.43.0.0/16", "--rate-limit", "100000")
    assert work(client.server) < 1
    peer, body = client.new_peer()["id"], {"connected": True}
    token = client.host_token(peer)
    begun = work(client.server)
    for _turn in range(200):
        assert client.post("client/heartbeat?peerId=%d" % peer, token, body).status_code == 200
        assert client.get("client/config/check?peerId=%d&hash=x" % peer, token).status_code == 200
    assert work(client.server) - begun < 400 / 200
    client.server.ask("peer", action="add", peer="p", count=10_000 - 1)
    begun, sizes = work(client.server), []
    while not sizes or sizes[-1]:
        sizes.append(len(client.get("peers?limit=250&offset=%d" % (250 * len(sizes)), client.admin).json()["peers"]))
    assert sizes == [250] * 40 + [0] and work(client.server) - begun < 2


# ---------------------------------------------------------------- log

def test_the_log_tells_who_asked_what_and_no_secret(start):
    client = start("fixed")
    peer = client.new_peer()
    token = client.server.token("client", name="web01", peer_id=peer["id"])
    last = client.server.log()[-1]["id"]
    client.get("client/config?peerId=%d&token=%s" % (peer["id"], token), token)
    client.post("client/heartbeat", token, {"peerId": peer["id"], "connected": True, "rxBytes": 7}, headers={"X-Client-Version": "1"})
    client.post("client/status", token, {"peerId": peer["id"], "status": "connected"})
    client.session(password="wrong")
    client.get("client/ping")
    rows = client.server.log(since=last)
    assert [row["event"] for row in rows if "event" in row] == ["config", "heartbeat", "status", "login", "ping"]
    config, heartbeat = rows[0], rows[1]
    assert (config["method"], config["path"], config["status"], config["token"], config["peer_id"]) == (
        "GET", "/api/v1/client/config", 200, "web01", peer["id"])
    assert config["query"] == "peerId=%d&token=gc_***" % peer["id"] and config["ms"] >= 0
    assert heartbeat["body"] == {"peerId": peer["id"], "connected": True, "rxBytes": 7} and heartbeat["headers"]["X-Client-Version"] == "1"
    login = next(row for row in rows if row.get("event") == "login")
    assert login["body"] == {"username": "admin", "accepted": False}
    assert rows[-1]["status"] == 401 and "token" not in rows[-1]
    everything = json.dumps(client.server.log())
    assert token not in everything and "wrong" not in everything and peer["privateKey"] not in everything
    assert [row["event"] for row in client.server.log(event="heartbeat")] == ["heartbeat"]
    assert client.server.log(path="/api/v1/peers", method="POST")[0]["status"] == 201


# ---------------------------------------------------------------- faults

@pytest.fixture
def host(start):
    """A client whose calls for one peer go through whatever faults are on: (client, get(path))."""
    client = start("fixed")
    peer = client.new_peer()
    token = client.server.token("client", name="web01", peer_id=peer["id"])
    return client, lambda path="config", **more: client.get("client/%s?peerId=%d" % (path, peer["id"]), token, **more)


def test_a_fault_hits_what_it_is_for_and_as_often_as_told(host):
    client, get = host
    client.server.fault("status", path="/api/v1/client/config", method="GET", status=502, count=2, skip=1)
    assert [get().status_code for turn in range(4)] == [200, 502, 502, 200]
    client.server.fault("status", token="web02")
    assert get().status_code == 200
    client.server.fault("status", token="web0?", status=429, retry_after=7)
    answer = get()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert [row.get("fault") for row in client.server.log(event="config")] == [None, "status", "status", None, None, "status"]
    client.server.no_faults()
    assert get().status_code == 200
    client.server.fault("status", path="*/register", count=1)  # instead of the effect, unless told otherwise
    assert client.post("client/register", client.server.token("client"), {"hostname": "early"}).status_code == 503
    assert client.named("early") is None
    client.server.fault("status", path="*/register", count=1, when="after")
    assert client.post("client/register", client.server.token("client"), {"hostname": "late"}).status_code == 503
    assert client.named("late")


def test_a_connection_dropped_before_or_after_the_effect(host):
    client, _get = host
    for when, there in (("before", False), ("after", True)):
        client.server.fault("drop", path="*/register", when=when, count=1)
        with pytest.raises(requests.ConnectionError):
            client.post("client/register", client.server.token("client"), {"hostname": "host-" + when})
        assert (client.named("host-" + when) is not None) == there


def test_slow_answers(host):
    client, get = host
    client.server.fault("delay", seconds=0.5, count=1)
    begun = time.monotonic()
    assert get().status_code == 200 and time.monotonic() - begun >= 0.5
    client.server.fault("drip", seconds=0.005, count=1)
    begun = time.monotonic()
    answer = get("peer-info")
    assert answer.json()["ok"] and time.monotonic() - begun >= 0.005 * len(answer.content)
    client.server.fault("drip", seconds=1, count=1)
    with pytest.raises(requests.exceptions.ConnectionError):  # the time-out between two bytes
        assert not requests.get(client.server.url + "/login", timeout=0.3, stream=True).content


def test_a_body_that_is_cut(host):
    client, get = host
    client.server.fault("cut", count=1)
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
        get()
    client.server.fault("cut", bytes=0, count=1)
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
        get()


def test_bodies_that_are_no_answer(host):
    client, get = host
    client.server.fault("invalid-json", count=1)
    answer = get()
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("application/json")
    with pytest.raises(ValueError):
        answer.json()
    client.server.fault("html", count=1)
    assert get().headers["Content-Type"].startswith("text/html")
    client.server.fault("redirect", url="http://127.0.0.1:9/", count=1)
    answer = get()
    assert answer.status_code == 307 and answer.headers["Location"].startswith("http://127.0.0.1:9/api/v1/client/config?peerId=")


def test_a_hash_that_does_not_fit(host):
    client, get = host
    client.server.fault("wrong-hash", count=1)
    answer = get().json()
    assert len(answer["hash"]) == 64 and answer["hash"] != hashlib.sha256(answer["config"].encode()).hexdigest()


@pytest.mark.parametrize(("how", "sign"), [
    ("hooks", "\nPostUp = "), ("placeholder", "\nPublicKey = <SERVER_PUBLIC_KEY>\n"),
    ("private-placeholder", "\nPrivateKey = <PRIVATE_KEY>\n"),
    ("crlf", "\r\n[Peer]\r\n"), ("unknown-key", "\nColour = blue\n"), ("save-config", "\nSaveConfig = true\n"),
    ("second-interface", "\n\n[Interface]\n"), ("short-key", "\nPublicKey = c2hvcnQ=\n"),
    ("short-private-key", "\nPrivateKey = c2hvcnQ=\n"),
    ("short-preshared-key", "\nPresharedKey = c2hvcnQ=\n")])
def test_a_spoiled_config_has_the_hash_of_what_was_sent(host, how, sign):
    client, get = host
    client.server.fault("config", how=how, count=2)
    for path in ("config", "config/check"):
        answer = get(path).json()
        assert sign in answer["config"] and answer["hash"] == hashlib.sha256(answer["config"].encode()).hexdigest()
    assert sign not in get().json()["config"]


def test_a_config_may_be_any_text(host):
    client, get = host
    client.server.fault("config", text="[Interface]\n", count=1)
    assert get().json()["config"] == "[Interface]\n"
    with pytest.raises(Refused, match="config fault needs"):
        client.server.fault("config", how="nosuch")
    with pytest.raises(Refused, match="there is no fault nosuch"):
        client.server.fault("nosuch")


def test_faults_work_over_https_too(tmp_path):
    ca, crt, key = certificate(tmp_path)
    with Server("--era", "fixed", "--tls", crt, key) as server:
        token = server.token("client")
        for kind in ("drop", "cut"):
            server.fault(kind, count=1)
            connection = http.client.HTTPSConnection("127.0.0.1", int(server.url.rpartition(":")[2]), timeout=10,
                                                     context=ssl.create_default_context(cafile=ca))
            connection.request("GET", "/api/v1/client/ping", headers={"X-API-Token": token})
            with pytest.raises((OSError, http.client.HTTPException)):
                connection.getresponse().read()
