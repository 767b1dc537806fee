# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a beat does where the tunnel is dead or the clock wrong: endpoints follow names, and times are told as they are."""

from __future__ import annotations

import time

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _api, _beat, _cli, _drift, _way

DAY = 86400
NAME = "vpn.example.com"  # the endpoint that the server issues


def endpoint(host):
    return next(iter(host.links["wg0"]["peers"].values()))["endpoint"]


def wg_sets(host):
    """The endpoints that wg was told outside a change of the config."""
    return [argv for argv in host.ran if argv[:2] == ["wg", "set"]]


@pytest.fixture
def watched(host):
    """The host, with what it runs written down."""
    host.ran, run = [], host.run

    def written(argv, stdin=None):
        host.ran.append(argv)
        if argv[:2] == ["wg", "set"] and "endpoint" in argv:
            host.links["wg0"]["peers"][argv[4]]["endpoint"] = argv[6]
            return 0, "", ""
        return run(argv, stdin)

    host.run = written
    return host


def test_a_dead_endpoint_follows_its_name_and_a_living_one_is_left_alone(watched):
    watched.names[NAME] = ["203.0.113.9"]
    watched.beat(check=False)
    watched.beat()
    assert not wg_sets(watched), "the tunnel lives"
    watched.silence()
    watched.pass_by(200, handshake=False)
    watched.beat(check=False)
    assert not wg_sets(watched), "what proves a change moves nothing"
    shown = watched.beat()
    (told,) = wg_sets(watched)
    assert (
        told[2] == "wg0"
        and told[-2:] == ["endpoint", "203.0.113.9:51820"]
        and endpoint(watched) == "203.0.113.9:51820"
        and shown["error"] is None
    )
    watched.beat()
    assert len(wg_sets(watched)) == 1, "it is there already"
    watched.names.clear()
    assert watched.beat()["error"] is None and len(wg_sets(watched)) == 1, "nobody knows the name"


def test_an_endpoint_that_cannot_be_moved_is_an_error_and_the_beat_goes_on(watched):
    run = watched.run
    watched.run = lambda argv, stdin=None: (
        (1, "", "Unable to modify interface: Operation not permitted")
        if argv[:2] == ["wg", "set"]
        else run(argv, stdin)
    )
    watched.names[NAME] = ["203.0.113.9"]
    watched.silence()
    watched.pass_by(200, handshake=False)
    shown = watched.beat()
    assert shown["error"]["kind"] == "tunnel" and "the endpoint could not be moved: wg set" in shown["error"]["text"]
    assert shown["last_beat"] == watched.now() == shown["last_check"]


def test_a_request_that_left_beside_the_tunnel_moves_the_endpoint_at_once(watched, monkeypatch):
    watched.names[NAME] = ["203.0.113.9"]
    real = _way.Way.dial

    def dial(way, *words):
        connected = real(way, *words)
        way.went_beside = True
        return connected

    monkeypatch.setattr(_way.Way, "dial", dial)
    watched.beat()
    assert len(wg_sets(watched)) == 1


def test_what_proves_a_tunnel_goes_through_it(gate, host, monkeypatch):
    asked = []
    monkeypatch.setattr(
        _way.Way, "dial", lambda *words: asked.append(words) or (none for none in ()).throw(OSError("beside"))
    )
    assert host.agent().prove() is None and not asked and gate.calls() == ["heartbeat"]
    assert host.beat()["error"]["kind"] == "network" and asked


def test_where_the_server_answered_is_kept_by_its_name_only(host, monkeypatch):
    host.beat()
    assert "server" not in host.agent().memory(), "an address needs none"
    monkeypatch.setattr(_way.Way, "reached", lambda _way: {"host": "gate.example", "addresses": "192.0.2.1 192.0.2.2"})
    host.beat()
    assert host.agent().memory()["server"] == {"host": "gate.example", "addresses": "192.0.2.1 192.0.2.2"}
    for damaged in ({"host": 1, "addresses": ""}, {"host": "gate.example"}, [], "x"):
        host.store.save("state", dict(host.agent().memory(), server=damaged))
        assert "server" not in host.agent().memory()
        host.beat(check=False)


# ---------------------------------------------------------------- the clock


def test_a_clock_that_went_back_is_told_by_name_and_size(gate, host, monkeypatch):
    host.beat()
    monkeypatch.setattr(time, "time", host.now)
    host.time -= 217 * DAY + 3600
    gate.fault("drop", count=9)
    shown = host.beat()
    words = "the clock is 217 days behind this host's own last record"
    assert shown["error"]["kind"] == "network" and shown["error"]["text"].endswith("; %s: set it" % words)
    assert (
        217 * DAY < shown["clock_behind"] <= 217 * DAY + 3600
        and shown["handshake_age"] is None
        and shown["status"] == "reconnecting"
    )
    text = _cli.described(host.agent().show())
    assert "clock   %s: set it" % words in text and "answered at a time that this clock has yet to come to" in text
    assert " -" not in text.replace(" - ", ""), text
    assert "gatecontrol_clock_behind_seconds" in _cli.metrics(shown) and " -" not in _cli.metrics(shown)
    asked = _drift.Comparison(host.agent(), {})
    assert words in asked.server(host.agent().memory())["error"]["text"] and words in asked.drift[0]
    gate.server.no_faults()
    host.beat(check=False)
    assert host.beat()["clock_behind"] > 217 * DAY, "an answer does not make a wrong clock right"
    host.time += 217 * DAY + 3600
    assert host.beat()["clock_behind"] == 0 and "clock " not in _cli.described(host.agent().show())


def test_a_certificate_that_is_not_valid_yet_is_explained(host):
    host.beat()
    host.time -= 400 * DAY
    error = _api.ApiError(
        "no trusted connection to https://gate.example: certificate is not yet valid; check its certificate and gatecontrol_ca_path",
        "tls",
    )
    assert (
        _beat.explained(host.agent(), error)
        == "%s; the clock is 400 days behind this host's own last record: set it" % error
    )
    assert _beat.explained(host.agent(), _api.ApiError("no", "auth")) == "no", "a refusal has other reasons"


def test_the_record_of_the_time_grows_with_answers_only(gate, host):
    host.beat()
    first = host.agent().memory()["clock"]
    assert first == host.now()
    gate.fault("status", "heartbeat", status=500, count=20)
    host.pass_by(60)
    host.beat()
    assert host.agent().memory()["clock"] == first
    gate.server.no_faults()
    host.beat()
    assert host.agent().memory()["clock"] == host.now() > first
    host.pass_by(400 * DAY)  # the server's Date says otherwise
    host.beat()
    assert host.agent().memory()["clock"] < host.now() - 300 * DAY


def test_boot_sets_a_clock_forward(host, monkeypatch):
    host.beat()
    told = []
    monkeypatch.setattr(time, "clock_settime", lambda clock, seconds: told.append((clock, seconds)))
    record = host.agent().memory()["clock"]
    assert _cli.command(host.store, host.run, "recover", []) == (0, None) and not told
    monkeypatch.setattr(time, "time", lambda: record - 217 * DAY)
    assert _cli.command(host.store, host.run, "restore", [])[0] == 0 and not told, "the host was not booted"
    words = "the clock is 217 days behind this host's own last record, and was set forward to it"
    assert _cli.command(host.store, host.run, "recover", []) == (0, words) and told == [(time.CLOCK_REALTIME, record)]
