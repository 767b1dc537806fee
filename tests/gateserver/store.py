"""Everything the server remembers, in SQLite: written before the answer goes out, so that a killed server loses none of it."""
from __future__ import annotations

import datetime
import hashlib
import heapq
import hmac
import ipaddress
import json
import os
import secrets
import sqlite3
import time

import wgtext

SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS users (
  id INTEGER PRIMARY KEY AUTOINCREMENT, username TEXT UNIQUE, display_name TEXT, email TEXT, role TEXT, password_hash TEXT,
  enabled INTEGER DEFAULT 1, created_at TEXT DEFAULT (datetime('now')), updated_at TEXT DEFAULT (datetime('now')),
  last_login_at TEXT);
CREATE TABLE IF NOT EXISTS peer_groups (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, color TEXT, description TEXT,
  created_at TEXT DEFAULT (datetime('now')));
CREATE TABLE IF NOT EXISTS tags (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE COLLATE NOCASE);
CREATE TABLE IF NOT EXISTS peers (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, description TEXT, public_key TEXT, private_key TEXT, preshared_key TEXT,
  allowed_ips TEXT, endpoint TEXT, dns TEXT, persistent_keepalive INTEGER, enabled INTEGER DEFAULT 1, tags TEXT DEFAULT '',
  transfer_rx INTEGER DEFAULT 0, transfer_tx INTEGER DEFAULT 0, latest_handshake INTEGER, total_rx INTEGER DEFAULT 0,
  total_tx INTEGER DEFAULT 0, created_at TEXT DEFAULT (datetime('now')), updated_at TEXT DEFAULT (datetime('now')),
  expires_at TEXT, group_id INTEGER REFERENCES peer_groups ON DELETE SET NULL, peer_type TEXT DEFAULT 'regular',
  user_id INTEGER REFERENCES users ON DELETE SET NULL, hostname TEXT, hostname_source TEXT, hostname_reported_at TEXT);
CREATE INDEX IF NOT EXISTS peers_by_age ON peers (created_at, id);
CREATE INDEX IF NOT EXISTS peers_by_name ON peers (name);
CREATE TABLE IF NOT EXISTS tokens (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, token_hash TEXT UNIQUE, scopes TEXT,
  peer_id INTEGER REFERENCES peers ON DELETE SET NULL, user_id INTEGER REFERENCES users ON DELETE CASCADE,
  machine_fingerprint TEXT, machine_binding_enabled INTEGER DEFAULT 0, split_tunnel_override TEXT,
  created_at TEXT DEFAULT (datetime('now')), expires_at TEXT, last_used_at TEXT);
CREATE INDEX IF NOT EXISTS tokens_by_peer ON tokens (peer_id);
CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, user_id INTEGER, csrf TEXT, expires REAL);
CREATE TABLE IF NOT EXISTS activity (
  id INTEGER PRIMARY KEY AUTOINCREMENT, event_type TEXT, message TEXT, details TEXT, severity TEXT,
  created_at TEXT DEFAULT (datetime('now')));
CREATE TABLE IF NOT EXISTS log (
  id INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT, event TEXT, method TEXT, path TEXT, query TEXT, status INTEGER,
  ms REAL, token TEXT, peer_id INTEGER, address TEXT, headers TEXT, body TEXT, fault TEXT);
