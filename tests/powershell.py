"""Finds the PowerShells that tests run. Needs nothing of a Unix: the public CI's Windows job uses it too."""
from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
VARIABLE = "GATECONTROL_TEST_PWSH"  # names a program, and then no other is looked for
NOT_RUN = "NOT RUN: no PowerShell was found (%s, pwsh in PATH, ../shared/pwsh/pwsh), so nothing that the agent of Windows does is proven here" % VARIABLE


def found() -> dict[str, str]:
    """{name: program} of every PowerShell here: pwsh is 7, powershell is Windows PowerShell 5.1."""
    named = os.environ.get(VARIABLE)
    if named:
        return {"pwsh": named}
    shells = {name: path for name in ("pwsh", "powershell") for path in [shutil.which(name)] if path}
    beside = CHECKOUT.parent / "shared/pwsh/pwsh"
    if "pwsh" not in shells and os.name == "posix" and beside.exists():
        shells["pwsh"] = str(beside)
    return shells


SHELLS = found()


def run(shell: str, *words: str, timeout: float = 120, **extra) -> subprocess.CompletedProcess:
    """Has a PowerShell of SHELLS do something; its words follow -NonInteractive."""
    argv = [SHELLS[shell], "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass"]
    if "input" not in extra:
        extra = dict({"stdin": subprocess.DEVNULL}, **extra)
    extra["env"] = dict(extra.get("env") or os.environ, DOTNET_TieredPGO="0")  # a process of seconds has no use for profiles: a quarter less of a processor
    return subprocess.run(argv + list(words), capture_output=True, text=True, encoding="utf-8", check=False, timeout=timeout, **extra)
