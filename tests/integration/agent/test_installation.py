"""The agent's files on a host: put there once, repaired, updated, taken away; and the launcher run for real."""
from __future__ import annotations

import fnmatch
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _agent, _enrollment, _install, _python, _verify

from made_up_host import CHECKOUT, LAUNCHER, UNIT_NAMES, UNITS, enroll

UTILS = "ansible_collections/callmetechie/gatecontrol/plugins/module_utils/"


@pytest.fixture
def installed(machine):
    machine.settings = {"url": "https://gate.example.com", "proxy": "http://user:pass@proxy:3128"}
    os.umask(0o077)  # what root's login may have
    machine.install()
    os.umask(0o022)
    return machine


def modes(machine) -> dict:
    return {path: mode for path, (mode, _digest) in machine.files().items() if "gatecontrol" in path}


def test_everything_is_where_it_belongs_with_its_rights(installed):
    seen = modes(installed)
    library = ["usr/local/lib/gatecontrol/gatecontrol/%s.py" % name for name in ("__init__",) + _verify.MODULES]
    units = ["etc/systemd/system/" + name for name in UNIT_NAMES]
    private = ["etc/gatecontrol/settings.json", "etc/gatecontrol/installed.json"]
    assert seen == {
        "usr/local/lib/gatecontrol": "0o40755", "usr/local/lib/gatecontrol/gatecontrol": "0o40755", "etc/gatecontrol": "0o40700",
        "var/lib/gatecontrol": "0o40700", "usr/local/sbin/gatecontrol-agent": "0o100755",
        **{path: "0o100644" for path in library + units}, **{path: "0o100600" for path in private}}
    assert installed.store.load("settings") == installed.settings
    assert {_agent.RECOVER, _agent.TIMER} <= installed.enabled and _agent.TIMER in installed.active
    first, rest = pathlib.Path(installed.root, _verify.LAUNCHER).read_text("utf-8").split("\n", 1)
    assert first == "#!/usr/bin/python3 -IS" and rest == LAUNCHER


def test_a_second_time_changes_nothing(installed):
    before = installed.files()
    assert installed.installation().differences() == [] and _install.set_timer(installed.agent(), True) is False
    installed.installation().write([])
    assert installed.files() == before


@pytest.mark.parametrize("path", [
    _verify.LIBRARY_FILE % "_api", "/" + _verify.LAUNCHER, "/etc/systemd/system/gatecontrol-beat.timer", "/etc/gatecontrol/settings.json"])
@pytest.mark.parametrize("how", ["edited", "removed", "opened"])
def test_a_file_that_differs_is_put_right_and_no_other(installed, path, how):
    before, place = installed.files(), pathlib.Path(installed.root, path[1:])
    if how == "edited":
        place.write_text("x", encoding="ascii")
    elif how == "removed":
        place.unlink()
    else:
        place.chmod(0o666)
    repair = installed.installation()
    assert repair.differences() == [path]
    repair.write([path])
    assert installed.files() == before


@pytest.mark.parametrize("folder", ["/etc/gatecontrol", "/var/lib/gatecontrol", "/usr/local/lib/gatecontrol"])
def test_a_folder_with_wrong_rights_is_put_right(installed, folder):
    before = installed.files()
    pathlib.Path(installed.root, folder[1:]).chmod(0o777)
    repair = installed.installation()
    assert repair.differences() == [folder]
    repair.write([folder])
    assert installed.files() == before


def test_recovery_at_boot_that_was_disabled_is_enabled_again(installed):
    installed.enabled.discard(_agent.RECOVER)
    repair = installed.installation()
    assert repair.differences() == ["/etc/systemd/system/" + _agent.RECOVER]
    repair.write(repair.differences())
    assert _agent.RECOVER in installed.enabled and repair.differences() == []


def test_files_of_an_earlier_release_go(installed):
    old = _verify.LIBRARY_FILE % "_old", "/etc/systemd/system/gatecontrol-old.timer"
    for path in old:
        pathlib.Path(installed.root, path[1:]).write_text("old", encoding="ascii")
    installed.store.save("installed", dict(installed.store.load("installed"), **{path: "0" for path in old}))
    update = installed.installation()
    assert update.differences() == sorted(old)
    update.write(update.differences())
    assert not any(pathlib.Path(installed.root, path[1:]).exists() for path in old) and update.differences() == []


