"""A stand-in for a GateControl server, for tests and demonstrations.

  python tests/gateserver serve --port 0 --era 1.118.2      prints {"url": …, "era": …, "profile": …} when it listens
  python tests/gateserver token --url URL NAME SCOPES [PEER_ID]
  python tests/gateserver peer|log|fault|settings|reset|sweep --url URL …
"""
from __future__ import annotations

import argparse
import json
import re
import sys

from running import ADMIN, Refused
from running import ask as running_ask


def ask(options, verb: str, given: dict):
    """Has a running server do one of its administration's verbs; ends the program with its words if it cannot."""
    try:
        return running_ask(options.url, verb, given, options.admin, options.cafile, options.timeout)
    except Refused as problem:
        sys.exit("gateserver: %s" % problem)


def show(result) -> None:
    json.dump(result, sys.stdout, indent=1, ensure_ascii=False)
    print()


def token(options) -> None:
    print(ask(options, "token", {"name": options.name, "scopes": options.scopes, "peer_id": options.peer_id})["token"])


def peer(options) -> None:
    values = {name: json.loads(value) if value in ("null", "true", "false") else value for name, value in options.values}
    show(ask(options, "peer", {"action": options.action, "peer": options.peer, "count": options.count, "values": values}))


def log(options) -> None:
    names = ("since", "event", "method", "path", "status", "token", "peer_id", "limit", "clear")
    show(ask(options, "log", {name: getattr(options, name) for name in names}))


def fault(options) -> None:
    if options.action == "on":
        names = ("path", "method", "token", "count", "skip", "when", "status", "retry_after", "seconds", "bytes", "how", "text", "url_to")
        given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
        given["url"] = given.pop("url_to", None)
        if str(given.get("text", "")).startswith("@"):
            with open(given["text"][1:], encoding="utf-8", newline="") as file:
                given["text"] = file.read()
        show(ask(options, "fault", {"action": "on", "fault": {"kind": options.kind, **given}}))
    else:
        fault_id = int(options.kind) if options.kind not in (None, "all") else None
        show(ask(options, "fault", {"action": options.action, "id": fault_id}))


def settings(options) -> None:
    show(ask(options, "settings", {"values": dict(options.values)}))


def reset(options) -> None:
    show(ask(options, "reset", {"sessions": options.sessions}))


def sweep(options) -> None:
    show(ask(options, "sweep", {}))


def serve(options) -> None:
    import server
    server.run(options)


def era(text: str) -> str:
    if text != "fixed" and not re.fullmatch(r"1\.\d+\.\d+", text):
        raise argparse.ArgumentTypeError("%s is neither a release such as 1.50.12 nor fixed" % text)
    return text


