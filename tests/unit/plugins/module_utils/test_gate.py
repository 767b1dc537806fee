"""The gate: whatever a host says, what comes through has the schema's form, and nothing raises but Refused."""

from __future__ import annotations

import json
import pathlib
import sys
import unicodedata

import pytest
import yaml
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _gate, _said, _verify
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "action"))

from connections import ANSWER, HASH  # noqa: E402

CHECKOUT = pathlib.Path(__file__).resolve().parents[4]
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=True, allow_infinity=True), st.integers(10**30, 10**31), st.booleans())
NAMES = st.sampled_from([*_said.VERIFY, *_said.COMMON, "ansible_facts", "_ansible_no_log", "x"])
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, st.text(max_size=8), st.characters().map(lambda one: one * 3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(NAMES, st.text(max_size=5)), inner, max_size=4)),
    max_leaves=10,
)
BIDI = "\u202e\u2066\u200b\u2028\u0085\x1b\x9b\x07\x00\r"


def texts(value):
    """Every text and key in a value."""
    if isinstance(value, dict):
        return [text for key, inner in value.items() for text in [key, *texts(inner)]]
    if isinstance(value, (list, tuple)):
        return [text for inner in value for text in texts(inner)]
    return [value] if isinstance(value, str) else []


def test_a_whole_answer_comes_through_as_it_is():
    assert _said.VERIFY_ANSWER(dict(ANSWER, proof=HASH)) == dict(ANSWER, proof=HASH)


@unhurried
@given(st.dictionaries(NAMES, VALUES, max_size=6), st.dictionaries(st.sampled_from([*ANSWER["host"], "x"]), VALUES, max_size=4))
def test_whatever_an_answer_holds_what_comes_through_is_of_the_schema(keys, host):
    try:
        found = _said.VERIFY_ANSWER(dict(ANSWER, **dict({"host": dict(ANSWER["host"], **host)}, **keys)))
    except _gate.Refused as err:
        assert not any(mark in str(err) for mark in BIDI)
        return
    assert set(found) <= set(_said.VERIFY) and set(found["host"]) <= set(ANSWER["host"]) and found["host"]["system"] in ("linux", "macos", "windows")
    assert _said.VERIFY_ANSWER(found) == found and not any(mark in text for text in texts(found) for mark in BIDI)
    json.dumps(found, allow_nan=False)


@unhurried
@given(
    st.sampled_from(sorted(_said.MODULES)),
    st.one_of(
        VALUES,
        st.dictionaries(
            st.sampled_from(
                sorted({name for fields in _said.MODULES.values() for name in fields} | {*_said.COMMON, "ansible_facts", "add_host", "_ansible_x"})
            ),
            VALUES,
        ),
    ),
)
def test_whatever_a_module_says_its_result_is_of_its_schema(name, answer):
    found = _said.result(name, answer, _said.MODULES[name])
    assert set(found) <= {*_said.MODULES[name], *_said.COMMON, *_said.TROUBLE} and found.get("changed", False) in (True, False)
    shown = {key: value for key, value in found.items() if key not in ("config", "files", "diff", *_said.TROUBLE)}
    assert not any(mark in text for text in texts(shown) for mark in BIDI)


@pytest.mark.parametrize("name", sorted(_said.MODULES))
def test_the_schema_of_a_module_is_what_its_documentation_says_it_returns(name):
    text = (CHECKOUT / "plugins/modules" / (name + ".py")).read_text("utf-8")
    documented = set(yaml.safe_load(text.split('RETURN = r"""')[1].split('"""')[0]))
    made_here = {"asked"} | ({"failing", "lines", "ok"} if name == "gatecontrol_host_check" else set())  # by the action, of what came through
    assert documented - made_here - set(_said.COMMON) == set(_said.MODULES[name]) - {"proof"}


@unhurried
@given(st.text(), st.integers(1, 40))
def test_a_cleaned_text_is_one_line_of_seen_characters_within_its_bound(text, most):
    found = _gate.clean(text, most)
    assert len(found) <= most and not any(unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn") for one in found)
    assert _gate.clean(found, most) == found


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a\x1b[31mb\x1b[0m", "ab"),
        ("\x1b]0;title\x07x", "x"),
        ("\x9b31mx", "x"),
        ("a\r\nb\tc", "a b c"),
        ("\u202ex\u2066", "x"),
        ("Grüße, 世界", "Grüße, 世界"),
        ("\x1bP1;2|x\x1b\\y", "y"),
        ("{{ x }}", "{{ x }}"),
        ("a\ud800b", "a b"),
        ("", ""),
    ],
)
def test_what_is_shown_of_a_text(text, shown):
    assert _gate.clean(text) == shown


def test_lines_stay_lines_in_a_diff():
    assert _gate.clean_lines("a\r\n\tb\x1b[2J\n\u2028c") == "a\n\tb\nc"


MARKER = _verify.MARKER


def test_one_answer_counts_and_two_are_refused():
    assert (
        _gate.marked("", MARKER) is None
        and _gate.marked("x\n", MARKER) is None
        and _gate.marked('banner\n%s{"a": 1}\r\nbye\n' % MARKER, MARKER) == {"a": 1}
    )
    assert _gate.marked('%s[1]\n%s{\n%s{"a": 1}\n' % ((MARKER,) * 3), MARKER) == {"a": 1}
    for second in ('{"a": 1}', '{"a": 2}', "{}"):
        with pytest.raises(_gate.Refused, match="twice"):
            _gate.marked('%s{"a": 1}\n%s%s\n' % (MARKER, MARKER, second), MARKER)


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "9" * 21,
        '{"a": 1, "a": 2}',
        "[" * 13 + "]" * 13,
        "[" * 100000,
        '{"a":' * 50000,
        "{",
        "",
        '"' + "x" * 300000 + '"',
        "\x00",
    ],
)
def test_json_that_is_refused(text):
    with pytest.raises(_gate.Refused):
        _gate.loads(text)


@pytest.mark.parametrize(
    "text, value",
    [
        ('"[[[[[[[[[[[[[[[[{"', "[[[[[[[[[[[[[[[[{"),
        ("[" * 12 + "]" * 12, None),
        ('{"a": "\\"[[[[[[[[[[[[[["}', {"a": '"[[[[[[[[[[[[[['}),
        ("1.5", 1.5),
    ],
)
def test_json_that_is_taken(text, value):
    assert value is None and _gate.loads(text) or _gate.loads(text) == value


def test_the_gate_stays_on_the_controller():
    assert not {"_gate", "_said"} & set(_verify.MODULES)
