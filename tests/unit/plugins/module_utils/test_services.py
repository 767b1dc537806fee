# Copyright: (c) 2026, callmetechie.gatecontrol contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of systemctl, and what its answers become."""
from __future__ import annotations

import base64
import os

import pytest

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _services


class Commands:
    """Answers by the first words of a command; all others succeed."""

    def __init__(self, answers=None):
        self.answers, self.asked = answers or {}, []

    def __call__(self, argv, stdin=None):
        words = " ".join(word for word in argv[2:] if word != "--no-ask-password") if argv[0] == "timeout" else " ".join(argv)
        self.asked.append(words)
        return next((answer for begin, answer in self.answers.items() if words.startswith(begin)), (0, "", ""))


def test_many_units_are_asked_in_one_call():
    out = "ActiveState=active\nUnitFileState=enabled\n\nActiveState=inactive\nUnitFileState=\nX=a=b\n"
    run = Commands({"systemctl show": (0, out, "")})
    answer = _services.Systemd(run).show(["a.service", "b.timer"], ["ActiveState", "UnitFileState"])
    assert answer == {
        "a.service": {"ActiveState": "active", "UnitFileState": "enabled"},
        "b.timer": {"ActiveState": "inactive", "UnitFileState": "", "X": "a=b"},
    }
    assert run.asked == ["systemctl show --property=ActiveState,UnitFileState -- a.service b.timer"]


@pytest.mark.parametrize("name", ["start", "stop", "restart", "enable", "disable", "start_no_block", "reset_failed"])
def test_units_are_no_options(name):
    run = Commands()
    getattr(_services.Systemd(run), name)("-x.service")
    assert run.asked[0].endswith("-- -x.service") and run.asked[0].split()[1] == name.split("_no")[0].replace("_", "-")


@pytest.mark.parametrize("enable, asked", [([], "systemctl daemon-reload"), (["r.service"], "systemctl enable --quiet -- r.service")])
def test_units_are_read_once(enable, asked):
    run = Commands()
    _services.Systemd(run).daemon_reload("/etc/systemd/system/r.service", enable=enable)
    assert run.asked == [asked]


def test_a_refusal_has_systemds_words():
    run = Commands({"systemctl stop": (5, "", "Failed to stop x.service:\n Unit x.service not loaded.\n")})
    with pytest.raises(_services.ServiceError, match="^systemctl stop x.service failed: Failed to stop x.service: Unit x.service not"):
        _services.Systemd(run).stop("x.service")


def test_a_failed_start_tells_what_the_unit_wrote_without_keys():
    secret = base64.b64encode(os.urandom(32)).decode()
    run = Commands(
        {
            "systemctl start": (1, "", "Job for x.service failed."),
            "systemctl show": (0, "InvocationID=abc\n", ""),
            "journalctl": (0, "[#] ip link add wg0\nLine unrecognized: `%s'\nRTNETLINK answers: File exists\n" % secret, ""),
        }
    )
    with pytest.raises(_services.ServiceError) as caught:
        _services.Systemd(run).start("x.service")
    assert str(caught.value).endswith("Job for x.service failed.; it wrote: Line unrecognized: `(masked)' / RTNETLINK answers: File exists")
    assert run.asked[-1].endswith("_SYSTEMD_INVOCATION_ID=abc")


BANNER = """\
┌──────────────────────────────────────────────────────┐
│                                                      │
│   Running wireguard-go is not required because this  │
│   kernel has first class support for WireGuard.      │
└──────────────────────────────────────────────────────┘
"""


@pytest.mark.parametrize("journal, words", [
    (BANNER + "[#] resolvconf -a wg0 -m 0 -x\nFailed to set DNS configuration: Unit dbus-org.freedesktop.resolve1.service not found.\n",
     "Failed to set DNS configuration: Unit dbus-org.freedesktop.resolve1.service not found."),
    ("[#] ip -4 route add 192.168.1.0/24 dev wg0\nRTNETLINK answers: File exists\n[#] ip link delete dev wg0\n",
     "RTNETLINK answers: File exists (ip -4 route add 192.168.1.0/24 dev wg0: the host has a route to that network already; narrow gatecontrol_allowed_ips)"),
    (BANNER, ""), ("a\nb\nc\nd\ne\n", "b / c / d / e")])
def test_a_failed_start_tells_the_reason_and_no_banner(journal, words):
    """resolvectl finds the journal behind its errors, and writes there itself, so the transport of the unit's own output is not all."""
    run = Commands({"systemctl start": (1, "", "Job failed."), "systemctl show": (0, "InvocationID=abc\n", ""), "journalctl": (0, journal, "")})
    with pytest.raises(_services.ServiceError) as caught:
        _services.Systemd(run).start("x.service")
    assert str(caught.value) == "systemctl start x.service failed: Job failed." + ("; it wrote: " + words if words else "")
    assert "_TRANSPORT=stdout _TRANSPORT=journal" in run.asked[-1]


def test_a_start_without_end_is_given_up():
    run = Commands({"systemctl start": (124, "", "")})
    with pytest.raises(_services.ServiceError, match="takes longer than 7 s"):
        _services.Systemd(run).start("x.service", limit=7)


def test_whether_systemd_is_the_init(tmp_path):
    assert not _services.Systemd(Commands(), str(tmp_path)).available()
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert _services.Systemd(Commands(), str(tmp_path)).available()