def pair(text: str) -> tuple:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("%s is not NAME=VALUE" % text)
    return name, value


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="gateserver", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = top.add_subparsers(dest="verb", required=True)

    one = verbs.add_parser("serve", help="start the server; ends on SIGTERM or SIGINT")
    one.set_defaults(do=serve)
    one.add_argument("--port", type=int, default=0, help="0 picks a free one (default)")
    one.add_argument("--host", default="127.0.0.1")
    one.add_argument("--era", type=era, default="1.118.2", help="1.5.2, 1.50.12, 1.118.2, fixed, or any release between")
    one.add_argument("--profile", choices=("unlimited", "community", "ratelimit5"), default="unlimited")
    one.add_argument("--state", metavar="FILE", help="SQLite file that keeps everything (default: memory)")
    one.add_argument("--rate-limit", type=int, help="calls of a token in 15 minutes; a session has ten times that")
    one.add_argument("--login-limit", type=int, help="logins of an address in 15 minutes")
    one.add_argument("--admin", default=ADMIN, metavar="USER:PASSWORD")
    one.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"))
    one.add_argument("--sweep-interval", type=float, default=60, metavar="SECONDS", help="how often expired peers are looked for")
    one.add_argument("--subnet", default="10.8.0.0/24", help="tunnel network; its first address is the server's")
    one.add_argument("--endpoint", metavar="HOST:PORT", help="what the configurations say; the hub listens on PORT")
    one.add_argument("--wireguard", metavar="IFACE", help="create this interface and be a real hub (root)")
    one.add_argument("--echo", type=int, metavar="PORT", help="answer TCP on the tunnel address with what was sent")

    def admin_verb(name: str, do, text: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text)
        verb.set_defaults(do=do)
        verb.add_argument("--url", required=True, help="the url of the serve line")
        verb.add_argument("--admin", default=ADMIN, metavar="USER:PASSWORD")
        verb.add_argument("--cafile", help="check the server's certificate against this CA (default: not at all)")
        verb.add_argument("--timeout", type=float, default=60)
        return verb

    one = admin_verb("token", token, "mint a token and print it")
    one.add_argument("name")
    one.add_argument("scopes", help="separated by commas")
    one.add_argument("peer_id", nargs="?", default="")

    one = admin_verb("peer", peer, "list and change peers")
    one.add_argument("action", choices=("list", "add", "set", "enable", "disable", "expire", "delete"))
    one.add_argument("peer", nargs="?", help="id or name")
    one.add_argument("values", nargs="*", type=pair, metavar="NAME=VALUE", help="columns to set")
    one.add_argument("--count", type=int, help="add this many: NAME-1, NAME-2 …")

    one = admin_verb("log", log, "what was received, as JSON")
    one.add_argument("--since", type=int, metavar="ID", help="only later entries")
    one.add_argument("--event", help="register, config, config/check, heartbeat, status, login, transfer, echo, expired …")
    one.add_argument("--method")
    one.add_argument("--path", help="pattern with * and ?")
    one.add_argument("--status", type=int)
    one.add_argument("--token", help="a token's name")
    one.add_argument("--peer-id", type=int)
    one.add_argument("--limit", type=int, help="only the last so many")
    one.add_argument("--clear", action="store_true", help="empty the log")

    one = admin_verb("fault", fault, "switch faults on and off")
    one.add_argument("action", choices=("on", "off", "list"))
    one.add_argument("kind", nargs="?", help="status, drop, delay, drip, cut, invalid-json, html, wrong-hash, config, redirect;"
                                             " for off: an id (default: all)")
    one.add_argument("--path", help="pattern with * and ?")
    one.add_argument("--method")
    one.add_argument("--token", help="only requests of the tokens with such a name")
    one.add_argument("--count", type=int, help="how many requests (default: all)")
    one.add_argument("--skip", type=int, help="leave out the first so many")
    one.add_argument("--when", choices=("before", "after"), help="before or after the request took effect"
                     " (default: before, but after for what spoils a real answer)")
    one.add_argument("--status", type=int)
    one.add_argument("--retry-after", type=int, metavar="SECONDS")
    one.add_argument("--seconds", type=float)
    one.add_argument("--bytes", type=int)
    one.add_argument("--how", help="hooks, placeholder, private-placeholder, crlf, unknown-key, save-config, second-interface,"
                                   " short-key, short-private-key, short-preshared-key, empty")
    one.add_argument("--text", help="the config's or the answer's text, or @FILE")
    one.add_argument("--to", dest="url_to", metavar="URL", help="where a redirect leads")

    one = admin_verb("settings", settings, "show and change server-wide settings")
    one.add_argument("values", nargs="*", type=pair, metavar="NAME=VALUE",
                     help="endpoint, mtu, allowed_ips, dns and keepalive (of peers made from now on), server_key (new or none),"
                          " machine_binding, custom_dns, split_tunnel, api_limit, session_limit, login_limit, licence.vpn_peers and the"
                          " licence's other features")

    one = admin_verb("reset", reset, "forget counted calls and failed logins")
    one.add_argument("--sessions", action="store_true", help="end the sessions too")

    admin_verb("sweep", sweep, "look for expired peers now")
    return top


if __name__ == "__main__":
    chosen = parser().parse_args()
    chosen.do(chosen)
