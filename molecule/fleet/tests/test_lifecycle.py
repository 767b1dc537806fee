"""Rotation, retirement, machines that live for minutes, and runs that are killed: never a second peer, never a token that is left."""
from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request

import pytest
from scenario import CHECKOUT, until

OLD = ".pre-rotation"  # ends the name of the peer that a rotation replaces


def begin(room, book, hosts, *words, **options):
    """Begin one of the collection's playbooks for hosts; the 5 logins that are allowed in 15 minutes would not do for all that happens here."""
    room.ask("reset")
    if book == "ephemeral":
        options["gatecontrol_hosts"] = "all"
    return room.start(*words, playbook=CHECKOUT / "playbooks" / (book + ".yml"), limit=hosts, **options)


def play(room, book, hosts, *words, **options):
    """The whole run."""
    return room.finish(begin(room, book, hosts, *words, **options))


def minted(room) -> list:
    """(name, number of the peer) of every token that a play made."""
    return sorted((token["name"], token["peer_id"]) for token in room.tokens() if token["name"].startswith("ansible: "))


def accepted(room, token) -> bool:
    """Whether the server takes a client token."""
    request = urllib.request.Request(room.url + "/api/v1/client/ping", headers={"Authorization": "Bearer " + token})
    try:
        urllib.request.urlopen(request, timeout=30, context=ssl.create_default_context(cafile=str(room.folder / "tls/ca.pem"))).close()
    except urllib.error.HTTPError as answer:
        assert answer.code == 401
        return False
    return True


def token_of(room, host) -> str:
    return room.on(host, "cat /etc/gatecontrol/token").strip()


def settled(room, hosts) -> None:
    """The fleet is whole, and these hosts have nothing to be done."""
    again = room.play(limit=hosts).ok()
    assert {host: again.changed(host) + again.seen(host)["drift"] for host in hosts} == {host: [] for host in hosts}
    room.settled()
    peers, tokens = room.peers(), minted(room)
    assert all([number for name, number in tokens if name == "ansible: " + host] == [peers[host]["id"]] for host in hosts)


# ---------------------------------------------------------------- rotate

def test_tokens_are_rotated(room):
    hosts = room.hosts[:2]
    before, peers = {host: token_of(room, host) for host in hosts}, room.numbers()
    checked = play(room, "rotate", hosts, "--check").ok()
    assert {host: token_of(room, host) for host in hosts} == before and checked.changed(hosts[0])
    play(room, "rotate", hosts).ok()
    assert room.numbers() == peers
    assert not any(accepted(room, token) for token in before.values()) and all(accepted(room, token_of(room, host)) for host in hosts)
    settled(room, hosts)


def test_a_rotation_of_keys_that_is_killed_is_gone_on_with(room):
    host = room.hosts[0]
    old, token = room.peers()[host], token_of(room, host)
    assert play(room, "rotate", host, kill="after Have a peer", gatecontrol_rotate_keys=True).status == -9
    peers = room.peers()
    assert peers[host + OLD]["id"] == old["id"] and peers[host]["id"] != old["id"] and accepted(room, token)
    assert room.echo(host, 4096) == 4096, "the tunnel runs on, with the old keys"
    play(room, "rotate", host, gatecontrol_rotate_keys=True).ok()
    new = room.peers()[host]
    assert new["id"] == peers[host]["id"] and new["public_key"] != old["public_key"] and not accepted(room, token)
    assert room.echo(host, 4096) == 4096
    settled(room, [host])


# ---------------------------------------------------------------- retire, and what lives for minutes

def test_retire_refuses_more_than_its_share(room):
    hosts = room.hosts[-4:]
    room.ask("peer", action="add", peer="long-gone")
    before = set(room.peers()), minted(room)
    for words in ({"gatecontrol_retire_names": ["long-gone"]}, {}):
        refused = play(room, "retire", hosts, gatecontrol_hosts="all", **words)
        assert refused.status != 0 and "gatecontrol_retire_max_percent=20" in refused.text, refused.text
    assert (set(room.peers()), minted(room)) == before and all("wg0" in room.left(host) for host in hosts)


def test_retire_leaves_nothing(room, vacant):
    assert "long-gone" not in room.peers()
    assert {host: room.left(host) for host in vacant} == dict.fromkeys(vacant, "")
    assert not set(vacant) & set(room.peers())
    assert [name for name, _number in minted(room) if name[len("ansible: "):] in vacant] == ["ansible: " + vacant[-1]], "a peers token cannot revoke it"


