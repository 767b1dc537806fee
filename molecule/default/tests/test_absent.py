"""gatecontrol_state: absent leaves nothing on the host but packages, and with a peers token nothing on the server."""
from __future__ import annotations

import contextlib
import pathlib
import re
import threading

from test_steady import secrets_of

LOOK = (pathlib.Path(__file__).resolve().parents[1] / "files/inventory-of-host.sh").read_text(encoding="utf-8")


def look(room) -> dict:
    """What each host has; of files that resolvconf writes anew the time does not count."""
    return {host: re.sub(r"(?m)^(/etc/(?:resolv\.conf|unbound/)\S* \d+ \d+) .*", r"\1", text).splitlines() for host, text in room.everywhere(LOOK).items()}


@contextlib.contextmanager
def command_lines():
    """Every command line of this machine meanwhile, its hosts' among them: a set of texts."""
    seen, over = set(), threading.Event()

    def watch():
        while not over.wait(0.01):
            for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_absent_in_check_mode_says_so_and_takes_nothing(room):
    before = look(room)
    run = room.play("--check", "--diff", gatecontrol_state="absent").ok()
    assert all(run.changed(host) for host in room.hosts)
    assert look(room) == before


def test_absent_leaves_nothing(room):
    peers = room.peers()
    run = room.play(gatecontrol_state="absent").ok()
    for host in room.hosts:
        told = [entry["result"].get("msg", "") for entry in run.of(host)]
        assert any("stays on" in words and "id %d" % peers[host]["id"] in words for words in map(str, told)), told
    assert set(room.peers()) == set(room.hosts), "a client token cannot delete a peer"
    for host, lines in look(room).items():
        left = [line for line in lines if re.search(r"gatecontrol|wg0|wg-quick@wg0|10\.86\.", line)]
        assert [line for line in left if "gatecontrol-test-ca.pem" not in line] == [], host
        assert any(line.startswith("wireguard-tools ") for line in lines), "packages stay"
        assert room.gateway not in room.on(host, "cat /etc/resolv.conf")
    again = room.play(gatecontrol_state="absent").ok()
    assert not any(again.changed(host) for host in room.hosts)


def test_with_a_peers_token_the_peer_goes_too(room):
    room.unenroll()
    before = look(room)
    with command_lines() as commands:
        room.play().ok()
    for word in (room.mark, "wg-quick up", "sudo"):
        assert any(word in line for line in commands), "nothing was seen of " + word
    secrets = secrets_of(room)
    assert [line for line in commands if any(secret in line for secret in secrets)] == [], "a secret on a command line"
    assert set(room.peers()) == set(room.hosts)
    room.play(gatecontrol_state="absent", gatecontrol_peers_token=room.token("controller", "peers")).ok()
    assert room.peers() == {}
    after = look(room)
    assert {host: sorted(set(before[host]) ^ set(after[host])) for host in room.hosts} == {host: [] for host in room.hosts}
    for host in room.hosts:
        room.give(host)
    room.play().ok()
