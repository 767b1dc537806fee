"""Makes ansible_collections.callmetechie.gatecontrol importable from the checkout."""
from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import collection  # noqa: E402

sys.path.insert(0, str(collection.link()))

# Ansible's own loader of plugins and collections, as in a play; it has to be there before anything of the collection is imported.
from ansible.plugins.loader import init_plugin_loader  # noqa: E402

init_plugin_loader()
