"""Virtual machines as hosts: a kernel of their own under qemu, from Debian's packages alone, with KVM where it carries a guest and without it elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import images
import network
from machine import HostsError, lock, require, run, say

CACHE = Path("/var/cache/gatecontrol-hosts")
SCRIPT = Path(__file__).with_name("vm.sh")
MEMORY = 768  # MiB
DISK = "3G"  # sparse
TRIAL = 20  # seconds in which a guest under KVM has to reach its first process
BOOT_TIMEOUT = 400  # seconds; under software emulation on a busy machine
USUAL = ("root=/dev/vda rw console=ttyS0 quiet nokaslr mitigations=off no_timer_check net.ifnames=0 systemd.show_status=0 apparmor=1 security=apparmor")

PACKAGES = (
    *images.BASE, "apparmor", "apparmor-utils", "chrony", "kmod", "libpam-systemd", "linux-image-cloud-amd64", "nftables", "udev", "wireguard-tools",
)
# bookworm has its names by resolvconf, trixie by systemd-resolved
NAMES = {"bookworm": ("openresolv",), "trixie": ("systemd-resolved",)}


@dataclass
class Power:
    """How a machine is switched on: more words for its kernel, the time of its clock (ISO 8601, UTC), another address (CIDR)."""

    append: str = ""
    rtc: str = "utc"
    address: str = ""


def recipe(suite: str) -> list[str]:
    """The mmdebstrap command that makes a machine's root, but for the name of its output."""
    if suite not in NAMES:
        raise HostsError(f"There is no virtual machine of {suite}; there are {', '.join(NAMES)}.")
    plain = [part for part in images.recipe(suite) if not part.startswith(("--include=", "--customize-hook="))]
    where = plain.index("--variant=minbase") + 1
    return [*plain[:where], f"--include={','.join((*PACKAGES, *NAMES[suite]))}", f"--customize-hook={SCRIPT}", *plain[where:]]


def folder_of(suite: str) -> Path:
    """Where a suite's image lies; its digest covers all that goes in."""
    parts = [part for part in recipe(suite) if str(SCRIPT) not in part] + [SCRIPT.read_text("utf-8"), DISK]
    return CACHE / f"vm-{suite}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:12]}"


def ensure(suite: str) -> Path:
    """Build a suite's image unless it is there: root.img, vmlinuz, initrd; return its folder."""
    require("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs")
    place = folder_of(suite)
    with lock(f"vm-{suite}"):
        if place.exists():
            return place
        say(f"building {place.name}")
        start = time.monotonic()
        CACHE.mkdir(parents=True, exist_ok=True)
        for old in CACHE.glob(f"vm-{suite}-*"):
            shutil.rmtree(old, ignore_errors=True)
        with TemporaryDirectory(prefix="gatecontrol-vm-", dir="/var/tmp") as work:
            make = Path(work)
            command = [f"{make}/root.tar" if part == "OUTPUT" else part for part in recipe(suite)]
            run(*command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "TMPDIR": work})
            root, made = make / "root", make / "made"
            root.mkdir(mode=0o755)
            made.mkdir()
            run("tar", "-xf", f"{make}/root.tar", "-C", str(root), "--numeric-owner")
            for name in ("vmlinuz", "initrd.img"):
                shutil.copy(next(root.glob(f"boot/{name}-*")), made / name.removesuffix(".img"))
            shutil.rmtree(root / "boot")
            (root / "boot").mkdir()
            run("truncate", "-s", DISK, f"{made}/root.img")
            run("mke2fs", "-q", "-t", "ext4", "-d", str(root), f"{made}/root.img")
            shutil.move(made, place)
        say(f"built {place.name} in {time.monotonic() - start:.0f} s")
    return place