"""
LOG_ROWS = 100_000


class NoFreeAddress(Exception):
    """The tunnel network has no address left."""


class NameTaken(Exception):
    """Another peer has this name."""


def password_hash(password: str, salt: str | None = None) -> str:
    salt = salt or secrets.token_hex(8)
    return salt + "$" + hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), 10_000).hex()


def password_fits(password: str, stored: str | None) -> bool:
    return bool(stored) and "$" in stored and hmac.compare_digest(password_hash(password, stored.split("$")[0]), stored)


def now_iso() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + ".%03dZ" % (time.time() % 1 * 1000)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class Store:
    """The database. ``with store:`` is a transaction: an exception takes everything back."""

    def __init__(self, path: str | None, network: ipaddress.IPv4Network):
        self.network, self.gateway = network, str(network[1])
        try:
            if path:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self.db = sqlite3.connect(path or ":memory:", isolation_level=None)
            self.db.row_factory = sqlite3.Row
            self.db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;" + SCHEMA)
            self._remember()
        except (OSError, sqlite3.Error) as problem:
            raise ValueError("cannot keep the state in %s: %s" % (path, getattr(problem, "strerror", problem))) from None

    # -------------------------------------------------------------- access

    def run(self, sql: str, *values) -> sqlite3.Cursor:
        try:
            return self.db.execute(sql, values)
        except (OverflowError, UnicodeError) as problem:  # a number or a text that SQLite cannot hold
            raise sqlite3.DataError(str(problem)) from None

    def one(self, sql: str, *values):
        return self.run(sql, *values).fetchone()

    def all(self, sql: str, *values) -> list:
        return self.run(sql, *values).fetchall()

    def _insert(self, table: str, row: dict) -> sqlite3.Cursor:
        return self.run("INSERT INTO %s (%s) VALUES (%s)" % (table, ", ".join(row), ", ".join("?" * len(row))), *row.values())

    def __enter__(self) -> Store:
        self.db.execute("BEGIN IMMEDIATE")
        return self

    def __exit__(self, problem, *_more) -> None:
        self.db.execute("ROLLBACK" if problem else "COMMIT")
        if problem:
            self._remember()

    def _remember(self) -> None:
        """Reads what is kept in memory too: settings and free addresses."""
        self._settings = {row["name"]: row["value"] for row in self.all("SELECT * FROM settings")}
        used = {int(ipaddress.ip_address(row[0].split("/")[0])) for row in self.all("SELECT allowed_ips FROM peers")}
        first = int(self.network[0]) + 2
        if used and not first <= min(used) <= max(used) < int(self.network.broadcast_address):
            raise ValueError("the state has peers outside of %s: give the --subnet it was made with" % self.network)
        self._next = max(used, default=first - 1) + 1
        self._freed = [address for address in range(first, self._next) if address not in used]

    def columns(self, table: str) -> list:
        return [row["name"] for row in self.all("SELECT name FROM pragma_table_info(?)", table)]

    def setting(self, name: str, default=None):
        return self._settings.get(name, default)

    def set(self, name: str, value) -> None:
        """Keeps a setting; None takes it back to its default."""
        if value is None:
            self._settings.pop(name, None)
            self.run("DELETE FROM settings WHERE name = ?", name)
        else:
            self._settings[name] = str(value)
            self.run("INSERT OR REPLACE INTO settings VALUES (?, ?)", name, str(value))

    # -------------------------------------------------------------- peers

    def _lowest_address(self) -> str:
        if self._freed:
            return str(ipaddress.ip_address(heapq.heappop(self._freed)))
        if self._next >= int(self.network.broadcast_address):
            raise NoFreeAddress("no address is free in %s" % self.network)
        self._next += 1
        return str(ipaddress.ip_address(self._next - 1))

    def peer(self, peer_id):
        return self.one("SELECT * FROM peers WHERE id = ?", peer_id)

    def peer_named(self, name: str):
        return self.one("SELECT * FROM peers WHERE name = ?", name)

    def create_peer(self, name: str, **given):
        if self.peer_named(name):
            raise NameTaken("there is already a peer %s" % name)
        private, public = wgtext.key_pair()
        address = self._lowest_address()
        row = dict(given, name=name, private_key=private, public_key=public, preshared_key=wgtext.preshared_key(),
                   allowed_ips=address + "/32")
        try:
            cursor = self._insert("peers", row)
        except sqlite3.Error:
            heapq.heappush(self._freed, int(ipaddress.ip_address(address)))
            raise
        self.register_tags(given.get("tags"))
        return self.peer(cursor.lastrowid)

    def update_peer(self, peer_id: int, **changes):
        sets = "".join("%s = ?, " % name for name in changes)
        self.run("UPDATE peers SET %s updated_at = datetime('now') WHERE id = ?" % sets, *changes.values(), peer_id)
        self.register_tags(changes.get("tags"))
        return self.peer(peer_id)

    def delete_peer(self, peer) -> None:
        self.run("DELETE FROM peers WHERE id = ?", peer["id"])
        heapq.heappush(self._freed, int(ipaddress.ip_address(peer["allowed_ips"].split("/")[0])))

    def count_peers(self, enabled_only: bool = False) -> int:
        return self.one("SELECT COUNT(*) FROM peers" + (" WHERE enabled = 1" if enabled_only else ""))[0]

    def register_tags(self, text) -> None:
        for tag in split_tags(text):
            if len(tag) <= 64 and not set(tag) & set('<>"\n\r\t'):
                self.run("INSERT OR IGNORE INTO tags (name) VALUES (?)", tag)

    # -------------------------------------------------------------- tokens and sessions

    def create_token(self, name: str, scopes: list, **given) -> tuple:
        """The token in clear (``gc_`` and 96 hexadecimal digits; kept as its SHA-256 only) and its row."""
        token = "gc_" + secrets.token_hex(48)
        row = dict(given, name=name, scopes=json.dumps(scopes), token_hash=_digest(token))
        cursor = self._insert("tokens", row)
        return token, self.one("SELECT * FROM tokens WHERE id = ?", cursor.lastrowid)

    def _token_row(self, token: str):
        return self.one("SELECT * FROM tokens WHERE token_hash = ?", _digest(token))

    def token_name(self, token: str | None) -> str:
        """The name of a token, valid or not; empty if there is none such."""
        row = token and self._token_row(token)
        return row["name"] if row else ""

    def token(self, token: str):
        """The row of a valid token, or None; notes that it was used."""
        row = self._token_row(token)
        if row is None or (row["expires_at"] and is_past(row["expires_at"])):
            return None
        self.run("UPDATE tokens SET last_used_at = datetime('now') WHERE id = ?", row["id"])
        return row

    def set_admin(self, name: str, password: str) -> None:
        row = self.one("SELECT * FROM users WHERE username = ?", name)
        if row is None:
            self.run("INSERT INTO users (username, role, password_hash) VALUES (?, 'admin', ?)", name, password_hash(password))
        elif not password_fits(password, row["password_hash"]):
            self.run("UPDATE users SET password_hash = ? WHERE id = ?", password_hash(password), row["id"])

    def is_admin(self, name: str, password: str):
        """The enabled administrator with this name and password, or None."""
        row = self.one("SELECT * FROM users WHERE username = ? AND role = 'admin' AND enabled = 1", name)
        return row if row is not None and password_fits(password, row["password_hash"]) else None

    # -------------------------------------------------------------- activity and log

    def record(self, event: str, message: str, severity: str = "info", **details) -> None:
        """Adds a row to the activity log, which the administrator reads over the API."""
        message = message.encode("utf-8", "replace").decode()
        self._insert("activity", dict(event_type=event, message=message, severity=severity, details=json.dumps(details)))

    def log(self, event: str | None, **fields) -> None:
        row = dict(fields, time=now_iso(), event=event)
        for name in ("headers", "body"):
            if row.get(name) is not None:
                row[name] = json.dumps(row[name])
        self._insert("log", row)

    def trim_log(self) -> None:
        for table in ("log", "activity"):
            self.run("DELETE FROM %s WHERE id <= (SELECT MAX(id) FROM %s) - ?" % (table, table), LOG_ROWS)


def without_keys(peer) -> dict:
    """A peer's row without its private and its preshared key."""
    return {name: peer[name] for name in peer.keys() if name not in ("private_key", "preshared_key")}


def split_tags(text) -> list:
    """The tags of a comma text, trimmed, each once whatever its case."""
    found = {}
    for tag in str(text or "").split(","):
        found.setdefault(tag.strip().lower(), tag.strip())
    found.pop("", None)
    return list(found.values())


def is_past(text: str) -> bool:
    """Whether a date text lies in the past; one that is no date counts as past."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return True
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)) <= datetime.datetime.now(datetime.timezone.utc)
