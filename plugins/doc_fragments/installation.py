# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """What an installation of the agent consists of."""

    DOCUMENTATION = r"""
options:
  launcher:
    description:
      - Text of the agent's launcher, C(files/gatecontrol_agent.py) of the role P(callmetechie.gatecontrol.gatecontrol#role).
      - A first line that names the interpreter found on the host is put before it.
    type: str
  units:
    description: Text of each unit file by its absolute path.
    type: dict
  settings:
    description:
      - What the agent is told, kept in C(/etc/gatecontrol/settings.json), mode 0600, with no token in it.
      - It takes C(url), C(ca_path), C(validate_certs), C(client_cert), C(client_key), C(proxy), C(no_proxy), C(timeout), C(max_wait), C(allow_http),
        C(auth_header), C(interface) and C(send_version) as the modules' options of these names.
      - C(policy) takes the options of M(callmetechie.gatecontrol.gatecontrol_config) that begin with C(allow_), and C(allowed_ips), C(dns), C(mtu), C(table),
        C(fwmark), C(listen_port), C(persistent_keepalive).
      - C(heartbeat_interval) (60), C(sync_interval) (300) and C(confirm_timeout) (40) are in seconds, C(textfile) is the directory of Prometheus'
        textfile collector.
    type: dict
"""
