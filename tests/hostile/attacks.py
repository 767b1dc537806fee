"""What a hostile host answers: a table, played with a stand-in connection in one play, and by real hosts.

An attack changes the answers of one host. Marks in its texts are filled in by the lab: @CANARY@, a file that must never come to be; @EVIL@, the address
of a server that nobody must ask; @SECRET@, a file of the controller that nobody must read; @TASKS@, a folder of task files that nobody must run;
@OTHER@ and @OTHER_ID@, a peer of another machine.
"""

from __future__ import annotations

import json
import re
import typing as t

RUN = "touch @CANARY@"
LOOKUP = "{{ lookup('ansible.builtin.pipe', 'touch @CANARY@') }}"
READ = "{{ lookup('ansible.builtin.file', '@SECRET@') }}"
UNSEEN = "\x1b[2J\x1b]0;title\x07\x9b31mred\u202egnp\u2028\u200b\x00\x07"
UNKNOWN = "UNKNOWN-KEY"


class Attack(t.NamedTuple):
    """merge: keys for every answer, of agent and modules; answer: for the agent's alone (dotted for what lies deeper); result: for modules' alone;
    raw: a function of the agent's line and what is printed for it; module_raw: the same of a module's JSON; steady: whether the agent says that all is well,
    and the module that stands in for it where raw is no answer; windows: whether the play takes the host for one that runs Windows; lost: what its SSH server
    says in place of any answer.
    """

    merge: dict[str, t.Any] = {}
    answer: dict[str, t.Any] = {}
    result: dict[str, t.Any] = {}
    raw: t.Callable[[str], str] | None = None
    module_raw: t.Callable[[str], str] | None = None
    steady: bool = False
    windows: bool = False
    lost: str = ""


# Variables of the play, of connections, of Ansible's own, that a fact would stand above.
FACTS: dict[str, t.Any] = {
    "gatecontrol_url": "@EVIL@",
    "gatecontrol_proxy": "@EVIL@",
    "gatecontrol_admin_user": "root",
    "gatecontrol_admin_password": UNKNOWN,
    "gatecontrol_peers_token": "gc_" + "ee" * 48,
    "gatecontrol_token": "gc_" + "ee" * 48,
    "gatecontrol_token_file": "@SECRET@",
    "gatecontrol_controller_ca_path": "@SECRET@",
    "gatecontrol_validate_certs": False,
    "gatecontrol_name": "@OTHER@",
    "gatecontrol_peer_id": "@OTHER_ID@",
    "gatecontrol_adopt": True,
    "gatecontrol_state": "absent",
    "gatecontrol_system": "@TASKS@",
    "gatecontrol_secure_logging": False,
    "gatecontrol_packages": {"wg": "evil-package"},
    "gatecontrol_token_user": LOOKUP,
    "__gatecontrol_settings": {"url": "@EVIL@"},
    "__gatecontrol_sessions": {"x": {"url": "@EVIL@"}},
    "__gatecontrol_fleet_state": "absent",
    "__gatecontrol_controller": {"ca_path": "@SECRET@"},
    "ansible_connection": "local",
    "ansible_host": "192.0.2.66",
    "ansible_port": 1,
    "ansible_user": "-oProxyCommand=" + RUN,
    "ansible_remote_tmp": "/x/$(" + RUN + ")",
    "ansible_shell_type": "evil",
    "ansible_shell_executable": "@TASKS@/program",
    "ansible_executable": "@TASKS@/program",
    "ansible_become_exe": "@TASKS@/program",
    "ansible_become_method": "evil",
    "ansible_become_flags": "; " + RUN + ";",
    "ansible_become_user": "$(" + RUN + ")",
    "ansible_python_interpreter": "@TASKS@/program",
    "ansible_playbook_python": "@TASKS@/program",
    "ansible_ssh_executable": "@TASKS@/program",
    "ansible_ssh_common_args": "-oProxyCommand='" + RUN + "'",
    "ansible_ssh_extra_args": "-oProxyCommand='" + RUN + "'",
    "ansible_sftp_executable": "@TASKS@/program",
    "ansible_pipelining": False,
    "ansible_async_dir": "$(" + RUN + ")",
    "ansible_system_tmpdirs": ["$(" + RUN + ")"],
    "ansible_keep_remote_files": True,
    "ansible_no_log": False,
    "ansible_local": {"x": LOOKUP},
    "ansible_pkg_mgr": "@TASKS@/program",
    "pkg_mgr": "raw",
    "ansible_delegated_vars": {"localhost": {"ansible_connection": "ssh", "ansible_host": "192.0.2.66"}},
    "role_path": "@TASKS@",
    "playbook_dir": "@TASKS@",
    "inventory_hostname": "laptop-7",
    "ansible_play_hosts": ["laptop-7"],
    "hostvars": {},
    "groups": {"all": []},
    "omit": UNKNOWN,
    "environment": {"LD_PRELOAD": "@TASKS@/x"},
    "ansible_search_path": ["@TASKS@"],
    "ansible_facts": {"gatecontrol_url": "@EVIL@"},
    "discovered_interpreter_python": "@TASKS@/program",
    "ansible_discovered_interpreter_python": "@TASKS@/program",
    "module_setup": True,
    "gather_subset": [LOOKUP],
}

