"""The peers API: peers, groups and tags."""
from __future__ import annotations

import re
import secrets
import sqlite3

from client_api import hostname_problem, set_hostname
from core import IPV4, PEER_NAME, Reply, leading_int, number, ok, refuse, route, trimmed, truthy
from store import NameTaken, NoFreeAddress, split_tags, without_keys

LATE_COLUMNS = {"peer_type": "gateways", "hostname": "hostnames", "hostname_source": "hostnames",
                "hostname_reported_at": "hostnames", "user_id": "owners"}


# ---------------------------------------------------------------- peers

def shown(call, peer) -> dict:
    """A peer's row without its keys, and without the columns its era does not have yet."""
    return {name: value for name, value in without_keys(peer).items() if call.era.has(LATE_COLUMNS.get(name))}


def find_peer(call):
    peer = call.store.peer(_row_id(call.match["id"]))
    if peer is None:
        raise call.fail(404, "peers.not_found")
    return peer


def _row_id(value):
    """The id a value stands for, or None: what is blank, true or false stands for none."""
    return number(value) if str(value).strip() and not isinstance(value, bool) else None


def _check_fields(call, creating: bool) -> None:
    fields = {}
    if creating or call.given("name"):
        name = call.field("name")
        if not isinstance(name, str) or not PEER_NAME.fullmatch(name.strip()):
            fields["name"] = call.t("peers.name_invalid")
    description = call.field("description")
    if truthy(description) and (not isinstance(description, str) or len(description) > 255):
        fields["description"] = call.t("peers.description_invalid")
    if fields:
        raise refuse(400, next(iter(fields.values())), fields=fields)


def _record(call, what: str, peer, severity: str = "info") -> None:
    call.store.record("peer_" + what, 'Peer "%s" %s' % (peer["name"], what), severity, peerId=peer["id"])


def _owner(call):
    """The user the request names as owner, or None; refused if there is no such user."""
    owner = call.chosen("user_id")
    if owner is not None and not call.store.one("SELECT 1 FROM users WHERE id = ?", _row_id(owner)):
        raise call.fail(400, "peers.owner_invalid")
    return owner


@route("GET", "/api/v1/peers")
def list_peers(call):
    limit = min(max(leading_int(call.query.get("limit")) or 250, 1), 250)
    offset = max(leading_int(call.query.get("offset")), 0)
    live = call.gate.live()
    owners = {user["id"]: user["display_name"] or user["username"] for user in call.store.all("SELECT * FROM users")}
    peers = []
    for row in call.store.all("SELECT * FROM peers ORDER BY created_at, id LIMIT ? OFFSET ?", limit, offset):
        peer, now = shown(call, row), live.get(row["public_key"])
        if now:
            peer.update(endpoint=now["endpoint"], latest_handshake=now["handshake"], transfer_rx=now["rx"], transfer_tx=now["tx"])
        peer.update(isOnline=bool(now and now["online"]), latestHandshake=peer["latest_handshake"],
                    transferRx=peer["transfer_rx"], transferTx=peer["transfer_tx"])
        if call.era.has("owners"):
            peer["owner_name"] = owners.get(row["user_id"])
        peers.append(peer)
    return ok(peers=peers, limit=limit, offset=offset)


@route("POST", "/api/v1/peers")
def create_peer(call):
    call.need_room_for_peer(call.store.count_peers())
    _check_fields(call, creating=True)
    given = {
        "description": trimmed(call.field("description")) or None, "dns": call.chosen("dns"),
        "tags": trimmed(call.field("tags")), "expires_at": call.chosen("expires_at"),
        "group_id": call.chosen("group_id"),
    }
    if call.era.has("owners"):
        given["user_id"] = _owner(call)
    gateway = truthy(call.field("is_gateway")) and call.era.has("gateways")
    if gateway:
        given["peer_type"] = "gateway"
    try:
        peer = call.gate.create_peer(call.field("name").strip(), **given)
    except NameTaken:
        raise call.fail(400, "peers.name_exists") from None
    except NoFreeAddress:
        raise call.fail(400, "peers.no_ips") from None
    except sqlite3.Error:
        raise call.fail(500, "peers.create") from None
    ip = peer["allowed_ips"].split("/")[0]
    answer = {"id": peer["id"], "name": peer["name"], "publicKey": peer["public_key"], "privateKey": peer["private_key"],
              "presharedKey": peer["preshared_key"], "allowedIps": peer["allowed_ips"], "ip": ip,
              "expires_at": peer["expires_at"]}
    if call.era.has("gateways"):
        answer.update(ip_address=ip, peer_type=peer["peer_type"])
    if call.era.has("owners"):
        answer["user_id"] = peer["user_id"]
    if gateway:
        return ok(201, peer=answer, gateway={"apiToken": "gc_gw_" + secrets.token_hex(32), "pushToken": secrets.token_hex(32)})
    return ok(201, peer=answer)


