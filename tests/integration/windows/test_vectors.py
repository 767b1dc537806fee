"""The agent's two languages do the same: tables and generated vectors are played through both and compared byte for byte."""
from __future__ import annotations

import collections
import json
import os
import pathlib
import subprocess
import sys

import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
VECTORS = CHECKOUT / "tests/vectors"
sys.path[:0] = [str(CHECKOUT / "tests"), str(VECTORS)]

import generate  # noqa: E402
import powershell  # noqa: E402

COUNT = int(os.environ.get("GATECONTROL_VECTORS", "200"))  # generated ones; the seed changes with their number
pytestmark = pytest.mark.skipif(not powershell.SHELLS, reason=powershell.NOT_RUN)


def tables() -> list[dict]:
    """The vectors of all tables, by name: each has an answer that both must give."""
    found = []
    for path in sorted(VECTORS.glob("*.json")):
        table = json.loads(generate.filled(path.read_text(encoding="utf-8")))
        if "vectors" in table:
            found += [dict(vector, id="%s: %s" % (path.stem, vector["id"]), op=table["op"]) for vector in table["vectors"]]
        elif "proofs" in table:
            found += [{"id": "proof: %d" % number, "op": "proof", "args": {name: entry[name] for name in ("private_key", "challenge")}, "ok": entry["proof"]}
                      for number, entry in enumerate(table["proofs"])]
    return found


def play(vectors: list[dict], *words: str) -> dict[str, str]:
    """{id: the line that was answered}"""
    lines = "".join(json.dumps({name: vector[name] for name in ("id", "op", "args")}) + "\n" for vector in vectors)
    done = subprocess.run([sys.executable, str(VECTORS / "play.py"), *words], input=lines, capture_output=True, text=True, check=False, timeout=1500,
                          env=dict(os.environ, DOTNET_TieredPGO="0"))
    assert done.returncode == 0, done.stderr
    return {json.loads(line)["id"]: line for line in done.stdout.splitlines()}


@pytest.fixture(scope="module")
def vectors() -> list[dict]:
    return tables() + generate.vectors(COUNT, COUNT)


@pytest.fixture(scope="module")
def python(vectors: list[dict]) -> dict[str, str]:
    return play(vectors, "python")


@pytest.mark.parametrize("shell", list(powershell.SHELLS))
def test_both_answer_alike(shell: str, vectors: list[dict], python: dict[str, str]) -> None:
    answers = play(vectors, "powershell", shell)
    differ = ["%s\n  Python      %s\n  PowerShell  %s" % (json.dumps(vector), python.get(vector["id"]), answers.get(vector["id"]))
              for vector in vectors if answers.get(vector["id"]) != python.get(vector["id"])]
    assert not differ, "%d of %d differ\n%s" % (len(differ), len(vectors), "\n".join(differ[:5]))


def test_the_tables_are_right(python: dict[str, str]) -> None:
    for vector in tables():
        answer = json.loads(python[vector["id"]])
        assert {name: answer[name] for name in ("ok", "error") if name in answer} == {
            name: vector[name] for name in ("ok", "error") if name in vector
        }, vector["id"]


def test_chance_makes_both_good_and_bad_ones(vectors: list[dict], python: dict[str, str]) -> None:
    seen = collections.Counter((vector["op"], "ok" in json.loads(python[vector["id"]])) for vector in vectors)
    for op in ("parse", "render", "plan", "json", "connection"):
        assert seen[op, True] and seen[op, False], op
    assert generate.vectors(3, 40) == generate.vectors(3, 40) != generate.vectors(4, 40)


def test_a_difference_is_seen(vectors: list[dict], python: dict[str, str]) -> None:
    one = [vector for vector in vectors if vector["op"] == "digest"][:1]
    answers = play([dict(one[0], args={"text": one[0]["args"]["text"] + "x"})], "powershell")
    assert answers[one[0]["id"]] != python[one[0]["id"]]
