"""The agent of Windows against the embedded server, in every PowerShell that is here: 7 and, on Windows, 5.1.

Where there is none, nothing of this is proven, and the run says so. The public CI runs it on Windows:
`pytest --noconftest tests/integration/windows/test_agent_ps1.py`, with GATECONTROL_TEST_MSI naming WireGuard's MSI for a real tunnel (as administrator).
"""
from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import time
import types

import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(CHECKOUT / "plugins"), str(CHECKOUT / "tests")]

for unix in ("fcntl", "pwd"):  # which the collection's code for Linux imports, and nothing calls that runs here
    if importlib.util.find_spec(unix) is None:
        sys.modules[unix] = types.ModuleType(unix)

import powershell  # noqa: E402
from gateserver import running  # noqa: E402
from module_utils import _agent, _api, _enrollment, _gate, _peer, _said, _verify, _wgconf, _windows  # noqa: E402

AGENT = CHECKOUT / "roles/gatecontrol/files/gatecontrol_agent.ps1"
SHELLS = list(powershell.SHELLS)
MSI = os.environ.get("GATECONTROL_TEST_MSI")
pytestmark = pytest.mark.skipif(not SHELLS, reason=powershell.NOT_RUN)


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    """A server: (url, its state's file)."""
    state = tmp_path_factory.mktemp("server") / "state.sqlite"
    process = subprocess.Popen([sys.executable, str(CHECKOUT / "tests/gateserver"), "serve", "--era", "fixed", "--state", str(state),
                                "--endpoint", "127.0.0.1:51820"],
                               stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())["url"], state
    finally:
        process.kill()
        process.wait()


def quoted(word):
    """A word as PowerShell takes it literally."""
    return "'%s'" % str(word).replace("'", "''")


class Host:
    """A host in a folder, or this machine's own (root None)."""

    def __init__(self, shell, gate, root=None, session=None):
        self.shell, self.root, self.session, (self.url, self.state) = shell, root, session, gate

    def run(self, verb, *words, texts=None):
        """(exit status, output) of the agent, in the session if there is one, else in a process of its own."""
        known = ["-Root", str(self.root)] if self.root else []
        if texts is None and not self.session:
            done = powershell.run(self.shell, "-File", str(AGENT), verb, *words, *known)
            return done.returncode, done.stdout + done.stderr
        line = "& %s" % " ".join([quoted(AGENT), verb, *[word if word.startswith("-") else quoted(word) for word in [*words, *known]]])
        if texts is not None:
            line += " -Texts (ConvertTo-SecureString -AsPlainText -Force ([Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('%s'))))" % (
                base64.b64encode(json.dumps(texts).encode()).decode())
        if self.session:
            return self.session.run(line)
        done = powershell.run(self.shell, "-Command", "-", input=line + "\n")
        return done.returncode, done.stdout + done.stderr

    def ask(self, verb, *words, **how):
        """The object behind the marker."""
        output = self.run(verb, *words, **how)[1]
        answer = _gate.marked(output, _verify.MARKER)
        assert answer is not None, output
        read = {"verify": _said.VERIFY_ANSWER, "confirm": _said.CONFIRM_ANSWER}.get(verb, dict)
        assert set(read(answer)) >= set(answer) - {"word"}, "a key that the gate does not know"
        return answer

    def question(self, verb, **wanted):
        return self.ask(verb, base64.b64encode(json.dumps(wanted).encode()).decode())

    def enroll(self, name, **policy):
        """Registered from here, as the role does it on the controller; returns what was stored."""
        if self.root is None:
            assert self.ask("protect")["changed"]
        store, token = _enrollment.Texts({}), running.ask(self.url, "token", {"name": name, "scopes": "client"})["token"]
        known = fingerprint(self.shell)
        who = {"fingerprint": known, "platform": "windows", "version": _verify.VERSION}
        _peer.HostPeer(store, lambda given: _api.Api({"url": self.url, "token": given}, who), self.url, token, name,
                       fingerprint=known, system="windows").present()
        settings = {"url": self.url, "interface": "wg0", "heartbeat_interval": 60, "sync_interval": 300, "confirm_timeout": 20, "policy": policy}
        agent = _agent.Agent(store, None, platform="windows", fingerprint=known)
        store.save("settings", _verify.settings_text(settings))
        store.save("candidate", agent.rendered(store.text("offered"), policy))
        assert self.ask("store", texts=store.changed)["changed"]
        return agent


