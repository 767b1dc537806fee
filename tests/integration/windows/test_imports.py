"""What the public CI's Windows job runs is collected where Python has no module of a Unix."""
from __future__ import annotations

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
UNIX = ("fcntl", "grp", "pwd", "resource", "syslog", "termios")
BLOCK = '''
import importlib.machinery, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in %r:
            raise ModuleNotFoundError("No module named %%r" %% name, name=name)
sys.meta_path.insert(0, Blocked())
for name in %r:
    sys.modules.pop(name, None)
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in %r else find(name, package)
'''


def collect(folder: pathlib.Path, name: str) -> subprocess.CompletedProcess:
    (folder / "blocked.py").write_text("import importlib.util\n" + BLOCK % (UNIX, UNIX, UNIX))
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "blocked", "--noconftest", "--collect-only", name], cwd=HERE.parents[2],
                          capture_output=True, text=True, check=False, env=dict(os.environ, PYTHONPATH=str(folder)))


def test_the_agent_s_tests_are_collected(tmp_path):
    done = collect(tmp_path, str(HERE / "test_agent_ps1.py"))
    assert done.returncode == 0 and "test_beat_and_verify" in done.stdout, done.stdout + done.stderr


def test_an_import_of_a_unix_module_is_seen(tmp_path):
    other = tmp_path / "test_other.py"
    other.write_text("import pwd\n\n\ndef test_it():\n    assert pwd\n")
    done = collect(tmp_path, str(other))
    assert done.returncode and "No module named 'pwd'" in done.stdout, done.stdout + done.stderr
