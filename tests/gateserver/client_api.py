"""The client API: /api/v1/client/..."""
from __future__ import annotations

import json
import re
import time

import wgtext
from core import PEER_NAME, Reply, js_text, number, ok, refuse, route, truthy
from store import NoFreeAddress, now_iso

FINGERPRINT = re.compile(r"[a-f0-9]{64}")
DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
RESERVED = set("localhost local host broadcasthost gateway server gc-server admin root router dns vpn api auth mail"
               " ns ns1 ns2".split())


def describe(call, platform, version) -> str:
    """The description of a peer that registers or shows its version."""
    label = "Desktop Client"
    if call.era.has("platform_label"):
        label = {"android": "Android Client", "windows": "Desktop Client", "win32": "Desktop Client"}.get(str(platform), "Client")
    return "%s (%s, v%s)" % (label, js_text(platform or "unknown"), js_text(version or "?"))


def note_client_version(call) -> None:
    """Rewrites the description of a bound token's peer, at most every five minutes."""
    version, peer_id = call.headers.get("X-Client-Version"), call.token and call.token["peer_id"]
    if not (version and peer_id and call.era.has("describing_headers")):
        return
    if time.time() - call.gate.described.get(peer_id, 0) >= 300:
        call.gate.described[peer_id] = time.time()
        call.store.run("UPDATE peers SET description = ? WHERE id = ?",
                       describe(call, call.headers.get("X-Client-Platform"), version), peer_id)


def binding_active(call) -> bool:
    """Whether the caller must show its machine's fingerprint."""
    mode = call.store.setting("machine_binding", "off")
    return bool(call.token and call.gate.features["machine_binding"] and call.era.has("binding") and (
        mode == "global" or mode == "individual" and call.token["machine_binding_enabled"]))


def keep_fingerprint(call, value: str) -> None:
    call.store.run("UPDATE tokens SET machine_fingerprint = ? WHERE id = ?", value, call.token["id"])


def check_machine_at_register(call) -> None:
    """As ``check_machine``, but a first fingerprint that is missing or malformed is a 400."""
    if not binding_active(call) or call.token["machine_fingerprint"]:
        check_machine(call)
    elif not FINGERPRINT.fullmatch(call.headers.get("X-Machine-Fingerprint") or ""):
        raise call.fail(400, "client.fingerprint_invalid")
    else:
        keep_fingerprint(call, call.headers["X-Machine-Fingerprint"])


def check_machine(call) -> None:
    """Refuses another machine than the token's; the first machine seen becomes the token's."""
    if not binding_active(call):
        return
    shown, stored = call.headers.get("X-Machine-Fingerprint") or "", call.token["machine_fingerprint"]
    well_formed = FINGERPRINT.fullmatch(shown)
    if not shown or not (stored or well_formed):
        raise call.fail(403, "client.fingerprint_required")
    if not well_formed:
        raise call.fail(400, "client.fingerprint_invalid")
    if not stored:
        keep_fingerprint(call, shown)
    elif shown != stored:
        raise call.fail(403, "client.binding_mismatch")


def own_peer(call, body_only: bool = False):
    """The peer the request names, if the caller may have it. ``body_only``: where the first release looks for the id."""
    if call.era.has("binding"):
        wanted = call.query.get("peerId") or call.headers.get("X-Peer-Id") or call.field("peerId")
        if not truthy(wanted):
            raise refuse(400, "Peer ID is required")
        if call.token:
            if call.token["peer_id"] is None:
                raise refuse(403, "Token is not bound to a peer. Register first.")
            if number(wanted) != call.token["peer_id"]:
                raise refuse(403, "Token is not authorized for this peer")
        check_machine(call)
    else:
        wanted = call.field("peerId") if body_only else call.query.get("peerId") or call.headers.get("X-Peer-Id")
        if not truthy(wanted):
            raise refuse(400, "Peer ID is required" if body_only else call.t("client.peer_id_required"))
    peer = call.store.peer(number(wanted))
    if peer is None:
        raise call.fail(404, "peers.not_found")
    return peer


@route("GET", "/api/v1/client/ping")
def ping(call):
    return ok(version=call.era.version, timestamp=now_iso())


