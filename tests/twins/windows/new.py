"""Makes a fresh stand-in of Windows: new.py TREE HOSTNAME CA_FILE, where the last is what its root store holds."""
from __future__ import annotations

import json
import pathlib
import shutil
import sys
import uuid


def make(tree: str, hostname: str, root_store: str) -> pathlib.Path:
    """The tree; whatever was there is gone."""
    folder = pathlib.Path(tree)
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("ProgramData", "Program Files", "Users/Public"):
        (folder / "C" / name).mkdir(parents=True)
    (folder / "C/Users/Public/wireguard.msi").write_text("an installer\n", encoding="utf-8")
    known = {"machine_guid": str(uuid.uuid4()), "hostname": hostname, "root_store": root_store}
    (folder / "windows.json").write_text(json.dumps(known), encoding="utf-8")
    return folder


if __name__ == "__main__":
    make(*sys.argv[1:])