def test_new_settings_change_one_file(installed):
    update = installed.installation(heartbeat_interval=30)
    assert update.differences() == ["/etc/gatecontrol/settings.json"]
    assert installed.installation(proxy=None, no_proxy=None).differences() == ["/etc/gatecontrol/settings.json"]
    assert installed.installation(no_proxy=None).differences() == []  # not given is left out


def test_an_agent_that_does_not_start_is_an_error(machine):
    machine.settings = {"url": "https://gate.example.com"}

    def run(argv, stdin=None):
        return (1, "", "Traceback: no module\nnamed zlib") if argv[0].endswith(_verify.LAUNCHER) else type(machine).run(machine, argv, stdin)
    agent = machine.agent()
    agent.run = run
    broken = _install.Installation(agent, LAUNCHER, UNITS, machine.settings)
    with pytest.raises(_agent.AgentError, match="^the agent was installed but does not start: Traceback: no module named zlib; set interpreter to"):
        broken.write(broken.differences())


@pytest.mark.parametrize("enabled", [True, False])
def test_the_timer_is_changed_only_where_it_differs(installed, enabled):
    for active in (True, False):
        for boot in (True, False):
            for group, there in ((installed.active, active), (installed.enabled, boot)):
                (group.add if there else group.discard)(_agent.TIMER)
            before = set(installed.active), set(installed.enabled)
            differs = (active, boot) != (enabled, enabled)
            assert _install.set_timer(installed.agent(), enabled, check_mode=True) is differs
            assert before == (set(installed.active), set(installed.enabled))
            assert _install.set_timer(installed.agent(), enabled) is differs
            assert (_agent.TIMER in installed.active, _agent.TIMER in installed.enabled) == (enabled, enabled)


# --- away again

@pytest.mark.parametrize("record", [True, False])
def test_removal_leaves_nothing(gate, machine, record):
    before = machine.files()
    enroll(machine, gate)
    machine.install()
    machine.beat()
    if not record:
        machine.store.drop("installed")
    found = _install.remove(machine.agent(), check_mode=True)
    assert found == _install.remove(machine.agent())
    assert "/etc/gatecontrol" in found and "/etc/systemd/system/gatecontrol-beat.timer" in found
    left = {path for path in machine.files() if path not in before}
    assert not any("gatecontrol" in path for path in left), left
    assert not {unit for unit in machine.active | machine.enabled if unit.startswith("gatecontrol-")}
    assert _install.remove(machine.agent()) == []


def test_removal_takes_the_metrics_and_leaves_their_folder(machine):
    """Metrics that nobody writes any more would tell for ever that all is well."""
    machine.settings = {"url": "https://gate.example.com", "textfile": "/var/lib/node"}
    machine.install()
    folder = pathlib.Path(machine.root, "var/lib/node")
    folder.mkdir()
    for name in ("gatecontrol.prom", "apt.prom"):
        (folder / name).write_text("x 1\n", encoding="ascii")
    assert "/var/lib/node/gatecontrol.prom" in _install.remove(machine.agent())
    assert [path.name for path in folder.iterdir()] == ["apt.prom"] and _install.remove(machine.agent()) == []


def test_removal_without_a_service_manager(installed):
    pathlib.Path(installed.root, "run/systemd/system").rmdir()
    calls = []
    agent = installed.agent()
    agent.services = type("None_", (), {"available": lambda self: False, "FOLDERS": ("etc/systemd/system",)})()
    assert _install.remove(agent) and calls == [] and agent.host.parts() == []


# --- interpreters

@pytest.fixture
def pythons(monkeypatch):
    """Interpreters that a host has: {path: its version}; those beside the system's own are found by their names."""
    there = {}
    monkeypatch.setattr(_python.glob, "glob", lambda pattern: [path for path in there if fnmatch.fnmatchcase(path, pattern)])
    monkeypatch.setattr(_python, "whose", lambda path, known=_python.whose: "it is somebody's" if "somebody" in path else known(path))

    def run(argv, stdin=None):
        assert argv[1:3] == ["-IS", "-c"]
        if argv[0] not in there:
            return 127, "", "%s: No such file or directory" % argv[0]
        return int(tuple(map(int, there[argv[0]].split("."))) < (3, 9)), there[argv[0]] + "\n", ""
    run.there = there
    return run


