"""The faults there are, for the server and for its command line's help."""
from __future__ import annotations

KINDS = {
    "status": "answers --status (503) with an error text; with --retry-after the header too",
    "drop": "closes the connection without an answer",
    "delay": "waits --seconds (1) before the answer",
    "drip": "sends the body byte by byte, --seconds (0.05) apart",
    "cut": "sends the first --bytes (half) of the body under the full Content-Length, then closes",
    "invalid-json": "answers 200 with JSON that breaks off",
    "html": "answers --status (200) with an HTML page",
    "wrong-hash": "answers with a hash that does not fit the config",
    "config": "answers with the config spoiled as --how says, or with --text, and the hash of that",
    "redirect": "answers --status (307), to the same path on --to",
    "set": "sets the fields of --text (JSON; peer.id is inside peer, null takes it away) in the real answer",
    "lie": "answers 200 with {\"ok\": true} and the fields of --text (JSON), and nothing happens",
}
SHORT_KEY = "c2hvcnQ="


def _line(text: str, key: str, value: str) -> str:
    return "".join(key + " = " + value + "\n" if line.startswith(key + " = ") else line for line in text.splitlines(True))


CONFIG_SPOILERS = {
    "hooks": lambda text: text.replace("\n\n[Peer]", "\nPostUp = touch /tmp/gatecontrol-hook-ran\n\n[Peer]", 1),
    "placeholder": lambda text: _line(text, "PublicKey", "<SERVER_PUBLIC_KEY>"),
    "private-placeholder": lambda text: _line(text, "PrivateKey", "<PRIVATE_KEY>"),
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "unknown-key": lambda text: text.replace("\n\n[Peer]", "\nColour = blue\n\n[Peer]", 1),
    "save-config": lambda text: text.replace("\n\n[Peer]", "\nSaveConfig = true\n\n[Peer]", 1),
    "second-interface": lambda text: text + "\n[Interface]\nListenPort = 1\n",
    "short-key": lambda text: _line(text, "PublicKey", SHORT_KEY),
    "short-private-key": lambda text: _line(text, "PrivateKey", SHORT_KEY),
    "short-preshared-key": lambda text: _line(text, "PresharedKey", SHORT_KEY),
    "empty": lambda text: "",
}
