"""Finds the PowerShells that tests run. Needs nothing of a Unix: the public CI's Windows job uses it too."""
from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import threading
import typing

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


def _argv(shell: str) -> list[str]:
    return [SHELLS[shell], "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass"]


def _environment(given: typing.Mapping[str, str] | None = None) -> dict[str, str]:
    """A process of seconds has no use for profiles of its code: without them it takes a quarter less of a processor."""
    return dict(given or os.environ, DOTNET_TieredPGO="0")


def run(shell: str, *words: str, timeout: float = 120, **extra) -> subprocess.CompletedProcess:
    """Has a PowerShell of SHELLS do something; its words follow -NonInteractive."""
    if "input" not in extra:
        extra = dict({"stdin": subprocess.DEVNULL}, **extra)
    extra["env"] = _environment(extra.get("env"))
    return subprocess.run(_argv(shell) + list(words), capture_output=True, text=True, encoding="utf-8", check=False, timeout=timeout, **extra)


class Session:
    """One PowerShell that runs one line after another: to start it takes longer than what most lines do."""

    def __init__(self, shell: str):
        self.process = subprocess.Popen(_argv(shell) + ["-Command", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, encoding="utf-8", env=_environment())

    def run(self, line: str, timeout: float = 120) -> tuple[int, str]:
        """(the last exit status, output) of a line."""
        end = "ended:%s:" % os.urandom(8).hex()
        timer = threading.Timer(timeout, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write("%s; Write-Output ('%s' + $LASTEXITCODE)\n" % (line, end))
            self.process.stdin.flush()
            output = ""
            for said in self.process.stdout:
                said = re.sub(r"\x1b\[\?1[hl]", "", said)  # the cursor's keys, which it sets up where it has no terminal too
                if said.startswith(end):
                    return int(said[len(end):]), output
                output += said
        finally:
            timer.cancel()
        raise AssertionError("PowerShell ended: " + output)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()
