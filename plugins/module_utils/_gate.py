# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one gate for what a host says: read against a schema, everything that is not in it dropped. On the controller only. Pure.

A host's root may be anybody, so its answers are bounded before they are parsed, and no word of it is a path, a variable's name, a template or an
argument of a lookup on the controller: numbers, digests, names and words of a known form, and texts that are shown and nothing else.

A check takes a value and returns it clean; it raises Refused for a value that is not of its form.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import json
import re
import typing as t
import unicodedata

from . import _enrollment

Check = t.Callable[[t.Any], t.Any]

OUTPUT = 4 * 1024 * 1024  # characters of a command's output that are looked at; more is no answer
ANSWER = 256 * 1024  # characters of one answer of the agent, which has about 2,000
DEEP = 12  # levels of lists and objects
MODULE_DEEP = 40  # in what a module answers, which holds the play's own arguments
DIGITS, PLACES = 20, 40  # characters of a whole number, and of another one

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|\x9b[0-?]*[ -/]*[@-~]|\x9d[^\x07\x9c]*[\x07\x9c]?")
# Categories of characters that are not shown: controls, marks of direction and of no width, line and paragraph separators, surrogates, private, unassigned.
_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn")
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180e\u3164\uffa0"  # letters and marks that show nothing


class Refused(ValueError):
    """What a host said has not the form it must have. str: which part of it, never its value."""


# ---------------------------------------------------------------- texts


def _seen(text: str, kept: str, instead: str) -> str:
    """A text without ANSI sequences, and with `instead` for each character that is not shown, but those in `kept`."""
    text = _ANSI.sub("", text)
    if text.isprintable():
        return text
    return "".join(one if one in kept or (unicodedata.category(one) not in _UNSEEN and one not in _BLANK) else instead for one in text)


def clean(value: t.Any, most: int = 500) -> str:
    """A text of a host for a person, on one line: no control characters, no ANSI, at most `most` characters."""
    text = re.sub("  +", " ", _seen(str(value)[:most * 8], "", " ")).strip()
    return text if len(text) <= most else text[:most - 1] + "…"


def clean_lines(value: t.Any, most: int = 65536) -> str:
    """The same for a text of several lines, such as a diff."""
    text = _seen(str(value)[:most * 2].replace("\r\n", "\n"), "\t\n", "")
    return text if len(text) <= most else text[:most - 1] + "…"


# ---------------------------------------------------------------- JSON


def loads(text: str, most: int = ANSWER, deep: int = DEEP) -> t.Any:
    """The value of a JSON text within bounds. Raises Refused: for what is none, NaN, numbers of more than 20 digits, and a key that stands twice."""
    if len(text) > most:
        raise Refused(f"the answer is longer than {most} characters")
    try:
        return _enrollment.read_json(text, deep, DIGITS, PLACES, True)
    except (json.JSONDecodeError, RecursionError):
        raise Refused("the answer is not JSON") from None
    except ValueError as err:
        raise Refused(str(err)) from None


def result_text(output: str) -> str:
    """The object that a module printed, with what a shell prints around it left away; "" where there is none. Raises Refused for too long an output."""
    if len(output) > OUTPUT:
        raise Refused(f"it is longer than {OUTPUT} characters")
    found = re.search(r"^[ \t]*\{", output, re.MULTILINE)
    end = output.rfind("}")
    return output[found.start():end + 1].strip() if found and end > found.start() else ""


def marked(output: str, marker: str) -> dict[str, t.Any] | None:
    """The object in the one line of an output that begins with the marker; None where there is none, whatever a banner prints beside it.

    Raises Refused where two such lines hold an object: one of them is not the agent's, and nobody can say which.
    """
    if len(output) > OUTPUT:
        raise Refused(f"the output is longer than {OUTPUT} characters")
    found, reason = [], None
    for line in output.split("\n"):
        if line.startswith(marker):
            try:
                value = loads(line[len(marker):].strip())
            except Refused as err:
                reason = err
                continue
            if isinstance(value, dict):
                found.append(value)
    if len(found) > 1:
        raise Refused("the answer came twice")
    if reason and not found:
        raise reason
    return found[0] if found else None


