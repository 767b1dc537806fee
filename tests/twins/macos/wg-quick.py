"""Stand-in for wg-quick of macOS: what it does otherwise than Linux's, with a real tunnel by wireguard-go underneath.

The interface is utunN, another N each time, and its name lies in /var/run/wireguard/NAME.name. Networks are routed into the tunnel one by one, /0 in two
halves with the endpoint outside. DNS is set for each network service. A monitor in the background outlives the command, and takes routes and DNS back
when the interface is gone or when it is told to end. `down` removes the socket, which ends wireguard-go.
"""
from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

RUN = pathlib.Path("/var/run/wireguard")
SEARCH = ("/etc/wireguard", str(pathlib.Path(__file__).parents[1] / "etc/wireguard"))
IP = "/usr/sbin/ip" if os.path.exists("/usr/sbin/ip") else "/sbin/ip"  # no Mac has it, so none is on PATH


def die(text: str) -> None:
    sys.exit("wg-quick: " + text)


def do(*words: str, **options) -> str:
    print("[#] " + " ".join(words), file=sys.stderr)
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def parse(name: str) -> tuple[dict, str]:
    """(wg-quick's own values by key, what wg is given)."""
    found = [path for path in (os.path.join(folder, name + ".conf") for folder in SEARCH) if os.path.exists(path)]
    if not found:
        die("`%s/%s.conf' does not exist" % (SEARCH[-1], name))
    own: dict = {key: [] for key in ("address", "dns", "mtu", "table", "preup", "postup", "predown", "postdown")}
    rest, section = [], ""
    for line in pathlib.Path(found[0]).read_text().splitlines():
        key, _equals, value = (part.strip() for part in line.partition("="))
        section = key.lower() if key.startswith("[") else section
        if section == "[interface]" and key.lower() in own:
            own[key.lower()] += [value] if key.lower().startswith(("pre", "post")) else re.split(r"[\s,]+", value)
        else:
            rest.append(line)
    return own, "\n".join(rest) + "\n"


def real(name: str) -> str | None:
    try:
        interface = (RUN / (name + ".name")).read_text().strip()
    except FileNotFoundError:
        return None
    return interface if (RUN / (interface + ".sock")).exists() else None


def hooks(commands: list[str], name: str, interface: str) -> None:
    for command in commands:
        do("/bin/sh", "-c", command.replace("%i", interface).replace("%I", name))


def route(network: str, *where: str) -> None:
    do(IP, "-6" if ":" in network else "-4", "route", "add", network, *where)


def up(name: str) -> None:
    if real(name):
        die("`%s' already exists as `%s'" % (name, real(name)))
    own, config = parse(name)
    table = own["table"][0] if own["table"] else "auto"
    RUN.mkdir(exist_ok=True)
    counter = pathlib.Path("/var/run/utun")
    number = int(counter.read_text()) + 1 if counter.exists() else 4
    counter.write_text(str(number))
    interface = "utun%d" % number
    try:
        do("wireguard-go", interface, env=dict(os.environ, WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD="1", LOG_LEVEL="silent"))
        (RUN / (name + ".name")).write_text(interface + "\n")
        hooks(own["preup"], name, interface)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(config)
            file.flush()
            do("wg", "addconf", interface, file.name)
        for address in own["address"]:
            do(IP, "address", "add", address, "dev", interface)
        do(IP, "link", "set", "dev", interface, "up", "mtu", (own["mtu"] or ["1420"])[0])
        networks = [network for line in do("wg", "show", interface, "allowed-ips").splitlines() for network in line.split("\t")[1].split()]
        direct = []
        if table not in ("auto", "main", "off"):
            die("Darwin only supports TABLE=auto|main|off")
        for network in networks if table != "off" else ():
            if network.endswith("/0") and table == "auto":
                for half in ("0.0.0.0/1", "128.0.0.0/1") if network == "0.0.0.0/0" else ("::/1", "8000::/1"):
                    route(half, "dev", interface)
                for line in do("wg", "show", interface, "endpoints").splitlines():
                    endpoint = line.split("\t")[1].rpartition(":")[0].strip("[]")
                    gateway = json.loads(do(IP, "-j", "route", "show", "default"))
                    if gateway and endpoint not in direct and ":" not in endpoint:
                        route(endpoint, "via", gateway[0]["gateway"])
                        direct.append(endpoint)
            elif " dev %s " % interface not in subprocess.run([IP, "route", "get", network.split("/")[0]], capture_output=True, text=True, check=False).stdout:
                route(network, "dev", interface)
        services = do("networksetup", "-listallnetworkservices").splitlines()[1:] if own["dns"] else []
        before = {service: do("networksetup", "-getdnsservers", service) for service in services}
        for service in services:
            do("networksetup", "-setdnsservers", service, *own["dns"])
        monitor(interface, direct, before)
        hooks(own["postup"], name, interface)
    except (subprocess.CalledProcessError, OSError, SystemExit) as error:
        remove(name, interface)
        die(str(error))


def monitor(interface: str, direct: list[str], before: dict) -> None:
    """In the background, in the process group of whoever brought the tunnel up."""
    print("[+] Backgrounding route monitor", file=sys.stderr)
    if os.fork():
        return
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while os.path.exists("/sys/class/net/" + interface):
            time.sleep(0.2)
    finally:
        subprocess.run([IP, "route", "flush", "dev", interface], check=False)
        for endpoint in direct:
            subprocess.run([IP, "route", "delete", endpoint], check=False)
        for service, servers in before.items():
            subprocess.run(["networksetup", "-setdnsservers", service, *(["Empty"] if " " in servers.strip() else servers.split())], check=False)
        os._exit(0)


def remove(name: str, interface: str) -> None:
    for path in (RUN / (interface + ".sock"), RUN / (name + ".name")):
        print("[#] rm -f %s" % path, file=sys.stderr)
        path.unlink(missing_ok=True)


def down(name: str) -> None:
    own, _config = parse(name)
    interface = real(name)
    if not interface:
        die("`%s' is not a WireGuard interface" % name)
    hooks(own["predown"], name, interface)
    remove(name, interface)
    hooks(own["postdown"], name, interface)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("up", "down"):
        sys.exit("Usage: wg-quick [ up | down ] [ INTERFACE ]")
    {"up": up, "down": down}[sys.argv[1]](sys.argv[2])
