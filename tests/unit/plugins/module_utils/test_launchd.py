# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""launchd as the collection drives it, against the stand-in of the scenarios, which runs jobs for real."""

from __future__ import annotations

import importlib.util
import pathlib
import plistlib
import re
import sys

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible.template import Templar
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import (
    _agent, _drift, _enrollment, _install, _services, _verify)

CHECKOUT = pathlib.Path(__file__).resolve().parents[4]
spec = importlib.util.spec_from_file_location("launchd_twin", CHECKOUT / "tests/twins/macos/launchd.py")
twin = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = twin
spec.loader.exec_module(twin)

UNITS = CHECKOUT / "roles/gatecontrol/files/units"
MAC = sorted("/%s" % path.relative_to(UNITS) for path in UNITS.rglob("*") if path.is_file() and "systemd" not in path.parts)


def rendered(host="mac1", interval=60):
    """The role's texts for macOS."""
    variables = {"inventory_hostname": host, "gatecontrol_heartbeat_interval": interval, "gatecontrol_interface": "wg0"}
    lookup = lookup_loader.get("callmetechie.gatecontrol.gatecontrol_agent", loader=DataLoader(), templar=Templar(loader=DataLoader(), variables=variables))
    texts, = lookup.run(["units"], variables)
    return {path: texts[path] for path in MAC}


class Mac:
    """A folder that is a Mac's root, its launchd, and the command runner."""

    def __init__(self, root, monkeypatch):
        self.root, self.asked = root, []
        version = root / _services.SYSTEM_VERSION
        version.parent.mkdir(parents=True)
        version.write_text("")
        self.folder = root / "Library/LaunchDaemons"
        self.folder.mkdir(parents=True)
        monkeypatch.setattr(twin, "OVERRIDES", root / "disabled.plist")
        self.launchd, self.services = twin.Launchd(), _services.Launchd(self.run, str(root))

    def run(self, argv, stdin=None):
        if argv[0] != "launchctl":
            return 0, "", ""
        self.asked.append(" ".join(argv[1:]))
        self.launchd.tick()
        try:
            return 0, self.launchd.answer(argv[1:]), ""
        except twin.Refused as error:
            return error.args[0], "", error.args[1]

    def plist(self, unit, **values):
        path = self.root / self.services.path(unit).lstrip("/")
        path.write_bytes(plistlib.dumps(dict({"Label": path.stem, "ProgramArguments": ["/bin/sh", "-c", "sleep 60"]}, **values)))
        path.chmod(0o644)
        return path

    def loaded(self):
        return {label.removeprefix(_services.Launchd.PREFIX): job.status if job.process is None else "running" for label, job in self.launchd.jobs.items()}

    def shown(self, unit):
        return tuple(self.services.show([unit], ("LoadState", "ActiveState", "UnitFileState"))[unit].values())


@pytest.fixture
def mac(tmp_path, monkeypatch):
    made = Mac(tmp_path, monkeypatch)
    yield made
    for job in made.launchd.jobs.values():
        if job.process:
            job.signal(9)
            job.process.wait()


def test_a_job_s_life(mac):
    assert mac.services.available() and mac.shown(_agent.TIMER) == ("not-found", "inactive", "disabled")
    mac.plist(_agent.TIMER, StartInterval=60)
    assert mac.shown(_agent.TIMER) == ("loaded", "inactive", "disabled")
    mac.services.enable(_agent.TIMER)
    assert mac.shown(_agent.TIMER) == ("loaded", "active", "enabled") and mac.loaded() == {"gatecontrol-beat": None}
    mac.services.disable(_agent.TIMER)
    assert mac.shown(_agent.TIMER) == ("loaded", "active", "disabled")
    mac.services.stop(_agent.TIMER)
    assert mac.shown(_agent.TIMER) == ("loaded", "inactive", "disabled")
    mac.services.start(_agent.TIMER)
    assert mac.shown(_agent.TIMER) == ("loaded", "active", "enabled"), "launchd loads none that is disabled"


