"""Host images, built from Debian's packages through the machine's own apt mirror."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from machine import HostsError, MissingError, lock, podman, require, run, say

SUITES = ("bullseye", "bookworm", "trixie")
REPOSITORY = "localhost/gatecontrol-host"
MIRROR_VARIABLE = "GATECONTROL_APT_MIRROR"
SCRIPT = Path(__file__).with_name("image.sh")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# what a minimal cloud image holds
BASE = (
    "ca-certificates", "curl", "dbus", "iproute2", "iputils-ping", "netbase", "openssh-server", "procps", "python3", "python3-apt", "sudo",
    "systemd", "systemd-sysv",
)  # fmt: skip
# what an enrollment may install: archives in the plain image, installed in the ready one
TUNNEL = ("nftables", "openresolv", "wireguard-go", "wireguard-tools")
LEFT_OUT = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/doc/*")


def mirror() -> str:
    """URI of the Debian mirror that apt on this machine uses, or the one named by GATECONTROL_APT_MIRROR."""
    if named := os.environ.get(MIRROR_VARIABLE):
        return named.rstrip("/")
    lines = run("apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages").stdout.splitlines()
    for origin, label, uri in (line.split("|", 2) for line in lines):
        if (origin, label) == ("Debian", "Debian"):
            return uri.rstrip("/")
    raise MissingError(
        f"apt on this machine knows no Debian mirror: run `apt-get update` on Debian; elsewhere set {MIRROR_VARIABLE} to the URI of one, "
        "and install debian-archive-keyring."
    )


def proxy_options() -> list[str]:
    """apt's proxy settings of this machine, which the image needs too."""
    lines = run("apt-config", "dump", "--format", "%f|%v%n", "Acquire::http::Proxy", "Acquire::https::Proxy").stdout.splitlines()
    return [f'{key} "{value}"' for key, _sep, value in (line.partition("|") for line in lines) if value]


def recipe(suite: str) -> list[str]:
    """The mmdebstrap command that makes the plain image of a suite, but for the name of its output."""
    if suite not in SUITES:
        raise HostsError(f"There is no suite {suite!r}; there are {', '.join(SUITES)}.")
    return [
        "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(BASE)}", "--skip=cleanup/apt",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        *(f"--aptopt={option}" for option in proxy_options()),
        f"--customize-hook={SCRIPT}", suite, "OUTPUT", f"deb {mirror()} {suite} main",
    ]  # fmt: skip


def image_name(suite: str, ready: bool = False) -> str:
    """Name of an image; its digest covers all that goes in, so a changed recipe is a new image."""
    parts = [*recipe(suite)[1:], SCRIPT.read_text("utf-8"), *TUNNEL, *LEFT_OUT]
    parts = [part.removeprefix(f"--customize-hook={SCRIPT.parent}") for part in parts]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    return f"{REPOSITORY}:{suite}-{digest}{'-ready' if ready else ''}"


def exists(image: str) -> bool:
    """Whether podman has the image."""
    return podman("image", "exists", image, check=False).returncode == 0


def ensure(suite: str, ready: bool = False) -> str:
    """Build the image unless it is there; return its name."""
    image = image_name(suite, ready)
    with lock(f"image-{suite}{'-ready' if ready else ''}"):
        if exists(image):
            return image
        start = time.monotonic()
        say(f"building {image}")
        if ready:
            install(ensure(suite), image)
        else:
            bootstrap(suite, image)
        say(f"built {image} in {time.monotonic() - start:.0f} s")
    return image


def bootstrap(suite: str, image: str) -> None:
    """Make the plain image from packages."""
    require("mmdebstrap", "apt-get")
    if not KEYRING.exists():
        raise MissingError("Debian's archive keys are missing: `apt-get install debian-archive-keyring`.")
    with TemporaryDirectory(prefix="gatecontrol-image-", dir="/var/tmp") as folder:
        output = f"{folder}/root.tar"
        command = [output if part == "OUTPUT" else part for part in recipe(suite)]
        run(*command, env={**os.environ, "PREFETCH": " ".join(TUNNEL), "DEBIAN_FRONTEND": "noninteractive", "TMPDIR": folder})
        podman("import", "--quiet", output, image)


def install(plain: str, image: str) -> None:
    """Make the ready image: the plain one with the prefetched packages installed, without network."""
    container = f"gc-image-{os.getpid()}-{image.rpartition(':')[2]}"
    command = ["apt-get", "--yes", "--no-download", "install", *TUNNEL]
    try:
        podman("run", "--name", container, "--network", "none", "--env", "DEBIAN_FRONTEND=noninteractive", "--ulimit", "nofile=1024:20000",
               "--ulimit", "nproc=30000:30000", plain, *command)  # fmt: skip
        podman("commit", "--quiet", container, image)
    finally:
        podman("rm", "--force", container, check=False)


def remove_all() -> list[str]:
    """Remove every host image; return their names."""
    if not shutil.which("podman"):
        return []
    names = podman("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={REPOSITORY}").stdout.split()
    # the ready image lies on the plain one
    for name in sorted(names, key=lambda name: not name.endswith("-ready")):
        podman("rmi", "--force", name)
    return names
