"""Starts the server and ends it cleanly."""
from __future__ import annotations

import asyncio
import json
import signal
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
        gate.store.begin()
        gate.sweep()
        gate.store.commit()


async def _serve(options) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    gate = Gate(options)
    gate.store.set_admin(*options.admin.split(":", 1))
    echo = None
    if options.wireguard:
        gate.hub = hub.Hub(options.wireguard, gate.store, gate.server()["endpoint"])
    try:
        if options.echo:
            echo = await hub.start_echo(gate, options.echo)
        context = None
        if options.tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*options.tls)
        runner = web.AppRunner(application.make(gate), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, options.host, options.port, ssl_context=context, shutdown_timeout=1)
        await site.start()
        port = runner.addresses[0][1]
        host = "[%s]" % options.host if ":" in options.host else options.host
        print(json.dumps({"url": "%s://%s:%d" % ("https" if context else "http", host, port),
                          "era": gate.era.name, "profile": options.profile}), flush=True)
        sweeper = asyncio.create_task(_sweep(gate, options.sweep_interval))
        await stop.wait()
        sweeper.cancel()
        await runner.cleanup()
        if echo:
            echo.close()
    finally:
        if gate.hub:
            gate.hub.close()
        gate.store.db.close()


def run(options) -> None:
    print("gateserver: a stand-in for GateControl %s, for tests only" % options.era, file=sys.stderr, flush=True)
    if options.echo and not options.wireguard:
        sys.exit("gateserver: --echo needs --wireguard, whose address it listens on")
    try:
        asyncio.run(_serve(options))
    except (hub.HubError, OSError, sqlite3.Error) as problem:
        sys.exit("gateserver: %s" % problem)
