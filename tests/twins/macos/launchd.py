"""Stand-in for launchd and, called by that name, for launchctl: loads plists, runs jobs, remembers what was disabled.

It refuses what launchd refuses, and any key that it does not act on: a plist that it takes means here what it means there. Its words and exit
statuses are those of macOS 14. One domain, system.
"""
from __future__ import annotations

import json
import os
import pathlib
import plistlib
import signal
import socket
import subprocess
import sys
import time
from xml.parsers.expat import ExpatError

SOCKET = "/var/run/launchd.sock"
DAEMONS = pathlib.Path("/Library/LaunchDaemons")
OVERRIDES = pathlib.Path("/var/db/com.apple.xpc.launchd/disabled.plist")
KEYS = {  # what launchd.plist(5) has of them
    "Label": str, "ProgramArguments": list, "RunAtLoad": bool, "StartInterval": int, "AbandonProcessGroup": bool, "ThrottleInterval": int,
    "StandardOutPath": str, "StandardErrorPath": str, "Umask": int, "ExitTimeOut": int, "Disabled": bool}
THROTTLE = 10  # seconds between two starts of a job
LINGER = 0.3  # seconds for which a job that was booted out is still there, even if it does not run
CONFIG = 78  # exit status of a program that cannot be started (EX_CONFIG)


class Refused(Exception):
    """launchctl's exit status and words."""


def exactly(value, kind):
    """Whether a value is of this kind; a bool is no int here, as in a plist."""
    return isinstance(value, kind) and isinstance(value, bool) == (kind is bool)


