"""Plays an API contract against the server: a fresh one for every era and profile that has cases.

  python tests/gateserver/play_contract.py PATH/TO/check [ERA…]

``check`` takes --url, --era, --profile, --mint and --list; its last line is "N passed, N failed".
"""
from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

from running import HERE, Server

ERAS = ("1.5.2", "1.50.12", "1.118.2", "fixed")
PROFILES = ("unlimited", "community", "ratelimit5")


def play(check: str, era: str, profile: str) -> tuple:
    """Plays all cases of one era and profile. Returns (passed, failed); prints the failures."""
    if subprocess.run([check, "--era", era, "--profile", profile, "--list"], capture_output=True, check=False).returncode == 2:
        return 0, 0
    with Server("--era", era, "--profile", profile) as server:
        mint = shlex.join([sys.executable, HERE, "token", "--url", server.url]) + " {name} {scopes} {peer}"
        played = subprocess.run([check, "--url", server.url, "--era", era, "--profile", profile, "--mint", mint],
                                capture_output=True, text=True, timeout=600, check=False)
    totals = re.search(r"(\d+) passed, (\d+) failed\s*$", played.stdout)
    if not totals:
        print(played.stdout + played.stderr)
        return 0, 1
    if played.returncode:
        print(played.stdout)
    return int(totals.group(1)), int(totals.group(2))


def main() -> int:
    if len(sys.argv) < 2 or not os.access(sys.argv[1], os.X_OK):
        print("usage: play_contract.py PATH/TO/check [ERA…], where PATH/TO/check is a program", file=sys.stderr)
        return 2
    passed = failed = 0
    for era in sys.argv[2:] or ERAS:
        for profile in PROFILES:
            good, bad = play(sys.argv[1], era, profile)
            print("%-8s %-11s %3d passed, %d failed" % (era, profile, good, bad), flush=True)
            passed, failed = passed + good, failed + bad
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
