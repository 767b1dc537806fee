"""The state of a host, and the report's three forms."""
from __future__ import annotations

import html.parser
import json
import pathlib
import re

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.callmetechie.gatecontrol.plugins.filter import gatecontrol_report as report

NOW = 1_800_000_000
TEMPLATE = (pathlib.Path(__file__).parents[4] / "playbooks/templates/report.html.j2").read_text()
NOT_ENROLLED = "this host is not enrolled; run the play with a secret for it"


def seen(**values):
    """What gatecontrol_host_info gives of an enrolled host that is as it should be, but for these values."""
    return dict({
        "in_sync": True, "drift": [], "enrolled": True, "peer_id": 5, "peer_name": "web", "url": "https://gate.example.com", "reporting": "full",
        "status": "connected", "handshake_age": 20, "rx_bytes": 2048, "tx_bytes": 300, "peer_enabled": True, "last_beat": NOW - 7, "now": NOW,
        "error": None, "verdict": None, "pending": False, "host": {"distribution": "debian", "version": "13"}, "changed": False}, **values)


def peer(number=5, **values):
    """A peer as the server lists it."""
    return dict({"id": number, "name": "web", "allowed_ips": "10.8.0.2/32", "enabled": 1, "latestHandshake": NOW - 50, "transferRx": 11, "transferTx": 22,
                 "privateKey": "a secret"}, **values)


def made(peers=None, **hosts):
    """The report on hosts by name, as hostvars hold what was seen of them."""
    return report.gatecontrol_report(list(hosts), {name: {report.SEEN: value} for name, value in hosts.items()}, peers, now=NOW)


def one(found=None, peers=None, **values):
    """The report's entry of one host."""
    return made(peers, web=seen(**values) if found is None else found)["hosts"][0]


ROLLED_BACK = {"ok": False, "reason": "no answer from the WireGuard peer"}
CASES = {
    "enrolled": ({}, "enrolled", []),
    "a change that was taken back, and is not wanted any more": ({"verdict": ROLLED_BACK}, "enrolled", []),
    "never enrolled": (
        {"in_sync": False, "enrolled": False, "drift": [NOT_ENROLLED, "the agent is missing"], "handshake_age": None}, "pending", [NOT_ENROLLED]),
    "first enrollment taken back": ({"in_sync": False, "enrolled": False, "drift": [NOT_ENROLLED], "verdict": ROLLED_BACK}, "rolled_back",
                                    [ROLLED_BACK["reason"], NOT_ENROLLED]),
    "change under way": ({"in_sync": False, "drift": ["a change of the tunnel is under way"], "pending": True}, "pending",
                         ["a change of the tunnel is under way"]),
    "taken back": ({"in_sync": False, "drift": ["the server has a new config"], "verdict": ROLLED_BACK}, "rolled_back",
                   [ROLLED_BACK["reason"], "the server has a new config"]),
    "drifted": ({"in_sync": False, "drift": ["wg0.conf was changed", "the agent's settings differ"]}, "drifted",
                ["wg0.conf was changed", "the agent's settings differ"]),
    "config refused": ({"in_sync": False, "drift": ["the server has a new config"], "error": {"kind": "config", "text": "PostUp is a hook"}}, "drifted",
                       ["the server has a new config", "PostUp is a hook"]),
    "server silent": ({"in_sync": False, "drift": ["the server: no answer"], "error": {"kind": "network", "text": "no answer"}}, "drifted",
                      ["the server: no answer"]),
    "an error of a beat that is over": ({"error": {"kind": "network", "text": "no answer"}}, "enrolled", []),
    "disabled": ({"peer_enabled": False}, "disabled", ["the administrator has disabled this peer"]),
    "disabled, therefore taken back": ({"peer_enabled": False, "in_sync": False, "drift": ["x"], "verdict": ROLLED_BACK}, "disabled",
                                       ["the administrator has disabled this peer"]),
    "does not tell whether it is enabled": ({"peer_enabled": None}, "enrolled", []),
    "a day without a handshake": ({"handshake_age": 86400}, "enrolled", []),
    "more than a day": ({"handshake_age": 3 * 86400}, "stale", ["the latest handshake was 3 d ago"]),
    "no handshake": ({"handshake_age": None}, "stale", ["no handshake yet"]),
    "stale and drifted": ({"handshake_age": None, "in_sync": False, "drift": ["wg0 is missing"]}, "drifted", ["wg0 is missing"]),
    "meant to be away": ({"enrolled": False, "peer_id": None, "handshake_age": None}, "absent", []),
}


