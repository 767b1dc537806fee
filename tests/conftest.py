"""Makes ansible_collections.callmetechie.gatecontrol importable from the checkout."""
from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import collection  # noqa: E402

sys.path.insert(0, str(collection.link()))
