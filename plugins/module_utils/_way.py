# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the agent's and the modules' own requests reach the server where the host's tunnel is dead.

The normal route comes first: a server may be reachable through its tunnel only, and while that lives nothing leaves
beside it. What is not connected in a share of the time is tried beside the tunnel, as the tunnel's own packets go: with
its firewall mark, else bound to the device of a route that the tunnel does not have. The tunnel's state is not asked
for, since a tunnel that died a moment ago looks alive for three minutes. Other programs' packets are not touched.

`run`, `store` as _observe takes them.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import selectors
import socket
import time
from collections.abc import Callable, Iterable

from . import _line, _names, _observe, _reach, _services

SHARE, PATIENCE = 0.4, 5.0  # of the time left, and seconds at most, for the normal route where there is another
NAMES = 3.0    # seconds that the resolvers beside the tunnel get
STAGGER = 0.3  # seconds after which the next address is tried beside the one before
MOST = 6       # addresses that are tried, and kept

# Not in every Python's socket module.
SO_MARK, SO_BINDTODEVICE = getattr(socket, "SO_MARK", 36), getattr(socket, "SO_BINDTODEVICE", 25)
IP_BOUND_IF, IPV6_BOUND_IF = 25, 125  # macOS

Prepare = Callable[[socket.socket, str], None]