@pytest.mark.parametrize("case", CASES)
def test_state_of_a_host(case):
    values, state, reasons = CASES[case]
    found = one(**values)
    assert (found["state"], found["reasons"]) == (state, reasons)


def test_every_state_is_met():
    assert {state for _values, state, _reasons in CASES.values()} | {"unreachable"} == set(report.STATES)


@pytest.mark.parametrize("found", [
    {"unreachable": True, "msg": "Task failed: Failed to connect\n  to the host", "changed": False},
    {"failed": True, "msg": "Failed to connect to the host"}])
def test_a_host_without_an_answer_is_told_of_by_the_server(found):
    known = one(found, [peer(), peer(6, name="other")])
    assert (known["state"], known["reasons"]) == ("unreachable", ["Failed to connect to the host"])
    assert (known["peer_id"], known["address"], known["handshake_age"]) == (5, "10.8.0.2", 50)
    assert (known["rx_bytes"], known["tx_bytes"]) == (22, 11)  # what the server sent, the host received
    assert known["tunnel"] is None and known["beat_age"] is None
    alone = one(found)
    assert alone["state"] == "unreachable" and {alone[key] for key in ("peer_id", "address", "handshake_age", "rx_bytes", "enabled")} == {None}
    assert one({})["reasons"] == ["it was not asked"]


def test_bytes_of_a_host_that_is_not_enrolled_are_those_of_no_peer():
    assert (one(in_sync=False, enrolled=False, peer_id=None, drift=[NOT_ENROLLED], rx_bytes=0)["rx_bytes"]) is None


def test_the_server_knows_better_whether_a_peer_is_enabled():
    assert one(peers=[peer(enabled=0)])["state"] == "disabled"
    assert one(peers=[peer()], peer_enabled=False)["state"] == "enrolled"
    assert one(peers=[peer(7, enabled=0)])["state"] == "enrolled", "another peer of the same name"


def test_a_peer_is_found_by_its_number_and_else_by_its_name():
    hostvars = {"a": {report.SEEN: seen(peer_id=6)}, "b": {report.SEEN: {"msg": "gone"}, "gatecontrol_name": "called"}, "c": {report.SEEN: {"msg": "gone"}}}
    peers = [peer(6, name="x", allowed_ips="10.8.0.6/32"), peer(7, name="called"), peer(8, name="c"), peer(9, name="left", latestHandshake=0),
             peer(10, name="companion", peer_type="gateway")]
    found = report.gatecontrol_report("abc", hostvars, peers, now=NOW)
    assert {known["host"]: known["peer_id"] for known in found["hosts"]} == {"a": 6, "b": 7, "c": 8}
    assert found["peers_without_host"] == [
        {"id": 9, "name": "left", "address": "10.8.0.2", "enabled": True, "expires_at": None, "handshake_age": None}]


def test_the_report_counts_and_puts_the_worst_first():
    found = made(a=seen(), b=seen(in_sync=False, drift=["x"]), c={"unreachable": True, "msg": "no"}, d=seen(), e=seen(in_sync=False, drift=["x"]))
    assert [known["host"] for known in found["hosts"]] == ["c", "b", "e", "a", "d"]
    assert found["counts"] == dict(dict.fromkeys(report.STATES, 0), enrolled=2, drifted=2, unreachable=1)
    assert found["attention"] == 3 and found["failing"] == ["c", "b", "e"]
    assert found["time"] == "2027-01-15T08:00:00Z" and found["servers"] == ["https://gate.example.com"] and found["peers_without_host"] is None
    assert json.loads(json.dumps(found)) == found


def test_which_states_fail_can_be_chosen():
    hostvars = {"a": {report.SEEN: seen(in_sync=False, drift=["x"])}, "b": {report.SEEN: {"msg": "no"}}}
    for states, failing in ((["drifted"], ["a"]), ([], []), (["unreachable", "enrolled"], ["b"])):
        assert report.gatecontrol_report(hostvars, hostvars, fail_on=states, now=NOW)["failing"] == failing
    with pytest.raises(AnsibleFilterError, match="rolledback is no state of a host; take some of unreachable, rolled_back"):
        report.gatecontrol_report(hostvars, hostvars, fail_on=["rolledback"])


def test_stale_is_what_the_user_says():
    hostvars = {"a": {report.SEEN: seen(handshake_age=301)}}
    assert [report.gatecontrol_report(hostvars, hostvars, stale_after=limit, now=NOW)["hosts"][0]["state"] for limit in (300, "301")] == ["stale", "enrolled"]


@pytest.mark.parametrize("seconds, text", [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172800, "2 d")])
def test_duration(seconds, text):
    assert report.duration(seconds) == text


