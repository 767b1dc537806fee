"""Proof that a host has its peer's private key."""
from __future__ import annotations

import base64
import json
import os
import pathlib

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment, _proof, _wgconf, _x25519
from hypothesis import given, settings, strategies as st

VECTORS = json.loads((pathlib.Path(__file__).resolve().parents[3] / "vectors/proof.json").read_text(encoding="ascii"))
A, B = VECTORS["proofs"][:2]


def config(key):
    return "[Interface]\nPrivateKey = %s\nAddress = 10.8.0.2/32\n" % key


def test_the_label_is_the_one_of_the_vectors():
    assert _proof.LABEL.decode() == VECTORS["label"]


@pytest.mark.parametrize("vector", VECTORS["proofs"])
def test_both_sides_come_to_the_same(vector):
    assert _proof.of_key(vector["private_key"], vector["challenge"]) == vector["proof"]
    assert _proof.of_key(vector["challenge_private"], vector["public_key"]) == vector["proof"]
    assert _wgconf.public_key(vector["private_key"]) == vector["public_key"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["why"])
def test_what_is_no_challenge_is_not_answered(vector):
    assert _proof.of_key(vector["private_key"], vector["challenge"]) is None


@given(private=st.binary(min_size=32, max_size=32), other=st.binary(min_size=32, max_size=32))
@settings(max_examples=30, deadline=None)
def test_the_library_agrees(private, other):
    x25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.x25519")
    point = _x25519.multiply(other, _x25519.BASE_POINT)
    expected = x25519.X25519PrivateKey.from_private_bytes(private).exchange(x25519.X25519PublicKey.from_public_bytes(point))
    assert _x25519.multiply(private, point) == expected
    assert _proof.of_key(base64.b64encode(os.urandom(32)).decode(), base64.b64encode(point).decode()) != _proof.of_key(
        base64.b64encode(private).decode(), base64.b64encode(point).decode())


def test_a_host_answers_by_the_newest_config_it_has(tmp_path):
    store, path = _enrollment.Store(str(tmp_path)), str(tmp_path / "wg0.conf")
    assert _proof.of_host(store, path, A["challenge"]) is None
    _enrollment.write_text(path, config(A["private_key"]))
    assert _proof.of_host(store, path, A["challenge"]) == A["proof"]
    assert _proof.of_host(store, path, None) is None
    store.save("issued", config(B["private_key"]))
    assert _proof.of_host(store, path, B["challenge"]) == B["proof"]
    store.save("offered", config(A["private_key"]))
    assert _proof.of_host(store, path, A["challenge"]) == A["proof"]
    store.save("offered", "no config")
    assert _proof.of_host(store, path, B["challenge"]) == B["proof"]
