"""datasets/pages/archive_writer.py: what other tools and our reader find in archives and state, also after a kill."""
import hashlib
import json
import os
import random
import resource
import tarfile

import pytest

from configs.errors import UserError
from datasets.crawl import url_lists
from datasets.pages import archive_writer, archives

URLS = {3: "http://a.example/x", 7: "http://b.example/ü", 12_345_678: "https://c.example/"}


def write(folder, month="RS_2017-04", compression="xz", lines=URLS, closes=1):
    writer = archive_writer.Writer(str(folder), str(folder / "state" / f"{month}.txt"), month, compression)
    for line, url in lines.items():
        writer.add(line, url, f"<p>page {line} – ü".encode(), {"url": url, "elapsed": 0.5, "scraper": "raw"})
    for _ in range(closes):
        writer.close()
    return writer


@pytest.mark.parametrize("compression", ["xz", "bz2", "gz"])
def test_tarfile_alone_finds_the_format_of_openwebtext(tmp_path, compression):
    write(tmp_path, compression=compression)
    names = [f"{line:07d}-{hashlib.md5(url.encode()).hexdigest()}" for line, url in URLS.items()]
    assert names[0] == "0000003-" + hashlib.md5(b"http://a.example/x").hexdigest() and names[2].startswith("12345678-")
    for kind, suffix in (("data", ".txt"), ("meta", ".json")):
        with tarfile.open(tmp_path / f"RS_2017-04-1_{kind}.{compression}", f"r:{compression}") as tar:
            found = tar.getmembers()
            assert [member.name for member in found] == [name + suffix for name in names]
            assert {(m.mode, m.mtime, m.uid, m.gid, m.uname, m.gname, m.type) for m in found} == {
                (0o644, 0, 0, 0, "", "", tarfile.REGTYPE)}
            for member, (line, url) in zip(found, URLS.items()):
                data = tar.extractfile(member).read().decode()
                assert data == f"<p>page {line} – ü" if kind == "data" else json.loads(data) == {
                    "url": url, "elapsed": 0.5, "scraper": "raw"}
    assert (tmp_path / "state" / "RS_2017-04.txt").read_text() == "3\n7\n12345678\n"
    both = [f"RS_2017-04-1_{kind}.{compression}" for kind in ("data", "meta")]
    assert sorted(os.listdir(tmp_path)) == [*both, "state"]
    assert os.stat(tmp_path / f"RS_2017-04-1_data.{compression}").st_mode & 0o777 == 0o644


@pytest.mark.parametrize("compression", ["xz", "bz2", "gz"])
def test_what_was_written_is_read_in_order(tmp_path, compression):
    write(tmp_path, compression=compression)
    found = list(archives.members(archives.find(str(tmp_path), "RS_2017-04")[1]))
    assert [member[:3] for member in found] == [
        (archives.stem_of(line, url), f"<p>page {line} – ü".encode(), None) for line, url in URLS.items()]
    meta = archives.members(archives.find(str(tmp_path), "RS_2017-04", "meta")[1], suffixes=(".json",))
    assert [json.loads(data)["url"] for _, data, _, _ in meta] == list(URLS.values())


def test_archives_are_numbered_on_whatever_their_compression(tmp_path):
    write(tmp_path, compression="bz2", closes=2)
    write(tmp_path, lines={20: "http://d.example"})
    write(tmp_path, month="RS_2017-04-9", lines={20: "http://d.example"})  # another month, as the pattern goes
    assert {n: os.path.basename(path) for n, path in archives.find(str(tmp_path), "RS_2017-04").items()} == {
        1: "RS_2017-04-1_data.bz2", 2: "RS_2017-04-2_data.xz"}
    assert (tmp_path / "state" / "RS_2017-04.txt").read_text() == "3\n7\n12345678\n20\n"


def test_lines_without_a_page_make_no_archive(tmp_path):
    writer = write(tmp_path, lines={})
    writer.add(5)
    writer.add(4)
    writer.close()
    assert os.listdir(tmp_path) == ["state"]
    assert list(archive_writer.read_state(writer.state_path)) == [4, 5]


def test_what_is_abandoned_leaves_nothing(tmp_path):
    writer = archive_writer.Writer(str(tmp_path), str(tmp_path / "state" / "m.txt"), "m")
    writer.add(1, "http://a", b"page", {})
    assert all(name.startswith(".partial-") for name in os.listdir(tmp_path)) and len(os.listdir(tmp_path)) == 2
    writer.abandon()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("compression", ["xz", "bz2", "gz"])
def test_a_full_disk_leaves_neither_of_the_two_and_the_next_archive_is_sound(tmp_path, compression):
    writer = archive_writer.Writer(str(tmp_path), str(tmp_path / "state" / "m.txt"), "m", compression)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            writer.add(1, "http://a", random.Random(1).randbytes(100_000), {})
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path) and os.listdir(tmp_path) == []
    writer.add(2, "http://b", b"page", {})
    writer.close()
    assert [member[1] for member in archives.members(archives.find(str(tmp_path), "m")[1])] == [b"page"]
    assert list(archive_writer.read_state(writer.state_path)) == [2]


def test_gzip_notes_no_name_of_a_temporary_file(tmp_path):
    write(tmp_path, compression="gz")
    assert (tmp_path / "RS_2017-04-1_data.gz").read_bytes()[:4] == b"\x1f\x8b\x08\0"  # RFC 1952: no flag


def test_a_state_that_a_kill_cut_short_loses_its_last_line_only(tmp_path):
    path = str(tmp_path / "state" / "m.txt")
    archive_writer.note_finished(path, [(12, "saved"), (5, "http_404")])
    with open(path, "a") as f:
        f.write("1234")
    assert list(archive_writer.read_state(path)) == [5, 12]
    archive_writer.note_finished(path, [(1239, "saved")])
    with open(path) as f:
        assert f.read() == "5\n12\n1239\n"


def test_a_state_of_something_else_is_an_error(tmp_path):
    (tmp_path / "m.txt").write_text("1\n2\nthree\n")
    with pytest.raises(UserError, match="m.txt line 3: b'three"):
        list(archive_writer.read_state(str(tmp_path / "m.txt")))


def test_a_full_disk_leaves_the_state_as_it_was(tmp_path):
    path = str(tmp_path / "m.txt")
    archive_writer._append(path, b"1\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, before[1]))  # two bytes of the new ones still fit
    try:
        with pytest.raises(OSError, match="File too large"):
            archive_writer._append(path, b"3\n23\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with open(path) as f:
        assert f.read() == "1\n"


def test_outcomes_of_finished_lines_are_counted_the_last_of_each(tmp_path):
    path = str(tmp_path / "m.txt")
    archive_writer.note_finished(path, [(7, "saved"), (3, "http_404"), (4, "saved")])
    archive_writer.note_finished(path, [(3, "saved"), (9, "tls")])
    with open(tmp_path / "m.outcomes", "a") as f:
        f.write("nonsense\n12 saved")
    finished = url_lists.Lines([3, 4, 7, 11, 12])
    assert archive_writer.earlier_outcomes(path, finished) == {"saved": 3, "earlier": 2}
    archive_writer.note_finished(path, [(7, "too_big 50")])
    assert archive_writer.earlier_outcomes(path, finished) == {"saved": 2, "too_big": 1, "earlier": 2}
    assert [*archive_writer.notes(path)][-2:] == [(9, "tls", None), (7, "too_big", 50)]
    assert archive_writer.earlier_outcomes(str(tmp_path / "none.txt"), finished) == {"earlier": 5}
