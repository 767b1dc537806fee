# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP/1.1 on the standard library alone: one deadline for each exchange, proxies, redirects, certificates.

This module util is PRIVATE to the collection; it may change without notice.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import re
import ssl
import time
import urllib.parse

from . import _line, _verify

IDLE = 2.0  # seconds a connection may rest before it is used again; the server closes it after five
UNNAMED_WAIT = 60  # seconds, after a 429 that does not say how long

# How the server is reached where an option says nothing; times in seconds.
DEFAULTS = {"validate_certs": True, "timeout": 15, "max_wait": 60, "allow_http": False, "auth_header": "authorization"}
SECRET_HEADERS = ("Authorization", "X-API-Token", "X-API-Key", "Cookie", "X-CSRF-Token")
SECRETS = re.compile(r"gc_[0-9A-Za-z_]{8,}|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=")  # tokens and WireGuard's keys


class ApiError(Exception):
    """A request that did not succeed. The text is one sentence for a person; kind, status, details are for a program.

    kinds: auth scope user_disabled unbound wrong_peer bound_elsewhere licence machine_binding forbidden invalid
    invalid_name name_taken not_found endpoint_missing conflict rate_limited server register_broken uncertain network
    proxy tls redirect protocol options
    """

    def __init__(self, message, kind, status=None, sent=False, **details):
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.sent = sent  # the request may have taken effect
        self.details = details

    @property
    def failure(self):
        """What a playbook may decide on: kind, status (int or None), details such as retry_after in s."""
        return dict(self.details, kind=self.kind, status=self.status)


class Response:
    """An answer: status (int), headers (lower-case names, the first of each), text (str), cookies ({name: value})."""

    def __init__(self, status, headers, text, cookies=None):
        self.status = status
        self.headers = headers
        self.text = text
        self.cookies = cookies or {}


# ---------------------------------------------------------------- texts, addresses


def shown(text):
    """A foreign text as it may stand in a message: one line, no control characters, no secret, not too long."""
    text = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return SECRETS.sub("***", text)[:300]


def hidden(text, headers):
    """A foreign text without the secrets that a request's headers hold, which the other side may echo."""
    for name in SECRET_HEADERS:
        for part in re.split("[ =]", headers.get(name) or ""):
            text = text.replace(part, "***") if len(part) > 7 else text
    return text


def normal_url(url):
    """A server's URL in one spelling, as _verify has it. Raises ApiError (options)."""
    try:
        return _verify.normal_url(url)
    except ValueError as err:
        raise ApiError(str(err), "options") from err


def is_loopback(host):
    """Whether a host name of a URL means this machine."""
    return host == "localhost" or host == "::1" or re.match(r"127(\.\d{1,3}){3}$", host or "") is not None


def _network(text):
    """An address or CIDR as a network, None where it is neither."""
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def is_excluded(host, no_proxy, port=None):
    """Whether a comma list keeps a host from the proxy.

    It holds names, which stand for all below them too, addresses and CIDRs, each with or without a port; "*" keeps all.
    """
    host, address = host.lower().rstrip("."), _network(host)
    for entry in (no_proxy or "").lower().replace(",", " ").split():
        with_port = re.fullmatch(r"([^:]+|\[.+\]):(\d+)", entry)
        if with_port and int(with_port.group(2)) != port:
            continue
        entry = with_port.group(1) if with_port else entry
        network = _network(entry)
        if address and network and address.version == network.version and address.subnet_of(network):
            return True
        entry = entry.lstrip("*").strip(".") if entry != "*" else entry
        if entry and (entry == "*" or host == entry or host.endswith("." + entry)):
            return True
    return False


def complete(options):
    """Connection options with DEFAULTS for what is None or missing."""
    return dict(DEFAULTS, **{key: value for key, value in options.items() if value is not None})


def origin(parts):
    """(scheme, host, port) of a split URL, which have to be the same for a token to be sent. Raises ValueError."""
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or {"https": 443, "http": 80}.get(parts.scheme)


# ---------------------------------------------------------------- transport


