"""Runs: groups of systemd hosts with one network, one SSH key and one inventory."""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import images
import network
import vm
import yaml
from machine import HostsError, init_command, lock, podman, prepare_limits, require, run, say, system_arguments

BOOT_TIMEOUT = 120  # seconds; 40 hosts at once on two cores need 60
PARALLEL = 8
VM = "vm"  # the kind of a host that is a virtual machine
RESOLVED = "resolved"  # the kind of a host with systemd-resolved, systemd-networkd and a lease
NETWORK_FILE = "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=ipv6\n\n[DHCPv4]\nClientIdentifier=mac\n"
GATEWAY = "gateway.test"  # the hosts' name for the server, or for the machine where there is none
RUN_NAME = re.compile(r"[a-z0-9_]{1,24}")
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
RANGE = re.compile(r"(?P<before>.*)\[(?P<first>\d+):(?P<last>\d+)\](?P<after>.*)")


@dataclass
class Host:
    """One host of a run; container and namespace have the same name. kind: "" plain, "vm", or one of images.INSTALLED."""

    name: str
    suite: str
    kind: str
    address: str
    container: str
    image: str


def parse_hosts(texts: list[str]) -> list[tuple[str, str, str]]:
    """Read NAME:SUITE[:KIND], where NAME may hold a range such as web[01:20]; return name, suite, kind of each host."""
    found: list[tuple[str, str, str]] = []
    for text in texts:
        match = re.fullmatch(r"(?P<name>[^:\[]+(?:\[\d+:\d+\][^:]*)?):(?P<suite>[a-z]+)(:(?P<kind>[a-z]+))?", text)
        if not match or match["kind"] not in (None, VM, *images.INSTALLED):
            raise HostsError(
                f"{text!r} is no host: write NAME:SUITE or NAME:SUITE:KIND, such as web1:bookworm or web[01:20]:trixie:ready; "
                f"kinds are {VM}, {', '.join(images.INSTALLED)}."
            )
        names = [match["name"]]
        if part := RANGE.fullmatch(match["name"]):
            numbers = range(int(part["first"]), int(part["last"]) + 1)
            names = [f"{part['before']}{number:0{len(part['first'])}}{part['after']}" for number in numbers]
        found += [(name, match["suite"], match["kind"] or "") for name in names]
    names = [name for name, _suite, _kind in found]
    for name in names:
        if not HOST_NAME.fullmatch(name) or name in ("server", "router"):
            raise HostsError(f"{name!r} cannot be a host's name: lower-case letters, digits and hyphens, and not server or router.")
        if names.count(name) > 1:
            raise HostsError(f"Two hosts are called {name}.")
    return found