# Keys of a result that Ansible takes for something of its own.
OURS: dict[str, t.Any] = {
    "add_host": {"host_name": "honest", "groups": ["all"], "host_vars": {"ansible_host": "192.0.2.66", "gatecontrol_url": "@EVIL@"}},
    "add_group": UNKNOWN,
    "parent_groups": ["all"],
    "ansible_stats": {"data": {"x": UNKNOWN}, "per_host": False, "aggregate": True},
    "_ansible_no_log": False,
    "_ansible_verbose_always": True,
    "_ansible_verbose_override": True,
    "_ansible_delegated_vars": {"ansible_delegated_host": "honest"},
    "_ansible_item_label": LOOKUP,
    "_ansible_parsed": False,
    "_ansible_notify": [UNKNOWN],
    "_ansible_suppress_tmpdir_delete": True,
    "include": "@TASKS@/present.yml",
    "include_file": "@TASKS@/present.yml",
    "include_args": {"x": UNKNOWN},
    "ansible_included_var_files": ["@SECRET@"],
    "ansible_job_id": "../../x",
    "results_file": "@SECRET@",
    "results": [{"ansible_facts": {"gatecontrol_url": "@EVIL@"}}],
    "delegate_to": "honest",
    "attempts": 10**9,
    "retries": UNKNOWN,
    "invocation": {"module_args": {"x": LOOKUP}},
    "exception": UNSEEN + UNKNOWN,
    "deprecations": [{"msg": UNSEEN, "version": "9"}],
    "warnings": [UNSEEN] * 500,
    "session": {"url": "@EVIL@", "cookie": UNKNOWN},
    "hosts": {"honest": {"token": UNKNOWN}},
    "censored": UNKNOWN,
    "stdout": LOOKUP,
    "ansible_module_results": [1],
}

