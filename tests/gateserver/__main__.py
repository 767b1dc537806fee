"""A stand-in for a GateControl server, for tests and demonstrations.

  python tests/gateserver serve --port 0 --era 1.118.2      prints {"url": …, "era": …, "profile": …} when it listens
  python tests/gateserver token --url URL NAME SCOPES [PEER_ID]
  python tests/gateserver peer|log|fault|settings|reset|sweep --url URL …
"""
from __future__ import annotations

import argparse
import ipaddress
import json
import re
import sys

import kinds
import running


def ask(options, verb: str, **given):
    """Has a running server do one of its administration's verbs."""
    return running.ask(options.url, verb, given, options.admin, options.cafile, options.timeout)


def show(result) -> None:
    json.dump(result, sys.stdout, indent=1, ensure_ascii=False)
    print()


def token(options) -> None:
    print(ask(options, "token", name=options.name, scopes=options.scopes, peer_id=options.peer_id)["token"])


def peer(options) -> None:
    values = {name: json.loads(value) if value in ("null", "true", "false") else value for name, value in options.values}
    show(ask(options, "peer", action=options.action, peer=options.peer, count=options.count, values=values))


def log(options) -> None:
    names = ("since", "event", "method", "path", "status", "token", "peer_id", "limit", "clear")
    show(ask(options, "log", **{name: getattr(options, name) for name in names}))


def fault(options) -> None:
    if options.action != "on":
        return show(ask(options, "fault", action=options.action, id=options.kind))
    if not options.kind:
        raise running.Refused("which fault? There are " + ", ".join(kinds.KINDS))
    names = ("kind", "path", "method", "token", "count", "skip", "when", "status", "retry_after", "seconds", "bytes", "how", "text")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.to:
        given["url"] = options.to
    if given.get("text", "").startswith("@"):
        with open(given["text"][1:], encoding="utf-8", newline="") as file:
            given["text"] = file.read()
    return show(ask(options, "fault", action="on", fault=given))


def settings(options) -> None:
    show(ask(options, "settings", values=dict(options.values)))


def reset(options) -> None:
    show(ask(options, "reset", sessions=options.sessions))


def sweep(options) -> None:
    show(ask(options, "sweep"))


def serve(options) -> int:
    import server
    return server.run(options)


# ---------------------------------------------------------------- what an argument must look like

def fitting(pattern: str, what: str):
    """An argument's type: a text of this form. ``what`` says in an error what it is not."""
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError("%s is %s" % (text, what))
        return text
    return check