# ---------------------------------------------------------------- checks


def flag(value: t.Any) -> bool:
    if isinstance(value, bool):
        return value
    raise Refused("is neither true nor false")


def integer(low: int, high: int) -> Check:
    """A whole number from low to high; PowerShell writes some as 4.0."""
    def check(value: t.Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high or value != int(value):
            raise Refused(f"is not a whole number from {low} to {high}")
        return int(value)
    return check


def number(low: float, high: float) -> Check:
    def check(value: t.Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise Refused(f"is not a number from {low:g} to {high:g}")
        return int(value) if isinstance(value, int) else float(value)
    return check


def word(*choices: str) -> Check:
    def check(value: t.Any) -> str:
        for choice in choices:
            if isinstance(value, str) and value == choice:
                return choice
        raise Refused("is not one of " + ", ".join(choices))
    return check


def pattern(regex: str, what: str) -> Check:
    """A text that the whole of regex matches; what: its name in the refusal."""
    compiled = re.compile(regex)

    def check(value: t.Any) -> str:
        if isinstance(value, str) and len(value) <= 4096 and compiled.fullmatch(value):
            return str(value)
        raise Refused(f"is not {what}")
    return check


def text(most: int = 500) -> Check:
    """A text that is shown, and nothing else."""
    def check(value: t.Any) -> str:
        if not isinstance(value, str):
            raise Refused("is not a text")
        return clean(value, most)
    return check


def opaque(most: int) -> Check:
    """A text that is handed on as it is, such as a config."""
    def check(value: t.Any) -> str:
        if not isinstance(value, str) or len(value) > most:
            raise Refused(f"is not a text of at most {most} characters")
        return str(value)
    return check


def optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def listing(check: Check, most: int = 100) -> Check:
    """A list; what follows after `most` entries is left out."""
    def checked(value: t.Any) -> list[t.Any]:
        if not isinstance(value, (list, tuple)):
            raise Refused("is not a list")
        return [check(entry) for entry in value[:most]]
    return checked


def record(fields: dict[str, Check], required: tuple[str, ...] = ()) -> Check:
    """A dictionary of these fields; other keys are dropped. One that is not of its form refuses the whole."""
    def check(value: t.Any) -> dict[str, t.Any]:
        if not isinstance(value, dict):
            raise Refused("is not a dictionary")
        found = {}
        for name, field in fields.items():
            if name in value:
                try:
                    found[name] = field(value[name])
                except Refused as err:
                    raise Refused(f"{name} {err}") from None
        for name in required:
            if name not in found:
                raise Refused(f"{name} is missing")
        return found
    return check


def table(check: Check, most: int = 100) -> Check:
    """A dictionary whose keys are plain words: those that are not, and those after `most`, are left out."""
    def checked(value: t.Any) -> dict[str, t.Any]:
        if not isinstance(value, dict):
            raise Refused("is not a dictionary")
        names = [name for name in value if isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", name)]
        return {str(name): check(value[name]) for name in names[:most]}
    return checked


def data(deep: int = 4, most: int = 4096, as_it_is: bool = False) -> Check:
    """Anything that JSON has: what a server lists, which no schema of this collection names. Its texts are clean, but for what is handed on as it is."""
    def check(value: t.Any) -> t.Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (int, float)) and abs(value) < 10 ** DIGITS:
            return int(value) if isinstance(value, int) else float(value)
        if isinstance(value, str):
            return opaque(most)(value) if as_it_is else clean(value, most)
        if deep and isinstance(value, dict):
            return table(data(deep - 1, most, as_it_is), 200)(value)
        if deep and isinstance(value, (list, tuple)):
            return listing(data(deep - 1, most, as_it_is), 10000)(value)
        raise Refused("is not of a form that is taken")
    return check