class Way:
    """The way of one process's requests. dial(host, port, deadline) is what _http.HttpTransport takes.

    beside: whether the tunnel may be gone round; kept: what reached() gave before. went_beside: whether the last
    connection leaves beside the tunnel.
    """

    def __init__(
        self, run, store, interface: str, beside: bool = True, kept: dict | None = None, clock=time.monotonic
    ) -> None:
        self.run, self.store, self.interface, self.beside, self.clock = run, store, interface, beside, clock
        self.kept, self.went_beside = kept or {}, False
        self._mark: int | None = None
        self._ways: dict[str, tuple[str, object]] = {}
        self._reached: dict | None = None

    def reached(self) -> dict | None:
        """{"host": str, "addresses": str}: the address that was connected last, then what else the name had, parted by
        blanks; None where nothing was connected."""
        return self._reached

    def dial(self, host: str, port: int, deadline: float) -> socket.socket:
        """A connected socket. deadline: of the clock, for all of it. Raises OSError."""
        tunnel = self.beside and _observe.present(self.store.root, self.interface)
        others = self._kept_addresses(host)
        failed, found = None, []
        if not (tunnel and self.went_beside):  # what was gone round once in this process is not tried first again
            left = deadline - self.clock()
            end = self.clock() + min(PATIENCE, left * SHARE) if tunnel or others else deadline
            try:
                found = known(host, end)
                return self._connected(host, race(found, port, end, None, self.clock), found)
            except OSError as err:
                failed = err
        try:
            if tunnel:
                return self._beside(host, port, found, others, deadline)
            if others:
                return self._connected(host, race(others, port, deadline, None, self.clock), others)
        except OSError as err:
            if failed is None:
                raise
            beside = ", and beside the tunnel %s: %s" % (self.interface, _words(err)) if tunnel else ""
            raise OSError(_words(failed) + beside) from None
        raise failed

    def addresses(self, host: str, deadline: float) -> list[str]:
        """The addresses of a name, from the system, else from resolvers beside the tunnel; empty where nobody knows it."""
        with contextlib.suppress(OSError):
            return known(host, self.clock() + min(PATIENCE, (deadline - self.clock()) * SHARE))
        return self._asked(host, deadline) if self.beside else []

    def prepare(self, opened: socket.socket, address: str) -> None:
        """Make a socket that is not connected yet leave beside the tunnel. Raises OSError where no way leads there."""
        if address not in self._ways:
            self._ways[address] = self._way(address)
        means, value = self._ways[address]
        if means == "mark":
            try:
                opened.setsockopt(socket.SOL_SOCKET, SO_MARK, value)
                return
            except PermissionError:  # without CAP_NET_ADMIN, as when an operator asks
                means, value = self._ways[address] = self._device(address)
        if means == "device":
            opened.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, value.encode() + b"\0")
        elif means == "bound":  # macOS
            level, option = (socket.IPPROTO_IPV6, IPV6_BOUND_IF) if ":" in address else (socket.IPPROTO_IP, IP_BOUND_IF)
            opened.setsockopt(level, option, socket.if_nametoindex(value))

    # -- names

    def _asked(self, host: str, deadline: float) -> list[str]:
        config = _observe.applied(_observe.config_path(self.store, self.interface))
        inside = config.interface.get("DNS", []) if config else []
        resolvers = _names.servers(self.store.root, self.interface, inside)
        return _names.ask(host, resolvers, max(0.0, min(NAMES, (deadline - self.clock()) / 2)), self.prepare)

    def _kept_addresses(self, host: str) -> list[str]:
        kept = self.kept.get("addresses", "").split() if self.kept.get("host") == host else []
        return [address for address in kept[:MOST] if _names.is_address(address)]

    def _connected(self, host: str, connected: socket.socket, addresses: Iterable[str]) -> socket.socket:
        if not _names.is_address(host):
            peer = connected.getpeername()[0].split("%")[0]
            ordered = list(dict.fromkeys([peer, *addresses]))[:MOST]
            self.kept = self._reached = {"host": host, "addresses": " ".join(ordered)}
        return connected

    # -- beside the tunnel

    def _beside(self, host: str, port: int, found: list[str], others: list[str], deadline: float) -> socket.socket:
        """What the name is now comes first, what it was when the server answered last where that does not help."""
        if self.went_beside and others:  # a moment ago
            found = others
        elif not _names.is_address(host):
            found = list(dict.fromkeys([*self._asked(host, deadline), *found]))
        else:
            found = [host]
        others = [address for address in others if address not in found]
        failed = OSError("the name %s was not resolved" % host)
        if found:
            end = self.clock() + (deadline - self.clock()) * (0.6 if others else 1)
            try:
                return self._out(host, port, found, end)
            except OSError as err:
                failed = err
        if not others:
            raise failed
        return self._out(host, port, others, deadline)

    def _out(self, host: str, port: int, addresses: list[str], deadline: float) -> socket.socket:
        connected = self._connected(host, race(addresses, port, deadline, self.prepare, self.clock), addresses)
        self.went_beside = True
        return connected

    def _way(self, address: str) -> tuple[str, object]:
        """(means, its value) that lead to an address beside the tunnel: mark, device, bound, or plain where the tunnel
        does not capture it."""
        if _services.system(self.store.root) == "macos":
            return self._way_on_mac(address)
        words = ["ip", "-6" if ":" in address else "-4", "-j", "route", "get", address]
        # The mark of what came in beside the tunnel is better, where there is its rule: answers pass a strict rp_filter then.
        for mark in (int(_reach.MARK, 0), self._fwmark()) if self._fwmark() else ():
            if self._leads_out(words + ["mark", str(mark)]):
                return "mark", mark
        return ("plain", None) if self._leads_out(words) else self._device(address)

    def _leads_out(self, words: list[str]) -> bool:
        try:
            routes = _observe.ip_json(self.run, words)
            return bool(routes) and all(route.get("dev") not in (None, self.interface) for route in routes)
        except _observe.TunnelError:
            return False

    def _fwmark(self) -> int:
        """The tunnel's firewall mark, 0 where it has none or it cannot be told."""
        if self._mark is None:
            try:
                said = _observe.command(self.run, ["wg", "show", self.interface, "fwmark"]).strip()
                self._mark = int(said, 0) if re.fullmatch("0x[0-9a-f]{1,8}", said) else 0
            except _observe.TunnelError:
                self._mark = 0
        return self._mark

    def _device(self, address: str) -> tuple[str, object]:
        try:
            device = device_beside(_observe.routes_to(self.run, ipaddress.ip_address(address)), self.interface)
        except _observe.TunnelError:
            device = None
        if device is None:
            raise OSError(errno.ENETUNREACH, "no route to %s but through %s" % (address, self.interface))
        return "device", device

    def _way_on_mac(self, address: str) -> tuple[str, object]:
        # wg-quick leaves the default route as it is, and leads the halves of all addresses into the tunnel.
        device, _gateway = _reach.way_on_mac(self.run, "default", 6 if ":" in address else 4)
        if not device or device == _observe.real_name(self.store.root, self.interface):
            raise OSError(errno.ENETUNREACH, "no default route but through %s" % self.interface)
        return "bound", device


