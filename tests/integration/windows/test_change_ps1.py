"""The agent's changes under a real PowerShell, on a Windows that is made up below its files (change.ps1)."""
from __future__ import annotations

import json
import pathlib
import re
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import powershell  # noqa: E402

SCRIPT = HERE / "change.ps1"
CASES = [name.replace("''", "'") for name in re.findall(r"^Invoke-Case '((?:[^']|'')+)'", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)]
pytestmark = pytest.mark.skipif(not powershell.SHELLS, reason=powershell.NOT_RUN)


@pytest.fixture(scope="module", params=list(powershell.SHELLS))
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """{case: what came of it}, all of one process."""
    done = powershell.run(request.param, "-File", str(SCRIPT), str(tmp_path_factory.mktemp("host") / "GateControl"), timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return {entry["name"]: entry for entry in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("case", CASES)
def test_case(results: dict[str, dict], case: str) -> None:
    assert results[case]["ok"], results[case]["said"]
