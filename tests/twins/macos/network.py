"""Stand-ins for ifconfig, route and networksetup of macOS, as far as they are asked here; called by these names."""
from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

IP = "/usr/sbin/ip" if os.path.exists("/usr/sbin/ip") else "/sbin/ip"
STATE, RESOLVER = pathlib.Path("/var/db/networksetup.json"), pathlib.Path("/etc/resolv.conf")


def ip(*words: str):
    done = subprocess.run([IP, "-j", *words], capture_output=True, text=True, check=False)
    return json.loads(done.stdout or "[]") if done.returncode == 0 else None


def ifconfig(words: list[str]) -> str:
    found = ip("address", "show", "dev", words[0])
    if not found:
        sys.exit("ifconfig: interface %s does not exist" % words[0])
    link = found[0]
    point = "POINTOPOINT" in link["flags"]
    lines = ["%s: flags=8051<%s> mtu %d" % (words[0], ",".join(flag for flag in link["flags"] if flag != "LOWER_UP"), link["mtu"]),
             "\toptions=6460000<TSO4,TSO6,CHANNEL_IO,PARTIAL_CSUM,ZEROINVERT_CSUM>"]
    for address in link["addr_info"]:
        if address["family"] == "inet":
            mask = (0xFFFFFFFF << (32 - address["prefixlen"])) & 0xFFFFFFFF
            lines.append("\tinet %s%s netmask 0x%08x" % (address["local"], " --> " + address["local"] if point else "", mask))
        else:
            scope = "%" + words[0] if address["local"].startswith("fe80:") else ""
            lines.append("\tinet6 %s%s prefixlen %d" % (address["local"], scope, address["prefixlen"]))
    return "\n".join(lines) + "\n"


def route(words: list[str]) -> str:
    """route -n get [-inet|-inet6] ADDRESS"""
    assert words[:2] == ["-n", "get"], words
    address = words[-1]
    found = ip("route", "get", address)
    if not found:
        sys.exit("route: writing to routing socket: not in table")
    way = found[0]
    lines = ["   route to: " + address, "destination: " + ("default" if "gateway" in way else address)]
    lines += ["    gateway: " + way["gateway"]] if "gateway" in way else []
    return "\n".join([*lines, "  interface: " + way["dev"], "      flags: <UP,DONE>"]) + "\n"


def networksetup(words: list[str]) -> str:
    """One network service, Ethernet; its DNS servers go over those of the machine."""
    state = json.loads(STATE.read_text()) if STATE.exists() else {"own": RESOLVER.read_text(), "servers": []}
    if words == ["-listallnetworkservices"]:
        return "An asterisk (*) denotes that a network service is disabled.\nEthernet\n"
    assert words[1] == "Ethernet", words
    if words[0] == "-getdnsservers":
        return "\n".join(state["servers"] or ["There aren't any DNS Servers set on Ethernet."]) + "\n"
    if words[0] == "-setsearchdomains":
        return ""
    assert words[0] == "-setdnsservers", words
    state["servers"] = [] if words[2:] == ["Empty"] else [word for word in words[2:] if re.fullmatch("[0-9.]+|.*:.*", word)]
    STATE.write_text(json.dumps(state))
    RESOLVER.write_text("".join("nameserver %s\n" % server for server in state["servers"]) or state["own"])
    return ""


if __name__ == "__main__":
    sys.stdout.write({"ifconfig": ifconfig, "route": route, "networksetup": networksetup}[os.path.basename(sys.argv[0])](sys.argv[1:]))
