"""What the machine offers: commands, podman and its quirks, limits. Nothing here knows of runs or hosts."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = {  # command -> Debian package that carries it
    "podman": "podman runc",
    "ip": "iproute2",
    "iptables": "iptables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "openssl": "openssl",
    "mmdebstrap": "mmdebstrap",
    "patchelf": "patchelf",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "dnsmasq": "dnsmasq-base",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mke2fs": "e2fsprogs",
}
# podman's defaults may exceed the machine's own limits, which fails without CAP_SYS_RESOURCE
LIMITS = ("--ulimit", "nproc=30000:30000", "--ulimit", "nofile=1024:20000")
INOTIFY_INSTANCES = 4096  # a systemd host takes six; the usual limit of 128 is for one machine


class HostsError(Exception):
    """Something failed; the text is one sentence for the user."""


class MissingError(HostsError):
    """The machine lacks something; the text says what and how to get it."""


def say(text: str) -> None:
    """Tell the user what is being done."""
    print(text, file=sys.stderr, flush=True)


def run(*command: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command, its output captured as text; a failure is a HostsError with the command's own words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    except FileNotFoundError as error:
        if check:
            raise MissingError(lacking([command[0]])) from error
        return subprocess.CompletedProcess(command, 127, "", str(error))
    if check and done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise HostsError(f"`{' '.join(command)}` failed with status {done.returncode}: {' / '.join(words[-5:]) or 'no output'}")
    return done


def lacking(commands: list[str]) -> str:
    """The sentence that says which commands are missing and how to get them."""
    packages = " ".join(sorted({PACKAGES.get(name, name) for name in commands}))
    return f"Missing on this machine: {', '.join(commands)}; install with `apt-get install {packages}`."


def require(*commands: str, root: bool = True) -> None:
    """Raise MissingError unless the commands exist and, where root is needed, we are root and there is a tun device."""
    if root and os.geteuid() != 0:
        raise MissingError("Hosts need root (network namespaces, containers with systemd): run this as root or with sudo.")
    if missing := [name for name in commands if not shutil.which(name)]:
        raise MissingError(lacking(missing))
    if root and not Path("/dev/net/tun").exists():
        raise MissingError("There is no /dev/net/tun: load it with `modprobe tun` (a container needs `--device /dev/net/tun`).")


def cgroup_version() -> int:
    """Version of the control groups that systemd inside a container meets: 2 when unified, else 1."""
    return 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1


def runtime_arguments() -> list[str]:
    """Podman's global arguments: crun refuses a hybrid control group layout, runc takes it."""
    if cgroup_version() == 2:
        return []
    if not shutil.which("runc"):
        raise MissingError("This machine has control groups version 1, which need runc: `apt-get install runc`.")
    return ["--runtime", "runc"]


def podman(*arguments: str, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Run podman with the runtime that works here."""
    return run("podman", *runtime_arguments(), *arguments, check=check, **options)


def system_arguments() -> list[str]:
    """`podman create` arguments for a container whose first process is systemd, with tunnels, nftables and sysctl inside."""
    arguments = ["--systemd=always", "--dns", "none", "--no-hosts", *LIMITS]
    arguments += ["--cap-add", "NET_ADMIN,NET_RAW,SYS_ADMIN,SYS_CHROOT,AUDIT_WRITE", "--device", "/dev/net/tun"]
    for option in ("unmask=/proc/sys", "seccomp=unconfined", "apparmor=unconfined", "label=disable"):
        arguments += ["--security-opt", option]
    if cgroup_version() == 1:
        arguments += ["--env", "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"]
    return arguments


def init_command() -> list[str]:
    """The first process of a host; systemd 256 and later must be told that control groups version 1 are meant."""
    return ["/usr/sbin/host-init", *(["SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"] if cgroup_version() == 1 else [])]


def sysctl(key: str) -> Path:
    """The file of a kernel setting of the machine."""
    return Path("/proc/sys", *key.split("."))


def prepare_limits() -> None:
    """Raise what many systemd hosts on one kernel run out of, and let the machine forward."""
    for key, wanted in (("fs.inotify.max_user_instances", INOTIFY_INSTANCES), ("net.ipv4.ip_forward", 1)):
        setting = sysctl(key)
        if int(setting.read_text()) >= wanted:
            continue
        try:
            setting.write_text(str(wanted))
            say(f"set {key} = {wanted}")
        except OSError as error:
            raise MissingError(
                f"{key} must be at least {wanted} and cannot be set here ({error.strerror}): `sysctl -w {key}={wanted}`."
            ) from error


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lock that all runs on this machine share."""
    with open(f"/run/lock/gatecontrol-hosts-{name}", "w", encoding="ascii") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