@route("POST", "/api/v1/peers/batch")
def batch(call):
    action, ids = call.field("action"), call.field("ids")
    if action not in ("enable", "disable", "delete"):
        raise call.fail(400, "batch.invalid_action")
    if not isinstance(ids, list) or not ids:
        raise call.fail(400, "batch.no_ids")
    peers = [call.store.peer(_row_id(peer_id)) for peer_id in ids]
    if None in peers or len({peer["id"] for peer in peers}) < len(ids):
        raise call.fail(404, "batch.not_found")
    for peer in peers:
        if action == "delete":
            call.gate.delete_peer(peer)
        else:
            call.gate.change_peer(peer, enabled=int(action == "enable"))
    call.store.record("batch_peers_%sd" % action, "Batch %sd %d peer(s): %s" % (
        action, len(ids), ", ".join(peer["name"] for peer in peers)), "warning" if action == "delete" else "info", peerIds=ids)
    return ok(affected=len(ids))


@route("POST", "/api/v1/peers/batch-owner", "owners")
def batch_owner(call):
    ids = call.field("peer_ids")
    if not isinstance(ids, list) or not 0 < len(ids) <= 500 or not all(isinstance(one, int) and one > 0 for one in ids):
        raise call.fail(400, "peers.bulk_invalid_ids")
    owner = _owner(call)
    return ok(affected=sum(call.store.run("UPDATE peers SET user_id = ? WHERE id = ?", owner, one).rowcount for one in ids))


@route("GET", "/api/v1/peers/{id}")
def get_peer(call):
    return ok(peer=shown(call, find_peer(call)))


@route("PUT", "/api/v1/peers/{id}")
def update_peer(call):
    _check_fields(call, creating=False)
    peer, changes = find_peer(call), {}
    if call.given("name"):
        changes["name"] = call.field("name").strip()
        other = call.store.one("SELECT 1 FROM peers WHERE name = ? AND id != ?", changes["name"], peer["id"])
        if other:
            raise call.fail(400, "peers.name_exists")
    dns, keepalive = call.field("dns"), call.field("persistentKeepalive")
    if truthy(dns):
        if not isinstance(dns, str) or re.search(r"[\r\n]", dns) or not all(IPV4.fullmatch(one.strip()) for one in dns.split(",")):
            raise call.fail(500, "peers.update")
        changes["dns"] = dns
    if keepalive is not None:
        seconds = leading_int(keepalive, default=-1) if not isinstance(keepalive, bool) else -1
        if not 0 <= seconds <= 65535 or "\n" in str(keepalive) or "\r" in str(keepalive):
            raise call.fail(500, "peers.update")
        if seconds:
            changes["persistent_keepalive"] = seconds
    for name in ("description", "tags"):
        if call.given(name):
            changes[name] = trimmed(call.field(name))
    if call.given("enabled"):
        changes["enabled"] = int(truthy(call.field("enabled")))
    for name in ("expires_at", "group_id"):
        if call.given(name):
            changes[name] = call.chosen(name)
    if call.given("user_id") and call.era.has("owners"):
        changes["user_id"] = _owner(call)
    try:
        changed = call.gate.change_peer(peer, **changes)
    except sqlite3.Error:
        raise call.fail(500, "peers.update") from None
    _record(call, "updated", peer)
    return ok(peer=shown(call, changed))


@route("PUT", "/api/v1/peers/{id}/toggle")
def toggle_peer(call):
    peer = find_peer(call)
    if not peer["enabled"]:
        call.need_room_for_peer(call.store.count_peers(enabled_only=True))
    _record(call, "disabled" if peer["enabled"] else "enabled", peer)
    return ok(peer=shown(call, call.gate.change_peer(peer, enabled=1 - peer["enabled"])))


@route("DELETE", "/api/v1/peers/{id}")
def delete_peer(call):
    peer = find_peer(call)
    call.gate.delete_peer(peer)
    _record(call, "deleted", peer, "warning")
    return ok()


@route("GET", "/api/v1/peers/{id}/config")
def peer_config(call):
    peer = find_peer(call)
    text = call.gate.config(peer)
    if call.query.get("download") == "1":
        name = re.sub(r"[^A-Za-z0-9_.\-]", "_", peer["name"])
        return Reply(200, text, {"Content-Type": "application/octet-stream; charset=utf-8",
                                 "Content-Disposition": 'attachment; filename="%s.conf"' % name})
    return ok(config=text, name=peer["name"])


