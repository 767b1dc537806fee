"""Makes vectors, and the keys of the tables: generate.py SEED COUNT prints lines for play. The same seed gives the same lines."""

from __future__ import annotations

import base64
import json
import random
import sys
import typing as t

ADDRESSES = (
    "10.8.0.2",
    "10.8.0.2/32",
    "10.8.0.7/24",
    "0.0.0.0/0",
    "128.0.0.0/1",
    "::/0",
    "8000::/1",
    "fd00:0:0::1",
    "fd00::1/128",
    "FD00::A/64",
    "::ffff:10.8.0.5",
    "::ffff:10.8.0.5/128",
    "::10.8.0.5/128",
    "::1.2.3.04",
    "::1.2.3.4",
    "1.2.3.04",
    "1.2.3",
    "1:2:3:4:5:6:7:8",
    "1::3:4:5:6:7:8",
    "::2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7::",
    "1:2:3:4:5:6:7:8:9",
    "1::2::3",
    ":::",
    ":1",
    "1:",
    "::",
    "::/129",
    "10.0.0.0/33",
    "10.0.0.0/024",
    "10.0.0.0/",
    "10.0.0.0/8/8",
    "256.1.1.1",
    "fe80::1%eth0",
    "12345::",
    "0:0:1:0:0:0:1:0",
    "1.2.3.4.5",
    "a.b",
    "0.0.0.0",
    "192.0.2.9/0",
    "1:2:3:4:5:6:1.2.3.4",
    "1:2:3:4:5:6:7:1.2.3.4",
    "10.8.0.0/24",
    "10.9.0.0/16",
)
NAMES = (
    "gate.example.com",
    "Gate.EXAMPLE.com.",
    "a",
    "-a",
    "a-",
    "a_b",
    "a..b",
    "a" * 64,
    "a." * 126 + "b",
    "x" * 63 + ".de",
    "b\u00fccher.example",
    "*.example",
    "1.2.3.4",
    "[::1]",
)
NUMBERS = (
    "0",
    "1",
    "25",
    "007",
    "0x10",
    "0X1f",
    "65535",
    "65536",
    "576",
    "575",
    "1420",
    "4294967295",
    "4294967296",
    "off",
    "OFF",
    "auto",
    "main",
    "",
    "-1",
    "+1",
    "1e3",
    "1.0",
    "\u0663",
    "12345678901",
    "0x",
    "0xffffffff",
    "0x1ffffffff",
    " 5 ",
)
ODD = (
    "\u00ad",
    "\u200d",
    "\ufeff",
    "\u212a",
    "\u0131",
    "\u0130",
    "\u017f",
    "\u00a0",
    "\u2028",
    "\x00",
    "\x1f",
    "\x85",
    "\x0b",
    "\r",
    "\t",
    " ",
    "#",
    "=",
    "<",
    ">",
    "\U0001f600",
    "\ud800",
    "\udc80",
    "[",
    "]",
    ",",
    "\x7f",
    "\u0301",
)
KEYS = (
    "PrivateKey",
    "Address",
    "DNS",
    "MTU",
    "Table",
    "ListenPort",
    "FwMark",
    "PublicKey",
    "PresharedKey",
    "Endpoint",
    "AllowedIPs",
    "PersistentKeepalive",
    "PreUp",
    "PostUp",
    "PostDown",
    "SaveConfig",
    "Jc",
)
SAID = (
    "Your token lacks permission for this resource",
    "Forbidden for token",
    "User account is disabled",
    "Token is not bound to a peer",
    "not authorized for this peer",
    "Token is bound to a different peer",
    "used by a DIFFERENT MACHINE",
    "FINGERPRINT required",
    "\u0130nvalid fingerprint",
    "No available IP addresses",
    "Name already exists",
    "Invalid name",
    "name\u00a0taken",
    "permission\u2003for this   resource",
    "",
    "nope",
    "a\nb",
    "different\u200bmachine",
)
# The tables' private key, which stands in them by a name, and the same as WireGuard keeps it (RFC 7748, section 5).
PRIVATE = bytes(range(1, 33))
CLAMPED = bytes([PRIVATE[0] & 248, *PRIVATE[1:31], PRIVATE[31] & 127 | 64])


def filled(text: str) -> str:
    """The text of a table with keys in the place of their names."""
    for name, key in (("@PRIVATE@", PRIVATE), ("@CLAMPED@", CLAMPED)):
        text = text.replace(name, base64.b64encode(key).decode())
    return text