def accelerator(place: Path) -> str:
    """What carries guests on this machine: "kvm" where one has come up under it, else "tcg". Tried once in a boot of the machine."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    answer = Path("/run/gatecontrol-hosts-accelerator")
    with lock("accelerator"):
        if not answer.exists():
            command = [
                "timeout",
                str(TRIAL),
                "qemu-system-x86_64",
                "-accel",
                "kvm",
                "-M",
                "q35",
                "-cpu",
                "host",
                "-nodefaults",
                "-m",
                "512",
                "-display",
                "none",
            ]
            command += ["-serial", "stdio", "-no-reboot", "-kernel", str(place / "vmlinuz"), "-initrd", str(place / "initrd")]
            done = run(*command, "-append", "console=ttyS0 panic=-1 rdinit=/bin/true", check=False, stdin=subprocess.DEVNULL)
            answer.write_text("kvm" if "Attempted to kill init" in done.stdout else "tcg")
    return answer.read_text()


class Machine:
    """One virtual machine of a run. folder: where its disk, its sockets and its log lie."""

    def __init__(self, name: str, suite: str, number: int, address: str, folder: Path, net: network.Network) -> None:
        self.name, self.suite, self.address, self.folder, self.net = name, suite, address, folder, net
        self.tap = f"gc{net.mark}v{number}"
        self.pid, self.monitor, self.log, self.disk = (folder / part for part in ("pid", "monitor", "console.log", "disk.qcow2"))

    def make(self, files: dict[str, tuple[str, int]]) -> None:
        """Lay out its disk over the image, and the files that it takes at its first start: {path: (text, mode)}."""
        self.folder.mkdir(parents=True)
        place = ensure(self.suite)
        (self.folder / "image").symlink_to(place)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(place / "root.img"), "-F", "raw", str(self.disk))
        with tarfile.open(self.folder / "seed.tar", "w") as seed:
            for path, (text, mode) in files.items():
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.size, entry.mode = len(text.encode()), mode
                if path.startswith("/home/ops/"):
                    entry.uid = entry.gid = 1000
                seed.addfile(entry, BytesIO(text.encode()))

    def start(self, power: Power | None = None) -> None:
        """Switch it on; returns at once."""
        power = power or Power()
        self.attach()
        place = self.folder / "image"
        address = power.address or f"{self.address}/24"
        plain, _slash, prefix = address.partition("/")
        mask = {"24": "255.255.255.0", "25": "255.255.255.128"}[prefix or "24"]
        how = accelerator(place.resolve())
        words = f"{USUAL} ip={plain}::{self.net.gateway}:{mask}:{self.name}:eth0:none {power.append}"
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi" if how == "tcg" else how, "-M", "q35", "-cpu", "max", "-nodefaults"]
        command += ["-m", str(MEMORY), "-smp", "1", "-display", "none", "-no-reboot", "-daemonize", "-pidfile", str(self.pid), "-rtc", f"base={power.rtc}"]
        command += ["-serial", f"file:{self.log}", "-monitor", f"unix:{self.monitor},server,nowait"]
        command += ["-kernel", str(place / "vmlinuz"), "-initrd", str(place / "initrd"), "-append", words]
        command += ["-drive", f"file={self.disk},if=virtio,cache=unsafe", "-drive", f"file={self.folder}/seed.tar,if=virtio,format=raw,readonly=on"]
        command += ["-device", "virtio-rng-pci", "-netdev", f"tap,id=n,ifname={self.tap},script=no,downscript=no"]
        command += ["-device", f"virtio-net-pci,netdev=n,mac={network.hardware_address(self.address)}"]
        run(*(["ip", "netns", "exec", self.net.router] if self.net.router else []), *command)

    def attach(self) -> None:
        """Its port of the run's bridge."""
        where = self.net.router
        network.ip("link", "del", self.tap, namespace=where, check=False)
        network.ip("tuntap", "add", self.tap, "mode", "tap", namespace=where)
        network.ip("link", "set", self.tap, "master", self.net.bridge, "up", namespace=where)

    def process(self) -> int | None:
        """The number of its process, None while it is off."""
        try:
            number = int(self.pid.read_text())
            return number if "qemu" in Path(f"/proc/{number}/comm").read_text() else None
        except (OSError, ValueError):
            return None

    def cut(self) -> None:
        """Cut its power."""
        number = self.process()
        if number:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
            self.ended(10)

    def ended(self, seconds: float) -> bool:
        """Whether it is off within so many seconds."""
        end = time.monotonic() + seconds
        while self.process() and time.monotonic() < end:
            time.sleep(0.1)
        return self.process() is None

    def tell(self, word: str) -> None:
        """A command of qemu's monitor, such as stop and cont, between which the machine's clocks stand still."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(10)
            monitor.connect(str(self.monitor))
            monitor.recv(4096)
            monitor.sendall(f"{word}\n".encode())
            time.sleep(0.3)
            monitor.recv(4096)


def remove(folder: Path) -> None:
    """End every machine that a run's folder knows of."""
    for pid in folder.glob("vm/*/pid"):
        with suppress(OSError, ValueError):
            number = int(pid.read_text())
            if "qemu" in Path(f"/proc/{number}/comm").read_text():
                os.kill(number, signal.SIGKILL)


def remove_images() -> list[str]:
    """Remove every image; return their names."""
    found = list(CACHE.glob("vm-*"))
    for path in found:
        shutil.rmtree(path)
    return [path.name for path in found]


def power(text: str | None) -> Power:
    """Power from JSON, as the command line has it."""
    return Power(**json.loads(text)) if text else Power()
