"""Local files: written whole or not at all, and locked for one process at a time."""
import errno
import os
import resource
import stat

import pytest

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


def test_a_lock_that_cannot_be_made_is_told_by_its_folder_of_which_the_user_knows():
    with pytest.raises(OSError) as caught:
        storage.lock("/proc/.out.lock")
    assert caught.value.filename == "/proc"


def test_a_file_that_has_the_name_of_a_lock_keeps_what_it_holds(tmp_path):
    (tmp_path / ".out.lock").write_text("precious")
    for _ in range(2):
        with storage.new_folder(str(tmp_path / "out")), pytest.raises(UserError, match="another run holds"), \
                storage.only_run(str(tmp_path / ".out.lock"), "wait"):
            pass
        (tmp_path / "out").rmdir()
        assert (tmp_path / ".out.lock").read_text() == "precious"
    (tmp_path / "target").write_text("dear")
    for target in ("target", "nowhere"):
        (tmp_path / ".new.lock").symlink_to(target)
        with pytest.raises(UserError, match=r"/\.new\.lock is a link, and a lock"), storage.new_folder(
                str(tmp_path / "new")):
            pass
        (tmp_path / ".new.lock").unlink()
    assert (tmp_path / "target").read_text() == "dear" and sorted(os.listdir(tmp_path)) == [".out.lock", "target"]


def test_new_folder_is_there_when_it_is_complete_and_never_in_place_of_another(tmp_path):
    path = tmp_path / "new"
    with pytest.raises(KeyError), storage.new_folder(str(path)) as folder:
        storage.write_whole(os.path.join(folder, "half"), "x")
        raise KeyError
    assert os.listdir(tmp_path) == []
    with storage.new_folder(f"{path}/") as folder:
        storage.write_whole(os.path.join(folder, "whole"), "x")
        assert not path.exists()
        with pytest.raises(UserError, match=r"another run holds .*/\.new\.lock; wait for it, or give another folder"), \
                storage.new_folder(str(path)):
            pass
    assert os.listdir(tmp_path) == ["new"] and os.listdir(path) == ["whole"]
    (tmp_path / "link").symlink_to("nowhere")
    for taken in (path, path / "whole", tmp_path / "link"):
        with pytest.raises(UserError, match=f"{taken} exists and is no empty folder"), storage.new_folder(str(taken)):
            pass


def test_new_folder_removes_what_a_killed_run_left_of_it_and_nothing_else(tmp_path):
    others = ["new.partial", ".partial-new", ".partial-new-mine", ".partial-newer-0123456789abcdef", ".new.partial"]
    for name in [*others, ".partial-new-0123456789abcdef"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    with storage.new_folder(str(tmp_path / "new")) as folder:
        assert os.path.dirname(folder) == str(tmp_path) and not os.listdir(folder)
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "new"])


@pytest.mark.parametrize("mask, mode", [(0o022, 0o755), (0o007, 0o770)])
def test_new_folder_gets_the_rights_that_the_user_gives_to_new_folders(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with storage.new_folder(str(tmp_path / "new")):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode


@pytest.mark.parametrize("path", [".", "{}/here/", "../here/.", "/", "/dev"])
def test_a_new_folder_that_could_not_take_its_place_is_refused_before_any_work(path, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="is the current folder or a mount point, which no"), storage.new_folder(
            path.format(tmp_path)):
        raise AssertionError
    assert os.listdir(tmp_path) == ["here"]


def test_an_empty_folder_is_replaced_by_a_new_one_but_not_where_it_is_a_link(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="/link exists and is no empty folder"), storage.new_folder("link/"):
        raise AssertionError
    with storage.new_folder("empty/.") as folder:
        storage.write_whole(os.path.join(folder, "file"), "x")
    assert (tmp_path / "empty" / "file").read_text() == "x"


@pytest.mark.parametrize("path, sign", [("runs/a[1]", "["), ("what?/b", "?"), ("*", "*"), ("c:\\d", "\\"),
                                        ("gs://b/[x", "[")])
def test_path_that_tensorflow_takes_for_a_pattern_is_refused_with_the_reason(path, sign):
    with pytest.raises(UserError) as caught, storage.new_folder(path):
        pass
    assert str(caught.value) == (f"the new folder {path} holds {sign}, and TensorFlow takes * ? [ \\ in the path of a"
                                 " checkpoint for wildcards; choose a path without them")


def test_a_new_folder_below_one_that_tensorflow_takes_for_a_pattern_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a[1]").mkdir()
    monkeypatch.chdir(tmp_path / "a[1]")
    with pytest.raises(UserError, match=r"the new folder /.*/a\[1\]/new holds \[, and"), storage.new_folder("new"):
        pass
    assert os.listdir(tmp_path / "a[1]") == []


def test_what_killed_runs_left_is_cleared_but_for_folders_which_may_be_in_use(tmp_path):
    (tmp_path / ".partial-export-0123456789abcdef").mkdir()
    for name in (".partial-1", "mine.partial"):
        (tmp_path / name).write_text("x")
    storage.clear(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [".partial-export-0123456789abcdef", "mine.partial"]


def test_path_of_other_bytes_than_utf_8_is_refused_where_tensorflow_would_fail(tmp_path):
    with pytest.raises(UserError, match=r"the folder 'a\\udcff' is not UTF-8 text"):
        storage.check_for_tensorflow(os.fsdecode(b"a\xff"), "the folder")
    storage.check_for_tensorflow("Straße {a,b} ]!~\"'", "the folder")


def test_text_that_does_not_fit_the_disk_leaves_the_file_as_it_was_and_names_it(tmp_path):
    path = tmp_path / "samples.txt"
    path.write_text("one whole sample\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # as a disk with so much room
    try:
        storage.append_whole(str(path), "ü\n")
        with pytest.raises(OSError) as caught:
            storage.append_whole(str(path), "x" * 500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG and caught.value.filename == str(path)
    assert path.read_text() == "one whole sample\nü\n"


def test_text_can_be_added_to_what_is_no_file():
    read, write = os.pipe()
    storage.append_whole(f"/dev/fd/{write}", "x\n")
    assert os.read(read, 9) == b"x\n"
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        storage.append_whole("/dev/full", "x")
    os.close(read)
    os.close(write)
