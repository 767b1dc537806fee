# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clock against the host's own record."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _clock

NOW = 1_795_450_800.0
DAY = 86400
TIMES = st.floats(0, 4e9)


@pytest.mark.parametrize(
    "seconds, words",
    [
        (61, "61 s"),
        (119, "119 s"),
        (120, "2 minutes"),
        (7199, "119 minutes"),
        (2 * 3600, "2 hours"),
        (217 * DAY + 5, "217 days"),
        (DAY, "24 hours"),
    ],
)
def test_a_span_is_told_in_a_persons_unit(seconds, words):
    assert _clock.span(seconds) == words
    assert _clock.told({"clock": NOW}, NOW - seconds) == "the clock is %s behind this host's own last record" % words


@pytest.mark.parametrize("state", [{}, {"clock": NOW}, {"clock": 0, "last_beat": NOW}, {"clock": NOW + 60}])
def test_a_clock_that_is_right_is_not_spoken_of(state):
    assert _clock.told(state, NOW) is None and _clock.behind(state, NOW) == 0


def test_the_last_beat_stands_in_for_a_record_that_is_not_there_yet():
    assert _clock.behind({"last_beat": NOW}, NOW - DAY) == DAY


@pytest.mark.parametrize(
    "then, age",
    [(NOW, 0), (NOW - 5.5, 5), (NOW + 5, 0), (NOW + 60, 0), (NOW + 61, None), (NOW + 1e9, None), (0, int(NOW))],
)
def test_no_age_is_negative(then, age):
    assert _clock.age(then, NOW) == age


@given(TIMES, TIMES)
def test_ages_of_any_times(then, now):
    assert _clock.age(then, now) is None or _clock.age(then, now) >= 0
    assert _clock.behind({"clock": then}, now) >= 0


@pytest.mark.parametrize(
    "known, now, server, record",
    [
        (0, NOW, None, NOW),
        (NOW, NOW + 60, NOW + 61, NOW + 60),
        (NOW, NOW - 3600, NOW - 3600, NOW),  # put back by a time server, an hour
        (NOW, NOW + 400 * DAY, NOW + 60, NOW),  # a clock in the future is not believed
        (NOW + 400 * DAY, NOW, NOW, NOW),  # nor the record of one, once the server contradicts it
        (NOW, NOW - 217 * DAY, NOW + 5, NOW),  # a clock in the past changes nothing
        (NOW, NOW - 217 * DAY, None, NOW),
        (NOW, NOW + 60, NOW - 3 * DAY, NOW - 3 * DAY),
    ],
)
def test_the_record(known, now, server, record):
    assert _clock.noted({"clock": known}, now, server) == record


@given(TIMES, st.lists(st.tuples(st.floats(0, 400), st.floats(-DAY / 2, DAY / 2)), max_size=20))
def test_the_record_only_grows_while_the_server_agrees(start, steps):
    state, real = {"clock": start}, start
    for passed, wrong in steps:
        real += passed
        before = state["clock"]
        state["clock"] = _clock.noted(state, real + wrong, real)
        assert state["clock"] >= before


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "x",
        "Tue",
        "Tue, 01 Foo 2026 06:00:00 GMT",
        "9" * 100000,
        "Tue, 99 Dec 99999999 06:00:00 GMT",
        "\x00",
        "01 Dec 0000 00:00",
    ],
)
def test_a_date_of_another_form_is_none(header):
    said = _clock.server_time(header)
    assert said is None or isinstance(said, float)


def test_a_date_is_read():
    assert _clock.server_time(email.utils.formatdate(NOW, usegmt=True)) == NOW
    assert _clock.server_time("nonsense") is None


@given(st.text(max_size=40))
def test_no_date_raises(header):
    _clock.server_time(header)


def test_at_boot_the_clock_is_set_forward_and_never_back():
    told = []
    assert _clock.set_forward({"clock": NOW}, NOW - 217 * DAY, told.append) == (
        "the clock is 217 days behind this host's own last record, and was set forward to it"
    )
    assert told == [NOW]
    for ahead in (0, 30, -30, 400 * DAY):
        assert _clock.set_forward({"clock": NOW}, NOW + ahead, told.append) is None
    assert _clock.set_forward({}, NOW, told.append) is None and told == [NOW]

    def refuse(_seconds):
        raise PermissionError(1, "Operation not permitted")

    assert _clock.set_forward({"clock": NOW}, NOW - DAY, refuse) is None, "in a container"
