"""Plays vectors through the collection's Python: see play."""
from __future__ import annotations

import json
import pathlib
import re
import sys
import traceback
import typing as t

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT / "tests"), str(pathlib.Path(__file__).parent)]

import collection  # noqa: E402

sys.path.insert(0, str(collection.link()))

import windows_plan  # noqa: E402
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import (  # noqa: E402
    _agent, _api, _enrollment, _http, _observe, _proof, _wgconf)

NOW = 1800000000.0  # what the clock says while vectors are played
LONE = re.compile("[\ud800-\udfff]")
KEY = re.compile("[A-Za-z0-9+/]{43}=")


class Refused(Exception):
    """An error of a vector: a short word that both languages say."""


def rendered(text: str, policy: dict[str, t.Any]) -> str:
    agent = _agent.Agent(_enrollment.Texts({}), None, platform="windows", fingerprint="0" * 64)
    return agent.rendered(text, policy)


def running(dump: t.Any) -> _observe.Running | None:
    if dump is None:
        return None
    lines = dump.split("\n") if isinstance(dump, str) else dump
    lines = [re.sub("NOW-([0-9]+)", lambda found: str(int(NOW) - int(found.group(1))), line) for line in lines if line]
    try:
        return _observe.read_dump(lines)
    except ValueError:
        raise Refused("dump") from None


def parse(text: str, hooks: bool = False) -> str:
    return _wgconf.render(_wgconf.parse(text, allow_hooks=hooks))


def render(text: str, policy: dict[str, t.Any] | None = None) -> str:
    return rendered(text, policy or {})


def plan(text: str, applied: str | None = None, dump: t.Any = None) -> dict[str, t.Any]:
    before = _wgconf.parse(applied, allow_hooks=True) if applied else None
    return windows_plan.plan(_wgconf.parse(text, allow_hooks=True), running(dump), before, NOW)


def connection(dump: t.Any = None) -> dict[str, t.Any]:
    agent = _agent.Agent(_enrollment.Texts({}), None, now=lambda: NOW, platform="windows", fingerprint="0" * 64)
    found = agent.connection(running(dump))
    return {name: found[name] for name in ("status", "handshake_age", "rx_bytes", "tx_bytes")}


def read_json(text: str) -> t.Any:
    try:
        return _enrollment.read_json(text)
    except ValueError:
        raise Refused("json") from None


def whole(text: str) -> str:
    if LONE.search(text):
        raise Refused("text")
    return text


def clamp(key: str) -> str:
    if not KEY.fullmatch(key):
        raise Refused("key")
    return _wgconf.clamp(key)


def failure(status: int, text: str, headers: dict[str, str] | None = None) -> dict[str, t.Any]:
    response = _http.Response(status, {name.lower(): value for name, value in (headers or {}).items()}, text)
    try:
        body = _enrollment.read_json(text)
    except ValueError:
        body = None
    if status < 300:
        whole_answer = isinstance(body, dict) and body.get("ok") is True
        return {"kind": None if whole_answer else "protocol", "retry_after": None}
    err = _api.explain("asking the server", _api.CLIENT + "/config", response, body if isinstance(body, dict) else {})
    return {"kind": err.kind, "retry_after": err.details.get("retry_after")}


OPS: dict[str, t.Callable[..., t.Any]] = {
    "parse": parse, "render": render, "plan": plan, "connection": connection, "json": read_json, "clamp": clamp, "failure": failure,
    "digest": lambda text: _wgconf.digest(whole(text)), "mask": lambda text: _wgconf.mask(whole(text)),
    "excluded": lambda host, port, no_proxy: _http.is_excluded(host, no_proxy, port),
    "proof": lambda private_key, challenge: _proof.of_key(private_key, point=challenge)}


def answer(op: str, args: dict[str, t.Any]) -> dict[str, t.Any]:
    """{"ok": value} or {"error": word}."""
    try:
        return {"ok": OPS[op](**args)}
    except Refused as err:
        return {"error": str(err)}
    except _wgconf.ConfigError as err:
        return {"error": "%s:%d" % (err.kind, err.line) if err.line else err.kind}
    except Exception:  # arguments of no shape that the op knows
        traceback.print_exc()
        return {"error": "args"}


def main() -> None:
    for line in sys.stdin:
        if line.strip():
            vector = json.loads(line)
            print(json.dumps(dict({"id": vector["id"]}, **answer(vector["op"], vector["args"])), sort_keys=True, separators=(",", ":")))


if __name__ == "__main__":
    main()
