"""Lays the stand-in of Windows out as collections in build/twins/windows: the real action plugins of ansible.windows over the stand-in's modules.

The real collection comes from the package "ansible", of which only that one is kept (.venv/windows).

  lay.py fetch     get it where it is missing
  lay.py           lay the stand-in out
"""
from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[2]
PACKAGE = (HERE / "requirements.txt").read_text(encoding="utf-8").split("#")[0].strip()
REAL = CHECKOUT / ".venv/windows"  # a value for ANSIBLE_COLLECTIONS_PATH
TWIN = CHECKOUT / "build/twins/windows"
KEPT = "ansible_collections/ansible/windows/"
PLACES = {
    "ansible/windows/plugins/modules": ("modules/win_copy.py", "modules/win_package.py", "modules/win_powershell.py"),
    "ansible/windows/plugins/module_utils": ("machine.py",),
    "ansible/windows/plugins/connection": ("connection.py",),
}


def fetch() -> None:
    """Have the real collection, of the release that PACKAGE names."""
    stamp = REAL / "package"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == PACKAGE:
        return
    shutil.rmtree(REAL, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        # For any Python: it is data here.
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
                        "--python-version", "3.13", "--dest", folder, PACKAGE], check=True)
        with zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl"))) as wheel:
            wheel.extractall(REAL, [name for name in wheel.namelist() if name.startswith(KEPT)])
    stamp.write_text(PACKAGE, encoding="utf-8")


def lay() -> pathlib.Path:
    """Lay the stand-in out; returns a value for ANSIBLE_COLLECTIONS_PATH."""
    shutil.rmtree(TWIN, ignore_errors=True)
    for place, sources in PLACES.items():
        folder = TWIN / "ansible_collections" / place
        folder.mkdir(parents=True)
        for source in sources:
            (folder / ("twin.py" if source == "connection.py" else pathlib.Path(source).name)).symlink_to(HERE / source)
    actions = TWIN / "ansible_collections/ansible/windows/plugins/action"
    actions.mkdir()
    for name in ("win_copy.py", "win_powershell.py"):
        (actions / name).symlink_to(REAL / "ansible_collections/ansible/windows/plugins/action" / name)
    return TWIN


if __name__ == "__main__":
    if sys.argv[1:] == ["fetch"]:
        fetch()
    elif not sys.argv[1:]:
        print(lay())
    else:
        sys.exit(__doc__)
