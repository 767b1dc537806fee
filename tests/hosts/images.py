"""Host images, built from Debian's packages through the machine's own apt mirror."""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from machine import LIMITS, HostsError, MissingError, lock, podman, require, run, say

SUITES = ("bullseye", "bookworm", "trixie")
REPOSITORY = "localhost/gatecontrol-host"
MIRROR_VARIABLE = "GATECONTROL_APT_MIRROR"
SCRIPT = Path(__file__).with_name("image.sh")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# what a minimal cloud image holds
BASE = (
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "iputils-ping",
    "netbase",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
)
# what an enrollment may install: archives in the plain image, installed in the ready one
TUNNEL = ("nftables", "openresolv", "wireguard-go", "wireguard-tools")
# as clouds and Ubuntu have it: names by systemd-resolved, the address by a lease that systemd-networkd holds
RESOLVED = ("libnss-resolve", "nftables", "systemd-resolved", "wireguard-go", "wireguard-tools")
INSTALLED = {"ready": TUNNEL, "resolved": RESOLVED}  # what an image of a kind has installed over the plain one
FETCHED = ("resolved",)  # kinds whose packages are fetched when the image is built: they would drive out those that lie in the plain one
LACKING = {("bullseye", "resolved")}  # there systemd-resolved is no package of its own
BORROWED = {"bullseye": ("bookworm", "wireguard-go")}  # what a suite lacks, and whose it takes
MAINTAINER = "callmetechie.gatecontrol contributors <root@localhost>"
PRIVATE = "/usr/lib/wireguard-go"  # where a borrowed program lies with the libraries it needs
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
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(BASE)}",
        "--skip=cleanup/apt",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        *(f"--aptopt={option}" for option in ('Acquire::Languages "none"', *proxy_options())),
        f"--customize-hook={SCRIPT}",
        suite,
        "OUTPUT",
        f"deb {mirror()} {suite} main",
    ]


def image_name(suite: str, kind: str = "") -> str:
    """Name of an image; its digest covers all that goes in, so a changed recipe is a new image."""
    parts = [part for part in recipe(suite) if str(SCRIPT) not in part]
    parts += [SCRIPT.read_text("utf-8"), *TUNNEL, *([inspect.getsource(borrow), *BORROWED[suite]] if suite in BORROWED else [])]
    parts += INSTALLED[kind] if kind in FETCHED else ()
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    return f"{REPOSITORY}:{suite}-{digest}{kind and '-' + kind}"


def exists(image: str) -> bool:
    """Whether podman has the image."""
    return podman("image", "exists", image, check=False).returncode == 0


def ensure(suite: str, kind: str = "") -> str:
    """Build the image of a kind (see INSTALLED; "": plain) unless it is there; return its name."""
    if (suite, kind) in LACKING:
        raise HostsError(f"There is no {kind} host of {suite}.")
    image = image_name(suite, kind)
    with lock(f"image-{suite}{kind and '-' + kind}"):
        if exists(image):
            return image
        start = time.monotonic()
        say(f"building {image}")
        if kind:
            install(ensure(suite), image, INSTALLED[kind], "host" if kind in FETCHED else "none")
        else:
            bootstrap(suite, image)
        say(f"built {image} in {time.monotonic() - start:.0f} s")
    return image


def ensure_all(kinds: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Ensure several images (suite, kind) at once; return their names."""
    wanted = sorted(kinds)
    with ThreadPoolExecutor(len(SUITES)) as pool:
        return dict(zip(wanted, pool.map(lambda kind: ensure(*kind), wanted), strict=True))


def bootstrap(suite: str, image: str) -> None:
    """Make the plain image from packages."""
    require("mmdebstrap", "apt-get")
    if not KEYRING.exists():
        raise MissingError("Debian's archive keys are missing: `apt-get install debian-archive-keyring`.")
    with TemporaryDirectory(prefix="gatecontrol-image-", dir="/var/tmp") as folder:
        output = f"{folder}/root.tar"
        command = [output if part == "OUTPUT" else part for part in recipe(suite)]
        environment = {**os.environ, "PREFETCH": " ".join(TUNNEL), "DEBIAN_FRONTEND": "noninteractive", "TMPDIR": folder}
        if suite in BORROWED:
            environment["PACKAGES"] = f"{folder}/packages"
            borrow(*BORROWED[suite], Path(environment["PACKAGES"]))
        run(*command, env=environment)
        podman("import", "--quiet", output, image)


def borrow(suite: str, program: str, folder: Path) -> None:
    """Make an apt repository with another suite's package of one program, its libraries beside it so that it runs on an older system."""
    require("patchelf", "dpkg-deb")
    tree = folder.parent / "tree"
    private = tree / PRIVATE.lstrip("/")
    for path in (folder, private, tree / "DEBIAN", tree / "usr/bin"):
        path.mkdir(parents=True)
    script = f"cp -L $(ldd /usr/bin/{program} | grep -o '/[^ ]*') /usr/bin/{program} /out; "
    script += f"dpkg-query --show --showformat='${{Version}} ${{Architecture}}' {program}"
    container = ["--rm", "--network", "none", *LIMITS, "--volume", f"{private}:/out", ensure(suite, "ready")]
    version, architecture = podman("run", *container, "sh", "-ec", script).stdout.split()
    loader = next(private.glob("ld-*"))
    run("patchelf", "--set-interpreter", f"{PRIVATE}/{loader.name}", "--set-rpath", PRIVATE, str(private / program))
    (tree / "usr/bin" / program).symlink_to(f"{PRIVATE}/{program}")
    control = f"Package: {program}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {MAINTAINER}\n"
    control += f"Description: {program} of {suite}, with the libraries it needs\n"
    (tree / "DEBIAN/control").write_text(control, encoding="utf-8")
    archive = folder / f"{program}.deb"
    run("dpkg-deb", "--build", "--root-owner-group", str(tree), str(archive))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    index = f"{control}Filename: ./{archive.name}\nSize: {archive.stat().st_size}\nSHA256: {digest}\n"
    (folder / "Packages").write_text(index, encoding="utf-8")


def install(plain: str, image: str, packages: Iterable[str], network: str = "none") -> None:
    """Make an image of the plain one with packages installed: prefetched ones without network, else by the machine's own (network "host")."""
    container = f"gc-image-{os.getpid()}-{image.rpartition(':')[2]}"
    command = ["apt-get", "--yes", "install", *packages]
    try:
        podman("run", "--name", container, "--network", network, *LIMITS, "--env", "DEBIAN_FRONTEND=noninteractive", plain, *command)
        podman("commit", "--quiet", container, image)
    finally:
        podman("rm", "--force", container, check=False)


def remove_all() -> list[str]:
    """Remove every host image; return their names."""
    if not shutil.which("podman"):
        return []
    names = podman("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={REPOSITORY}").stdout.split()
    # the others lie on the plain one
    for name in sorted(names, key=lambda name: not name.endswith(tuple(f"-{kind}" for kind in INSTALLED))):
        podman("rmi", "--force", name)
    return names