@route("GET", "/api/v1/client/permissions", "binding")
def permissions(call):
    def has(wanted):
        return "full-access" in call.scopes or wanted in call.scopes
    allowed = {"services": has("client:services"), "traffic": has("client:traffic"), "dns": has("client:dns"),
               "rdp": has("client:rdp") and call.gate.features["remote_desktop"]}
    if call.era.has("pihole"):
        # As the only ones, these two are asked of the token's own list: full-access does not hold them.
        allowed.update(pihole=bool({"pihole", "pihole:control"} & set(call.scopes)), piholeControl="pihole:control" in call.scopes)
    portal = {"portalUrl": None, "autoOpenPortal": False} if call.era.has("portal") else {}
    return ok(**portal, permissions=allowed, scopes=call.scopes)


@route("POST", "/api/v1/client/register")
def register(call):
    call.need_room_for_peer(call.store.count_peers())
    hostname = call.field("hostname")
    if not hostname or not isinstance(hostname, str):
        raise call.fail(400, "client.hostname_required")
    broken = call.token and call.era.has("register_broken")
    failed = Reply(500, {"ok": False, "error": call.t("client.register_failed")})
    description = describe(call, call.field("platform"), call.field("clientVersion"))
    if call.era.has("binding") and call.token and call.token["peer_id"] is not None:
        if broken:
            return failed
        check_machine_at_register(call)
        return _registered(call, call.gate.change_peer(call.store.peer(call.token["peer_id"]), description=description), 200)

    # JavaScript counts what lies beyond sixteen bits, an emoji for one, as two characters.
    name = re.sub(r"[^A-Za-z0-9_.\-]", lambda found: "__" if found[0] > "\uffff" else "_", hostname)[:50]
    peer = None
    if call.era.has("binding") and not (call.token and call.era.has("no_adoption")):
        peer = call.store.peer(number(call.chosen("peerId"))) or call.store.peer_named(name)
    status = 200
    if peer is None:
        status, peer = 201, _new_peer(call, name, description)
    else:
        peer = call.gate.change_peer(peer, description=description)
    if call.token and call.era.has("binding"):
        call.store.run("UPDATE tokens SET peer_id = ? WHERE id = ?", peer["id"], call.token["id"])
        if broken:
            return failed
        check_machine_at_register(call)
    return _registered(call, peer, status)


def _new_peer(call, name: str, description: str):
    if not PEER_NAME.fullmatch(name):
        raise call.fail(400, "client.invalid_hostname")
    unique, count = name, 1 if call.era.has("no_adoption") else 0
    while call.store.peer_named(unique):
        count += 1
        unique = "%s-%d" % (name, count)  # of the 63 characters a name may have, 50 are taken
    android = call.era.has("platform_label") and call.field("platform") == "android"
    try:
        peer = call.gate.create_peer(unique, description=description, tags="mobile-client" if android else "desktop-client")
    except NoFreeAddress:
        raise call.fail(409, "peers.no_ips") from None
    call.store.record("client_registered", '%s "%s" registered' % (description.split(" (")[0], unique), peerId=peer["id"],
                      hostname=call.field("hostname"), platform=call.field("platform"), clientVersion=call.field("clientVersion"))
    return peer


def _registered(call, peer, status: int) -> Reply:
    text = call.gate.config(peer)
    return ok(status, peerId=peer["id"], peerName=peer["name"], config=text, hash=wgtext.config_hash(text))


@route("GET", "/api/v1/client/config")
def config(call):
    peer = own_peer(call)
    text = call.gate.config(peer)
    return ok(config=text, hash=wgtext.config_hash(text), peerName=peer["name"])


@route("GET", "/api/v1/client/config/check")
def config_check(call):
    text = call.gate.config(own_peer(call))
    current = wgtext.config_hash(text)
    if call.query.get("hash") == current:
        return ok(updated=False)
    return ok(updated=True, config=text, hash=current)


@route("POST", "/api/v1/client/heartbeat")
def heartbeat(call):
    peer = own_peer(call, body_only=True)
    call.store.run("UPDATE peers SET updated_at = datetime('now') WHERE id = ?", peer["id"])
    hostname = call.field("hostname")
    if isinstance(hostname, str) and call.era.has("heartbeat_hostname") and call.gate.features["internal_dns"]:
        if not hostname_problem(hostname):
            set_hostname(call, peer, hostname, "agent")
    if call.era.has("peer_enabled"):
        return ok(peerEnabled=peer["enabled"] == 1)
    return ok()


@route("POST", "/api/v1/client/status")
def status(call):
    peer, label = own_peer(call, body_only=True), call.field("status")
    call.store.record("client_status", 'Client "%s" reported: %s' % (peer["name"], js_text(label) if call.given("status") else "undefined"),
                      peerId=peer["id"], status=label, timestamp=call.field("timestamp"))
    return ok()