@pytest.mark.parametrize("there, chosen", [
    ({"/usr/bin/python3": "3.11"}, "/usr/bin/python3"),
    ({"/usr/bin/python3": "3.11", "/usr/bin/python3.13": "3.13"}, "/usr/bin/python3"),
    ({"/usr/libexec/platform-python": "3.9"}, "/usr/libexec/platform-python"),
    # Enterprise Linux 8, SUSE 15
    ({"/usr/bin/python3": "3.6", "/usr/libexec/platform-python": "3.6", "/usr/bin/python3.9": "3.9", "/usr/bin/python3.12": "3.12"}, "/usr/bin/python3.12"),
    ({"/usr/bin/python3": "3.6", "/usr/bin/python3.6": "3.6", "/usr/bin/python3.11": "3.11", "/usr/bin/python3.11-config": "3.11"}, "/usr/bin/python3.11"),
    ({"/usr/bin/python3": "3.6", "/usr/local/bin/python3": "3.10"}, "/usr/local/bin/python3"),
    ({"/opt/python": "3.10"}, "/opt/python")])
def test_the_systems_own_python_comes_first_and_the_latest_beside_it_then(pythons, there, chosen):
    pythons.there.update(there)
    assert _install.interpreter(pythons, "/opt/python" if chosen == "/opt/python" else None) == chosen


@pytest.mark.parametrize("preferred", [None, "/opt/python", "/somebody/venv/bin/python"])
def test_a_python_that_is_too_old_missing_or_somebody_s_is_refused(pythons, preferred):
    pythons.there.update({"/usr/bin/python3": "3.6", "/somebody/venv/bin/python": "3.13"})
    with pytest.raises(_agent.AgentError, match="^no Python from 3.9 on was found at ") as refused:
        _install.interpreter(pythons, preferred)
    said = str(refused.value)
    assert refused.value.kind == "settings" and {
        None: "/usr/bin/python3 (it is 3.6), /usr/libexec/platform-python (it is missing or does not run), " in said,
        "/opt/python": "/opt/python (it is missing or does not run) that" in said}.get(preferred, "(it is somebody's)" in said), said


def test_a_python_that_others_can_replace_is_somebody_s(tmp_path):
    """A virtual environment's, one in a home or temporary folder, one that others may write: root must not run it at every beat."""
    assert "temporary folder" in _python.whose(str(tmp_path / "python"))
    assert "home" in _python.whose("/home/me/.pyenv/bin/python3") and "home" in _python.whose("/root/venv/bin/python")
    own = pathlib.Path(tempfile.mkdtemp(dir="/opt"))
    try:
        (own / "bin").mkdir()
        python = own / "bin/python"
        python.symlink_to("/usr/bin/python3")
        assert _python.whose(str(python)) is None
        (own / "pyvenv.cfg").touch()
        assert "virtual environment" in _python.whose(str(python))
        (own / "pyvenv.cfg").unlink()
        python.unlink()
        python.touch()
        python.chmod(0o777)
        assert "others" in _python.whose(str(python))
    finally:
        shutil.rmtree(own)


def test_the_check_for_a_too_old_python_is_meant_for_python(tmp_path):
    """The real check, by an interpreter that believes it is 3.8."""
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\nshift 2; exec %s -c "import sys; sys.version_info = (3, 8, 9); exec(sys.argv[1])" "$1"\n' % sys.executable, encoding="ascii")
    old.chmod(0o755)

    def run(argv):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr
    assert run([str(old), "-IS", "-c", "import sys; sys.exit(sys.version_info[1])"])[0] == 8
    with pytest.raises(_agent.AgentError, match="it is 3.8"):
        _install.interpreter(run, str(old))
    assert _install.interpreter(run, "/usr/bin/python3") == "/usr/bin/python3"