def resolver(run, store, interface: str, seconds: float = 8.0):
    """resolve(host) -> list of addresses, for a tunnel's endpoints; all questions together take `seconds` at most."""
    way = Way(run, store, interface, (store.load("settings") or {}).get("beside_tunnel") is not False)
    deadline = time.monotonic() + seconds
    return lambda host: way.addresses(host, deadline)


def known(host: str, deadline: float) -> list[str]:
    """The addresses the system has for a name, in its order. Raises OSError."""
    return list(dict.fromkeys(entry[4][0] for entry in _line.addresses(host, None, deadline)))[:MOST]


def allowed(options: dict) -> bool:
    """Whether requests with these connection options may leave beside the tunnel, or go to an address that was kept.

    Only what no wire can read or answer in the server's place: HTTPS with its certificate checked, and no proxy that is
    sent a password.
    """
    secure = (options.get("url") or "").lower().startswith("https://") and options.get("validate_certs") is not False
    return secure and options.get("beside_tunnel") is not False and "@" not in (options.get("proxy") or "")


def _words(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def device_beside(routes: Iterable[dict], interface: str) -> str | None:
    """The device of the best of the routes to an address (`ip -N -j route show match`) that do not lead into an
    interface; None where there is none."""
    def length(route: dict) -> int:
        try:
            return ipaddress.ip_network(route.get("dst", "default")).prefixlen
        except ValueError:
            return 0  # "default"

    def device(route: dict) -> object:
        hops = [hop for hop in route.get("nexthops") or [] if isinstance(hop, dict)]
        return route.get("dev") or (hops[0].get("dev") if hops else None)

    def metric(route: dict) -> int:
        return route["metric"] if isinstance(route.get("metric"), int) else 0

    usable = [route for route in routes if route.get("type", "unicast") in ("unicast", "1")]
    usable = [route for route in usable if isinstance(device(route), str) and device(route) != interface]
    best = min(usable, key=lambda route: (-length(route), metric(route)), default=None)
    return device(best) if best else None


def race(
    addresses: Iterable[str], port: int, deadline: float, prepare: Prepare | None = None, clock=time.monotonic
) -> socket.socket:
    """Connect to the first of several addresses that answers, each begun STAGGER after the one before or when that
    failed (as RFC 8305 has it).

    prepare(socket, address) is called before. The socket's timeout is what is left until the deadline. Raises OSError.
    """
    waiting, failed = list(addresses)[:MOST], OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    with selectors.DefaultSelector() as selector:
        try:
            begin_next = clock()
            while (waiting or selector.get_map()) and clock() < deadline:
                if waiting and clock() >= begin_next:
                    begin_next = clock() + STAGGER
                    try:
                        selector.register(_begun(waiting.pop(0), port, prepare), selectors.EVENT_WRITE)
                    except OSError as err:
                        failed, begin_next = err, clock()
                        continue
                until = min(deadline, begin_next) if waiting else deadline
                for key, _events in selector.select(max(0.0, until - clock())):
                    selector.unregister(key.fileobj)
                    error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not error:
                        key.fileobj.settimeout(max(0.05, deadline - clock()))
                        return key.fileobj
                    key.fileobj.close()
                    failed, begin_next = OSError(error, os.strerror(error)), clock()
        finally:
            for key in list(selector.get_map().values()):
                key.fileobj.close()
    raise failed


def _begun(address: str, port: int, prepare: Prepare | None) -> socket.socket:
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    family, kind, protocol, _name, target = found[0]
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setblocking(False)
        if prepare:
            prepare(opened, address)
        error = opened.connect_ex(target)
        if error not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            raise OSError(error, os.strerror(error))
    except BaseException:
        opened.close()
        raise
    return opened
