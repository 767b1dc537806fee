"""The releases of ansible-core that attacks are played with: those of tests/sanity.sh, each in an environment of its own."""
from __future__ import annotations

import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]


def known() -> list[tuple[str, str]]:
    """(release of ansible-core, its controller's Python), pre-releases left out."""
    text = (CHECKOUT / "tests/sanity.sh").read_text(encoding="utf-8").split("<<'CORES'\n")[1].split("\nCORES")[0]
    return [(core, python) for core, python in (line.split() for line in text.splitlines()) if re.fullmatch(r"[0-9.]+", core)]


def python_of(core: str, version: str) -> str | None:
    """The Python of an environment with that release: this one's, or one made below build/; None where this machine has no such Python."""
    if importlib.metadata.version("ansible-core") == core:
        return sys.executable
    place = CHECKOUT / "build" / ("core-" + core)
    if not (place / "bin/ansible-playbook").exists():
        pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
        found = [str(path) for path in sorted(pyenv.glob(version + "*/bin/python"))] + [shutil.which("python" + version) or ""]
        for candidate in filter(None, found):
            if subprocess.run([candidate, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
                subprocess.run([candidate, "-m", "venv", str(place)], check=True)
                subprocess.run([str(place / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "ansible-core==" + core], check=True)
                break
    python = place / "bin/python"
    return str(python) if (place / "bin/ansible-playbook").exists() else None