class HttpTransport:
    """HTTP/1.1 over one connection that is kept.

    options: url, ca_path, client_cert, client_key, proxy, no_proxy and those of DEFAULTS.
    dial: (host, port, deadline) -> connected socket, as _line.dial, to connect otherwise.
    Raises ApiError of the kinds options, network (with sent), proxy, tls, redirect, protocol.
    """

    def __init__(self, options, dial=None):
        self.url = normal_url(options["url"])
        self.parts = urllib.parse.urlsplit(self.url)
        self.options = options
        self.dial = dial or _line.dial
        self.connection, self.used, self.context = None, 0.0, None
        self.origin = origin(self.parts)
        if not 0 < options["timeout"] <= 86400:
            raise ApiError(f"timeout is {options['timeout']} seconds; set gatecontrol_timeout to at least 1", "options")
        self.via = self._proxy()
        if self.parts.scheme == "http" and not is_loopback(self.parts.hostname) and not options["allow_http"]:
            raise ApiError(
                f"refusing to send a token over plain http to {self.parts.netloc}; use https, or set "
                "gatecontrol_allow_http where the network itself is trusted",
                "options",
            )

    def _proxy(self):
        """The proxy's split URL, None where the server is reached without one."""
        proxy = self.options.get("proxy")
        if not proxy or is_excluded(self.origin[1], self.options.get("no_proxy"), self.origin[2]):
            return None
        try:
            via = urllib.parse.urlsplit(proxy if "//" in proxy else "http://" + proxy)
            if via.scheme == "http" and via.hostname and via.port != 0:
                return via
        except ValueError:
            pass
        told = re.sub("[A-Za-z0-9+/=_]{20,}", "…", proxy.split("@")[-1])
        raise ApiError(
            f"the proxy {told!r} is not of the form http://proxy.example.com:3128; correct gatecontrol_proxy", "options"
        )

    def _context(self):
        what = "ca_path"
        try:
            context = ssl.create_default_context(cafile=self.options.get("ca_path"))
            if not self.options["validate_certs"]:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            what = "client_cert or client_key"
            if self.options.get("client_cert"):
                context.load_cert_chain(self.options["client_cert"], self.options.get("client_key"))
        except (OSError, ValueError) as err:
            raise ApiError(
                f"the file given as gatecontrol_{what} cannot be used: {err}; it has to be a readable PEM file",
                "options",
            )
        return context

    def _connect(self, deadline):
        scheme, host, port = self.origin
        self.context = self.context or (self._context() if scheme == "https" else None)
        there = (self.via.hostname, self.via.port or 3128) if self.via else (self.parts.hostname, port)
        self.connection = _line.Line(self.dial(*there, deadline), deadline)
        if self.via:  # a tunnel for http as well: the proxy then never sees a token it could log
            self._tunnel("[%s]:%d" % (host, port) if ":" in host else "%s:%d" % (host, port))
        if scheme == "https":
            self.connection.secure(self.context, host)

    def _tunnel(self, there):
        """Have the proxy connect to host:port."""
        head = f"CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n"
        if self.via.username:
            login = f"{urllib.parse.unquote(self.via.username)}:{urllib.parse.unquote(self.via.password or '')}"
            head += f"Proxy-Authorization: Basic {base64.b64encode(login.encode('utf-8')).decode('ascii')}\r\n"
        self.connection.sendall((head + "\r\n").encode("ascii"))
        answer = _line.Answer(self.connection, method="CONNECT")
        answer.begin()
        if answer.status != 200:
            raise ProxyError(
                "it answered %d %s" % (answer.status, http.client.responses.get(answer.status, "")), answer.status
            )

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def request(self, method, path, headers, body=None, limit=None):
        """Send one request; path starts with a slash. Returns a Response; only a GET is redirected, within the origin.

        limit: seconds for all of it, where that is less than the option timeout.
        """
        path, deadline = self.parts.path + path, self.deadline(limit)
        for _hop in range(4):
            response = self.exchange(method, path, headers, body, deadline)
            if response.status not in (301, 302, 303, 307, 308):
                return response
            target = response.headers.get("location", "")
            same = False
            with contextlib.suppress(ValueError):
                target = urllib.parse.urldefrag(
                    urllib.parse.urljoin(self.url[: len(self.url) - len(self.parts.path)] + path, target)
                ).url
                parts = urllib.parse.urlsplit(target)
                same = origin(parts) == self.origin and "@" not in parts.netloc and re.fullmatch("[!-~]*", target)
            if method != "GET" or not same:
                raise ApiError(
                    f"{self.url} answered with a redirect to {shown(hidden(target.split('?')[0], headers))}, which is "
                    "not followed so that the token stays with this server; correct gatecontrol_url",
                    "redirect",
                    response.status,
                )
            path = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        raise ApiError(f"{self.url} redirects in a circle; check its reverse proxy", "redirect", response.status)

    def deadline(self, limit=None):
        """When an exchange that begins now has to be over, as time.monotonic counts."""
        return time.monotonic() + min(self.options["timeout"], self.options["timeout"] if limit is None else limit)

    def exchange(self, method, path, headers, body=None, deadline=None):
        """Send one request and return its Response, a redirect included; path is the whole one."""
        for name, value in headers.items():
            if not re.fullmatch("[ -~]*", value):
                raise ApiError(
                    f"the header {name} would hold characters that no header may have; correct the token or option it "
                    "is made of",
                    "options",
                )
        if self.connection is not None and (time.monotonic() - self.used > IDLE or self.connection.spent()):
            self.close()
        deadline, sent = self.deadline() if deadline is None else deadline, False
        try:
            if self.connection is None:
                self._connect(deadline)
            sent, line = True, self.connection
            line.deadline, line.room = deadline, _line.HEAD
            sender = http.client.HTTPConnection(self.origin[1], self.origin[2])
            sender.sock, sender.default_port = line, 443 if line.tls else 80
            sender.request(method, path, body, headers)
            answer = _line.Answer(line, method=method)
            answer.begin()
            line.room += 2 * _line.LARGEST  # chunks cost more than what they hold
            text = answer.body().decode("utf-8", "replace")
            if answer.will_close:
                self.close()
            self.used = time.monotonic()
            return self._response(answer, text, headers)
        except (OSError, http.client.HTTPException, ValueError, _line.Refused) as err:
            self.close()
            raise self._failed(err, sent)

    @staticmethod
    def _response(answer, text, sent):
        """The Response of an answer; what an error says holds no secret of the request's headers."""
        headers, cookies = {}, {}
        for name, value in answer.getheaders():
            value = " ".join(value.split("\r\n"))
            headers.setdefault(name.lower(), value)
            cookie = (
                re.match(r"\s*([!-:<>-~]+)=([!#-+\--:<-\[\]-~]*)\s*(;|$)", value)
                if name.lower() == "set-cookie"
                else None
            )
            if cookie:
                cookies[cookie.group(1)] = cookie.group(2)
        return Response(answer.status, headers, text if answer.status < 300 else hidden(text, sent), cookies)

    def _failed(self, err, sent):
        """The ApiError of an exchange that failed; never with the other side's bytes in its text."""
        via = f" through the proxy {self.via.netloc.split('@')[-1]}" if self.via else ""
        if isinstance(err, _line.Refused):
            return ApiError(
                f"the answer of {self.url}{via} {err}; check gatecontrol_url and what stands between",
                "protocol",
                sent=sent,
            )
        if isinstance(err, ssl.SSLError) and not isinstance(err, ssl.SSLEOFError):
            return ApiError(
                f"no trusted connection to {self.url}: {getattr(err, 'verify_message', '') or err.reason or err}; "
                "check its certificate and gatecontrol_ca_path",
                "tls",
                sent=sent,
            )
        if isinstance(err, http.client.IncompleteRead):
            words = "the answer broke off"
        elif isinstance(err, OSError):
            words = shown(err.strerror or str(err)) or type(err).__name__
        else:
            words = (
                "what answers is not HTTP"
                if not isinstance(err, http.client.LineTooLong)
                else "a line of the answer is too long"
            )
        refused = isinstance(err, ProxyError) and 400 <= err.status < 500
        place = "gatecontrol_proxy, its user and password" if refused else "the address, the network and the server"
        return ApiError(
            f"no answer from {self.url}{via}: {words}; check {place}",
            "proxy" if refused else "network",
            sent=sent,
        )


class ProxyError(OSError):
    """A proxy that makes no tunnel."""

    def __init__(self, words, status):
        super().__init__(words)
        self.status = status


# ---------------------------------------------------------------- rate limit


def retry_after(headers):
    """How long a 429 says to wait."""
    for name in ("retry-after", "ratelimit-reset"):
        if re.fullmatch(r"\d{1,6}", headers.get(name, "")):
            return int(headers[name])
    return UNNAMED_WAIT


def budget(headers, now):
    """What headers say of the rate limit: {"limit", "left", "until": the window's end as now counts}, or None."""
    numbers = [headers.get("ratelimit-" + name, "") for name in ("limit", "remaining", "reset")]
    if not all(re.fullmatch(r"\d{1,9}", number) for number in numbers):
        return None
    return {"limit": max(1, int(numbers[0])), "left": int(numbers[1]), "until": now + int(numbers[2])}
