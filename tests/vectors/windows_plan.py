"""What the agent of Windows plans, in Python: the reference that PowerShell's Get-Plan is compared with. It goes by wg's dump and by the file applied last."""
from __future__ import annotations

import typing as t

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _observe, _plan, _wgconf

TRACELESS = ("Address", "DNS", "MTU", "Table", *_wgconf.HOOKS)  # what wg does not show


def plan(config: _wgconf.Config, running: _observe.Running | None, applied: _wgconf.Config | None, now: float) -> dict[str, t.Any]:
    """{"action": none, sync, restart or up, "reasons"}. WireGuard for Windows sets routes when its service starts: other networks or peers are a restart."""
    if running is None:
        return {"action": "up", "reasons": ["the interface is not there"]}
    restart, sync = [], []
    if running.private_key != _wgconf.clamp(config.interface["PrivateKey"]):
        restart.append("the private key differs")
    port = config.interface.get("ListenPort")
    if port and port != running.listen_port:
        restart.append("ListenPort is %d, should be %d" % (running.listen_port, port))
    restart += ["%s changes" % name for name in TRACELESS if applied and applied.interface.get(name) != config.interface.get(name)]
    before = {peer["PublicKey"]: peer for peer in applied.peers} if applied else {}
    for peer in config.peers:
        label, live = "peer %s\u2026: " % peer["PublicKey"][:8], running.peers.get(peer["PublicKey"])
        if live is None:
            restart.append(label + "is missing")
            continue
        if live["preshared_key"] != peer.get("PresharedKey"):
            sync.append(label + "the preshared key differs")
        if live["allowed_ips"] != set(peer["AllowedIPs"]):
            restart.append(label + "allowed IPs differ: " + _plan._difference(set(peer["AllowedIPs"]), live["allowed_ips"]))
        if live["keepalive"] != peer.get("PersistentKeepalive", 0):
            sync.append(label + "keepalive is %d s, should be %d s" % (live["keepalive"], peer.get("PersistentKeepalive", 0)))
        reason = _plan._endpoint_reason(peer, live, before.get(peer["PublicKey"]), now)
        if reason:
            sync.append(label + reason)
    restart += ["peer %s\u2026: should not be there" % key[:8] for key in sorted(running.peers.keys() - {peer["PublicKey"] for peer in config.peers})]
    return {"action": "restart" if restart else "sync" if sync else "none", "reasons": restart + sync}
