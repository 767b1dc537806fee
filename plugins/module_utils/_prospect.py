# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host before it is enrolled: what _preflight tells, and what only a check asks, such as packages and the way out.

Changes nothing.

This module util is PRIVATE to the collection; it may change without notice.
"""
from __future__ import annotations

import os
import shutil
import time

from . import _api, _clock, _facts, _http, _line, _observe, _points, _preflight, _wgconf
from ._points import NotApplicable, Wrong

SKEW = 60  # seconds
ORDER = ("enrollment", *_preflight.ORDER, "interface", "packages", "DNS tool", "sandbox", "server", "clock", "endpoint")
# What the agent's units ask of systemd that a container may refuse.
SANDBOX = (
    "ProtectSystem=strict",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "NoNewPrivileges=yes",
)


class Prospect:
    """The points of a host.

    agent: its _agent.Agent. options: as _http.HttpTransport takes them. given: {"interface", "allowed_ips", "tunnel",
    "packages", "own_packages", "install"} as the module has them.
    """

    def __init__(self, agent, options, given):
        self.agent, self.host, self.options, self.given = agent, agent.host, options, given
        self.tunnel = given["tunnel"] or {}
        allowed_ips = given["allowed_ips"] if given["allowed_ips"] is not None else self.tunnel.get("allowed_ips")
        self.preflight = _preflight.Preflight(self.host, allowed_ips, given["interface"])
        self.points = _points.Points(ORDER, (_api.ApiError, _observe.TunnelError, _facts.AgentError, OSError))
        self.offset = None

    def look(self):
        """All points, in their order."""
        ask = self.points.ask
        ask("enrollment", self.enrollment)
        for point in self.preflight.look():
            self.points.put(**point)
        for name, work in (
            ("interface", self.interface),
            ("packages", self.packages),
            ("DNS tool", self.dns_tool),
            ("sandbox", self.sandbox),
            ("server", self.server),
            ("clock", self.clock),
            ("endpoint", self.endpoint),
        ):
            ask(name, work)
        return self.points.listed()

    def enrollment(self):
        """Whether this host is enrolled already."""
        record = self.agent.enrollment
        if not record.get("peer_id"):
            return "not enrolled"
        return "enrolled as %s on %s" % (_http.shown(str(record.get("peer_name"))), _http.shown(str(record.get("url"))))

    def interface(self):
        """Whether the tunnel's name is free."""
        name, path = self.given["interface"], _observe.config_path(self.agent.store, self.given["interface"])
        if self.agent.enrollment.get("interface") == name:
            return "%s is the enrollment's" % name
        if os.path.lexists(path) or _observe.present(self.agent.store.root, name):
            raise Wrong(
                "there is a tunnel %s already that is not of an enrollment (%s); set gatecontrol_interface to another"
                " name, or gatecontrol_adopt=true to have it replaced" % (name, path)
            )
        return "%s is free" % name

    def _names(self):
        """{tool: package} of this host's distribution."""
        facts, known = self.host.facts(), self.given["packages"] or {}
        kind = next((name for name in [facts["distribution"], *facts["like"]] if name in known), None)
        return dict(known.get(kind) or {}, **(self.given["own_packages"] or {})), facts["distribution"]

    def packages(self):
        """Whether what is missing has a package here."""
        needs = self.host.needs()
        if not needs:
            return "all tools are here"
        if self.host.facts()["system"] != "linux":
            return "Homebrew brings %s" % ", ".join(needs)
        names, distribution = self._names()
        if not self.given["install"]:
            raise Wrong("%s missing, and gatecontrol_install is false; install it before" % ", ".join(needs))
        unknown = [tool for tool in needs if tool not in names]
        if unknown:
            raise Wrong(
                "%s missing, and the role knows no package for it on %s; install it, or name its package in"
                " gatecontrol_packages" % (", ".join(unknown), distribution or "this system")
            )
        return "will be installed: %s" % ", ".join(sorted({names[tool] for tool in needs}))

    def dns_tool(self):
        """Whether the config's DNS servers can be set."""
        if self.host.facts()["system"] != "linux":
            raise NotApplicable("not on macOS")
        dns = self.tunnel.get("dns")
        if dns == []:
            raise NotApplicable("the config sets no DNS")
        wanted = _wgconf.Config({"DNS": dns or ["10.8.0.1"]}, [{"AllowedIPs": []}])
        missing = [tool for tool in self.host.needs(wanted) if tool.startswith("resolvconf")]
        if not missing:
            return "resolvconf is here"
        if missing == ["resolvconf-link"]:
            return "systemd-resolved takes its place"
        names, distribution = self._names()
        if "resolvconf" not in names or not self.given["install"]:
            raise Wrong(
                "no resolvconf and no systemd-resolved, and the role knows no package for it on %s; install"
                " systemd-resolved, or give gatecontrol_dns an empty list to leave this host's DNS alone"
                % (distribution or "this system")
            )
        return "will be installed: %s" % names["resolvconf"]

    def sandbox(self):
        """Whether systemd can do what the agent's units ask of it, tried with a unit that does nothing."""
        if self.points.failed("systemd") or self.host.services.NAME != "systemd":
            raise NotApplicable("no systemd runs here")
        if not shutil.which("systemd-run", path=_facts.PATH):
            raise NotApplicable("there is no systemd-run")
        rc, out, err = self.agent.run(
            [
                "timeout",
                "20",
                "systemd-run",
                "--quiet",
                "--wait",
                "--collect",
                *("--property=" + word for word in SANDBOX),
                "/bin/true",
            ]
        )
        if rc == 226:
            raise Wrong(
                "systemd cannot set up the sandbox of the agent's units here (226/NAMESPACE), as in an unprivileged"
                " container, so that no beat would run; let the container nest (LXC: security.nesting=true)"
            )
        if rc:
            raise Wrong("a unit with the agent's sandbox does not run here: %s; look into systemd's journal"
                        % (_http.shown(err or out) or "exit status %d" % rc))
        return "systemd can set it up"

    def server(self):
        """Whether the server is reached from here, without a token."""
        if not self.options.get("url"):
            raise NotApplicable("no server was named")
        transport = _http.HttpTransport(_http.complete(self.options))
        try:
            response = transport.request("GET", _api.CLIENT + "/ping", {"Accept": "application/json"})
        finally:
            transport.close()
        date = _clock.server_time(response.headers.get("date"))
        self.offset = None if date is None else date - time.time()
        if response.status != 401:
            raise Wrong(
                "what answers at %s is no GateControl server (status %d without a token, and not 401); look at what"
                " stands between this host and the server" % (transport.url, response.status)
            )
        return "%s answers" % transport.url

    def clock(self):
        """Whether this host's time is the server's."""
        if self.offset is None:
            raise NotApplicable(
                "the server was not reached" if self.points.failed("server") else "the server does not tell its time"
            )
        if abs(self.offset) > SKEW:
            raise Wrong(
                "this host's clock is %d s %s the server's, and certificates and handshakes go by it; set it, best by a"
                " time server" % (abs(self.offset), "behind" if self.offset > 0 else "ahead of")
            )
        return "as the server's"

    def endpoint(self):
        """Whether the tunnel's other end has an address here, and a way to it."""
        if not self.tunnel.get("endpoint"):
            raise NotApplicable("known where the check writes (gatecontrol_check_write)")
        name, port = _wgconf.split_endpoint(self.tunnel["endpoint"])
        try:
            found = _line.addresses(name, port, time.monotonic() + 10)
        except OSError as err:
            raise Wrong(
                "the endpoint %s is not resolved here: %s; look at this host's DNS"
                % (self.tunnel["endpoint"], err.strerror or err)
            ) from None
        address = found[0][4][0]
        rc, _out, err = self.agent.run(["ip", "route", "get", address])
        if rc not in (0, 127):
            raise Wrong(
                "there is no way to the endpoint %s (%s): %s" % (self.tunnel["endpoint"], address, _http.shown(err))
            )
        return "%s, and there is a way; whether UDP gets through shows at the first handshake" % address