@functools.lru_cache(maxsize=None)
def fingerprint(shell: str) -> str:
    """This machine's, as the agent sees it."""
    return Host(shell, (None, None), CHECKOUT / "build/none").question("verify", state="present")["host"]["fingerprint"]


@pytest.fixture(scope="module", params=SHELLS)
def session(request):
    """(a shell's name, one of it for many lines)"""
    opened = powershell.Session(request.param)
    yield request.param, opened
    opened.close()


@pytest.fixture
def host(session, gate, tmp_path):
    running.ask(gate[0], "fault", {"action": "off"})
    return Host(session[0], gate, tmp_path / "GateControl", session[1])


def test_fresh(host):
    host.session = None
    status, output = host.run("show")
    assert status == 0 and "not enrolled" in output
    answer = host.question("verify", state="present", url=host.url)
    assert not answer["in_sync"] and not answer["enrolled"] and answer["host"]["system"] == "windows" and len(answer["host"]["fingerprint"]) == 64
    assert answer["version"] == _verify.VERSION and answer["server"] == {"asked": False} and answer["drift"]
    status, output = host.run("beat")
    assert status == 1 and "not enrolled" in output


def test_store_and_read(host):
    assert host.ask("protect")["changed"] and not host.ask("protect")["changed"]
    agent = host.enroll("reader-" + host.shell, allowed_ips=["10.8.0.0/24"])
    assert not host.ask("store", texts=agent.store.changed)["changed"]
    read = host.ask("read")["files"]
    for name in ("enrollment", "token", "settings", "offered"):
        assert read[name] == agent.store.text(name)
    assert host.ask("store", texts={"offered": None})["names"] == ["offered"] and host.ask("read")["files"]["offered"] is None


def test_beat_and_verify(host):
    agent = host.enroll("beater-" + host.shell)
    peer = agent.store.load("enrollment")["peer_id"]
    since = max([entry["id"] for entry in running.ask(host.url, "log", {})] or [0])
    status, output = host.run("beat", "-Json")
    shown = json.loads(output)
    assert status == 0 and shown["last_beat"] and shown["error"] is None and shown["status"] == "disconnected"
    assert {"heartbeat", "config/check"} == {entry["event"] for entry in running.ask(host.url, "log", {"since": since, "peer_id": peer})}
    state = json.loads((host.root / "state.json").read_text())
    assert set(state) <= set(_agent.MEMORY) and all(value is None or _agent.sound(value, _agent.MEMORY[key]) for key, value in state.items())
    answer = host.question("verify", state="present", url=host.url, settings=_enrollment.digest(agent.store.text("settings")), check=True)
    assert answer["enrolled"] and not [text for text in answer["drift"] if "settings" in text or "token" in text]


def test_a_new_config_is_rendered_as_the_collection_does(host):
    policy = {"allowed_ips": ["0.0.0.0/0", "::/0", "10.9.1.7/16"], "dns": ["fd00:0:0::1", "example.com"], "mtu": 1380, "fwmark": "0x10",
              "persistent_keepalive": 0}
    agent = host.enroll("renderer-" + host.shell, **policy)
    running.ask(host.url, "settings", {"values": {"mtu": "1390"}})
    _status, output = host.run("sync", "-Json")
    running.ask(host.url, "settings", {"values": {"mtu": ""}})
    shown = json.loads(output)
    offered = (host.root / "offered.conf").read_text()
    assert (host.root / "candidate.conf").read_text() == agent.rendered(offered, policy)
    assert _enrollment.digest(offered) == shown["refused"]["hash"]


