"""Starts the server and ends it cleanly."""
from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import ssl
import sys

from aiohttp import web

import app as application
import hub
from core import Gate


async def _sweep(gate: Gate, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        with gate.store:
            gate.sweep()


def _certificate(paths) -> ssl.SSLContext | None:
    if not paths:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(*paths)
    except OSError as problem:
        reason = "they are no pair in PEM" if isinstance(problem, ssl.SSLError) else problem.strerror
        raise ValueError("cannot use the certificate %s with the key %s: %s" % (*paths, reason)) from None
    return context


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as problem:
        raise ValueError("cannot listen on %s port %d: %s" % (host, port, problem.strerror.partition(" (")[0])) from None


def _remove_state(path: str) -> None:
    for end in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + end)


async def _serve(options) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # on Windows, where it is killed
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if options.attached:
        asyncio.get_running_loop().add_reader(sys.stdin, lambda: sys.stdin.buffer.read1() or stop.set())
    if options.echo and not options.wireguard:
        raise ValueError("--echo needs --wireguard, on whose address it listens")
    context = _certificate(options.tls)
    async with contextlib.AsyncExitStack() as ends:
        listener = ends.enter_context(_listen(options.host, options.port))
        undo = ends.enter_context(contextlib.ExitStack())  # what a start that fails takes back
        if options.state and not os.path.exists(options.state):
            undo.callback(_remove_state, options.state)
        gate = Gate(options)
        ends.callback(gate.store.db.close)
        gate.store.set_admin(*options.admin.split(":", 1))
        if options.wireguard:
            gate.hub = hub.Hub(options.wireguard, gate.store, gate.server()["endpoint"])
            ends.callback(gate.hub.close)
        if options.echo:
            ends.callback((await hub.start_echo(gate, options.echo)).close)
        runner = web.AppRunner(application.make(gate), access_log=None, shutdown_timeout=1)
        ends.push_async_callback(runner.cleanup)
        await runner.setup()
        await web.SockSite(runner, listener, ssl_context=context).start()
        host = "[%s]" % options.host if ":" in options.host else options.host
        print(json.dumps({"url": "%s://%s:%d" % ("https" if context else "http", host, listener.getsockname()[1]),
                          "era": gate.era.name, "profile": options.profile}), flush=True)
        undo.pop_all()
        sweeper = asyncio.create_task(_sweep(gate, options.sweep_interval))
        ends.callback(sweeper.cancel)
        await stop.wait()


def run(options) -> int:
    """Serves until a signal ends it. Returns the exit status: 2 if it could not start."""
    print("gateserver: a stand-in for GateControl %s, for tests only" % options.era, file=sys.stderr, flush=True)
    try:
        asyncio.run(_serve(options))
    except (hub.HubError, ValueError, OSError, sqlite3.Error) as problem:
        print("gateserver: %s" % problem, file=sys.stderr)
        return 2
    return 0
