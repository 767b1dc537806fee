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


def pytest_terminal_summary(terminalreporter) -> None:
    """What was not run for want of something on this machine is said in -q too."""
    skipped = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", []) if isinstance(report.longrepr, tuple)]
    for reason in sorted({text for text in skipped if "NOT RUN" in text}):
        terminalreporter.write_line("%s (%d tests)" % (reason.removeprefix("Skipped: "), skipped.count(reason)), red=True, bold=True)