@pytest.mark.parametrize("count, text", [
    (0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1048576, "1.0 MiB"), (5 * 2 ** 40, "5.0 TiB"), (2 ** 52, "4096.0 TiB")])
def test_size(count, text):
    assert report.size(count) == text


def test_table():
    found = made([peer(), peer(9)], web=seen(), **{"long-name": {"unreachable": True, "msg": "no " * 100}}, new=seen(
        in_sync=False, enrolled=False, peer_id=None, drift=[NOT_ENROLLED], handshake_age=None, rx_bytes=0), cut=seen(in_sync=False, drift=["x", "y", "z"]))
    lines = report.gatecontrol_table(found, 100)
    assert [line.split()[:2] for line in lines[:5]] == [
        ["host", "state"], ["web", "enrolled"], ["new", "pending"], ["cut", "drifted"], ["long-name", "unreachable"]]
    assert re.split("  +", lines[1]) == ["web", "enrolled", "web (5)", "connected", "20 s", "2.0 KiB", "300 B"]
    assert lines[3].endswith("x (and 2 more)")
    assert lines[4].endswith("…") and {len(line) > 100 for line in lines} == {False}
    assert lines[5:] == ["", "hosts: 4 (1 unreachable, 1 drifted, 1 pending, 1 enrolled)",
                         "peers on the server that no host of this report has: 1"]
    assert len({line.index(word) for line, word in zip(lines, ("state", "enrolled", "pending", "drifted", "unreachable"))}) == 1


def test_table_of_no_host_and_of_a_server_that_was_silent():
    assert report.gatecontrol_table(report.gatecontrol_report([], {}, server_error="no answer"))[1:] == [
        "", "hosts: 0", "the server was not asked for its peers: no answer"]


class Page(html.parser.HTMLParser):
    """The elements of a page with their attributes, and its texts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open += [tag] * (tag not in ("meta", "input"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def page(found):
    parsed = Page(report.gatecontrol_page(found, TEMPLATE))
    assert parsed.open == []
    return parsed


def full(word="web"):
    """A report that has something in every field, with a word in each text from outside."""
    hostvars = {word: {report.SEEN: seen(
        in_sync=False, peer_name=word, status=word, drift=[word, word], url=word, host={"distribution": word, "version": word}, reporting=word)}}
    peers = [peer(name=word, allowed_ips=word, expires_at=word), peer(9, name=word, allowed_ips=word, expires_at=word)]
    return report.gatecontrol_report(hostvars, hostvars, peers, server_error=word, now=NOW)


def test_page_escapes_what_hosts_and_server_say():
    evil = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}&amp;"
    plain, parsed = page(full()), page(full(evil))
    assert [tag for tag, _attributes in parsed.elements] == [tag for tag, _attributes in plain.elements]
    assert [sorted(attributes) for _tag, attributes in parsed.elements] == [sorted(attributes) for _tag, attributes in plain.elements]
    assert "".join(parsed.texts).count(evil) >= 9 and "".join(parsed.texts).count("{{ 7 * 7 }}") >= 9


def test_page_is_self_contained_and_tells_no_secret():
    text = report.gatecontrol_page(full(), TEMPLATE)
    parsed = Page(text)
    assert not {"link", "img", "iframe"} & {tag for tag, _attributes in parsed.elements}
    assert not [attributes for _tag, attributes in parsed.elements if {"src", "href"} & set(attributes)]
    assert "url(" not in text and "@import" not in text and "a secret" not in text


def test_page_shows_every_host_and_count():
    found = made([peer(), peer(9, name="left")], web=seen(), off={"unreachable": True, "msg": "no way"}, new=seen(
        in_sync=False, enrolled=False, peer_id=None, drift=[NOT_ENROLLED], handshake_age=None, last_beat=None))
    parsed = page(found)
    rows = [attributes["data-state"] for tag, attributes in parsed.elements if tag == "tr" and "data-state" in attributes]
    assert rows == ["unreachable", "pending", "enrolled"]
    tiles = {attributes["data-state"]: "disabled" in attributes for tag, attributes in parsed.elements if tag == "button"}
    assert tiles == {state: state not in rows for state in report.STATES if state != "absent"}
    text = " ".join(" ".join(parsed.texts).split())
    for words in ("2 hosts need attention.", "no way", NOT_ENROLLED, "20 s ago", "2.0 KiB", "debian 13", "7 s ago", "10.8.0.2, id 5",
                  "Peers on the server that no host of this report has: 1"):
        assert words in text
    assert "Every host is as it should be." in " ".join(page(made(web=seen())).texts)
    assert "No host was asked." in " ".join(page(made()).texts)
