# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """How the server is reached, and with what secret."""

    DOCUMENTATION = r"""
options:
  url:
    description:
      - The server's address, such as V(https://gate.example.com).
      - On a host with the agent, this and the other options that say how the server is reached are taken from the agent's settings when
        they are not given.
      - If not set, the environment variable E(GATECONTROL_URL) is used.
    type: str
  ca_path:
    description: File with the certificates of the authorities the server's certificate may come from, on the machine the module runs on.
    type: path
  validate_certs:
    description: Whether the server's certificate is checked, V(true) unless set.
    type: bool
  client_cert:
    description: File with a client certificate in PEM format, for a reverse proxy that asks for one.
    type: path
  client_key:
    description: File with the client certificate's key, where it is not in O(client_cert).
    type: path
  proxy:
    description: HTTP proxy such as V(http://proxy.example.com:3128), user and password in it if need be. The environment's proxies are not
      used.
    type: str
  no_proxy:
    description: Comma list of hosts, domains, addresses and networks (CIDR), each with or without a port, that are reached without O(proxy).
    type: str
  timeout:
    description: Seconds that one request and its answer may take in all, from looking up the server's name to the last byte, V(15) unless set.
    type: int
  max_wait:
    description:
      - Seconds that one call may take with all its tries, V(60) unless set. Server errors and network errors are tried again after 2, 3,
        4.5 up to 60 seconds, a used up rate limit after the time the server names.
    type: int
  allow_http:
    description: Whether a token may be sent over plain HTTP to a server that is not on this machine, V(false) unless set.
    type: bool
  auth_header:
    description: Which header carries the token, V(authorization) unless set.
    type: str
    choices: [authorization, x-api-token, x-api-key]
"""

    TOKEN = r"""
options:
  token:
    description:
      - The host's client token (scope C(client); C(peers) on servers of the 1.5.2 era).
      - On an enrolled host the token that lies there is used when this is not given.
      - If not set, the environment variable E(GATECONTROL_TOKEN) is used.
    type: str
  token_file:
    description: File that holds the token, on the machine the module runs on. O(token) wins.
    type: path
"""

    PEERS_TOKEN = r"""
options:
  peers_token:
    description:
      - A token of scope C(peers). It can read every peer's keys, so it belongs on the controller only.
      - If not set, the environment variable E(GATECONTROL_PEERS_TOKEN) is used.
    type: str
"""

    ADMIN = r"""
options:
  admin_user:
    description:
      - The administrator's name in the web interface.
      - If not set, the environment variable E(GATECONTROL_ADMIN_USER) is used.
    type: str
  admin_password:
    description:
      - The administrator's password. It does not leave the controller. The server allows 5 logins in 15 minutes.
      - If not set, the environment variable E(GATECONTROL_ADMIN_PASSWORD) is used.
    type: str
"""

    SESSION = r"""
options:
  session:
    description: RV(session) of an earlier run, so that one login serves all batches.
    type: dict
  token_user:
    description: Name of the user whose tokens are minted, the administrator who logs in without it.
    type: str
"""

    IDENTITY = r"""
options:
  machine_fingerprint:
    description:
      - 64 lower-case hex digits that stand for the machine the call is about. Only for calls delegated from another machine; the server may
        bind the token to it.
    type: str
  client_platform:
    description: Platform of the machine the call is about, such as V(windows). Only for delegated calls.
    type: str
  send_version:
    description: Whether the client's version is sent, V(true) unless set. The server then writes it into the peer's description, at most
      every five minutes.
    type: bool
"""