class Job:
    """A loaded job."""

    def __init__(self, path: pathlib.Path):
        info = path.stat()
        with path.open("rb") as stream:
            self.plist = plist = plistlib.load(stream)
        words = plist.get("ProgramArguments")
        if info.st_uid != os.geteuid() or info.st_mode & 0o022 or not path.is_file():
            raise ValueError("bad ownership or permissions")
        if any(key not in KEYS or not exactly(value, KEYS[key]) for key, value in plist.items()) or not plist.get("Label"):
            raise ValueError("a key is unknown here or of another type")
        if not words or not all(isinstance(word, str) for word in words) or not os.path.isabs(words[0]) or plist.get("StartInterval", 1) < 1:
            raise ValueError("no program")
        self.path, self.label, self.process, self.runs, self.status = path, plist["Label"], None, 0, None
        self.spawned, self.due, self.going = -THROTTLE, None, None
        self.interval = plist.get("StartInterval")
        self.next = time.monotonic() + self.interval if self.interval else None
        if plist.get("RunAtLoad"):
            self.due = time.monotonic()

    def kick(self) -> None:
        """Start it as soon as it may; a job that runs is left alone."""
        if self.process is None and self.due is None:
            self.due = max(time.monotonic(), self.spawned + self.plist.get("ThrottleInterval", THROTTLE))

    def spawn(self) -> None:
        plist = self.plist
        self.due, self.spawned, self.runs = None, time.monotonic(), self.runs + 1
        streams = [open(plist[key], "ab") if key in plist else subprocess.DEVNULL for key in ("StandardOutPath", "StandardErrorPath")]
        try:
            self.process = subprocess.Popen(
                plist["ProgramArguments"], stdin=subprocess.DEVNULL, stdout=streams[0], stderr=streams[1], start_new_session=True, cwd="/",
                umask=plist.get("Umask", 0o022), env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "XPC_SERVICE_NAME": self.label})
        except OSError:
            self.status = CONFIG
        finally:
            for stream in streams:
                if stream != subprocess.DEVNULL:
                    stream.close()

    def tick(self) -> bool:
        """One look; whether the job is still loaded."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            if not self.plist.get("AbandonProcessGroup"):
                self.signal(signal.SIGTERM)
            self.status, self.process = self.process.returncode, None
        if self.going is not None:
            if self.process is not None and now > self.going + self.plist.get("ExitTimeOut", 5):
                self.signal(signal.SIGKILL)
            return self.process is not None or now < self.going + LINGER
        if self.next is not None and now >= self.next:
            self.next += self.interval * (1 + int((now - self.next) / self.interval))
            self.kick()  # an interval that ends while the job runs is missed
        if self.due is not None and now >= self.due and self.process is None:
            self.spawn()
        return True

    def signal(self, number: int) -> None:
        """Signal its process group, or with AbandonProcessGroup its process alone."""
        try:
            if self.plist.get("AbandonProcessGroup"):
                self.process.send_signal(number)
            else:
                os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def boot_out(self) -> bool:
        """Begin to take it down; whether that takes a while."""
        self.going = time.monotonic()
        if self.process is not None:
            self.signal(signal.SIGTERM)
        return self.process is not None

    def described(self) -> str:
        """What `launchctl print` says, as far as it is known here."""
        state = "running" if self.process else "spawn scheduled" if self.due else "not running"
        lines = ["active count = %d" % bool(self.process), "path = %s" % self.path, "type = LaunchDaemon", "state = %s" % state, "",
                 "program = %s" % self.plist["ProgramArguments"][0], "domain = system", "runs = %d" % self.runs]
        lines += ["pid = %d" % self.process.pid] if self.process else []
        lines += ["last exit code = %s" % ("(never exited)" if self.status is None else self.status)]
        lines += ["run interval = %d seconds" % self.interval] if self.interval else []
        return "system/%s = {\n%s}\n" % (self.label, "".join("\t%s\n" % line if line else "\n" for line in lines))


class Launchd:
    """All jobs, and what launchctl may ask."""

    def __init__(self):
        self.jobs: dict[str, Job] = {}
        self.overrides = plistlib.loads(OVERRIDES.read_bytes()) if OVERRIDES.exists() else {}

    def disabled(self, label: str, job: Job | None = None) -> bool:
        return self.overrides.get(label, job is not None and job.plist.get("Disabled", False))

    def load(self, path: pathlib.Path) -> None:
        """Raises Refused with the one error that launchd has for all reasons; the reason goes to its log."""
        try:
            job = Job(path)
            if job.label in self.jobs or self.disabled(job.label, job):
                raise ValueError("%s is %s" % (job.label, "loaded already" if job.label in self.jobs else "disabled"))
        except (OSError, ValueError, plistlib.InvalidFileException, ExpatError) as error:
            print("%s: %s" % (path, error), flush=True)
            raise Refused(5, "Bootstrap failed: 5: Input/output error") from None
        self.jobs[job.label] = job

    def boot(self) -> None:
        for path in sorted(DAEMONS.glob("*.plist")):
            try:
                self.load(path)
            except Refused:
                pass

    def tick(self) -> None:
        for label, job in list(self.jobs.items()):
            if not job.tick():
                del self.jobs[label]

    def job(self, target: str, status: int, words: str) -> Job:
        label = target.removeprefix("system/")
        if label not in self.jobs or label == target:
            raise Refused(status, words % label)
        return self.jobs[label]

    def answer(self, words: list[str]) -> str:
        """The output of `launchctl WORDS`. Raises Refused."""
        verb, rest = words[0] if words else "help", words[1:]
        missing = 'Could not find service "%s" in domain for system'
        if verb == "list" and not rest:
            rows = ["%s\t%s\t%s" % (job.process.pid if job.process else "-", job.status or 0, label) for label, job in self.jobs.items()]
            return "\n".join(["PID\tStatus\tLabel", *rows]) + "\n"
        if verb == "print" and len(rest) == 1:
            return self.job(rest[0], 113, missing).described()
        if verb == "print-disabled" and rest == ["system"]:
            rows = ['\t\t"%s" => %s' % (label, "disabled" if off else "enabled") for label, off in sorted(self.overrides.items())]
            return "\n".join(["", "\tdisabled services = {", *rows, "\t}", ""])
        if verb == "bootstrap" and len(rest) == 2 and rest[0] == "system":
            self.load(pathlib.Path(rest[1]))
        elif verb == "bootout" and len(rest) == 1:
            if self.job(rest[0], 3, "Boot-out failed: 3: No such process%.0s").boot_out():
                raise Refused(36, "Boot-out failed: 36: Operation now in progress")
        elif verb == "kickstart" and len(rest) == 1:
            self.job(rest[0], 113, missing).kick()
        elif verb in ("enable", "disable") and len(rest) == 1 and rest[0].startswith("system/"):
            self.overrides[rest[0][len("system/"):]] = verb == "disable"
            OVERRIDES.parent.mkdir(parents=True, exist_ok=True)
            OVERRIDES.write_bytes(plistlib.dumps(self.overrides))
        else:
            raise Refused(64, "Usage: launchctl bootstrap | bootout | enable | disable | kickstart | list | print | print-disabled")
        return ""


def serve() -> None:
    print("This is no macOS: a stand-in for launchd, for tests. See tests/twins/macos/README.md.", flush=True)
    launchd = Launchd()
    launchd.boot()
    if os.path.exists(SOCKET):
        os.unlink(SOCKET)
    server = socket.socket(socket.AF_UNIX)
    server.bind(SOCKET)
    server.listen()
    server.settimeout(0.05)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while True:
            launchd.tick()
            try:
                client = server.accept()[0]
            except TimeoutError:
                continue
            with client, client.makefile("rwb") as stream:
                words = json.loads(stream.readline())
                try:
                    answer = [0, launchd.answer(words), ""]
                except Refused as error:
                    answer = [error.args[0], "", error.args[1] + "\n"]
                stream.write(json.dumps(answer).encode() + b"\n")
    finally:
        for job in launchd.jobs.values():
            job.boot_out()


def main() -> int:
    if os.path.basename(sys.argv[0]) != "launchctl":
        serve()
    if os.geteuid():
        print("Operation not permitted", file=sys.stderr)
        return 1
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(SOCKET)
        with client.makefile("rwb") as stream:
            stream.write(json.dumps(sys.argv[1:]).encode() + b"\n")
            stream.flush()
            status, out, err = json.loads(stream.readline())
    sys.stdout.write(out)
    sys.stderr.write(err)
    return status


if __name__ == "__main__":
    sys.exit(main())
