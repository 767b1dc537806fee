"""Lays the checkout out as Ansible and ansible-test want it, below build/.

  collection.py link   build/ansible_collections/callmetechie/gatecontrol: links into the checkout, for plays and pytest
  collection.py copy DIR   DIR/ansible_collections/callmetechie/gatecontrol: a git checkout of its own with the tracked and the
                           new files, for ansible-test and galaxy-importer; prints its path
"""
from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
PARTS = ("galaxy.yml", "README.md", "CHANGELOG.rst", "LICENSE", "changelogs", "docs", "meta", "playbooks", "plugins", "roles", "tests")


def link(root: pathlib.Path = CHECKOUT / "build") -> pathlib.Path:
    """Link the collection's parts below root/ansible_collections; returns root, a value for ANSIBLE_COLLECTIONS_PATH."""
    place = root / "ansible_collections" / "callmetechie" / "gatecontrol"
    place.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        target = place / part
        if not target.is_symlink():
            target.symlink_to(CHECKOUT / part)
    return root


def copy(root: pathlib.Path) -> pathlib.Path:
    """Copy the files git knows or would add into root/ansible_collections and make that a git checkout; returns its path."""
    place = root.resolve() / "ansible_collections" / "callmetechie" / "gatecontrol"
    if place.exists():
        shutil.rmtree(place)
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=CHECKOUT, check=True, capture_output=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = CHECKOUT / name, place / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=place, check=True)
    return place


if __name__ == "__main__":
    if sys.argv[1:] == ["link"]:
        link()
    elif len(sys.argv) == 3 and sys.argv[1] == "copy":
        print(copy(pathlib.Path(sys.argv[2])))
    else:
        sys.exit(__doc__)
