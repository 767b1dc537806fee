"""A real WireGuard interface that follows the peers: the kernel's, else wireguard-go."""
from __future__ import annotations

import asyncio
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

import wgtext

ONLINE = 180  # seconds since the last handshake
PACKAGES = {"ip": "iproute2", "wg": "wireguard-tools", "wireguard-go": "wireguard-go"}


class HubError(Exception):
    """The interface could not be made or changed."""


def _try(*command: str, stdin: str = "") -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise HubError("%s is missing: install %s" % (command[0], PACKAGES[command[0]])) from None


def _run(*command: str, stdin: str = "") -> str:
    done = _try(*command, stdin=stdin)
    if done.returncode:
        raise HubError("%s: %s" % (" ".join(command[:4]), done.stderr.strip() or "exit status %d" % done.returncode))
    return done.stdout


def _dies_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: a killed server leaves no interface behind


class Hub:
    """The interface with the server's key and address, and every enabled peer. With wireguard-go its name must be unique on the
    machine, across network namespaces too, since the control sockets share a folder."""

    def __init__(self, interface: str, store, endpoint: str):
        self.interface, self._process = interface, None
        key = store.setting("server_key")
        self._drop_leftover(key)
        try:
            self._create()
            self.set_key(key)
            self.listen(endpoint)
            _run("ip", "address", "add", "%s/%d" % (store.gateway, store.network.prefixlen), "dev", interface)
            _run("ip", "link", "set", interface, "mtu", store.setting("mtu") or "1420", "up")
            # Packets from one peer to another pass through the hub, and nothing else has to.
            pathlib.Path("/proc/sys/net/ipv4/conf", interface, "forwarding").write_text("1", encoding="ascii")
            peers = store.all("SELECT * FROM peers WHERE enabled = 1")
            _run("wg", "addconf", interface, "/dev/stdin", stdin="".join(self._section(peer) for peer in peers))
        except BaseException:
            self.close()
            raise

    def _drop_leftover(self, key: str) -> None:
        """Deletes what a killed server left in the kernel: an interface of this name that has this server's key."""
        if not os.path.exists("/sys/class/net/" + self.interface):
            return
        if _try("wg", "show", self.interface, "public-key").stdout.strip() != wgtext.public_key(key):
            raise HubError("there is already an interface %s, and it is not this server's: give another name" % self.interface)
        _run("ip", "link", "del", self.interface)

    def _create(self) -> None:
        if _try("ip", "link", "add", self.interface, "type", "wireguard").returncode == 0:
            return
        output = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        try:
            self._process = subprocess.Popen(["wireguard-go", "-f", self.interface], stdin=subprocess.DEVNULL, stdout=output,
                                             stderr=output, preexec_fn=_dies_with_parent, env={**os.environ, "LOG_LEVEL": "error"})
        except FileNotFoundError:
            raise HubError("this kernel has no WireGuard for us, and wireguard-go is missing: install wireguard-go") from None
        deadline = time.monotonic() + 5
        while _try("wg", "show", self.interface).returncode:
            if self._process.poll() is not None:
                output.seek(0)
                said = re.findall(r"ERROR: \(.*?\) \S+ \S+ (.*)", output.read()) or ["wireguard-go ended"]
                raise HubError("cannot make the interface %s, which takes root and /dev/net/tun: %s" % (self.interface, said[-1]))
            if time.monotonic() > deadline:
                raise HubError("wireguard-go did not bring up %s within 5 seconds" % self.interface)
            time.sleep(0.05)

    @staticmethod
    def _section(peer) -> str:
        return "[Peer]\nPublicKey = %s\nPresharedKey = %s\nAllowedIPs = %s\nPersistentKeepalive = %d\n" % (
            peer["public_key"], peer["preshared_key"], peer["allowed_ips"], peer["persistent_keepalive"] or 0)

    def add(self, peer) -> None:
        _run("wg", "addconf", self.interface, "/dev/stdin", stdin=self._section(peer))

    def remove(self, peer) -> None:
        _run("wg", "set", self.interface, "peer", peer["public_key"], "remove")

    def listen(self, endpoint: str) -> None:
        _run("wg", "set", self.interface, "listen-port", endpoint.rpartition(":")[2])

    def set_key(self, key: str) -> None:
        _run("wg", "set", self.interface, "private-key", "/dev/stdin", stdin=key)

    def live(self) -> dict:
        """What the interface knows, by public key: endpoint, handshake (seconds since 1970 or None), rx and tx (bytes), online."""
        peers = {}
        for line in _run("wg", "show", self.interface, "dump").splitlines()[1:]:
            key, _psk, endpoint, _allowed, handshake, received, sent, _keepalive = line.split("\t")
            peers[key] = {
                "endpoint": None if endpoint == "(none)" else endpoint, "handshake": int(handshake) or None, "rx": int(received),
                "tx": int(sent), "online": time.time() - int(handshake) < ONLINE,
            }
        return peers

    def close(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(timeout=5)
        else:
            _try("ip", "link", "del", self.interface)


async def start_echo(gate, port: int) -> asyncio.Server:
    """Answers TCP on the tunnel address with what was sent, and logs each connection with its bytes."""
    async def echo(reader, writer):
        count, address = 0, writer.get_extra_info("peername")[0]
        try:
            while data := await reader.read(65536):
                count += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
            peer = gate.store.one("SELECT id FROM peers WHERE allowed_ips = ?", address + "/32")
            gate.store.log("echo", address=address, peer_id=peer["id"] if peer else None, body={"bytes": count})
    return await asyncio.start_server(echo, gate.store.gateway, port)