ANOTHERS = {"enrolled": True, "peer_id": "@OTHER_ID@", "peer_name": "@OTHER@", "interface": "wg0", "url": "@URL@"}  # the peer of another machine
# What is known of an answer, with values that it cannot have.
ANSWERS: dict[str, dict[str, t.Any]] = {
    "system is a path": {"host.system": "../../../../../../../../../../..@TASKS@"},
    "system is an absolute path": {"host.system": "@TASKS@"},
    "system is a template": {"host.system": LOOKUP},
    "system is a list": {"host.system": ["linux"]},
    "system is null": {"host.system": None},
    "host name is a template": {"host.hostname": LOOKUP},
    "host name reads a file": {"host.hostname": READ},
    "host name is another's": {"host.hostname": "@OTHER@"},
    "host name has a line break": {"host.hostname": "a\nb"},
    "host name is long": {"host.hostname": "a" * 100000},
    "distribution is a template": {"host.distribution": LOOKUP},
    "distribution is a dictionary": {"host.distribution": {"x": 1}},
    "like is a text": {"host.like": LOOKUP},
    "like has templates": {"host.like": [LOOKUP]},
    "needs are paths": {"host.needs": ["../../@TASKS@"]},
    "needs are options": {"host.needs": ["--option"]},
    "needs are many": {"host.needs": ["wg"] * 100000},
    "resolvectl is a command": {"host.needs": ["resolvconf-link"], "host.resolvectl": "/bin/x; " + RUN},
    "homebrew's owner is an option": {"host.system": "macos", "host.homebrew": {"prefix": "/opt/homebrew", "owner": "-u root; " + RUN}},
    "homebrew's prefix is elsewhere": {"host.system": "macos", "host.homebrew": {"prefix": "@TASKS@", "owner": "x"}},
    "service manager is a template": {"host.service_manager": LOOKUP},
    "fingerprint is a template": {"host.fingerprint": LOOKUP},
    "fingerprint is a number": {"host.fingerprint": 7},
    "host is a text": {"host": LOOKUP},
    "host is missing": {"host": None},
    "another's peer, token changed": {**ANOTHERS, "reporting": "full", "drift": ["the token file was changed"], "codes": ["token_changed"]},
    "another's peer, not reporting": {**ANOTHERS, "reporting": "none"},
    "another's peer, the server said not found": {
        **ANOTHERS,
        "reporting": "full",
        "server": {"asked": True, "error": {"kind": "not_found", "status": 404, "text": "x"}},
    },
    "another's name, not enrolled": {"peer_name": "@OTHER@"},
    "a made-up proof": {**ANOTHERS, "reporting": "none", "proof": "ab" * 32},
    "peer id is a text": {"peer_id": "@OTHER@"},
    "peer id is a list": {"peer_id": [1]},
    "peer id is huge": {"peer_id": 10**30},
    "peer id is negative": {"peer_id": -1},
    "peer id is true": {"peer_id": True},
    "peer id is a fraction": {"peer_id": 1.5},
    "peer name is a template": {"peer_name": LOOKUP},
    "peer name is long": {"peer_name": "x" * 100000},
    "peer name has ANSI": {"peer_name": UNSEEN},
    "the server is another": {"enrolled": True, "url": "@EVIL@", "reporting": "none"},
    "the server is a template": {"url": LOOKUP},
    "the server is a file": {"url": "file://@SECRET@"},
    "interface is a path": {"interface": "../../@TASKS@"},
    "interface is a template": {"interface": LOOKUP},
    "drift is a text": {"drift": LOOKUP},
    "drift is templates": {"drift": [LOOKUP, READ, UNSEEN]},
    "drift is objects": {"drift": [{"x": 1}]},
    "drift is long": {"drift": ["x" * 1000] * 200},
    "codes are texts": {"codes": [LOOKUP]},
    "in sync is a text": {"in_sync": "yes"},
    "enrolled is a text": {"enrolled": LOOKUP},
    "reporting is a word of its own": {"reporting": "@TASKS@"},
    "status has ANSI": {"status": UNSEEN},
    "release is another": {"version": "9.9.9"},
    "release is a list": {"version": [1]},
    "now is a text": {"now": LOOKUP},
    "now is huge": {"now": 1e300},
    "error is a template": {"error": {"kind": LOOKUP, "text": LOOKUP}},
    "error is a text": {"error": LOOKUP},
    "verdict is a text": {"verdict": READ},
    "server's error is a list": {"server": {"asked": True, "error": [LOOKUP]}},
    "tunnel's reasons are objects": {"tunnel": {"action": LOOKUP, "reasons": [{"a": {}}]}},
    "unknown keys": {"zz_unknown": UNKNOWN, "host.zz_unknown": UNKNOWN, "server": {"asked": False, "zz": UNKNOWN}},
}


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def with_key(line: str, text: str) -> str:
    """A JSON object's line with one more key, whose value is no JSON that Python would write."""
    return line.rstrip()[:-1] + ', "zz": %s}' % text


