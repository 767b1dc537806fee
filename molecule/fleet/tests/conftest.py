"""The scenario "fleet" as molecule has left it after converge: eight hosts, enrolled with the administrator's login."""
from __future__ import annotations

import pathlib
import random
import re
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "shared"))

from scenario import CHECKOUT, TRACES, Scenario  # noqa: E402

from gateserver.running import ADMIN  # noqa: E402

sys.path.insert(0, str(CHECKOUT / "build"))  # the collection's own code asks the server as an administrator

from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _session  # noqa: E402


class Fleet(Scenario):
    """Eight hosts, the playbooks that a user has of the collection, and an administrator's eyes."""

    NO_SECRET = {"gatecontrol_admin_user": "", "gatecontrol_admin_password": ""}
    NEW_CONNECTION = ("-e", "ansible_ssh_timeout=3", "-e", "ansible_ssh_args=-C")  # none of an earlier run, which a blocked host keeps

    def run(self, name: str, *words: str, **options):
        """Play one of the collection's playbooks; options as for start()."""
        return self.play(*words, playbook=CHECKOUT / "playbooks" / (name + ".yml"), **options)

    def offer_dark(self, host: str, text: str) -> None:
        """Have the server offer a host a config whose WireGuard peer answers nobody (RFC 5737); text: a config to begin with."""
        # Another key, too: a peer that is known sends by itself, and is then answered at the address it sent from.
        dark = re.sub("^Endpoint = .*", "Endpoint = 198.51.100.9:51820", re.sub("^PublicKey = .*", "PublicKey = %sA=" % ("Dark" * 11)[:42], text, flags=re.M),
                      flags=re.M)
        self.fault("config", text=dark, token="ansible: " + host)

    def admin(self, url: str | None = None) -> _session.Admin:
        """An administrator's session that is no login of a play's."""
        self.ask("reset", url)
        admin = _session.Admin({"url": url or self.url, "validate_certs": False})
        admin.transport.login(*ADMIN.split(":"))
        self.ask("reset", url)
        return admin

    def tokens(self, url: str | None = None) -> list:
        """Every client token that the server knows."""
        return [token for token in self.admin(url).tokens() if "client" in token["scopes"]]

    def revoke(self, name: str | None = None) -> None:
        """Have the server forget the tokens of this name, or all."""
        admin = self.admin()
        for token in admin.tokens():
            if name in (None, token["name"]):
                admin.revoke(token["id"])

    def unenroll(self, check: bool = True) -> None:
        """No host and no peer is enrolled, and the server knows no token."""
        self.wipe(check=check)
        self.revoke()

    def left(self, host: str) -> str:
        """What is on a host of an enrollment, its packages aside; "" for nothing."""
        return self.on(host, "ls -d %s 2>/dev/null; wg show interfaces; ip link show wg0 2>/dev/null; true" % TRACES).strip()

    def killed_at_random_moments(self, whole: float, count: int, url: str | None = None, tokens: bool = True, **given) -> None:
        """Each time the hosts are enrolled anew, the run is killed and run again, and each host has one peer.

        whole: seconds that a run takes which is not killed. given: variables of the play.
        """
        seed = random.SystemRandom().randrange(10**6)
        dice = random.Random(seed)
        moments = sorted(dice.uniform(0.1, 0.9) * whole for _number in range(count))
        print("seed %d: killed after %s s of %.1f s" % (seed, ", ".join("%.1f" % moment for moment in moments), whole))
        for moment in moments:
            while True:
                if tokens:
                    self.unenroll()
                else:
                    self.wipe(url)
                assert self.peers(url) == {}
                # The run that follows waits for a change that the killed one has left unconfirmed.
                begun = self.start(gatecontrol_confirm_timeout=20, **given)
                time.sleep(moment)
                if begun[0].poll() is None:
                    break
                self.finish(begun).ok()  # it was quicker than the whole one
                moment /= 2
            self.kill(begun)
            self.ask("reset")
            self.play(**given).ok()
            self.settled(url=url, tokens=tokens)

    def settled(self, hosts: list | None = None, url: str | None = None, tokens: bool = True) -> None:
        """Each of these hosts has one peer that is connected and one token that is bound to it; there is no other peer or token."""
        hosts = sorted(hosts or self.hosts)
        peers = self.peers(url)
        assert sorted(peers) == hosts
        if tokens:
            assert sorted(token["peer_id"] for token in self.tokens(url)) == sorted(peer["id"] for peer in peers.values())
        for host in hosts:
            shown = self.shown(host)
            assert (shown["peer_id"], shown["status"], shown["pending"]) == (peers[host]["id"], "connected", False), shown
            assert shown["reporting"] == ("full" if tokens else "none")


@pytest.fixture(scope="session")
def room():
    """Hosts, server and plays."""
    return Fleet("fleet")


@pytest.fixture(scope="session")
def whole(room):
    """How many seconds a run takes that enrolls the fleet."""
    room.unenroll()
    return room.play().ok().seconds


@pytest.fixture(autouse=True)
def _each_test_finds_an_enrolled_fleet(request, room):
    """A test leaves the hosts enrolled; where one failed, they are brought there again for the next one."""
    failed = request.session.testsfailed
    room.ask("reset")
    yield
    room.no_faults()
    if request.session.testsfailed > failed:
        start_over(room)


def start_over(room) -> None:
    """All hosts enrolled anew, whatever state they and the server are in."""
    room.unenroll(check=False)
    room.play()