class Maker:
    """Makes vectors from one source of chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.keys = [base64.b64encode(self.chance.randbytes(32)).decode() for _number in range(6)]

    def one(self, values: t.Sequence[t.Any]) -> t.Any:
        return self.chance.choice(values)

    def odd(self, often: float) -> bool:
        return self.chance.random() < often

    def key(self) -> str:
        if self.odd(0.02):
            return self.one(
                (
                    base64.b64encode(bytes(32)).decode(),
                    "x",
                    self.keys[0][:-1],
                    self.keys[0][:-2] + "B=",
                    self.keys[0] + "=",
                    "<key>",
                )
            )
        return self.one(self.keys)

    def listed(self, values: t.Sequence[str], most: int = 3) -> str:
        return self.one((", ", ",", " ", "\t,\t", ",,")).join(
            self.one(values) for _number in range(self.chance.randint(1, most))
        )

    def sane(self, values: tuple[str, ...], good: int) -> tuple[str, ...]:
        """Mostly the good ones, of which there are so many in front."""
        return values if self.odd(0.1) else values[:good]

    def endpoint(self) -> str:
        host = self.one(self.sane(NAMES, 1) + ("192.0.2.1", "::1", "[2001:db8::1]", "[::ffff:1.2.3.4]"))
        return "%s:%s" % (
            host,
            self.one(("51820", "51820", "51821", "1", "0", "65536", "", "99999")[: 3 if self.odd(0.9) else 8]),
        )

    def line(self, name: str) -> str:
        values: dict[str, t.Callable[[], str]] = {
            "Address": lambda: self.listed(self.sane(ADDRESSES, 3)),
            "DNS": lambda: self.listed(self.sane(ADDRESSES, 2) + self.sane(NAMES, 1)),
            "AllowedIPs": lambda: self.listed(self.sane(ADDRESSES, 12)),
            "Endpoint": self.endpoint,
            "PrivateKey": self.key,
            "PublicKey": self.key,
            "PresharedKey": self.key,
        }
        value = values.get(name, lambda: self.one(NUMBERS if self.odd(0.15) else NUMBERS[10:11]))()
        if self.odd(0.1):
            name = self.one((name.lower(), name.upper(), " " + name + "\t", name + " "))
        return "%s%s%s" % (name, self.one((" = ", "=", "= ")), value) + (" # a comment" if self.odd(0.05) else "")

    def config(self) -> str:
        lines = ["[Interface]", self.line("PrivateKey"), self.line("Address")]
        lines += [self.line(name) for name in ("DNS", "MTU", "Table", "ListenPort", "FwMark") if self.odd(0.3)]
        lines += [self.line(self.one(KEYS)) for _number in range(self.one((0, 0, 0, 0, 1)))]
        for _peer in range(self.one((0, 1, 1, 1, 1, 1, 2, 2))):
            lines += [
                "",
                self.one(("[Peer]", "[Peer]", "[peer]", "[PEER] ")),
                self.line("PublicKey"),
                self.line("AllowedIPs"),
            ]
            lines += [self.line(name) for name in ("PresharedKey", "Endpoint", "PersistentKeepalive") if self.odd(0.5)]
        text = "\n".join(lines) + "\n"
        if self.odd(0.15):
            at = self.chance.randrange(len(text))
            text = text[:at] + self.one(ODD) + text[at + self.one((0, 0, 1)) :]
        return self.one((text[:-1], text.replace("\n", "\r\n"), "", " \n", "\ufeff" + text)) if self.odd(0.04) else text

    def policy(self) -> dict[str, t.Any]:
        lists = {
            "allowed_ips": ADDRESSES,
            "dns": ADDRESSES + NAMES,
            "allow_endpoints": NAMES + ("gate.example.com:51820", "192.0.2.0/24", "10.0.0.0/255.0.0.0"),
            "allow_allowed_ips": ADDRESSES + ("0.0.0.0/0", "::/0"),
            "allow_dns": ADDRESSES + NAMES,
        }
        found: dict[str, t.Any] = {}
        for name, values in lists.items():
            if self.odd(0.2):
                picked = [self.one(self.sane(values, 5)) for _number in range(self.chance.randint(0, 3))]
                found[name] = ",".join(picked) if self.odd(0.3) else picked
        for name in ("mtu", "table", "fwmark", "listen_port", "persistent_keepalive"):
            if self.odd(0.15):
                found[name] = self.one(
                    (0, 25, 1380, 51820, 70000, "off", "auto", "0x10", "", True, False, None, 25.0, 2**40)
                )
        for name in ("kill_switch", "allow_hooks"):
            if self.odd(0.2):
                found[name] = self.one((True, False, None, 0, 1, "", "no"))
        return found

    def dump(self, config: str) -> t.Any:
        if self.odd(0.05):
            return self.one((None, "", "garbage", ["a\tb\tc"], "Unable to access interface"))
        keys = [line.split("=", 1)[1].strip() for line in config.splitlines() if line.lower().startswith("publickey")]
        private = self.one(self.keys) if self.odd(0.5) else "(none)"
        lines = [
            "%s\t%s\t%s\t%s"
            % (private, self.keys[0], self.one(("51820", "0", "7")), self.one(("off", "0xca6c", "off")))
        ]
        for key in keys + ([self.one(self.keys)] if self.odd(0.2) else []):
            networks = self.one(
                ("(none)", ",".join(self.one(ADDRESSES) for _number in range(2)), "10.8.0.0/24", "0.0.0.0/0")
            )
            lines.append(
                "\t".join(
                    (
                        key or "x",
                        self.one(("(none)", self.keys[1])),
                        self.one(
                            ("(none)", "192.0.2.1:51820", "[::1]:51820", "[fe80::1%2]:1", "x")[
                                : 4 if self.odd(0.97) else 5
                            ]
                        ),
                        networks,
                        self.one(("0", "NOW-5", "NOW-180", "NOW-181", "NOW-99999", "1900000000")),
                        self.one(("0", "92", "123456789012")),
                        "148",
                        self.one(("off", "25", "0")),
                    )
                )
            )
        return lines if self.odd(0.5) else "\n".join(lines) + "\n"

    def text_of_json(self) -> str:
        def value(depth: int) -> t.Any:
            kind = self.chance.randrange(9 if depth < 4 else 6)
            if kind == 6:
                return [value(depth + 1) for _number in range(self.chance.randrange(4))]
            if kind > 6:
                return {
                    self.one(("a", "A", "", "\u0131", "I", "\u00ad", "a\u00ad", "\U0001f600")): value(depth + 1)
                    for _number in range(self.chance.randrange(4))
                }
            return self.one(
                (
                    None,
                    True,
                    False,
                    0,
                    -1,
                    2**63,
                    -(2**63),
                    10**30,
                    1.5,
                    -0.0,
                    1e16,
                    1e15,
                    123456.789,
                    1e-4,
                    1e-5,
                    5e-324,
                    1.7976931348623157e308,
                    0.1 + 0.2,
                    "",
                    "2026-01-01",
                    "2026-01-01T00:00:00Z",
                    "\u00e9",
                    "\ud800",
                    'a"b\\c/\b\f\n\r\t',
                    "\x7f",
                    "/Date(1)/",
                    self.chance.random(),
                    self.chance.random() * 1e20,
                )
            )

        text = json.dumps(value(0), ensure_ascii=self.odd(0.5), indent=self.one((None, None, 1)))
        if self.odd(0.5):
            at = self.chance.randrange(len(text) + 1)
            text = (
                text[:at]
                + self.one(
                    ODD
                    + (
                        "{a:1}",
                        "// c",
                        "/**/",
                        "NaN",
                        "Infinity",
                        "-",
                        ".",
                        "e5",
                        "0",
                        "'x'",
                        ",]",
                        "}",
                        "\\",
                        "\\u12",
                        "\\u00e9",
                        "[" * 101,
                        '"',
                        "true",
                        "\n",
                    )
                )
                + text[at:]
            )
        return text

    def failure(self) -> dict[str, t.Any]:
        body = self.one(
            (
                lambda: json.dumps({"ok": False, "error": self.one(SAID)}),
                lambda: json.dumps({"error": self.one(SAID), "feature": self.one(("vpn_peers", 3, None))}),
                lambda: "<html><title>%s</title></html>" % self.one(SAID),
                lambda: "",
                lambda: "[]",
                lambda: "{'ok': 1}",
                lambda: json.dumps({"ok": True}),
            )
        )()
        headers = {
            self.one(("Retry-After", "retry-after", "RateLimit-Reset", "ratelimit-reset")): self.one(
                ("1", "0", "60", "1234567", "x", "-1", "", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT")
            )
            for _number in range(self.chance.randrange(3))
        }
        status = self.one(
            (
                200,
                204,
                301,
                304,
                400,
                400,
                401,
                402,
                403,
                403,
                403,
                404,
                404,
                409,
                410,
                413,
                418,
                429,
                429,
                500,
                502,
                503,
                599,
            )
        )
        return {"status": status, "text": body, "headers": headers}

    def vector(self) -> tuple[str, dict[str, t.Any]]:
        config = self.config()
        op = self.one(
            (
                "parse",
                "parse",
                "render",
                "render",
                "render",
                "plan",
                "plan",
                "connection",
                "json",
                "json",
                "mask",
                "failure",
                "digest",
                "clamp",
            )
        )
        makers: dict[str, t.Callable[[], dict[str, t.Any]]] = {
            "parse": lambda: {"text": config, "hooks": self.odd(0.5)},
            "render": lambda: {"text": config, "policy": self.policy()},
            "plan": lambda: {
                "text": config,
                "applied": self.one((None, config, config.replace("1420", "1400"), config.replace("51820", "51821"))),
                "dump": self.dump(config),
            },
            "connection": lambda: {"dump": self.dump(config)},
            "json": lambda: {"text": self.text_of_json()},
            "mask": lambda: {"text": config},
            "failure": self.failure,
            "digest": lambda: {"text": self.one((config, self.one(ODD), ""))},
            "clamp": lambda: {"key": self.key()},
        }
        return op, makers[op]()


def vectors(seed: int, count: int) -> list[dict[str, t.Any]]:
    """So many vectors of a seed."""
    maker = Maker(seed)
    found = []
    for number in range(count):
        op, args = maker.vector()
        found.append({"id": "%d/%d" % (seed, number), "op": op, "args": args})
    return found


if __name__ == "__main__":
    for made in vectors(int(sys.argv[1]), int(sys.argv[2])):
        print(json.dumps(made))
