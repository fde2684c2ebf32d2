"""Local files: written whole or not at all, and locked for one process at a time."""
import errno
import os
import stat

import pytest
import tensorflow as tf

from configs import storage
from configs.errors import UserError


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600)])
def test_file_gets_the_rights_that_the_user_gives_to_new_files(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        storage.write_whole(str(tmp_path / "new" / "file"), "ü")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "file").stat().st_mode) == mode
    assert (tmp_path / "new" / "file").read_bytes() == "ü".encode()


def test_write_that_fails_leaves_what_was_there_and_names_the_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    storage.write_whole(str(path), b"old")

    def full(handle):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        storage.write_whole(str(path), b"new")
    assert caught.value.filename == str(path)
    assert os.listdir(tmp_path) == ["file"] and path.read_bytes() == b"old"


@pytest.mark.parametrize("path, mode, number", [("/proc/self/mem", "rb", errno.EIO), ("/dev/full", "a", errno.ENOSPC),
                                                ("/dev/full", "wb", errno.ENOSPC)])
def test_reading_and_writing_that_fail_name_the_file(path, mode, number):
    if not os.path.exists(path):
        pytest.skip(f"no {path} here")
    with pytest.raises(OSError) as caught, storage.open_file(path, mode) as f:
        if mode == "rb":
            f.read()
        else:
            f.write("x" if mode == "a" else b"x")
            f.flush()
    assert (caught.value.filename, caught.value.errno) == (path, number)


def test_files_are_those_of_open(tmp_path):
    path = str(tmp_path / "file")
    with storage.open_file(path, "w") as f:
        f.write("ü\r\n" * 5000)
    with storage.open_file(path, "a") as f:
        f.write("end\n")
    with storage.open_file(path) as f:
        lines = list(f)
    assert lines == ["ü\r\n"] * 5000 + ["end\n"] and storage.read_bytes(path).endswith(b"\r\nend\n")
    with storage.open_file(path, "rb") as f:
        f.seek(-4, os.SEEK_END)
        assert f.read(2) == b"en" and f.read() == b"d\n"


@pytest.mark.parametrize("error, said", [
    (RuntimeError("run/events.out.tfevents.1.vm; No space left on device"),
     "run/events.out.tfevents.1.vm: no space left on the disk"),
    (tf.errors.UnknownError(None, None, "a/model.ckpt.index; Input/output error"),
     "a/model.ckpt.index: Input/output error"),
    (tf.errors.ResourceExhaustedError(None, None, "No space left on device"), "no space left on the disk"),
    (RuntimeError("Input/output error"), None), (ValueError("a; No space left on device"), None)])
def test_what_tensorflow_says_of_a_file_names_it(error, said):
    assert storage.blame(error) == said


def test_lock_is_held_by_one_at_a_time_and_its_file_goes_with_it(tmp_path):
    path = str(tmp_path / "new" / "lock")
    with storage.only_run(path, "wait"):
        assert storage.lock(path) is None
        with pytest.raises(UserError, match="another run holds .*lock; wait for it, or choose another"), \
                storage.only_run(path, "choose another"):
            pass
    assert os.listdir(tmp_path / "new") == []
    with storage.lock(path) as file:
        assert file and storage.lock(path) is None
    assert storage.lock(path)


def test_new_folder_is_there_when_it_is_complete_and_never_in_place_of_another(tmp_path):
    path = tmp_path / "new"
    with pytest.raises(KeyError), storage.new_folder(str(path)) as folder:
        storage.write_whole(os.path.join(folder, "half"), "x")
        raise KeyError
    assert os.listdir(tmp_path) == []
    with storage.new_folder(f"{path}/") as folder:
        storage.write_whole(os.path.join(folder, "whole"), "x")
        assert not path.exists()
    assert os.listdir(tmp_path) == ["new"] and os.listdir(path) == ["whole"]
    (tmp_path / "link").symlink_to("nowhere")
    for taken in (path, path / "whole", tmp_path / "link"):
        with pytest.raises(UserError, match=f"{taken} exists and is no empty folder"), storage.new_folder(str(taken)):
            pass
