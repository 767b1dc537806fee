"""Starts the server and talks to its administration, for tests: ``from gateserver.running import Server``."""
from __future__ import annotations

import base64
import json
import pathlib
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

HERE = str(pathlib.Path(__file__).parent)
ADMIN = "admin:LoopbackTest123!"


class Refused(Exception):
    """The server's administration said no, or nothing."""


def ask(url: str, verb: str, given: dict, admin: str = ADMIN, cafile: str | None = None, timeout: float = 60):
    """Has a running server do one of its administration's verbs. Returns its JSON; raises Refused with its words."""
    try:
        request = urllib.request.Request(
            url.rstrip("/") + "/_stand-in/" + verb, json.dumps(given).encode(),
            {"Content-Type": "application/json", "Authorization": "Basic " + base64.b64encode(admin.encode()).decode()})
        # Test equipment asks its own server, whose certificate is made for the test: it is checked only against a given CA.
        context = ssl.create_default_context(cafile=cafile) if cafile else ssl._create_unverified_context()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        with opener.open(request, timeout=timeout) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as problem:
        raise Refused(_said(url, problem)) from None
    except (OSError, ValueError) as problem:
        raise Refused("cannot ask %s: %s" % (url, getattr(problem, "reason", problem))) from None


def _said(url: str, problem: urllib.error.HTTPError) -> str:
    try:
        return json.load(problem)["error"]
    except (ValueError, KeyError, TypeError):
        return "what answers on %s is no embedded server: HTTP status %d" % (url, problem.code)


class Server:
    """A server process that ends with this one. Arguments are those of ``serve``; ``under`` is put before the command
    (``ip netns exec NAME``)."""

    def __init__(self, *arguments: str, under: tuple = ()):
        self.arguments, self.under = arguments, under
        self.start()

    def start(self) -> None:
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")
        self.process = subprocess.Popen([*self.under, sys.executable, HERE, "serve", "--attached", *self.arguments],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(timeout=10)
            raise Refused(self.said())
        self.told = json.loads(line)
        self.url = self.told["url"]

    def stop(self) -> int:
        """Ends the server as a user would. Returns its exit status."""
        self.process.terminate()
        return self._gone()

    def kill(self) -> None:
        self.process.kill()
        self._gone()

    def _gone(self) -> int:
        status = self.process.wait(timeout=10)
        self.process.stdin.close()
        self.process.stdout.close()
        return status

    def said(self) -> str:
        """What the server wrote to standard error so far."""
        self.errors.seek(0)
        return self.errors.read()

    def __enter__(self):
        return self

    def __exit__(self, *_problem) -> None:
        if self.process.poll() is None:
            self.stop()

    # The administration, from this process.

    def ask(self, verb: str, **given):
        return ask(self.url, verb, given)

    def token(self, scopes: str, name: str = "test", peer_id=None) -> str:
        return self.ask("token", name=name, scopes=scopes, peer_id=peer_id)["token"]

    def log(self, **filters) -> list:
        return self.ask("log", **filters)

    def fault(self, kind: str, **how) -> dict:
        """Switches a fault on; see ``faults.Fault`` for what it takes."""
        return self.ask("fault", action="on", fault=dict(how, kind=kind))[-1]

    def no_faults(self) -> None:
        self.ask("fault", action="off")
