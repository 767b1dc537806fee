"""The files of a host's enrollment: whole or not at all, private, and read back as they were."""
from __future__ import annotations

import os
import stat
import time

import pytest
from ansible_collections.callmetechie.gatecontrol.plugins.module_utils import _enrollment
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def store(tmp_path):
    return _enrollment.Store(str(tmp_path))


def mode(path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_digest_is_sha256_in_hex():
    assert _enrollment.digest("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert _enrollment.digest("ü") == _enrollment.digest("ü".encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_read_back_as_they_were(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(data)
    text = _enrollment.read_text(str(path))
    _enrollment.write_text(str(path), text)
    assert path.read_bytes() == data and _enrollment.digest(text) == _enrollment.digest(data)


def test_files_are_private_and_folders_too(store):
    for name in _enrollment.FILES:
        store.save(name, "x")
        assert mode(store.path(name)) == 0o600 and mode(os.path.dirname(store.path(name))) == 0o700


def test_objects_and_texts(store):
    assert store.load("enrollment") is None and store.text("token") is None
    store.save("enrollment", {"peer_id": 5})
    store.save("token", "gc_x\n")
    assert store.load("enrollment") == {"peer_id": 5} and store.text("token") == "gc_x\n"
    assert store.drop("enrollment", "token") and not store.drop("enrollment", "token")
    assert store.load("enrollment") is None


@pytest.mark.parametrize("text", ["", "{", "[1]", "5", "null", "\x00"])
def test_a_damaged_record_is_none(store, text):
    store.save("enrollment", text)
    assert store.load("enrollment") is None


def test_a_folder_in_the_place_of_a_file_is_no_file(store, tmp_path):
    (tmp_path / "etc").write_text("a file", encoding="ascii")
    assert store.text("token") is None and not store.drop("token")


@pytest.mark.parametrize("broken", ["fsync", "rename", "fchmod"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(store, monkeypatch, broken):
    store.save("token", "old")

    def fail(*_args):
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(OSError):
            store.save("token", "new")
    assert store.text("token") == "old" and os.listdir(os.path.dirname(store.path("token"))) == ["token"]


@pytest.mark.parametrize("ago", [61, 365 * 86400, -365 * 86400])
@pytest.mark.parametrize("act", [lambda path: _enrollment.write_text(path, "new"), _enrollment.remove_file])
def test_what_a_killed_writer_left_goes_and_what_is_being_written_stays(tmp_path, monkeypatch, act, ago):
    path = tmp_path / "wg0.conf"

    def killed(source, _target):
        raise MemoryError(source)

    monkeypatch.setattr(os, "rename", killed)
    monkeypatch.setattr(os, "unlink", lambda _path: None)
    for _writer in "ab":
        with pytest.raises(MemoryError):
            _enrollment.write_text(str(path), "secret")
    monkeypatch.undo()
    old, young = tmp_path.iterdir()
    os.utime(old, (time.time() - ago,) * 2)
    for name in (".gatecontrol.wg1.conf.x", ".gatecontrolled"):  # of another file, and somebody's own
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    act(str(path))
    assert {file.name for file in tmp_path.iterdir()} - {"wg0.conf"} == {young.name, ".gatecontrolled"}


def test_nothing_is_removed_where_nothing_is(tmp_path, monkeypatch):
    """A file system that is read-only refuses that before it looks whether the file is there."""
    def refused(path):
        raise OSError(30, "Read-only file system", path)

    monkeypatch.setattr(os, "unlink", refused)
    assert _enrollment.remove_file(str(tmp_path / "none")) is False and _enrollment.remove_file(str(tmp_path / "none/none")) is False
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OSError, match="Read-only"):
        _enrollment.remove_file(str(tmp_path / "link"))


def test_mode_and_owner(tmp_path):
    path = str(tmp_path / "file")
    _enrollment.write_text(path, "x", 0o640, os.getuid(), os.getgid())
    assert mode(path) == 0o640


def test_a_link_is_replaced_and_its_target_left_alone(store, tmp_path):
    (tmp_path / "elsewhere").write_text("untouched", encoding="ascii")
    store.save("settings", {})
    os.symlink(tmp_path / "elsewhere", store.path("token"))
    store.save("token", "gc_x")
    assert (tmp_path / "elsewhere").read_text(encoding="ascii") == "untouched" and not os.path.islink(store.path("token"))
