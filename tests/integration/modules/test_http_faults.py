"""Every call, against all that can go wrong on the wire: it ends in time, says what it is, and tells no secret."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import json
import random
import re
import time
import traceback

import pytest
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import cache_loader, inventory_loader
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import (
    _agent,
    _api,
    _enrollment,
    _facts,
    _http,
    _line,
    _session,
    _way,
)
from faulty import KEY, RAW, Stage
from faulty_table import table
from listeners import Authority

TOKEN = "gc_" + "5ec0de" * 16
PASSWORD = "adm1n-passw0rd"
STATE = {"cookie": "s3ss10n-c00k1e-value", "csrf": "cd" * 64}
SECRETS = (TOKEN, PASSWORD, STATE["cookie"], STATE["csrf"], "pr0xy-passw0rd", KEY, RAW)
TIMEOUT, LATE = 0.7, 2.0  # seconds
AT_ONCE, FEW = 24, 40  # situations
KINDS = set(re.search(r"kinds: ([a-z_\s]+)", _http.ApiError.__doc__).group(1).split())

SITUATIONS = table()
WHOLE, PART = ("ping", "login"), 460  # calls that all situations are played with; how many each other call gets of them
CALLS = {  # name -> (what it is called on, the call)
    "ping": ("api", lambda api: api.ping()),
    "permissions": ("api", lambda api: api.permissions()),
    "register": ("api", lambda api: api.register("web", "linux", "1.0.0")),
    "config": ("api", lambda api: api.config(1)),
    "config_check": ("api", lambda api: api.config_check(1, "0" * 64)),
    "heartbeat": ("api", lambda api: api.heartbeat(1, connected=True, rxBytes=0)),
    "status": ("api", lambda api: api.status(1, "connected", "t")),
    "peer_info": ("api", lambda api: api.peer_info(1)),
    "peers": ("api", lambda api: list(api.peers())),
    "peer": ("api", lambda api: api.peer(1)),
    "create_peer": ("api", lambda api: api.create_peer("web")),
    "update_peer": ("api", lambda api: api.update_peer(1, {"tags": "a"})),
    "delete_peer": ("api", lambda api: api.delete_peer(1)),
    "peer_config": ("api", lambda api: api.peer_config(1)),
    "licence": ("admin", lambda admin: admin.licence()),
    "user_id": ("admin", lambda admin: admin.user_id("admin")),
    "tokens": ("admin", lambda admin: admin.tokens()),
    "mint": ("admin", lambda admin: admin.mint(1, "ansible: web", 1)),
    "revoke": ("admin", lambda admin: admin.revoke(7)),
    "login": ("login", lambda admin: admin.transport.login("admin", PASSWORD)),
}


RUNS = [*CALLS, "beat", "inventory"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    made = Stage(Authority(tmp_path_factory.mktemp("authority")), SITUATIONS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_line, "dial", made.connect)
        patched.setattr(_way.Way, "dial", lambda _way, *where: made.connect(*where))  # the agent's own
        yield made
    made.close()


def options(stage, situation, **more):
    return dict(situation.options(stage.authority), timeout=TIMEOUT, max_wait=0, **more)


def play(stage, situation, call):
    """(seconds, the error or None) of a call in a situation."""
    target, work = CALLS[call]
    begun = time.monotonic()
    try:
        if target == "api":
            work(_api.Api(options(stage, situation, token=TOKEN), {"fingerprint": "0" * 64}))
        else:
            work(_session.Admin(options(stage, situation), dict(STATE) if target == "admin" else None))
        error = None
    except _api.ApiError as err:
        error = err
    return time.monotonic() - begun, error


def beat(folder, stage, situation):
    """The same for a beat of the agent."""
    root = folder / situation.name
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc/machine-id").write_text("0" * 32, encoding="ascii")
    store, given = _enrollment.Store(str(root)), options(stage, situation)
    store.save(
        "enrollment",
        {
            "peer_id": 1,
            "peer_name": "web",
            "url": given["url"],
            "interface": "wg0",
            "reporting": "full",
            "fingerprint": _facts.machine_fingerprint(str(root)),
        },
    )
    store.save("settings", given)
    store.put("token", TOKEN)
    begun = time.monotonic()
    shown = _agent.Agent(store, lambda argv, stdin=None: (127, "", "no")).beat()
    told = shown["error"]
    return time.monotonic() - begun, (
        _api.ApiError(told["text"], told["kind"]) if told and told["kind"] != "config" else None
    )  # a config that it refuses


def inventory(folder, stage, situation):
    """The same for the inventory plugin, whose timeout is whole seconds."""
    given, path = dict(options(stage, situation), timeout=1), folder / (f"{situation.name}.gatecontrol.yml")
    path.write_text(
        json.dumps(dict(given, plugin="callmetechie.gatecontrol.gatecontrol", peers_token=TOKEN)), encoding="utf-8"
    )
    plugin = inventory_loader.get("callmetechie.gatecontrol.gatecontrol")
    begun = time.monotonic()
    try:
        plugin.parse(InventoryData(), DataLoader(), str(path), cache=False)
        error = None
    except AnsibleParserError as err:
        assert isinstance(err.__cause__, _api.ApiError), repr(err)
        error = err.__cause__
        assert str(error) in str(err)
    return time.monotonic() - begun, error


def complaints(situation, seconds, error, timeout=TIMEOUT):
    """What is wrong with how a call ended."""
    if error is not None and not isinstance(error, _api.ApiError):
        yield "".join(traceback.format_exception(error)[-3:])
        return
    text = "" if error is None else f"{error} {json.dumps(error.failure)}"
    if seconds > timeout + LATE:
        yield f"{seconds:.1f} s"
    if error is None and situation.fails:
        yield "taken for an answer"
    if error is not None and error.kind not in KINDS:
        yield f"kind {error.kind!r}"
    if error is not None and (len(text) > 1200 or not text.isprintable()):
        yield f"text {text[:300]!r}"
    yield from (f"{secret[:8]}... is told: {text}" for secret in SECRETS if secret in text)


def part(call):
    """The situations of a call: all, or as many as PART, others for each call."""
    return SITUATIONS if call in WHOLE else random.Random(call).sample(SITUATIONS, PART)


def test_the_table_is_as_large_as_it_is_said_to_be():
    assert len({situation.name for situation in SITUATIONS}) == len(SITUATIONS) >= 900
    played = collections.Counter(situation for call in RUNS for situation in part(call))
    assert all(len(part(call)) >= 450 for call in RUNS) and set(played) == set(SITUATIONS) and min(played.values()) >= 5


def test_every_call_is_in_the_table():
    made_of_others = {"call", "peer_named"}
    known = {name for kind in (_api.Api, _session.Admin) for name in dir(kind) if not name.startswith("_")}
    assert {name for name in known if callable(getattr(_session.Admin, name))} - made_of_others == set(CALLS) - {"login"}


@pytest.mark.parametrize("call", RUNS)
def test_a_call_ends_in_time_says_what_it_is_and_tells_no_secret(stage, tmp_path, call):
    def run(situation):
        try:
            return runs.get(call, functools.partial(play, stage, call=call))(situation)
        except Exception as err:  # another one than it may be
            return 0, err

    runs = {
        "beat": functools.partial(beat, tmp_path, stage),
        "inventory": functools.partial(inventory, tmp_path, stage),
    }
    for loader, name in ((inventory_loader, "callmetechie.gatecontrol.gatecontrol"), (cache_loader, "memory")):
        loader.get(name)  # two threads cannot load a plugin at once
    wrong, limit = [], 1 if call == "inventory" else TIMEOUT
    stage.played.clear()
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        ended = dict(zip(part(call), pool.map(run, part(call))))
    late = [situation for situation, (seconds, _error) in ended.items() if seconds > limit + LATE]
    if len(late) <= FEW:  # on a machine that had no time for them? Once more, in peace
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            ended.update(zip(late, pool.map(run, late)))
    for situation, (seconds, error) in ended.items():
        wrong += [f"{situation.name}: {one}" for one in complaints(situation, seconds, error, limit)]
    assert not wrong, "%d:\n%s" % (len(wrong), "\n".join(wrong[:40]))
    assert stage.played >= {situation.name for situation in part(call)}, "situations that the call never met"
