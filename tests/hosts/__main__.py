"""Real systemd hosts for scenarios, the demo and measurements: `python tests/hosts --help`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import images
import vm
from machine import HostsError, MissingError, require, say
from room import Room, runs

BASE = Path(__file__).resolve().parents[2] / "build" / "hosts"


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="hosts", description=__doc__)
    parser.add_argument("--dir", type=Path, default=BASE, help="where runs keep their folders (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, *positional: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        for argument in positional:
            command.add_argument(argument.lower(), metavar=argument)
        return command

    image = add("image", "build host images unless they are there; print their names")
    image.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(images.SUITES)} (default: all)")
    image.add_argument("--ready", action="store_true", help="the variant with WireGuard installed")
    image.add_argument("--all", action="store_true", help="all that the scenarios of make test take")
    up = add("up", "start hosts, wait until they take SSH, write inventory.yml and run.json", "RUN")
    up.add_argument(
        "--hosts", nargs="+", required=True, metavar="NAME:SUITE[:KIND]", help="such as web1:bookworm or web[01:20]:trixie:ready"
    )
    up.add_argument("--server", action="store_true", help="also make a network namespace for a server")
    up.add_argument("--routed", action="store_true", help="put a router between the machine and the hosts")
    up.add_argument("--subnet", default="auto", help="an IPv4 /23 (default: a free one)")
    add("down", "remove a run and all it made", "RUN")
    reboot = add("reboot", "reboot a host and wait for it", "RUN", "HOST")
    reboot.add_argument("--hard", action="store_true", help="cut its power instead of shutting it down")
    reboot.add_argument("--power", metavar="JSON", help="of a virtual machine: append (to its kernel's command line), rtc (its clock's time), address (CIDR)")
    reboot.add_argument("--no-wait", dest="wait", action="store_false", help="return once it boots, reachable or not")
    add("block", "drop new SSH connections to a host; open ones stay", "RUN", "HOST")
    add("unblock", "let new SSH connections to a host pass again", "RUN", "HOST")
    monitor = add("monitor", "give a virtual machine's qemu a command: stop (its clocks stand still), cont", "RUN", "HOST")
    monitor.add_argument("word", metavar="WORD")
    execute = add("exec", "run a command on a host as root", "RUN", "HOST")
    execute.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    ca = add("ca", "make a CA and a server certificate in the run's folder tls/; print that folder", "RUN")
    ca.add_argument("subjects", nargs="*", metavar="ADDRESS_OR_NAME", help="beside loopback, gateway.test and the run's own addresses")
    ca.add_argument("--client", metavar="NAME", help="a client certificate as well")
    add("list", "print the runs on this machine as JSON")
    clean = add("clean", "remove every run")
    clean.add_argument("--images", action="store_true", help="and every host image")
    return parser


def perform(options: argparse.Namespace) -> int:
    """Do what the command line says; return the exit status."""
    command = options.command
    if command == "list":
        print(json.dumps({name: str(options.dir / name) for name in runs(options.dir)}, indent=2))
        return 0
    if command == "image":
        require("podman")
        kinds = [(suite, "ready" if options.ready else "") for suite in options.suites or images.SUITES]
        if options.all:
            kinds = [(suite, kind) for suite in images.SUITES for kind in ("ready", "resolved") if (suite, kind) not in images.LACKING]
        found = list(images.ensure_all(kinds).values())
        print("\n".join(found))
        return 0
    if command == "clean":
        found = runs(options.dir)
        if found or options.images:
            require()
        for name in found:
            Room(name, options.dir).down()
            say(f"removed run {name}")
        if options.images:
            for name in [*images.remove_all(), *vm.remove_images()]:
                say(f"removed {name}")
        return 0
    room = Room(options.run, options.dir)
    if command == "up":
        room.up(options.hosts, server=options.server, routed=options.routed, subnet=options.subnet)
    elif command == "down":
        require()
        room.down()
    elif command == "reboot":
        room.reboot(options.host, options.hard, options.wait, vm.power(options.power))
    elif command in ("block", "unblock"):
        room.block(options.host, command == "block")
    elif command == "monitor":
        room.machine(*room.host(options.host)).tell(options.word)
    elif command == "exec":
        argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
        return room.execute(options.host, argv)
    elif command == "ca":
        print(room.certificates(options.subjects, options.client))
    return 0


def main() -> int:
    """Run the command line; 1: something failed, 2: the machine lacks something."""
    try:
        return perform(arguments().parse_args())
    except HostsError as error:
        say(f"hosts: {error}")
        return 2 if isinstance(error, MissingError) else 1


if __name__ == "__main__":
    sys.exit(main())