def test_many_jobs_are_asked_in_two_calls(mac):
    mac.services.show([_agent.TIMER, _agent.APPLY, _agent.RECOVER, "wg-quick@wg0.service"], ["ActiveState"])
    assert mac.asked == ["list", "print-disabled system"]


@pytest.mark.parametrize("word, off", [("disabled", True), ("true", True), ("enabled", False), ("false", False)])
def test_both_ways_in_which_launchd_names_what_is_disabled(word, off):
    services = _services.Launchd(lambda argv, stdin=None: (0, '\tdisabled services = {\n\t\t"com.callmetechie.gatecontrol-beat" => %s\n\t}\n' % word, ""))
    assert services._disabled() == ({"com.callmetechie.gatecontrol-beat"} if off else set())


def test_stop_waits_until_launchd_has_taken_the_job_down(mac):
    mac.plist(_agent.APPLY, RunAtLoad=True)
    mac.services.start(_agent.APPLY)
    mac.services.show([_agent.APPLY], ())
    assert mac.loaded() == {"gatecontrol-apply": "running"}
    mac.services.restart(_agent.APPLY)
    mac.services.stop(_agent.APPLY)
    assert mac.loaded() == {}
    mac.services.stop(_agent.APPLY)


def test_a_job_does_not_end_itself(mac, monkeypatch):
    mac.plist("wg-quick@wg0.service", RunAtLoad=True)
    mac.services.start("wg-quick@wg0.service")
    monkeypatch.setenv("XPC_SERVICE_NAME", "com.callmetechie.gatecontrol-tunnel")
    mac.services.stop("wg-quick@wg0.service")
    mac.services.start("wg-quick@wg0.service")
    assert mac.loaded() == {"gatecontrol-tunnel": "running"} and mac.launchd.jobs["com.callmetechie.gatecontrol-tunnel"].runs == 1


def test_one_that_does_not_go_is_told_in_launchds_words(mac, monkeypatch):
    monkeypatch.setattr(_services.Launchd, "BUSY", 0.3)
    mac.plist(_agent.APPLY, RunAtLoad=True, ProgramArguments=["/bin/sh", "-c", "trap '' TERM; touch %s; sleep 60" % (mac.root / "deaf")])
    mac.services.start(_agent.APPLY)
    while not (mac.root / "deaf").exists():
        mac.services.show([_agent.APPLY], ())
    with pytest.raises(_services.ServiceError, match="bootout system/com.callmetechie.gatecontrol-apply failed: Boot-out failed: 36: Operation now"):
        mac.services.stop(_agent.APPLY)


def test_start_no_block_loads_and_starts(mac):
    mac.plist(_agent.APPLY)
    mac.services.start_no_block(_agent.APPLY)
    mac.services.show([_agent.APPLY], ())
    assert mac.loaded() == {"gatecontrol-apply": "running"}
    mac.services.start_no_block(_agent.APPLY)
    assert mac.launchd.jobs["com.callmetechie.gatecontrol-apply"].runs == 1


def test_what_is_missing_or_refused_is_one_sentence(mac):
    with pytest.raises(_services.ServiceError, match="^there is no /Library/LaunchDaemons/com.callmetechie.gatecontrol-tunnel.plist; install the agent"):
        mac.services.start("wg-quick@wg0.service")
    mac.plist(_agent.TIMER).write_text("<plist>")
    with pytest.raises(_services.ServiceError, match="bootstrap system .* failed: Bootstrap failed: 5: Input/output error$"):
        mac.services.start(_agent.TIMER)