@route("GET", "/api/v1/client/peer-info", "binding")
def peer_info(call):
    peer = own_peer(call)
    return ok(peer={"id": peer["id"], "name": peer["name"], "enabled": peer["enabled"] == 1,
                    "expiresAt": peer["expires_at"] or None, "createdAt": peer["created_at"]})


def hostname_problem(text: str) -> str | None:
    """The key of what is wrong with a DNS name, or None."""
    name = text.strip().lower()
    if not DNS_LABEL.fullmatch(name):
        return "dns.hostname_invalid"
    return "dns.hostname_reserved" if name in RESERVED else None


def set_hostname(call, peer, text: str | None, source: str) -> dict:
    """Gives a peer its DNS name, with -2, -3 behind it if another has it. A name set by the administrator stays."""
    before = peer["hostname"]
    if source == "agent" and peer["hostname_source"] == "admin" or (before or "").lower() == (text or "").strip().lower():
        return {"assigned": before, "changed": False}
    if not text:
        call.store.run("UPDATE peers SET hostname = NULL, hostname_source = NULL, hostname_reported_at = NULL WHERE id = ?",
                       peer["id"])
        return {"assigned": None, "changed": True}
    wanted = text.strip().lower()
    name, count = wanted, 1
    while call.store.one("SELECT 1 FROM peers WHERE hostname = ? COLLATE NOCASE AND id != ?", name, peer["id"]):
        count += 1
        name = wanted[:62 - len(str(count))].rstrip("-") + "-%d" % count
    call.store.run("UPDATE peers SET hostname = ?, hostname_source = ?, hostname_reported_at = datetime('now'),"
                   " updated_at = datetime('now') WHERE id = ?", name, source, peer["id"])
    return {"assigned": name, "changed": True}


@route("POST", "/api/v1/client/peer/hostname", "hostnames")
def peer_hostname(call):
    key = "hostname:%s" % (call.token["id"] if call.token else call.address)
    allowed, call.rate_headers = call.gate.hostname_limiter.hit(key, 3)
    if not allowed:
        raise call.fail(429, "rate_limit.hostname")
    call.need_feature("internal_dns")
    if not call.token:
        raise refuse(401, "API token required")
    if call.token["peer_id"] is None:
        raise refuse(403, "Token is not bound to a peer. Register first.")
    check_machine(call)
    hostname = call.field("hostname")
    if not isinstance(hostname, str) or not hostname.strip():
        raise call.fail(400, "dns.hostname_required")
    peer = call.store.peer(call.token["peer_id"])
    problem = hostname_problem(hostname)
    if problem and peer["hostname_source"] != "admin":
        raise call.fail(400, problem)
    return ok(**set_hostname(call, peer, hostname, "agent"))


@route("GET", "/api/v1/client/split-tunnel", "split_tunnel")
def split_tunnel(call):
    source, text = "token", call.token and call.token["split_tunnel_override"]
    if not text:
        source, text = "global", call.store.setting("split_tunnel")
    preset = json.loads(text) if text else {"mode": "off"}
    if preset.get("mode") == "off":
        return ok(mode="off", networks=[], locked=False, source="none")
    return ok(mode=preset.get("mode") or "exclude", networks=preset.get("networks") or [], locked=bool(preset.get("locked")),
              source=source)


@route("GET", "/api/v1/client/traffic", "binding")
def traffic(call):
    peer = own_peer(call)
    total = {"rx": peer["total_rx"], "tx": peer["total_tx"]}
    return ok(traffic={period: total for period in ("total", "last24h", "last7d", "last30d")})


@route("GET", "/api/v1/client/services", "binding")
def services(call):
    return ok(services=[])


@route("GET", "/api/v1/client/dns-check", "binding")
def dns_check(call):
    subnet, gateway = str(call.store.network), call.store.gateway
    if not call.era.has("dns_check_names"):
        return ok(serverIp=gateway, vpnSubnet=subnet)
    return ok(vpnSubnet=subnet, vpnDns=call.store.setting("custom_dns") or call.gate.server()["dns"], gatewayIp=gateway)


@route("GET", "/api/v1/client/update/check", "binding")
def update_check(call):
    if not isinstance(call.query.get("version") or None, str):
        raise refuse(400, "Version parameter required")
    return ok(available=False)


@route("GET", "/api/v1/client/update/download", "binding")
def update_download(call):
    raise refuse(404, "No release found")
