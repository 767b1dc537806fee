# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is cut off, full, late or twice at once: every wait ends, every fault heals, and what is broken is said."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import (
    _agent, _beat, _change, _cli, _drift, _enrollment, _facts, _install, _lock, _observe, _pace, _run, _step)

from made_up_host import Machine

KILLS = int(os.environ.get("GATECONTROL_KILLS", "60"))
UNIT = "wg-quick@wg0.service"


def forked(work) -> int:
    """Start work() in a process of its own; its number."""
    number = os.fork()
    if not number:
        try:
            with open(os.devnull, "w", encoding="ascii") as nowhere, contextlib.redirect_stdout(nowhere):
                os._exit(work() or 0)
        except BaseException:
            os._exit(99)
    return number


def killed(work, seconds: float) -> bool:
    """Kill work() after so long, as the kernel does when memory is short; whether it was still at it."""
    number = forked(work)
    time.sleep(seconds)
    os.kill(number, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(number, 0)[1])


def ended(number: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def whole(host: Machine) -> None:
    """Every file that is there can be read."""
    for name in ("enrollment", "settings", "installed", "pending", "verdict", "state"):
        text = host.store.text(name)
        assert text is None or isinstance(json.loads(text), dict), name


def change(host: Machine) -> None:
    host.agent().beat(now=True)
    host.agent().apply()


def test_a_change_that_is_killed_at_any_moment_is_healed(gate, host, monkeypatch):
    """Beat and unit of a change, killed at random; then the host is booted, and one more beat brings what the server has."""
    monkeypatch.setattr(_enrollment, "ABANDONED", 0)
    chance, hits = random.Random(7), 0
    begin = time.monotonic()
    gate.peer("set", host.peer, persistent_keepalive=11)
    change(host)
    whole_time = time.monotonic() - begin
    for number in range(KILLS):
        gate.peer("set", host.peer, persistent_keepalive=12 + number % 2)
        hits += killed(lambda: change(host), chance.random() * whole_time)
        whole(host)
        host.reboot()
        host.enabled.add(UNIT)
        assert _cli.command(host.store, host.run, "recover", [])[0] == 0
        host.boot()
        assert host.store.load("pending") is None and "wg0" in host.links
        change(host)
        text, record = _enrollment.read_text(host.agent().config_path), host.store.load("enrollment")
        assert "PersistentKeepalive = %d" % (12 + number % 2) in text and record["file_hash"] == _enrollment.digest(text)
        assert record["hash"] == _enrollment.digest(host.store.text("issued"))
        agent = host.agent()
        comparison, beside = _drift.Comparison(agent, {}), agent.show()["beside_tunnel"]
        assert comparison.tunnel(agent.running(), beside)["action"] == "none" and comparison.drift == beside == []
    assert hits > KILLS / 3 and not list(pathlib.Path(host.root).rglob(".gatecontrol.*")), "no half file"


def test_a_retirement_that_is_killed_at_any_moment_is_ended_by_the_next(gate, machine, tmp_path_factory):
    chance, hits = random.Random(11), 0
    for number in range(KILLS // 2):
        host = Machine(tmp_path_factory.mktemp("retired"))
        host.settings = {"url": gate.url, "interface": "wg0"}
        host.install()
        host.store.save("token", "gc_x\n")
        hits += killed(lambda: bool(_install.remove(host.agent())), chance.random() * 0.02)
        _install.remove(host.agent())
        assert host.agent().host.parts() == [], number
    assert hits


def test_an_installation_that_is_killed_at_any_moment_is_ended_by_the_next(gate, machine, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(_enrollment, "ABANDONED", 0)
    chance, hits, length = random.Random(13), 0, None
    for _number in range(KILLS // 3):
        host = Machine(tmp_path_factory.mktemp("installed"))
        host.settings = {"url": gate.url, "interface": "wg0"}
        begin = time.monotonic()
        if length is None:
            host.install()
            length = time.monotonic() - begin
        else:
            hits += killed(lambda host=host: host.install(), chance.random() * length)
        whole(host)
        host.install()
        assert host.installation().differences() == [] and {_agent.TIMER, _agent.RECOVER} <= host.enabled
        assert not list(pathlib.Path(host.root).rglob(".gatecontrol.*")), "no half file"
    assert hits > KILLS / 10


# --- one lock


def test_of_two_that_arm_at_once_exactly_one_does(gate, host, tmp_path):
    agent = host.agent()
    host.store.save("candidate", _enrollment.read_text(agent.config_path))
    for _round in range(30):
        host.store.drop("pending", "verdict")
        gun = tmp_path / "gun"

        def race():
            while not gun.exists():
                time.sleep(0.0005)
            try:
                _change.arm(_enrollment.Store(str(host.root)), "wg0")
            except _observe.TunnelError:
                return 3
            return 0
        racers = [forked(race) for _racer in range(2)]
        time.sleep(0.01)
        gun.touch()
        assert sorted(map(ended, racers)) == [0, 3]
        gun.unlink()


def test_the_memory_is_read_changed_and_written_by_one_at_a_time(host, tmp_path):
    store = host.store

    def count():
        mine = _enrollment.Store(str(host.root))
        for _time in range(25):
            with _lock.held(mine, limit=60):
                mine.save("state", {"requests": (mine.load("state") or {}).get("requests", 0) + 1})
        return 0
    assert [ended(number) for number in [forked(count) for _process in range(4)]] == [0] * 4
    assert store.load("state") == {"requests": 100}


def test_a_lock_names_its_holder_and_does_not_outlive_it(host):
    def hold():
        with _lock.held(_enrollment.Store(str(host.root))):
            time.sleep(60)
    number, store = forked(hold), host.store
    while _lock.is_free(store):
        time.sleep(0.01)
    begin = time.monotonic()
    with pytest.raises(_lock.Busy, match=r"^this host is being changed by process %d.*; try again in a minute$" % number):
        with _lock.held(store, limit=0.3):
            pass
    assert time.monotonic() - begin < 2
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    with _lock.held(store, limit=5), _lock.held(store, limit=0):
        assert store.locked
    assert not store.locked and _lock.is_free(store)


def test_a_lock_on_a_folder_that_was_made_anew_is_taken_on_the_new_one(host):
    folder = pathlib.Path(host.root, _enrollment.VAR)
    handle = os.open(folder, os.O_RDONLY)
    folder.rename(str(folder) + ".old")
    with _lock.held(host.store):
        assert folder.is_dir() and not os.path.samestat(os.fstat(handle), os.stat(folder))
    os.close(handle)


def test_who_comes_while_a_change_is_under_way_waits_for_its_end(gate, host):
    gate.peer("set", host.peer, persistent_keepalive=9)
    host.agent().beat(now=True)
    assert _change.state_of(host.store, host.now) == "starting"
    with pytest.raises(_change.Underway, match="try again in a minute"):
        with host.agent().alone(limit=5):
            pass
    waited = []
    agent = host.agent()
    agent.sleep = lambda seconds: waited.append(seconds) or (host.agent().apply() if len(waited) == 3 else host.sleep(seconds))
    with agent.alone(limit=50):
        assert len(waited) == 3 and host.store.load("pending") is None and agent.enrollment == host.store.load("enrollment")


# --- every wait ends


class Odd:
    """A server that answers each connection in a way that is no answer. begin: what it says at once; drip: what it says every 0.2 s from then on."""

    def __init__(self, begin: bytes, drip: bytes, close: bool = False):
        self.begin, self.drip, self.close = begin, drip, close
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.answer, args=(self.listener.accept()[0],), daemon=True).start()

    def answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.sendall(self.begin)
            while not self.close:
                time.sleep(0.2)
                connection.sendall(self.drip) if self.drip else None


ODD = {
    "silent": (b"", b""), "closes": (b"", b"", True), "drips its status line": (b"HTTP/1.1 ", b"2"), "drips headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
    "drips one header": (b"HTTP/1.1 200 OK\r\nX-A: ", b"b"), "drips its body": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{", b" "),
    "drips chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"), "continues without end": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "lies": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Type: application/json\r\n\r\n{\"a\": [1}", b"", True)}


@pytest.mark.parametrize("how", sorted(ODD))
def test_a_change_is_over_by_its_deadline_whatever_the_server_does(host, how):
    """In real time, with a real connection: at the deadline, five seconds at most later, the host is as before."""
    before, record = host.seen("wg0"), host.store.load("enrollment")
    text = _enrollment.read_text(host.agent().config_path)
    server = Odd(*ODD[how])
    host.store.save("enrollment", dict(record, url="http://127.0.0.1:%d" % server.port))
    host.set(confirm_timeout=3, url="http://127.0.0.1:%d" % server.port)
    host.store.save("candidate", text.replace("PersistentKeepalive = 25", "PersistentKeepalive = 7"))
    agent = _agent.Agent(host.store, host.run)
    deadlines, save = [], host.store.save
    host.store.save = lambda name, value: save(name, value) or (name == "pending" and deadlines.append(value["deadline"]))
    agent.arm("server", None)
    host.handshakes += 5
    verdict = agent.apply()
    assert time.monotonic() < deadlines[-1] + _pace.LATE and deadlines[-1] - deadlines[0] < 60
    assert not verdict["ok"] and host.store.load("pending") is None
    assert host.seen("wg0") == before and _enrollment.read_text(agent.config_path) == text
    server.listener.close()


def test_a_proof_that_never_comes_back_is_given_up(host, monkeypatch):
    """Even where the transport itself hangs."""
    monkeypatch.setattr(_beat, "report", lambda *given: time.sleep(30))
    agent, begin = _agent.Agent(host.store, host.run), time.monotonic()
    assert "the server did not answer within 2 s" in agent.prove(begin + 2)
    assert time.monotonic() - begin < 4


@pytest.mark.parametrize("command", ["sleep 60", "trap '' TERM; sleep 60 & wait"])
def test_a_command_that_hangs_is_ended_with_its_children(command, monkeypatch):
    monkeypatch.setattr(_run, "LEAST", 1)
    run, begin = _run.Runner(), time.monotonic()
    _run.bound(run, begin + 1)
    assert run(["sh", "-c", command]) == (124, "", "sh takes longer than 1 s")
    assert time.monotonic() - begin < 5
    _run.bound(run, None)
    assert run(["sh", "-c", "cat; echo no >&2; exit 3"], "words") == (3, "words", "no\n") and run(["/no/such"])[0] == 127


def test_within_gives_what_was_done_in_time():
    assert _run.within(5, lambda: 7) == (True, 7) and _run.within(0.1, lambda: time.sleep(2)) == (False, None)
    with pytest.raises(ZeroDivisionError):
        _run.within(5, lambda: 1 // 0)


# --- the clock of a confirmation


@pytest.mark.parametrize("slow", [0, 8, 25])
def test_the_hosts_own_slowness_is_no_part_of_the_time_to_confirm(host, slow):
    """A step that takes long, and a controller that takes its whole time after it."""
    text = _enrollment.read_text(host.agent().config_path)
    host.store.save("candidate", re.sub(r"MTU = \d+", "MTU = 1300", text))
    agent = host.agent()
    host.set(confirm_timeout=40)
    change_id, confirmed = agent.arm("controller", "192.0.2.9 50022 198.51.100.1 22"), []
    start = host.services.start
    host.services.start = lambda unit, **how: host.sleep(slow) or start(unit, **how)

    def sleep(seconds):
        host.sleep(seconds)
        pending = host.store.load("pending") or {}
        if pending.get("word"):
            proven = confirmed[0] if confirmed else confirmed.append(host.time) or host.time
            if host.time - proven > 35:  # a slow login, and then another one
                host.store.save("confirm", change_id)
            if host.time - proven > 70:
                host.store.save("confirm", pending["word"])
    agent.sleep = sleep
    verdict = agent.apply()
    assert verdict["ok"], verdict["reason"]


def test_a_controller_that_fetches_the_word_and_is_cut_off_is_not_waited_for_without_end(host):
    host.store.save("candidate", re.sub(r"MTU = \d+", "MTU = 1300", _enrollment.read_text(host.agent().config_path)))
    agent = host.agent()
    change_id = agent.arm("controller", None, 40)
    agent.sleep = lambda seconds: host.sleep(seconds) or host.store.save("confirm", change_id)
    begin = host.time
    assert "within" in agent.apply()["reason"] and host.time - begin < 1 + 40 + 40 + 5


# --- what is full heals


def full(monkeypatch, folder: str, code: int = 28):
    """Nothing can be written there until the returned function is called."""
    write_text, there = _enrollment.write_text, [True]

    def write(path, *words, **how):
        if there and folder in path:
            raise OSError(code, os.strerror(code), path)
        return write_text(path, *words, **how)
    monkeypatch.setattr(_enrollment, "write_text", write)
    return there.clear


@contextlib.contextmanager
def disk(folder: pathlib.Path):
    """Give a folder a small disk of its own; yields (spoil, mend): spoil("room" | "inodes" | "read-only") until mend()."""
    if os.geteuid():
        pytest.skip("NOT RUN: a small disk is mounted by root only")
    kept = {path.name: (path.read_bytes(), path.stat().st_mode) for path in folder.iterdir()}
    mode, filler = folder.stat().st_mode & 0o777, []

    def mount(*words):
        subprocess.run(["mount", *words], check=True)

    def spoil(how):
        if how == "read-only":
            mount("-o", "remount,ro", str(folder))
            return
        with pytest.raises(OSError, match="No space left on device"):
            while True:
                filler.append(folder / ("filler-%d" % len(filler)))
                filler[-1].write_bytes(bytes(4096 if how == "room" else 0))

    def mend():
        mount("-o", "remount,rw", str(folder))
        for path in filler:
            path.unlink(missing_ok=True)
    mount("-t", "tmpfs", "-o", "size=256k,nr_inodes=60,mode=%o" % mode, "none", str(folder))
    try:
        for name, (data, rights) in kept.items():
            (folder / name).write_bytes(data)
            (folder / name).chmod(rights)
        yield spoil, mend
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def heals(gate, host, folder, moment, spoil):
    """A config comes while nothing can be written to a folder; beats bring it once there is room. spoil(): begins that, returns (its words, its end)."""
    gate.peer("set", host.peer, persistent_keepalive=11)
    if moment == "between":
        host.agent().beat(now=True)
    words, room = spoil()
    for _minute in range(2):
        with contextlib.suppress(OSError):
            host.agent().beat(now=True)
        with contextlib.suppress(OSError):
            host.agent().apply()
        host.pass_by(60)
    if moment == "between" and folder == "etc/gatecontrol":
        pending, verdict = host.store.load("pending"), host.store.load("verdict")
        assert verdict["ok"] and words in verdict["unrecorded"]
        assert _change.confirm(host.store, pending["id"], 0, host.sleep, host.now)["unrecorded"] == verdict["unrecorded"]
    assert "wg0" in host.links
    whole(host)
    room()
    for _minute in range(4):
        host.started.clear()
        host.agent().beat(now=True)
        if _agent.APPLY in host.started:
            host.agent().apply()
        host.pass_by(60)
    record, text = host.store.load("enrollment"), _enrollment.read_text(host.agent().config_path)
    assert host.store.load("pending") is None and "PersistentKeepalive = 11" in text and record["file_hash"] == _enrollment.digest(text)
    assert record["hash"] == _enrollment.digest(host.store.text("issued")) and host.agent().show()["error"] is None
    assert not list(pathlib.Path(host.root).rglob(".gatecontrol.*")), "no half file"


FOLDERS = pytest.mark.parametrize("folder", ["etc/gatecontrol", "var/lib/gatecontrol", "etc/wireguard"])
MOMENTS = pytest.mark.parametrize("moment", ["before", "between"])


@pytest.mark.parametrize("code", [28, 30, 122])  # no space or inodes left, read-only, quota
@FOLDERS
@MOMENTS
def test_a_folder_that_cannot_be_written_heals_with_the_next_beats(gate, host, monkeypatch, folder, code, moment):
    heals(gate, host, folder, moment, lambda: (os.strerror(code), full(monkeypatch, folder, code)))


@pytest.mark.parametrize("how", ["room", "inodes", "read-only"])
@FOLDERS
@MOMENTS
def test_a_real_disk_that_takes_nothing_heals_with_the_next_beats(gate, host, folder, how, moment):
    with disk(pathlib.Path(host.root, folder)) as (spoil, mend):
        heals(gate, host, folder, moment, lambda: spoil(how) or (os.strerror(30 if how == "read-only" else 28), mend))


@pytest.mark.parametrize("folder", ["usr/local", "etc/systemd/system", "etc/gatecontrol"])
@pytest.mark.parametrize("code", [28, 30])
def test_an_installation_that_found_no_room_goes_on_where_it_ended(host, monkeypatch, folder, code):
    room = full(monkeypatch, folder, code)
    with pytest.raises(OSError, match=re.escape(os.strerror(code))):
        host.install()
    whole(host)
    room()
    host.install()
    assert host.installation().differences() == [] and _agent.TIMER in host.active
    assert not list(pathlib.Path(host.root).rglob(".gatecontrol.*"))


def test_a_change_whose_process_died_is_ended_by_the_next_beat(gate, host):
    host.store.save("candidate", _enrollment.read_text(host.agent().config_path))
    host.agent().arm("server", None)
    host.store.save("pending", dict(host.store.load("pending"), begun=host.now()))
    host.started.clear()
    host.beat()
    assert host.started == [_agent.APPLY]
    assert not host.agent().apply()["ok"] and host.store.load("pending") is None
    assert "interrupted" in host.store.load("verdict")["reason"]


def test_a_change_whose_process_hangs_is_stopped_by_the_next_beat(host):
    host.store.save("pending", {"id": "1", "armed": host.now() - 100, "begun": host.now() - 99, "deadline": host.now() - 60, "interface": "wg0", "timeout": 3})

    def hold():
        with _lock.held(_enrollment.Store(str(host.root))):
            time.sleep(60)
    number, stopped = forked(hold), []
    while _lock.is_free(host.store):
        time.sleep(0.01)
    agent = host.agent()
    agent.services.stop_no_block = stopped.append
    _beat.heal(agent)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    assert stopped == [_agent.APPLY]


# --- beats that fail are said


def test_beats_that_fail_are_drift_until_one_works(gate, host):
    host.install()

    def codes():
        return [code for code in _drift.verify(host.agent(), {"check": False})["codes"] if code.startswith("beat")]
    host.beat()
    assert codes() == []
    gate.fault("status", "heartbeat", status=403)
    host.beat()
    assert codes() == [] and host.agent().show()["failures"] == 1, "one beat may fail"
    host.pass_by(60)
    host.beat()
    assert codes() == ["beat_failing"] and "gatecontrol_failing_beats{" in _cli.metrics(host.agent().show())
    with pytest.raises(_facts.AgentError, match="the agent's own unit does not work"):
        failing = host.agent()
        failing.services.start = lambda *units, **how: (none for none in ()).throw(_step._services.ServiceError("Job failed"))
        _install.set_timer(failing, True)
    gate.server.no_faults()
    host.pass_by(60)
    host.beat()
    assert codes() == [] and host.agent().show()["failures"] == 0


def test_what_the_unit_cannot_read_is_drift_at_once(host):
    host.install()
    host.set(ca_path="/no/such/ca.pem", url="https://gate.example.com")
    host.store.save("enrollment", dict(host.store.load("enrollment"), url="https://gate.example.com"))
    host.beat()
    answer = _drift.verify(host.agent(), {"check": False})
    assert "beat_failing" in answer["codes"] and any("ca_path" in sentence or "/no/such/ca.pem" in sentence for sentence in answer["drift"]), answer["drift"]


def test_a_unit_that_failed_is_drift_and_proven_anew(gate, host):
    """Its process ended before it could say anything, such as in a sandbox that cannot be set up."""
    host.install()
    host.beat()
    agent = host.agent()
    plain = agent.services.show
    agent.services.show = lambda units, names: {
        unit: dict(values, ActiveState="failed") if unit == _agent.BEAT else values for unit, values in plain(units, names).items()}
    answer = _drift.verify(agent, {"check": False})
    assert answer["codes"] == ["beat_failing"] and "journalctl -u gatecontrol-beat" in answer["drift"][0]
    host.started.clear()
    assert not _install.set_timer(agent, True) and host.started == [_agent.BEAT]


def test_new_settings_are_proven_in_the_unit_itself(gate, host):
    """A play that gives an enrolled host a CA in /tmp: the timer runs already, and the beat of the change that the play makes sees that file."""
    host.install()
    host.beat()
    agent, ran = host.agent(), [0]
    plain = agent.services.show
    agent.services.show = lambda units, names: {
        unit: dict(values, **{_install.STARTED: str(ran[0])} if _install.STARTED in names else {}) for unit, values in plain(units, names).items()}

    def proven():
        host.started.clear()
        assert not _install.set_timer(agent, True)
        ran[0] = int(time.monotonic() * 1e6) + 1000
        time.sleep(0.05)
        return host.started == [_agent.BEAT]
    assert proven() and not proven()
    host.set(ca_path="/tmp/ca.pem")
    host.beat()
    assert proven() and not proven()
    host.set(ca_path="/tmp/other.pem")
    agent.services.start = lambda *units, **how: (none for none in ()).throw(_step._services.ServiceError("Job failed"))
    with pytest.raises(_facts.AgentError, match="the agent's own unit does not work, and the timer would fail like this each time.*it sees no /tmp"):
        proven()


def no_room(host, monkeypatch):
    return full(monkeypatch, "var/lib/gatecontrol"), "No space left on device", None


def a_tool_that_fails(host, monkeypatch):
    plain = host.run
    host.run = lambda argv, stdin=None: (1, "", "Operation not permitted") if argv[0] == "wg" else plain(argv, stdin)
    return lambda: setattr(host, "run", plain), "wg show wg0 dump failed: Operation not permitted", "beat_failing"


def another_machine(host, monkeypatch):
    path = pathlib.Path(host.root, "etc/machine-id")
    own = path.read_text("ascii")
    path.write_text("f" * 32 + "\n", encoding="ascii")
    return lambda: path.write_text(own, encoding="ascii"), "is a clone of the one that enrolled", "clone"


TROUBLES = [no_room, a_tool_that_fails, another_machine]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_beat_that_ends_early_is_told_too(gate, host, monkeypatch, tmp_path_factory, trouble):
    """One that ends before it could ask the server, or could not remember what it said, is no success of the beat before."""
    folder = tmp_path_factory.mktemp("textfile")
    host.install(textfile=str(folder))

    def told():
        status, said = _cli.command(host.store, host.run, "beat", [])
        text = (folder / "gatecontrol.prom").read_text(encoding="utf-8")
        return status, said, [int(re.search(r"^gatecontrol_%s{.*} (\d+)$" % name, text, re.MULTILINE).group(1)) for name in ("beat_success", "failing_beats")]
    assert told()[::2] == (0, [1, 0])
    end, words, code = trouble(host, monkeypatch)
    first, second = told(), told()
    assert first[0] == second[0] == 1 and words in first[1] and first[2] == [0, 1]
    if code:
        assert words in host.store.load("state")["error"]["text"] and second[2] == [0, 2]
        end()
        agent = host.agent()
        assert words in agent.show()["error"]["text"] and any(words in sentence for sentence in _drift.verify(agent, {"check": False})["drift"])
    end()
    assert told()[2] == [1, 0] and host.agent().show()["error"] is None
    assert [found for found in _drift.verify(host.agent(), {"check": False})["codes"] if found in ("beat_failing", code)] == []


# --- clocks and machines


@pytest.mark.parametrize("years", [-1, 1])
def test_a_clock_that_is_set_by_a_year_changes_nothing_but_times(gate, host, years):
    host.beat()
    gate.peer("set", host.peer, persistent_keepalive=11)
    host.agent().beat(now=True)
    host.time += years * 365 * 86400
    agent = _agent.Agent(host.store, host.run, now=host.now, sleep=host.sleep, clock=lambda held=host.time: host.time - years * 365 * 86400)
    assert agent.apply()["ok"]
    shown = host.agent().beat()
    assert shown["last_try"] == host.time and shown["error"] is None and host.store.load("pending") is None
    assert "PersistentKeepalive = 11" in _enrollment.read_text(agent.config_path)


def test_a_machine_whose_id_changed_is_silent_and_keeps_its_tunnel(gate, host):
    pathlib.Path(host.root, "etc/machine-id").write_text("f" * 32 + "\n", encoding="ascii")
    before = host.seen("wg0")
    gate.seen()
    with pytest.raises(_facts.AgentError, match="is a clone of the one that enrolled"):
        host.beat()
    assert "clone" in _drift.verify(host.agent(), {})["codes"] and gate.calls() == [] and host.seen("wg0") == before