class Room:
    """A run, its directory and what it made on the machine."""

    def __init__(self, name: str, base: Path) -> None:
        if not RUN_NAME.fullmatch(name):
            raise HostsError(f"{name!r} cannot be a run's name: up to 24 lower-case letters, digits and underscores.")
        self.name = name
        self.folder = (base / name).resolve()
        self.record = self.folder / "run.json"
        self.key = self.folder / "id_ed25519"
        self.known_hosts = self.folder / "known_hosts"

    # -- the record

    def load(self) -> tuple[network.Network, list[Host]]:
        """The run's network and hosts as `up` recorded them."""
        if not self.record.exists():
            raise HostsError(f"There is no run {self.name} in {self.folder.parent}: start it with `up`, see `list`.")
        data = json.loads(self.record.read_text("utf-8"))
        return network.Network(self.name, data["block"], data["routed"]), [Host(**host) for host in data["hosts"].values()]

    def host(self, name: str) -> tuple[network.Network, Host]:
        """The run's network and one of its hosts."""
        net, hosts = self.load()
        for host in hosts:
            if host.name == name:
                return net, host
        raise HostsError(f"Run {self.name} has no host {name}; it has {', '.join(host.name for host in hosts) or 'none'}.")

    def write(self, net: network.Network, hosts: list[Host], server: bool) -> None:
        """Write run.json and inventory.yml."""
        data = {
            "run": self.name,
            "routed": net.routed,
            "block": str(net.block),
            "subnet": str(net.hosts),
            "bridge": net.bridge,
            "gateway_address": net.gateway,
            "machine_address": net.machine,
            "router_netns": net.router,
            "server": {"netns": net.server, "address": net.server_address} if server else None,
            "hosts": {host.name: asdict(host) for host in hosts},
        }
        self.record.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        members = {suite: [host.name for host in hosts if host.suite == suite] for suite in images.SUITES}
        inventory = {
            "all": {
                "vars": {
                    "ansible_user": "ops",
                    "ansible_python_interpreter": "/usr/bin/python3",
                    "ansible_ssh_private_key_file": str(self.key),
                    "ansible_ssh_common_args": shlex.join(self.ssh_options()),
                },
                "hosts": {host.name: {"ansible_host": host.address} for host in hosts},
                "children": {suite: {"hosts": dict.fromkeys(names)} for suite, names in members.items() if names},
            }
        }
        (self.folder / "inventory.yml").write_text(yaml.safe_dump(inventory, sort_keys=False), encoding="utf-8")

    def ssh_options(self) -> list[str]:
        """Options with which ssh trusts the run's hosts and nothing of the user's own configuration plays in."""
        trusted = f'UserKnownHostsFile="{self.known_hosts}"'
        return ["-F", "/dev/null", "-o", trusted, "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"]

    def ssh(self, host: Host, *command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Run a command on a host as ops over a new SSH connection; a timeout counts as status 255."""
        options = [*self.ssh_options(), "-i", str(self.key), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
        try:
            return run("ssh", *options, f"ops@{host.address}", *command, check=False, timeout=timeout, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 255, "", "timed out")

    # -- life

    def up(self, wanted: list[str], *, server: bool = False, routed: bool = False, subnet: str = "auto") -> None:
        """Start the hosts and wait until each takes SSH and its systemd has come up; a failure leaves nothing behind."""
        require("podman", "ip", "iptables", "ssh", "ssh-keygen")
        specs = parse_hosts(wanted)
        start = time.monotonic()
        prepare_limits()
        kinds = {(suite, kind) for _name, suite, kind in specs}
        built = images.ensure_all(kind for kind in kinds if kind[1] != VM)
        built |= {(suite, kind): str(vm.ensure(suite)) for suite, kind in kinds if kind == VM}
        self.down()
        try:
            with lock("network"):
                net = network.Network(self.name, None if subnet == "auto" else subnet, routed)
                net.make()
            say(f"{self.name}: network {net.hosts}{' behind a router' if routed else ''}, the machine is {net.machine}")
            if server:
                net.attach_server()
                say(f"{self.name}: namespace {net.server} has {net.server_address}")
            hosts = [
                Host(name, suite, kind, net.address(number), f"gc-{self.name}-{name}", built[suite, kind])
                for number, (name, suite, kind) in enumerate(specs)
            ]
            self.folder.mkdir(parents=True)
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"gatecontrol-{self.name}", "-f", str(self.key))
            self.write(net, hosts, server)
            names_file = self.names_file(net, hosts, server)
            if leased := {host.address: host.address for host in hosts if host.kind == RESOLVED}:
                require("dnsmasq")
                net.lease(self.folder, leased)
            with ThreadPoolExecutor(PARALLEL) as pool:
                known = list(pool.map(lambda host: self.start(net, host, names_file), hosts))
                self.known_hosts.write_text("".join(known), encoding="utf-8")
                list(pool.map(self.wait, hosts))
        except BaseException:
            self.down()
            raise
        say(f"{self.name}: {len(hosts)} hosts are up after {time.monotonic() - start:.1f} s; inventory: {self.folder / 'inventory.yml'}")

    @staticmethod
    def names_file(net: network.Network, hosts: list[Host], server: bool) -> str:
        """The text of /etc/hosts that all hosts share."""
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
        lines += [f"{host.address} {host.name}" for host in hosts]
        lines.append(f"{net.server_address if server else net.machine} {GATEWAY}")
        return "".join(f"{line}\n" for line in lines)

    def start(self, net: network.Network, host: Host, names_file: str) -> str:
        """Make a host's namespace and container, put its own files in, start it; return its line for known_hosts."""
        if host.kind == VM:
            return self.start_machine(net, host, names_file)
        net.attach(host.container, host.address, host.kind == RESOLVED)
        arguments = ["--name", host.container, "--hostname", host.name, "--label", f"gatecontrol.run={self.name}"]
        arguments += ["--network", f"ns:{network.NAMESPACES / host.container}", *system_arguments()]
        podman("create", *arguments, host.image, *init_command())
        root = Path(podman("mount", host.container).stdout.strip())
        host_key = root / "etc/ssh/ssh_host_ed25519_key"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", str(host_key))
        authorized = root / "home/ops/.ssh/authorized_keys"
        shutil.copy(self.key.with_suffix(".pub"), authorized)
        owner = authorized.parent.stat()
        shutil.chown(authorized, owner.st_uid, owner.st_gid)
        (root / "etc/hosts").write_text(names_file, encoding="utf-8")
        resolver = root / "etc/resolv.conf"
        resolver.unlink(missing_ok=True)
        if host.kind == RESOLVED:
            self.let_systemd_see_to_the_network(root)
        else:
            resolver.write_text("".join(f"nameserver {server}\n" for server in network.name_servers()), encoding="utf-8")
        public = host_key.with_suffix(".pub").read_text("utf-8").split()
        podman("umount", host.container)
        podman("start", host.container)
        return f"{host.address} {public[0]} {public[1]}\n"

    @staticmethod
    def let_systemd_see_to_the_network(root: Path) -> None:
        """Have systemd-networkd lease the address and systemd-resolved look names up, as on machines of a cloud."""
        (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
        (root / "etc/systemd/network/10-eth0.network").write_text(NETWORK_FILE, encoding="utf-8")
        wants = {"systemd-networkd.service": "multi-user.target", "systemd-networkd-wait-online.service": "network-online.target"}
        for unit, target in wants.items():
            folder = root / "etc/systemd/system" / f"{target}.wants"
            folder.mkdir(exist_ok=True)
            (folder / unit).unlink(missing_ok=True)
            (folder / unit).symlink_to(f"/lib/systemd/system/{unit}")

    def machine(self, net: network.Network, host: Host) -> vm.Machine:
        """A host that is a virtual machine."""
        if host.kind != VM:
            raise HostsError(f"{host.name} is no virtual machine.")
        return vm.Machine(host.name, host.suite, int(host.address.rpartition(".")[2]), host.address, self.folder / "vm" / host.name, net)

    def start_machine(self, net: network.Network, host: Host, names_file: str) -> str:
        """The same for a virtual machine."""
        host_key = self.folder / f"{host.name}.key"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", str(host_key))
        public = host_key.with_suffix(".key.pub").read_text("utf-8")
        files = {
            "/etc/ssh/ssh_host_ed25519_key": (host_key.read_text("utf-8"), 0o600),
            "/etc/ssh/ssh_host_ed25519_key.pub": (public, 0o644),
            "/home/ops/.ssh/authorized_keys": (self.key.with_suffix(".pub").read_text("utf-8"), 0o600),
            "/etc/hosts": (names_file, 0o644),
            "/etc/hostname": (f"{host.name}\n", 0o644),
        }
        machine = self.machine(net, host)
        machine.make(files)
        machine.start()
        kind, key = public.split()[:2]
        return f"{host.address} {kind} {key}\n"

    def wait(self, host: Host) -> None:
        """Wait until a host takes SSH and its systemd has started all it has to."""
        limit = vm.BOOT_TIMEOUT if host.kind == VM else BOOT_TIMEOUT
        end = time.monotonic() + limit
        words = "no answer on port 22"
        while time.monotonic() < end:
            if self.answers(host.address):
                # Asked anew now and then: over a bus that is just starting it can miss the signal, and then it waits for ever.
                done = self.ssh(host, "timeout", "4", "systemctl", "is-system-running", "--wait", timeout=15)
                words = (done.stdout + done.stderr).strip()
                if done.stdout.strip() in ("running", "degraded"):
                    if done.stdout.strip() == "degraded":
                        failed = self.ssh(host, "systemctl", "list-units", "--failed", "--plain", "--no-legend").stdout
                        say(f"{self.name}: {host.name} is degraded: {' / '.join(failed.split(chr(10)))}")
                    return
            time.sleep(0.3)
        raise HostsError(f"Host {host.name} did not come up within {limit} s: {words} / {self.last_words(host)}")

    def last_words(self, host: Host) -> str:
        """The end of what a host wrote while it booted."""
        if host.kind == VM:
            lines = (self.folder / "vm" / host.name / "console.log").read_text("utf-8", "replace").splitlines()
            return " / ".join(line.strip() for line in lines[-5:])
        log = podman("logs", "--tail", "5", host.container, check=False)
        return (log.stdout + log.stderr).strip()

    @staticmethod
    def answers(address: str) -> bool:
        """Whether an SSH server greets at the address."""
        try:
            with socket.create_connection((address, 22), timeout=2) as connection:
                connection.settimeout(2)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def reboot(self, name: str, hard: bool = False, wait: bool = True, power: vm.Power | None = None) -> None:
        """Reboot a host: systemd goes down in order (or power is cut), and all that lives in the kernel's network is gone.

        Without `wait` it returns once the host boots: for a host that may not be reached then.
        """
        net, host = self.host(name)
        start = time.monotonic()
        if host.kind == VM:
            self.reboot_machine(self.machine(net, host), host, hard, power)
        else:
            podman(*(["kill", host.container] if hard else ["stop", "--time", "60", host.container]))
            podman("wait", host.container)
            net.attach(host.container, host.address, host.kind == RESOLVED)
            podman("start", host.container)
        if wait:
            self.wait(host)
        say(f"{self.name}: {name} {'is back' if wait else 'boots'} after {time.monotonic() - start:.1f} s")

    def reboot_machine(self, machine: vm.Machine, host: Host, hard: bool, power: vm.Power | None) -> None:
        """The same of a virtual machine, which then has the clock, the kernel's words and the address of `power`."""
        if not hard:
            self.ssh(host, "sudo", "systemctl", "poweroff")
            if not machine.ended(120):
                raise HostsError(f"Host {host.name} did not go down within 120 s: {self.last_words(host)}")
        machine.cut()
        machine.start(power)

    def block(self, name: str, blocked: bool) -> None:
        """Keep new SSH connections from a host, or let them pass again."""
        net, host = self.host(name)
        net.block_ssh(host.address, blocked)
        say(f"{self.name}: new connections to {name} {'are dropped' if blocked else 'pass'}")

    def execute(self, name: str, command: list[str]) -> int:
        """Run a command on a host as root, with this process's own standard streams; return its status."""
        _net, host = self.host(name)
        if host.kind == VM:
            words = ["ssh", *self.ssh_options(), "-i", str(self.key), "-o", "BatchMode=yes", f"ops@{host.address}", "sudo", shlex.join(command)]
            return subprocess.run(words, check=False).returncode
        return subprocess.run(["podman", "exec", "--interactive", host.container, *command], check=False).returncode

    def down(self) -> None:
        """Remove all that the run made, as far as it is there."""
        if shutil.which("podman"):
            containers = podman("ps", "--all", "--quiet", "--filter", f"label=gatecontrol.run={self.name}", check=False).stdout.split()
            if containers:
                podman("rm", "--force", "--ignore", "--time", "0", *containers)
        vm.remove(self.folder)
        network.remove(self.name, self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- certificates

    def certificates(self, subjects: list[str], client: str | None = None) -> Path:
        """Make a CA and a certificate for the server, on request one for a client, in the run's folder tls/; return that."""
        require("openssl", root=False)
        folder = self.folder / "tls"
        folder.mkdir(parents=True, exist_ok=True)
        subjects = ["127.0.0.1", "localhost", GATEWAY, *subjects]
        if self.record.exists():
            data = json.loads(self.record.read_text("utf-8"))
            subjects += [data["machine_address"], *([data["server"]["address"]] if data["server"] else [])]
        if not (folder / "ca.key").exists():
            signing = "req -x509 -nodes -days 30 -keyout ca.key -out ca.pem -addext keyUsage=critical,keyCertSign,cRLSign".split()
            openssl(folder, *signing, *EC_KEY, "-subj", f"/CN=Test CA of run {self.name}")
        names = ",".join(dict.fromkeys(("IP:" if is_address(subject) else "DNS:") + subject for subject in subjects))
        issue(folder, "server", subjects[0], f"extendedKeyUsage=serverAuth\nsubjectAltName={names}\n")
        if client:
            issue(folder, "client", client, "extendedKeyUsage=clientAuth\n")
        say(f"{self.name}: certificates for {names} in {folder}")
        return folder


EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


def is_address(text: str) -> bool:
    """Whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def openssl(folder: Path, *arguments: str) -> None:
    """Run openssl in a folder; keys get mode 0600."""
    run("openssl", *arguments, cwd=folder, umask=0o077)


def issue(folder: Path, stem: str, common_name: str, extensions: str) -> None:
    """Make stem.key and stem.pem, signed by the folder's CA."""
    request, options = folder / f"{stem}.csr", folder / f"{stem}.ext"
    openssl(folder, "req", "-nodes", *EC_KEY, "-keyout", f"{stem}.key", "-out", request.name, "-subj", f"/CN={common_name}")
    usual = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nauthorityKeyIdentifier=keyid\n"
    options.write_text(usual + extensions, encoding="ascii")
    signing = "x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 30".split()
    openssl(folder, *signing, "-in", request.name, "-out", f"{stem}.pem", "-extfile", options.name)
    request.unlink()
    options.unlink()


def runs(base: Path) -> list[str]:
    """Names of all runs that have left anything: a container, a namespace or a folder."""
    found = {path.parent.name for path in base.glob("*/run.json")}
    found |= {name.split("-")[1] for name in network.namespaces("*")}
    if shutil.which("podman"):
        template = '{{index .Labels "gatecontrol.run"}}'
        found |= set(podman("ps", "--all", "--filter", "label=gatecontrol.run", "--format", template, check=False).stdout.split())
    return sorted(found)