@pytest.fixture(scope="module")
def vacant(room):
    """Four hosts that were retired: three by the administrator's login, the last one with a peers token. Afterwards they are enrolled again."""
    hosts = room.hosts[-4:]
    play(room, "retire", hosts[:3], gatecontrol_hosts="all", gatecontrol_retire_names=["long-gone"], gatecontrol_retire_max_percent=75).ok()
    left = play(room, "retire", hosts[3], gatecontrol_hosts="all", gatecontrol_peers_token=room.token("controller", "peers"), **room.NO_SECRET).ok()
    assert 'minted one is called "ansible: %s"' % hosts[3] in " ".join(left.text.split()), left.text
    yield hosts
    room.ask("reset")
    room.play(limit=hosts).ok()
    settled(room, hosts)


JOB = """
- name: Work
  ansible.builtin.shell: |
    wg show wg0 latest-handshakes | awk '$2 > 0 { print "handshake" }'
    systemctl is-active gatecontrol-beat.timer
    sed -n 's/.*"fields": *//p' /etc/gatecontrol/enrollment.json
    sleep {{ job_seconds | default(0) }}
  become: true
  register: job
  changed_when: false
  failed_when: job_fails | default(false)
"""


@pytest.fixture
def job(tmp_path):
    """What ephemeral.yml is to run."""
    (tmp_path / "job.yml").write_text(JOB)
    return {"gatecontrol_ephemeral_tasks": str(tmp_path / "job.yml")}


def test_a_machine_is_enrolled_for_its_job_with_any_one_secret(room, vacant, job):
    mark, room_peers = room.mark_log(), room.peers()
    bound = room.ask("peer", action="add", peer=vacant[3])[0]
    secrets = [{}, {"job_fails": True}, {"gatecontrol_peers_token": room.token("controller", "peers"), **room.NO_SECRET},
               {"gatecontrol_token": room.token(vacant[3], peer_id=bound["id"]), "gatecontrol_peer_id": bound["id"], **room.NO_SECRET}]
    begun = [begin(room, "ephemeral", host, **job, **secret) for host, secret in zip(vacant, secrets)]
    runs = [room.finish(one) for one in begun]
    assert [run.status == 0 for run in runs] == [True, False, True, True], "\n".join(run.text for run in runs)
    # Other runs of the role leave the fields of an ephemeral peer alone.
    said = [["handshake", timer, fields] for timer, fields in zip(["active", "active", "inactive", "active"], ['"ephemeral",'] * 3 + ["null,"])]
    assert [run.of(host, "Work")[0]["result"]["stdout_lines"] for run, host in zip(runs, vacant)] == said
    assert {host: room.left(host) for host in vacant} == dict.fromkeys(vacant, "")
    assert set(room.peers()) == set(room_peers) | {vacant[3]} and "id %d" % bound["id"] in runs[3].text, "it names the peer that stays"
    assert not [name for name, _number in minted(room) if name[len("ansible: "):] in vacant[:3]]
    made = [entry["body"] for entry in room.log(since=mark, method="POST", path="/api/v1/peers")]
    assert sorted(body["name"] for body in made) == sorted(vacant[:3]) and {body["tags"] for body in made} == {"ephemeral"}
    assert all(3000 < _seconds_from_now(body["expires_at"]) <= 3600 for body in made)
    room.ask("peer", action="delete", peer=vacant[3])
    room.revoke(vacant[3])


def _seconds_from_now(moment):
    return time.mktime(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")) - time.mktime(time.gmtime())


def test_a_job_that_is_killed_leaves_nothing_for_long(room, vacant, job):
    first, second = vacant[:2]
    begun = [begin(room, "ephemeral", host, **job, kill="during Work", job_seconds=60, gatecontrol_ephemeral_lifetime=60) for host in (first, second)]
    assert [room.finish(one).status for one in begun] == [-9, -9]
    left = {host: token_of(room, host) for host in (first, second)}
    assert {room.peers()[host]["tags"] for host in left} == {"ephemeral"}
    assert until(lambda: not any(accepted(room, token) for token in left.values()), 90), "the tokens end by themselves"
    assert until(lambda: room.ask("sweep") and not any(room.peers()[host]["enabled"] for host in left), 10), "the server disables the peers"
    # The next job, on a machine that the killed one left as it was, deletes what both left.
    play(room, "ephemeral", first, **job).ok()
    assert not set(left) & set(room.peers()) and not [name for name, _number in minted(room) if name[len("ansible: "):] in left]
    assert room.left(first) == "" and room.left(second)
    # The machine of the other one lived on; and there was a third one, whose job nothing followed.
    room.ask("peer", action="add", peer="third", values={"tags": "ephemeral"})
    room.ask("peer", action="expire", peer="third")
    play(room, "retire", second, gatecontrol_hosts="all", gatecontrol_expired=True).ok()
    assert "third" not in room.peers()
    assert room.left(second) == ""
