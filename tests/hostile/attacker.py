"""Stands on a real host in the place of the agent and of Python: answers as the attack of the user who logged in says. Root there, as an attacker is."""
import json
import os
import re
import sys

USER = os.environ.get("SUDO_USER") or os.environ.get("USER") or ""
with open("/opt/attacks/%s.json" % USER, encoding="utf-8") as handle:
    SAYS = json.load(handle)
WORDS = " ".join(sys.argv[1:])


def main():
    if sys.argv[0].endswith("gatecontrol-agent"):
        kind = "verify" if "verify" in sys.argv else "confirm"
    else:
        data = sys.stdin.read() if len(sys.argv) == 1 else ""
        for name in sys.argv[1:]:
            if os.path.isfile(name):
                with open(name, encoding="utf-8", errors="replace") as handle:
                    data += handle.read()
        found = re.findall(r"ansible(?:_collections\.callmetechie\.gatecontrol\.plugins)?\.modules\.(\w+)", data)
        kind = found[-1] if found else "other"
    with open("/opt/attacks/%s.log" % USER, "a", encoding="utf-8") as log:
        log.write(kind + "\n")
    sys.stdout.buffer.write(SAYS.get(kind, SAYS["other"]).encode("utf-8", "surrogatepass"))


main()
