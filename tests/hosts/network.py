"""The network of one run: a bridge, a namespace for each host and for the server, and a router where one is wanted.

A run owns two neighbouring /24 networks. The first is the hosts' own: .1 is their gateway, hosts start at .11. Of the second only
a routed run uses parts: one link from the router to the machine, one from the router to the server.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from machine import HostsError, run

POOL = IPv4Network("10.213.0.0/16")
TUNNELS = IPv4Network("10.8.0.0/16")  # what the server under test gives to its peers
FIRST_HOST, LAST_HOST = 11, 239
NAMESPACES = Path("/run/netns")


def ip(*arguments: str, namespace: str | None = None, check: bool = True) -> str:
    """Run `ip`, inside a namespace if one is given; return its output."""
    return run("ip", *(["-netns", namespace] if namespace else []), *arguments, check=check).stdout


def iptables(*arguments: str, namespace: str | None = None, check: bool = True) -> str:
    """Run `iptables`, inside a namespace if one is given; return its output."""
    prefix = ["ip", "netns", "exec", namespace] if namespace else []
    return run(*prefix, "iptables", "--wait", *arguments, check=check).stdout


def occupied() -> list[IPv4Network]:
    """Networks that the machine has a route, an address or a name server in."""
    routes = json.loads(ip("-json", "-4", "route", "show", "table", "all") or "[]")
    found = [route["dst"] for route in routes if route["dst"] != "default"]
    return [IPv4Network(text, strict=False) for text in (*found, *name_servers())]


def name_servers() -> list[str]:
    """The machine's IPv4 name servers that hosts can reach too."""
    found = []
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            lines = Path(path).read_text("utf-8").splitlines()
        except OSError:
            continue
        for words in (line.split() for line in lines):
            if len(words) > 1 and words[0] == "nameserver" and ":" not in words[1] and not words[1].startswith("127."):
                found.append(words[1])
        if found:
            break
    return found


def mark_of(name: str) -> str:
    """What stands for a run's name in its interfaces' names, which follow "gc" and have 15 characters in all."""
    return hashlib.sha256(name.encode()).hexdigest()[:6]


def free_block(mark: str) -> IPv4Network:
    """A free /23; runs start to look at different places."""
    taken = [*occupied(), TUNNELS]
    blocks = list(POOL.subnets(new_prefix=23))
    start = int(mark, 16) % len(blocks)
    for block in blocks[start:] + blocks[:start]:
        if not any(block.overlaps(network) for network in taken):
            return block
    raise HostsError(f"No free /23 is left in {POOL}: remove runs with `down`, or name a free one with --subnet.")


def hardware_address(address: str) -> str:
    """The hardware address that goes with an IP address, so that neighbours find a host again after its reboot."""
    return "02:67:" + IPv4Address(address).packed.hex(":")


def processes(namespace: str) -> list[int]:
    """Ids of the processes in a namespace."""
    return [int(word) for word in ip("netns", "pids", namespace, check=False).split()]