def whole(least: int, most: int = 2**31):
    """An argument's type: a whole number in a range."""
    def check(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError("%s is no whole number from %d to %d" % (text, least, most))
        return int(text)
    return check


def seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or not float(text):
        raise argparse.ArgumentTypeError("%s is no number of seconds" % text)
    return float(text)


def subnet(text: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        network = None
    if network is None or network.prefixlen > 30:
        raise argparse.ArgumentTypeError("%s is no IPv4 network with room for peers, such as 10.8.0.0/24" % text)
    return network


def pair(text: str) -> tuple:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("%s is not NAME=VALUE" % text)
    return name, value


era = fitting(r"1\.\d+\.\d+|fixed", "neither a release such as 1.50.12 nor fixed")
login = fitting(r"[^:]+:.+", "not USER:PASSWORD")
endpoint = fitting(r"\S+:(?!0)(\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])", "not HOST:PORT")
interface = fitting(r"[^\s/]{1,15}", "no name for an interface: at most 15 characters, no blank, no slash")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="gateserver", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = top.add_subparsers(dest="verb", required=True)

    one = verbs.add_parser("serve", help="start the server; ends on SIGTERM or SIGINT")
    one.set_defaults(do=serve)
    one.add_argument("--port", type=whole(0, 65535), default=0, help="0 picks a free one (default)")
    one.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    one.add_argument("--era", type=era, default="1.118.2", help="1.5.2, 1.50.12, 1.118.2, fixed, or any release between")
    one.add_argument("--profile", choices=("unlimited", "community", "ratelimit5"), default="unlimited",
                     help="licence and limits (default: unlimited)")
    one.add_argument("--state", metavar="FILE", help="SQLite file that keeps everything (default: memory)")
    one.add_argument("--rate-limit", type=whole(1), metavar="N", help="calls of a token in 15 minutes; a session has ten times that")
    one.add_argument("--login-limit", type=whole(1), metavar="N", help="logins of an address in 15 minutes (default: 5)")
    one.add_argument("--admin", type=login, default=running.ADMIN, metavar="USER:PASSWORD", help="(default: %(default)s)")
    one.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="serve HTTPS with this certificate and key (PEM)")
    one.add_argument("--sweep-interval", type=seconds, default=60, metavar="SECONDS", help="how often expired peers are looked for"
                     " (default: 60)")
    one.add_argument("--subnet", type=subnet, default="10.8.0.0/24", help="tunnel network; its first address is the server's"
                     " (default: %(default)s)")
    one.add_argument("--endpoint", type=endpoint, metavar="HOST:PORT", help="what the configurations say; the hub listens on PORT")
    one.add_argument("--wireguard", type=interface, metavar="IFACE", help="create this interface and be a real hub (root)")
    one.add_argument("--attached", action="store_true", help="end with standard input too, so with the process that holds its other end")
    one.add_argument("--echo", type=whole(1, 65535), metavar="PORT", help="with --wireguard: answer TCP on the tunnel address with"
                     " what was sent")

    def admin_verb(name: str, do, text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text)
        verb.set_defaults(do=do)
        verb.add_argument("--url", required=True, help="the url of the serve line")
        verb.add_argument("--admin", type=login, default=running.ADMIN, metavar="USER:PASSWORD", help="(default: the server's)")
        verb.add_argument("--cafile", help="check the server's certificate against this CA (default: not at all)")
        verb.add_argument("--timeout", type=seconds, default=60, metavar="SECONDS")
        return verb

    one = admin_verb("token", token, "mint a token and print it")
    one.add_argument("name", help="what the log calls it")
    one.add_argument("scopes", help="separated by commas")
    one.add_argument("peer_id", nargs="?", default="", help="the peer it is bound to (default, or empty: none)")

    one = admin_verb("peer", peer, "list and change peers")
    one.add_argument("action", choices=("list", "add", "set", "enable", "disable", "expire", "delete"))
    one.add_argument("peer", nargs="?", help="id or name; list without it shows all")
    one.add_argument("values", nargs="*", type=pair, metavar="NAME=VALUE", help="for add and set: columns; null, true and false as in JSON")
    one.add_argument("--count", type=whole(1), metavar="N", help="add this many: NAME-1, NAME-2 …")

    one = admin_verb("log", log, "what was received, as JSON")
    one.add_argument("--since", type=whole(0), metavar="ID", help="only later entries")
    one.add_argument("--event", help="register, config, config/check, heartbeat, status, login, transfer, echo, expired …")
    one.add_argument("--method")
    one.add_argument("--path", help="pattern with * and ?")
    one.add_argument("--status", type=whole(100, 599), metavar="N")
    one.add_argument("--token", help="a token's name")
    one.add_argument("--peer-id", type=whole(1), metavar="ID", help="the peer a token belongs to")
    one.add_argument("--limit", type=whole(1), metavar="N", help="only the last so many")
    one.add_argument("--clear", action="store_true", help="empty the log")

    one = admin_verb("fault", fault, "switch faults on and off")
    one.formatter_class = argparse.RawDescriptionHelpFormatter
    one.epilog = "kinds:\n" + "\n".join("  %-14s%s" % kind for kind in kinds.KINDS.items())
    one.add_argument("action", choices=("on", "off", "list"))
    one.add_argument("kind", nargs="?", help="for on: see below; for off: an id (default: all)")
    one.add_argument("--path", help="pattern with * and ?")
    one.add_argument("--method")
    one.add_argument("--token", help="only requests of the tokens with such a name")
    one.add_argument("--count", type=whole(1), metavar="N", help="how many requests (default: all)")
    one.add_argument("--skip", type=whole(0), metavar="N", help="leave out the first so many")
    one.add_argument("--when", choices=("before", "after"), help="before or after the request took effect"
                     " (default: before, but after for what spoils a real answer)")
    one.add_argument("--status", type=whole(200, 599), metavar="N")
    one.add_argument("--retry-after", type=whole(0), metavar="SECONDS")
    one.add_argument("--seconds", type=seconds)
    one.add_argument("--bytes", type=whole(0), metavar="N")
    one.add_argument("--how", help=", ".join(kinds.CONFIG_SPOILERS))
    one.add_argument("--text", help="the config's or the answer's text, or @FILE")
    one.add_argument("--to", metavar="URL", help="where a redirect leads")

    one = admin_verb("settings", settings, "show and change server-wide settings")
    one.add_argument("values", nargs="*", type=pair, metavar="NAME=VALUE",
                     help="an empty VALUE is the default: endpoint, mtu, allowed_ips, dns and keepalive (of peers made from now on), server_key (new or none),"
                          " machine_binding, custom_dns, split_tunnel, api_limit, session_limit, login_limit, licence.vpn_peers and the"
                          " licence's other features")

    one = admin_verb("reset", reset, "forget counted calls and failed logins")
    one.add_argument("--sessions", action="store_true", help="end the sessions too")

    admin_verb("sweep", sweep, "look for expired peers now")
    return top


if __name__ == "__main__":
    chosen = parser().parse_args()
    try:
        sys.exit(chosen.do(chosen))
    except (running.Refused, OSError) as problem:
        sys.exit("gateserver: %s" % problem)