def test_hooks_are_refused(host):
    host.enroll("hooked-" + host.shell)
    running.ask(host.url, "fault", {"action": "on", "fault": {"kind": "config", "how": "hooks"}})
    running.ask(host.url, "settings", {"values": {"mtu": "1391"}})
    shown = json.loads(host.run("sync", "-Json")[1])
    running.ask(host.url, "settings", {"values": {"mtu": ""}})
    assert shown["error"]["kind"] == "config" and "hook" in shown["error"]["text"]


def test_a_rate_limit_is_heard(host):
    host.enroll("limited-" + host.shell)
    running.ask(host.url, "fault", {"action": "on", "fault": {"kind": "status", "status": 429, "retry_after": 500}})
    first = json.loads(host.run("beat", "-Json")[1])
    running.ask(host.url, "fault", {"action": "off"})
    assert first["error"]["kind"] == "rate_limited" and first["not_before"] > time.time() + 400
    assert json.loads(host.run("beat", "-Json")[1])["last_try"] == first["last_try"], "it was not silent"


@pytest.mark.skipif(not MSI, reason="NOT RUN: no MSI of WireGuard was named")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_tunnel_on_windows(shell, gate):
    """A hub that is a second tunnel of the same machine; armed, proven, confirmed, verified, taken away."""
    url, state = gate
    subprocess.run(["msiexec", "/i", MSI, "/qn", "DO_NOT_LAUNCH=1"], check=True)
    programs, folder = pathlib.Path(os.environ["ProgramFiles"]) / "WireGuard", pathlib.Path(os.environ["ProgramData"]) / "GateControl"
    host = Host(shell, gate)
    agent = host.enroll("real-" + shell, allowed_ips=["10.8.0.0/24"], dns=[])
    candidate = agent.store.text("candidate")
    shutil.copy(AGENT, folder / AGENT.name)
    with sqlite3.connect(state) as database:
        key = database.execute("SELECT value FROM settings WHERE name = 'server_key'").fetchone()[0]
    ours = _wgconf.parse(candidate)
    hub = folder.parent / "gatecontrol-hub.conf"
    hub.write_text("[Interface]\nPrivateKey = %s\nListenPort = 51820\nAddress = 10.8.0.1/32\n\n[Peer]\nPublicKey = %s\nPresharedKey = %s\nAllowedIPs = %s\n" % (
        key, _wgconf.public_key(ours.interface["PrivateKey"]), ours.peers[0]["PresharedKey"], ours.interface["Address"][0]))
    subprocess.run([programs / "wireguard.exe", "/installtunnelservice", hub], check=True)
    tasks = {"verbs": ["apply", "beat"], "interval": 60, "offset": 0, "only": True}
    try:
        assert host.question("schedule", **tasks)["names"] == ["apply", "beat"]
        assert not host.question("schedule", **tasks)["changed"]
        armed = host.question("change", state="up", interface="wg0", timeout=40)["armed"]
        word = host.ask("confirm", armed)["confirm"]
        verdict = host.ask("confirm", word)
        assert verdict["ok"], verdict
        digest = hashlib.sha256((folder / AGENT.name).read_bytes()).hexdigest()
        answer = host.question("verify", state="present", url=url, check=True, files={_windows.AGENT: digest})
        assert answer["drift"] == [] and answer["in_sync"] and answer["status"] == "connected"
        refused = host.question("change", state="up", interface="wg0")
        assert refused["failed"] and "no config of wg0 is staged" in refused["msg"]
        host.ask("store", texts={"candidate": candidate})
        assert host.question("change", state="up", interface="wg0")["action"] == "none"
    finally:
        host.question("change", state="absent", interface="wg0")
        host.run("remove")
        subprocess.run([programs / "wireguard.exe", "/uninstalltunnelservice", "gatecontrol-hub"], check=False)
        hub.unlink()
    assert not folder.exists() and "wg0" not in subprocess.run([programs / "wg.exe", "show"], capture_output=True, text=True, check=True).stdout
    for verb in tasks["verbs"]:
        assert subprocess.run(["schtasks", "/query", "/tn", "\\GateControl\\" + verb], capture_output=True, check=False).returncode, verb