@route("PATCH", "/api/v1/peers/{id}/hostname", "hostnames")
def peer_hostname(call):
    call.need_feature("internal_dns")
    peer, hostname = find_peer(call), call.field("hostname")
    if not call.given("hostname"):
        raise call.fail(400, "dns.hostname_required")
    problem = hostname_problem(str(hostname)) if hostname else None
    if problem:
        raise call.fail(400, problem)
    result = set_hostname(call, peer, str(hostname) if hostname else None, "admin")
    return ok(peer=shown(call, call.store.peer(peer["id"])), **result)


@route("GET", "/api/v1/peers/{id}/traffic")
def peer_traffic(call):
    peer = find_peer(call)
    return ok(peer={name: peer[name] for name in ("id", "name", "total_rx", "total_tx")}, data=[])


@route("GET", "/api/v1/peers/{id}/delete-impact", "owners")
def delete_impact(call):
    find_peer(call)
    return ok(httpRoutes=[], rdpRoutes=[])


# ---------------------------------------------------------------- groups and tags

@route("GET", "/api/v1/peer-groups")
def list_groups(call):
    groups = call.store.all("SELECT g.*, COUNT(p.id) AS peer_count FROM peer_groups g LEFT JOIN peers p ON p.group_id = g.id"
                            " GROUP BY g.id ORDER BY g.name")
    return ok(groups=[dict(group) for group in groups])


def _group_name(call, other_than: int) -> str:
    name = call.field("name")
    if not isinstance(name, str) or not name.strip():
        raise call.fail(400, "peer_groups.name_required")
    if call.store.one("SELECT 1 FROM peer_groups WHERE name = ? AND id != ?", name.strip(), other_than):
        raise call.fail(409, "peer_groups.name_exists")
    return name.strip()


def _group(call):
    group = call.store.one("SELECT * FROM peer_groups WHERE id = ?", _row_id(call.match["id"]))
    if group is None:
        raise call.fail(404, "peer_groups.not_found")
    return group


@route("POST", "/api/v1/peer-groups")
def create_group(call):
    cursor = call.store.run("INSERT INTO peer_groups (name, color, description) VALUES (?, ?, ?)", _group_name(call, 0),
                            trimmed(call.field("color")) or "#6b7280", trimmed(call.field("description")) or None)
    return ok(201, group=dict(call.store.one("SELECT * FROM peer_groups WHERE id = ?", cursor.lastrowid)))


@route("PUT", "/api/v1/peer-groups/{id}")
def update_group(call):
    group = _group(call)
    changes = {name: trimmed(call.field(name)) for name in ("color", "description") if call.given(name)}
    if call.given("name"):
        changes["name"] = _group_name(call, group["id"])
    for name, value in changes.items():
        call.store.run("UPDATE peer_groups SET %s = ? WHERE id = ?" % name, value, group["id"])
    return ok(group=dict(_group(call)))


@route("DELETE", "/api/v1/peer-groups/{id}")
def delete_group(call):
    call.store.run("DELETE FROM peer_groups WHERE id = ?", _group(call)["id"])
    return ok()


def _all_tags(call) -> dict:
    """Every tag by its lower-case name: the registered ones, and those that stand on peers only."""
    tags = {row["name"].lower(): {"id": row["id"], "name": row["name"], "peer_count": 0, "registered": True}
            for row in call.store.all("SELECT * FROM tags")}
    for row in call.store.all("SELECT tags FROM peers WHERE tags != ''"):
        for tag in split_tags(row["tags"]):
            tags.setdefault(tag.lower(), {"id": None, "name": tag, "peer_count": 0, "registered": False})["peer_count"] += 1
    return tags


def _tag_name(value) -> str:
    name = value.strip() if isinstance(value, str) else ""
    problem = "name required" if not name else "name too long" if len(name) > 64 else \
        "name contains invalid characters" if re.search(r'[,<>"\n\r\t]', name) else None
    if problem:
        raise refuse(400, problem)
    return name


@route("GET", "/api/v1/tags", "tags")
def list_tags(call):
    return ok(tags=[tag for _key, tag in sorted(_all_tags(call).items())])


@route("POST", "/api/v1/tags", "tags")
def create_tag(call):
    name = _tag_name(call.field("name"))
    call.store.register_tags(name)
    return ok(201, tag=_all_tags(call)[name.lower()])


@route("DELETE", "/api/v1/tags/{name}", "tags")
def delete_tag(call):
    name = _tag_name(call.match["name"])
    removed = call.store.run("DELETE FROM tags WHERE name = ? COLLATE NOCASE", name).rowcount > 0
    affected = 0
    for peer in call.store.all("SELECT id, tags FROM peers WHERE tags != ''"):
        tags = split_tags(peer["tags"])
        kept = [tag for tag in tags if tag.lower() != name.lower()]
        if len(kept) < len(tags):
            call.store.run("UPDATE peers SET tags = ? WHERE id = ?", ", ".join(kept), peer["id"])
            affected += 1
    return ok(removed_from_registry=removed, peers_affected=affected)