# --- one code for controller, module and host

def test_the_controller_and_an_installation_agree_on_every_digest(installed):
    wanted = _verify.wanted({"launcher": LAUNCHER, "units": UNITS, "settings": installed.settings})
    assert set(wanted["files"]) == set(installed.installation().files) - {"/etc/gatecontrol/settings.json"}
    for path, digest in wanted["files"].items():
        assert _verify.program_digest(path, pathlib.Path(installed.root, path[1:]).read_text("utf-8")) == digest
        assert installed.store.load("installed")[path] == digest
    assert wanted["settings"] == _enrollment.digest(installed.store.text("settings"))
    assert "user:pass" not in json.dumps(wanted) and len(json.dumps(wanted)) < 8192


def test_sources_are_the_same_from_files_and_from_a_modules_payload(tmp_path):
    payload = tmp_path / "payload.zip"
    with zipfile.ZipFile(payload, "w") as archive:
        for folder in ("", "callmetechie/", "callmetechie/gatecontrol/", "callmetechie/gatecontrol/plugins/", "callmetechie/gatecontrol/plugins/module_utils/"):
            archive.writestr("ansible_collections/%s__init__.py" % folder, "")
        for name in _verify.MODULES:
            archive.write(CHECKOUT / ("plugins/module_utils/%s.py" % name), UTILS + name + ".py")
    package = UTILS.strip("/").replace("/", ".")
    code = "import sys, json; sys.path.insert(0, sys.argv[1]); from %s import _verify; json.dump(_verify.sources(), sys.stdout)" % package
    done = subprocess.run([sys.executable, "-IS", "-c", code, str(payload)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == _verify.sources()
    assert all(_verify.sources()[name] == (CHECKOUT / ("plugins/module_utils/%s.py" % name)).read_text("utf-8") for name in _verify.MODULES)


def test_the_agent_needs_no_module_that_it_is_not_made_of(tmp_path):
    """Its library alone, without the collection and without site-packages, on the oldest Python there is."""
    library = tmp_path / "lib/gatecontrol/gatecontrol"
    library.mkdir(parents=True)
    for name, text in _verify.sources().items():
        (library / (name + ".py")).write_text(text, encoding="utf-8")
    launcher = tmp_path / "sbin/gatecontrol-agent"
    launcher.parent.mkdir()
    launcher.write_text(LAUNCHER, encoding="utf-8")
    pythons = filter(None, map(shutil.which, ("python3.9", "python3.10", "python3.11")))
    oldest = next((python for python in pythons if subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0), sys.executable)
    for python in sorted({oldest, sys.executable}):
        done = subprocess.run([python, "-IS", str(launcher), "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "gatecontrol-agent show" in done.stdout, done.stderr
        for words in ([], ["dance"], ["verify"], ["show", "me"]):
            assert subprocess.run([python, "-IS", str(launcher), *words], capture_output=True, check=False).returncode == 2


def test_the_launcher_says_what_stops_it_and_survives_odd_terminals(tmp_path):
    """As a user who may not read the host's files."""
    launcher = tmp_path / "sbin/gatecontrol-agent"
    library = tmp_path / "lib/gatecontrol/gatecontrol"
    library.mkdir(parents=True)
    launcher.parent.mkdir()
    launcher.write_text(LAUNCHER, encoding="utf-8")
    for name, text in _verify.sources().items():
        (library / (name + ".py")).write_text(text, encoding="utf-8")
    code = """
import sys; sys.argv = ["gatecontrol-agent", "show"]
import runpy; sys.path.insert(0, %r)
from gatecontrol import _enrollment
def refuse(path): raise PermissionError(13, "Permission denied \\u00fc\\ud800", path)
_enrollment.read_text = refuse
runpy.run_path(%r, run_name="__main__")
""" % (str(library.parent), str(launcher))
    done = subprocess.run([sys.executable, "-IS", "-X", "utf8=0", "-c", code], capture_output=True, text=True, check=False,
                          env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"})
    assert done.returncode == 1 and done.stdout.startswith("/etc/gatecontrol/settings.json: Permission denied") and "Traceback" not in done.stderr
