"""Plays vectors through one of the two languages that the agent is written in, so that both can be compared byte for byte.

  play python | play powershell [NAME]

Standard input: lines of {"id", "op", "args"}; standard output: for each {"id", "ok": value} or {"id", "error": word}, keys sorted, without blanks, in ASCII.

  parse       {text, hooks}                the rendered text
  render      {text, policy}               the file that the policy makes of a server's text on Windows
  plan        {text, applied, dump}        {action, reasons}; dump: text or lines of `wg show dump`, NOW-5 for five seconds ago; null: no interface
  connection  {dump}                       what a beat reports
  json        {text}                       the value
  digest      {text}                       SHA-256
  clamp       {key}                        the private key as WireGuard keeps it
  mask        {text}                       a config for a diff
  failure     {status, text, headers}      {kind, retry_after} of a server's answer
  excluded    {host, port, no_proxy}       whether the list keeps the host from the proxy
  proof       {private_key, challenge}     the proof of possession, or null

An error is one word: syntax:LINE or syntax, policy, dump, json, key, text; args where an op cannot take what it was given. The clock stands at 1800000000.
NAME: pwsh or powershell; the first that is found.
"""
from __future__ import annotations

import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]


def main(words: list[str]) -> int:
    if words == ["python"]:
        own = CHECKOUT / ".venv/bin/python"
        return subprocess.run([str(own) if own.exists() else sys.executable, str(HERE / "play_python.py")], check=False).returncode
    if words[:1] == ["powershell"] and len(words) < 3:
        sys.path.insert(0, str(CHECKOUT / "tests"))
        import powershell

        if not powershell.SHELLS:
            print(powershell.NOT_RUN, file=sys.stderr)
            return 3
        program = powershell.SHELLS[words[1] if words[1:] else next(iter(powershell.SHELLS))]
        argv = [program, "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File", str(HERE / "play.ps1")]
        return subprocess.run(argv, check=False).returncode
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
