"""Faults on demand: what to spoil in the answer to which request, and how often."""
from __future__ import annotations

import asyncio
import dataclasses
import copy
import fnmatch
import json

from aiohttp import web

import wgtext
from core import Reply
from kinds import CONFIG_SPOILERS, KINDS
from session import page


@dataclasses.dataclass
class Fault:
    """One fault. ``count``: how many requests it spoils (None: all), after leaving out the first ``skip``.
    ``when``: 'before' answers instead of the request taking effect, 'after' lets it take effect first; by default before,
    but after for the kinds that spoil a real answer."""

    kind: str
    id: int = 0
    path: str = "*"
    method: str = "*"
    token: str = "*"
    count: int | None = None
    skip: int = 0
    when: str | None = None
    status: int | None = None
    retry_after: int | None = None
    seconds: float | None = None
    bytes: int | None = None
    how: str | None = None
    text: str | None = None
    url: str | None = None
    hits: int = 0

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError("there is no fault %s; there are %s" % (self.kind, ", ".join(KINDS)))
        self.when = self.when or ("after" if self.kind in ("delay", "drip", "cut", "wrong-hash", "config", "set") else "before")
        if self.when not in ("before", "after"):
            raise ValueError("a fault comes before or after, not %s" % self.when)
        if self.kind == "config" and self.how not in CONFIG_SPOILERS and self.text is None:
            raise ValueError("a config fault needs a text, or to be told how: " + ", ".join(CONFIG_SPOILERS))
        if self.kind == "redirect" and not self.url:
            raise ValueError("a redirect fault needs a URL to lead to")
        if self.kind in ("set", "lie") and not isinstance(json.loads(self.text or "{}"), dict):
            raise ValueError("the text of this fault is a JSON object")

    def takes(self, method: str, path: str, token: str) -> bool:
        """Whether this request is spoiled; counts it if so."""
        if not (self.method in ("*", method) and fnmatch.fnmatchcase(path, self.path) and fnmatch.fnmatchcase(token, self.token)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.count is not None and self.hits >= self.count:
            return False
        self.hits += 1
        return True

    def spoil(self, reply: Reply, path: str) -> Reply:
        """The answer as this fault wants it; what happens on the wire only is left to ``send``."""
        if self.kind == "status":
            status = self.status or 503
            headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
            return Reply(status, {"ok": False, "error": self.text or "Fault on demand"}, headers)
        if self.kind == "html":
            return Reply(self.status or 200, self.text or page("Sign in", "<h1>Welcome to this network</h1>"))
        if self.kind == "invalid-json":
            return Reply(200, '{"ok":true,"config":"[Interface', {"Content-Type": "application/json; charset=utf-8"})
        if self.kind == "redirect":
            return Reply(self.status or 307, "Temporary Redirect", {
                "Location": self.url.rstrip("/") + path, "Content-Type": "text/plain; charset=utf-8"})
        if self.kind == "lie":
            return Reply(200, {"ok": True, **json.loads(self.text or "{}")})
        if isinstance(reply.body, dict) and self.kind == "set":
            return reply._replace(body=self._with_fields(reply.body))
        if isinstance(reply.body, dict) and self.kind == "wrong-hash" and "hash" in reply.body:
            return reply._replace(body=dict(reply.body, hash=wgtext.config_hash("another text")))
        if isinstance(reply.body, dict) and self.kind == "config" and "config" in reply.body:
            text = self.text if self.text is not None else CONFIG_SPOILERS[self.how](reply.body["config"])
            body = dict(reply.body, config=text)
            if "hash" in body:
                body["hash"] = wgtext.config_hash(text)
            return reply._replace(body=body)
        return reply

    def _with_fields(self, body: dict) -> dict:
        body = copy.deepcopy(body)
        for path, value in json.loads(self.text or "{}").items():
            *folders, name = path.split(".")
            inside = body
            for folder in folders:
                inside = inside.setdefault(folder, {})
            if value is None:
                inside.pop(name, None)
            else:
                inside[name] = value
        return body

    async def send(self, request, response: web.Response) -> web.StreamResponse:
        """Sends the answer the way this fault wants it."""
        if self.kind == "delay":
            await asyncio.sleep(self.seconds if self.seconds is not None else 1)
        if self.kind == "drop" and request.transport:
            request.transport.close()
        if self.kind not in ("drip", "cut"):
            return response
        body = response.body or b""
        stream = web.StreamResponse(status=response.status, headers=response.headers)
        stream.content_length = len(body)
        await stream.prepare(request)
        if self.kind == "cut":
            await stream.write(body[:self.bytes if self.bytes is not None else len(body) // 2])
            if request.transport:
                request.transport.close()
            return stream
        for position in range(len(body)):
            await stream.write(body[position:position + 1])
            await asyncio.sleep(self.seconds if self.seconds is not None else 0.05)
        await stream.write_eof()
        return stream


class Faults:
    """The faults that are on; the first that fits a request takes it."""

    def __init__(self):
        self._next = 1
        self.on = []

    def add(self, given: dict) -> Fault:
        fault = Fault(**given)
        fault.id, self._next = self._next, self._next + 1
        self.on.append(fault)
        return fault

    def remove(self, fault_id: int | str | None) -> int:
        """Switches one fault off, or all of them (None). Returns how many."""
        before = len(self.on)
        self.on = [fault for fault in self.on if fault_id is not None and str(fault.id) != str(fault_id)]
        return before - len(self.on)

    def take(self, method: str, path: str, token: str) -> Fault | None:
        return next((fault for fault in self.on if fault.takes(method, path, token)), None)

    def shown(self) -> list:
        return [dataclasses.asdict(fault) for fault in self.on]