class Network:
    """Names and addresses of a run's network, made and removed as a whole."""

    def __init__(self, name: str, block: str | None = None, routed: bool = False) -> None:
        self.name = name
        self.mark = mark_of(name)
        self.routed = routed
        self.router = f"gc-{name}-router" if routed else None
        self.server = f"gc-{name}-server"
        self.comment = f"gatecontrol-{name}"
        self.block = self.read_block(block) if block else free_block(self.mark)
        self.hosts, self.links = self.block.subnets(new_prefix=24)
        self.gateway = str(self.hosts[1])
        # what hosts see the machine as, and where it listens for them
        self.machine = str(self.links[2]) if routed else self.gateway
        self.server_address = str(self.links[130]) if routed else str(self.hosts[2])

    @staticmethod
    def read_block(text: str) -> IPv4Network:
        """The block that a user has named."""
        try:
            block = IPv4Network(text)
        except ValueError as error:
            raise HostsError(f"{text!r} is no IPv4 network: {error}.") from error
        if block.prefixlen != 23 or block.overlaps(TUNNELS):
            raise HostsError(f"{block} will not do: a run takes an IPv4 /23 outside {TUNNELS}.")
        return block

    def address(self, number: int) -> str:
        """Address of the run's host with this number, from 0."""
        if FIRST_HOST + number > LAST_HOST:
            raise HostsError(f"A run has room for {LAST_HOST - FIRST_HOST + 1} hosts.")
        return str(self.hosts[FIRST_HOST + number])

    def make(self) -> None:
        """Make the bridge, and the router around it in a routed run; open the machine's own firewall for it."""
        where, bridge = self.router, self.bridge
        if where:
            self.make_namespace(where)
            self.pair("uplink", f"gc{self.mark}up", None, f"{self.links[1]}/30", namespace=where)
            ip("addr", "add", f"{self.machine}/30", "dev", f"gc{self.mark}up")
            ip("route", "add", "default", "via", self.machine, namespace=where)
            run("ip", "netns", "exec", where, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        # a bridge without an address of its own takes one of its ports', another whenever a host comes or goes
        ip("link", "add", bridge, "address", hardware_address(self.gateway), "type", "bridge", namespace=where)
        ip("addr", "add", f"{self.gateway}/24", "dev", bridge, namespace=where)
        ip("link", "set", bridge, "up", namespace=where)
        if where:
            ip("route", "add", str(self.block), "via", str(self.links[1]))
        mine, comment = str(self.block), ["-m", "comment", "--comment", self.comment]
        iptables("-t", "nat", "-A", "POSTROUTING", "-s", mine, "!", "-d", mine, *comment, "-j", "MASQUERADE")
        for chain, side in (("INPUT", "-s"), ("FORWARD", "-s"), ("FORWARD", "-d")):
            iptables("-I", chain, side, mine, *comment, "-j", "ACCEPT")

    @property
    def bridge(self) -> str:
        """Name of the bridge (in the router's namespace in a routed run)."""
        return f"gc{self.mark}br"

    def make_namespace(self, namespace: str) -> None:
        """Make a namespace with its loopback up."""
        ip("netns", "add", namespace)
        ip("link", "set", "lo", "up", namespace=namespace)

    def pair(self, inside: str, outside: str, where: str | None, cidr: str, *, namespace: str) -> None:
        """Join a namespace to another one (`where`, None: the machine's) by a cable; `inside` gets the address."""
        ip("link", "del", outside, namespace=where, check=False)
        ip(
            "link",
            "add",
            outside,
            "type",
            "veth",
            "peer",
            "name",
            inside,
            "address",
            hardware_address(cidr.partition("/")[0]),
            "netns",
            namespace,
            namespace=where,
        )
        ip("addr", "add", cidr, "dev", inside, namespace=namespace)
        ip("link", "set", inside, "up", namespace=namespace)
        ip("link", "set", outside, "up", namespace=where)

    def attach(self, namespace: str, address: str, leased: bool = False) -> None:
        """Make a namespace on the bridge, new even where one of that name is left. leased: address and route are left to a lease."""
        self.remove_namespace(namespace)
        self.make_namespace(namespace)
        outside = f"gc{self.mark}h{int(address.rpartition('.')[2])}"
        self.pair("eth0", outside, self.router, f"{address}/24", namespace=namespace)
        ip("link", "set", outside, "master", self.bridge, namespace=self.router)
        if leased:
            ip("addr", "flush", "dev", "eth0", "scope", "global", namespace=namespace)
        else:
            ip("route", "add", "default", "via", self.gateway, namespace=namespace)

    def lease(self, folder: Path, leases: dict[str, str]) -> None:
        """Give hosts their addresses by lease: {the address that the hardware address goes with: the address to lease}; asked again, it changes them.

        The DHCP server runs where the bridge is. What it keeps lies in the run's folder.
        """
        table, pid_file = folder / "leases.conf", folder / "dnsmasq.pid"
        lines = [f"{hardware_address(name)},{address},120\n" for name, address in leases.items()]
        table.write_text("".join(lines), encoding="utf-8")
        if pid_file.exists():
            os.kill(int(pid_file.read_text()), signal.SIGHUP)
            return
        options = ["--conf-file=/dev/null", "--port=0", "--user=root", "--leasefile-ro", "--dhcp-authoritative", "--bind-interfaces"]
        options += [f"--interface={self.bridge}", "--except-interface=lo", f"--dhcp-range={self.hosts[0]},static,255.255.255.0,120"]
        options += [f"--dhcp-option=option:router,{self.gateway}", f"--dhcp-hostsfile={table}", f"--pid-file={pid_file}"]
        if servers := name_servers():
            options.append(f"--dhcp-option=option:dns-server,{','.join(servers)}")
        if not self.router:
            iptables("-I", "INPUT", "-i", self.bridge, "-p", "udp", "--dport", "67", "-m", "comment", "--comment", self.comment, "-j", "ACCEPT")
        run(*(["ip", "netns", "exec", self.router] if self.router else []), "dnsmasq", *options)

    def attach_server(self) -> None:
        """Make the server's namespace: on the bridge, in a routed run behind the router on a link of its own."""
        if not self.router:
            return self.attach(self.server, self.server_address)
        router_end = str(self.links[129])
        self.make_namespace(self.server)
        self.pair("eth0", "server", self.router, f"{self.server_address}/30", namespace=self.server)
        ip("addr", "add", f"{router_end}/30", "dev", "server", namespace=self.router)
        ip("route", "add", "default", "via", router_end, namespace=self.server)

    def block_ssh(self, address: str, blocked: bool) -> None:
        """Drop what would open a connection to a host's SSH port, or let it pass again; connections that exist stay.

        A look at the SYN flag and not at tracked connections: those that began before the rule would count as new.
        """
        chain = "FORWARD" if self.router else "OUTPUT"
        rule = ["-d", address, "-p", "tcp", "--dport", "22", "--syn", "-m", "comment", "--comment", self.comment, "-j", "DROP"]
        while f"-d {address}/32 -p tcp" in iptables("-S", chain, namespace=self.router):
            iptables("-D", chain, *rule, namespace=self.router)
        if blocked:
            iptables("-I", chain, *rule, namespace=self.router)

    @staticmethod
    def remove_namespace(namespace: str) -> None:
        """Remove a namespace and end what runs in it."""
        if not (NAMESPACES / namespace).exists():
            return
        for process in processes(namespace):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        ip("netns", "del", namespace, check=False)


def namespaces(name: str) -> list[str]:
    """Namespaces of a run that exist."""
    return sorted(path.name for path in NAMESPACES.glob(f"gc-{name}-*")) if NAMESPACES.is_dir() else []


def remove(name: str, folder: Path | None = None) -> None:
    """Remove all that a run's network may have left, its folder's DHCP server included; what is missing is no failure."""
    if folder and (folder / "dnsmasq.pid").exists():
        pid = int((folder / "dnsmasq.pid").read_text())
        with suppress(OSError):
            if str(folder) in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGTERM)
    for namespace in namespaces(name):
        Network.remove_namespace(namespace)
    prefix = f"gc{mark_of(name)}"
    for link in json.loads(ip("-json", "link") or "[]"):
        if link["ifname"].startswith(prefix):
            ip("link", "del", link["ifname"], check=False)
    for table in ("nat", "filter"):
        for line in iptables("-t", table, "-S", check=False).splitlines():
            words = shlex.split(line)
            if words[0] == "-A" and f"gatecontrol-{name}" in words:
                iptables("-t", table, "-D", *words[1:], check=False)