# What lies around the JSON, and JSON that is none.
RAW: dict[str, t.Callable[[str], str]] = {
    "the answer twice": lambda line: line + "\n" + line,
    "two answers": lambda line: line + "\n" + line.replace('"drift": []', '"drift": ["x"]'),
    "two answers, facts in the first": lambda line: with_key(line, json.dumps({"ansible_facts": {"gatecontrol_url": "@EVIL@"}}))
    + "\n"
    + line,
    "a deep answer": lambda line: with_key(line, deep(100000)),
    "a deep answer in a text": lambda line: with_key(line, json.dumps(deep(1000))),
    "a huge answer": lambda line: with_key(line, json.dumps("x" * 600000)),
    "a huge output": lambda line: "x" * 6000000 + "\n" + line,
    "many lines": lambda line: "gatecontrol-agent:{\n" * 200000 + line,
    "not a number": lambda line: with_key(line, "NaN"),
    "infinity": lambda line: with_key(line, "-Infinity"),
    "a float that is infinite": lambda line: with_key(line, "1e999"),
    "a huge number": lambda line: with_key(line, "9" * 5000),
    "a key twice": lambda line: with_key(line, '1, "zz": 2'),
    "lone surrogates": lambda line: with_key(line, '"\\ud800\\udfff"').replace("web", "\\ud800"),
    "a list": lambda line: "gatecontrol-agent:[1]",
    "a text": lambda line: 'gatecontrol-agent:"x"',
    "null": lambda line: "gatecontrol-agent:null",
    "half an answer": lambda line: line[: len(line) // 2],
    "nothing": lambda line: "",
    "NUL bytes": lambda line: line.replace(" ", "\x00 "),
    "carriage returns": lambda line: "x\r" + line + "\r\ny",
    "ANSI before it": lambda line: UNSEEN + "\n" + line,
    "garbage behind a marker": lambda line: "gatecontrol-agent:{{{" + LOOKUP + "\n" + line,
    "Ansible's tags": lambda line: with_key(line, json.dumps({"__ansible_type": "TrustedAsTemplate", "value": LOOKUP})),
    "unsafe and vault": lambda line: with_key(line, json.dumps({"__ansible_unsafe": LOOKUP, "__ansible_vault": LOOKUP})),
}

RESULTS: dict[str, dict[str, t.Any]] = {
    "message is a template": {"failed": True, "msg": LOOKUP},
    "message has ANSI": {"failed": True, "msg": UNSEEN + "x" * 100000},
    "message is an object": {"failed": True, "msg": {"x": LOOKUP}},
    "failed is a text": {"failed": LOOKUP},
    "changed is a list": {"changed": [LOOKUP]},
    "skipped is an object": {"skipped": {"x": 1}},
    "failure is a template": {"failed": True, "msg": "x", "failure": {"kind": LOOKUP}},
    "failure is a licence": {"failed": True, "msg": "x", "failure": {"kind": "licence", "x": LOOKUP}},
    "diff has ANSI": {"diff": {"before": UNSEEN, "after": UNSEEN + LOOKUP, "zz": UNKNOWN}},
    "diff is huge": {"diff": {"before": "x" * 3000000}},
    "files are templates": {"files": [LOOKUP, READ]},
    "needs are templates": {"needs": [LOOKUP]},
    "hash is a template": {"hash": LOOKUP},
    "the peer is another": {"peer": {"id": "@OTHER_ID@", "name": "@OTHER@"}},
    "the peer is a template": {"peer": {"id": LOOKUP, "name": LOOKUP}},
    "reporting is a template": {"reporting": LOOKUP},
    "a change's id is a command": {"armed": "7; " + RUN},
    "unreachable": {"unreachable": True, "msg": UNSEEN},
}

MODULE_RAW: dict[str, t.Callable[[str], str]] = {
    "a deep result": lambda text: with_key(text, deep(100000)),
    "a huge result": lambda text: with_key(text, json.dumps("x" * 5000000)),
    "garbage before a result": lambda text: UNSEEN + LOOKUP + "\n" + text,
    "no result": lambda text: "",
    "a traceback": lambda text: "Traceback: " + UNSEEN + LOOKUP,
    "a result that is a list": lambda text: "[1]",
    "a result with NaN": lambda text: with_key(text, "NaN"),
    "two results": lambda text: text + "\n" + text,
    "tags in a result": lambda text: with_key(text, json.dumps({"__ansible_type": "TrustedAsTemplate", "value": LOOKUP})),
}

# What a host is that says it runs Windows, and what it keeps as the controller reads it, which asks the server in its place.
ON_WINDOWS = {"host.system": "windows", "host.distribution": "windows", "host.service_manager": "windows", "host.needs": []}
ELSEWHERE = {"url": "@URL@", "proxy": "@EVIL@", "ca_path": "@SECRET@", "client_cert": "@SECRET@", "client_key": "@SECRET@", "validate_certs": False}


def keeps(token: t.Any = None, **files: t.Any) -> dict[str, t.Any]:
    """The result of PowerShell that tells the files of a host."""
    return {"files": [], "directories": [], "result": {"changed": True, "token": token, "files": {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in files.items()}}}


WINDOWS: dict[str, dict[str, t.Any]] = {
    "nothing but what it is": keeps(),
    "it lacks a file of the controller's": dict(keeps(), files=[{"src": "@SECRET@", "dest": "x", "checksum": "x"}]),
    "it lacks two files of the controller's": dict(keeps(), files=[{"src": "@SECRET@", "dest": name} for name in "ab"]),
    "it lacks a folder of the controller's": dict(keeps(), directories=[{"src": "@TASKS@", "dest": "x"}]),
    "what it lacks is a text": dict(keeps(), files="@SECRET@", directories="@SECRET@"),
    "its files name another way to the server": keeps(settings=ELSEWHERE, enrollment=dict(ELSEWHERE, peer_id=None)),
    "its enrollment is another's, by another way": keeps(
        "gc_" + "ee" * 48, enrollment=dict(ELSEWHERE, peer_id="@OTHER_ID@", peer_name="@OTHER@", interface="wg0", fingerprint="ab" * 32, reporting="full")),
    "its enrollment has ANSI": keeps(enrollment={
        "peer_id": 4, "peer_name": UNSEEN, "interface": UNSEEN, "url": UNSEEN, "fingerprint": UNSEEN, "reporting": "full"}),
    "its enrollment lacks all": keeps(enrollment={"peer_id": LOOKUP}),
    "its enrollment has other types": keeps(enrollment={"peer_id": [4], "peer_name": {}, "interface": 7, "url": [], "fingerprint": {}, "reporting": 1}),
    "its files are deep": keeps(enrollment=deep(100000), settings=deep(100000), intent=deep(100000)),
    "its token is a header": keeps("gc_x\r\nX-Evil: 1"),
    "its files are templates": keeps(LOOKUP, settings=LOOKUP, enrollment=READ),
}

ATTACKS: dict[str, Attack] = {
    **{"fact " + name: Attack(merge={"ansible_facts": {name: value}}) for name, value in FACTS.items()},
    "all facts, and all is well": Attack(merge={"ansible_facts": FACTS}, steady=True),
    "many facts": Attack(merge={"ansible_facts": {"x%d" % number: UNKNOWN for number in range(5000)}}),
    "facts are a text": Attack(merge={"ansible_facts": LOOKUP}),
    "facts name another host": Attack(merge={"ansible_facts": {"inventory_hostname": "honest2"}}),
    "facts stand for what is left out": Attack(merge={"ansible_facts": {"omit": "@EVIL@"}}),
    "facts stand for a lookup": Attack(merge={"ansible_facts": {"lookup": LOOKUP, "query": LOOKUP, "dict": LOOKUP}}),
    **{"key " + name: Attack(merge={name: value}) for name, value in OURS.items()},
    **{"answer: " + name: Attack(answer=keys) for name, keys in ANSWERS.items()},
    **{"output: " + name: Attack(raw=change, steady=True) for name, change in RAW.items()},
    **{"result: " + name: Attack(result=keys) for name, keys in RESULTS.items()},
    **{"module: " + name: Attack(module_raw=change) for name, change in MODULE_RAW.items()},
    "a connection that fails": Attack(lost=UNSEEN + "x" * 100000),
    "a host of another system": Attack(answer=ON_WINDOWS, result=WINDOWS["it lacks a file of the controller's"]),
    **{"windows: " + name: Attack(answer=ON_WINDOWS, result=keys, windows=True) for name, keys in WINDOWS.items()},
}


def together(names: t.Iterable[str]) -> Attack:
    """Several attacks of one host: those that add keys to every answer."""
    facts: dict[str, t.Any] = {}
    keys: dict[str, t.Any] = {}
    names = list(names)
    if len(names) == 1:
        return ATTACKS[names[0]]
    for name in names:
        facts.update(ATTACKS[name].merge.get("ansible_facts") or {})
        keys.update(ATTACKS[name].merge)
    return Attack(merge=dict(keys, **({"ansible_facts": facts} if facts else {})))


def hosts() -> dict[str, list[str]]:
    """Inventory name -> its attacks: of those that only add keys, fifteen go together."""
    adding = {kind: [name for name in ATTACKS if name.startswith(kind)] for kind in ("fact ", "key ")}
    found = {
        "%s-%d" % (kind.strip(), number): names[number::len(names) // 15 + 1]
        for kind, names in adding.items()
        for number in range(len(names) // 15 + 1)
    }
    alone = [name for name in ATTACKS if name not in adding["fact "] and name not in adding["key "]]
    return dict(found, **{re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"): [name] for name in alone})


def filled(text: str, marks: dict[str, str]) -> str:
    """A text with the lab's own marks in it."""
    for mark, value in marks.items():
        text = text.replace("@%s@" % mark, value)
    return text


def put(target: dict[str, t.Any], keys: dict[str, t.Any]) -> dict[str, t.Any]:
    """A copy of target with these keys in it, dotted ones deeper."""
    target = json.loads(json.dumps(target))
    for name, value in keys.items():
        place, place_name = target, name
        if "." in name:
            outer, _dot, place_name = name.partition(".")
            place = target[outer]
        place[place_name] = value
    return target


def agent_says(attack: Attack, whole: dict[str, t.Any], marker: str) -> str:
    """What the attacker prints when the agent is asked. whole: an answer that is as it should be."""
    line = marker + json.dumps(put(put(whole, attack.merge), attack.answer))
    return attack.raw(line) if attack.raw else line


def module_says(attack: Attack, whole: dict[str, t.Any], stands_in: bool = False) -> str:
    """What the attacker prints for a module. stands_in: for the one that answers where the agent does not."""
    text = json.dumps(put(put(whole, attack.merge), attack.answer if stands_in else attack.result))
    return attack.module_raw(text) if attack.module_raw else text