def test_changed_files_are_taken_in_and_files_that_went_forgotten(mac):
    paths = {unit: mac.plist(unit, StartInterval=60) for unit in (_agent.TIMER, _agent.APPLY, _agent.RECOVER)}
    mac.services.start(_agent.TIMER, _agent.RECOVER)
    mac.plist(_agent.TIMER, StartInterval=5)
    mac.services.disable(_agent.RECOVER)
    paths[_agent.RECOVER].unlink()
    mac.services.daemon_reload(*map(mac.services.path, paths), "/etc/newsyslog.d/gatecontrol.conf")
    assert mac.loaded() == {"gatecontrol-beat": None} and mac.launchd.jobs["com.callmetechie.gatecontrol-beat"].interval == 5
    assert mac.services._disabled() == set()


# --- the role's own texts


@pytest.mark.parametrize("interval", [5, 60, 300])
def test_the_role_s_plists_are_taken_by_launchd(mac, interval):
    texts = rendered(interval=interval)
    assert sorted(path for path in MAC if path.endswith(".plist")) == sorted(map(mac.services.path, (
        _agent.TIMER, _agent.APPLY, _agent.RECOVER, "wg-quick@wg0.service")))
    for path in filter(lambda path: path.endswith(".plist"), texts):
        place = mac.root / path.lstrip("/")
        place.write_text(texts[path])
        job = twin.Job(place)
        assert job.label + ".plist" == place.name
        if path == mac.services.path(_agent.TIMER):
            assert job.interval == interval and 0 <= int(job.plist["ProgramArguments"][-1]) < max(interval / 4, 1)


def test_hosts_beat_at_times_of_their_own():
    path = "/Library/LaunchDaemons/com.callmetechie.gatecontrol-beat.plist"
    assert len({plistlib.loads(rendered("mac%d" % number)[path].encode())["ProgramArguments"][-1] for number in range(60)}) > 10


def test_the_log_is_rotated():
    [line] = [line for line in rendered()["/etc/newsyslog.d/gatecontrol.conf"].splitlines() if line and not line.startswith("#")]
    assert re.fullmatch(r"/var/log/gatecontrol\.log +root:wheel +640 +5 +1000 +\* +JN", line)
    assert all(text.count("/var/log/gatecontrol.log") == 2 for path, text in rendered().items() if path.endswith(".plist"))


def test_each_system_installs_what_is_meant_for_it(mac, monkeypatch):
    monkeypatch.setattr(_install, "interpreter", lambda run, preferred: "/usr/bin/python3")
    store = _enrollment.Store(str(mac.root))
    agent = _agent.Agent(store, mac.run)
    texts = dict(rendered(), **{"/etc/systemd/system/gatecontrol-beat.timer": "x"})
    # What a job runs at its load is not there below this root.
    quiet = {path: re.sub("(?s)<array>.*</array>", "<array><string>/bin/sh</string><string>-c</string><string>true</string></array>", text)
             for path, text in texts.items()}
    installed = _install.Installation(agent, "launcher\n", quiet, {"url": "https://gate.example.com"})
    installed.write(installed.differences())
    assert set(mac.loaded()) == {"gatecontrol-recover"} and installed.differences() == []
    assert sorted(path.name for path in mac.folder.iterdir()) == sorted(pathlib.Path(path).name for path in texts if path.startswith("/Library/"))
    assert not (mac.root / "etc/systemd").exists() and (mac.root / "etc/newsyslog.d/gatecontrol.conf").exists()
    assert _install.set_timer(agent, True) and not _install.set_timer(agent, True) and "gatecontrol-beat" in mac.loaded()
    comparison = _drift.Comparison(agent, {"files": {path: _verify.program_digest(path, text) for path, text in quiet.items()}})
    comparison.files()
    assert comparison.drift == [] == comparison.drift.codes
    other = mac.folder / "com.callmetechie.client.plist"
    other.write_text("")
    assert {"/etc/newsyslog.d/gatecontrol.conf", *filter(lambda path: path.startswith("/Library"), texts)} <= set(_install.remove(agent))
    assert mac.loaded() == {} and mac.services._disabled() == set() and list(mac.folder.iterdir()) == [other]
