"""datasets/archives.py: what other tools find in our archives, and what ours make of theirs, whole or damaged."""
import collections
import hashlib
import io
import json
import os
import resource
import tarfile
import tracemalloc

import pytest

from configs.errors import UserError
from datasets.pages import archives

URLS = {3: "http://a.example/x", 7: "http://b.example/ü", 12_345_678: "https://c.example/"}


def write(folder, month="RS_2017-04", compression="xz", lines=URLS, closes=1):
    writer = archives.Writer(str(folder), str(folder / "state" / f"{month}.txt"), month, compression)
    for line, url in lines.items():
        writer.add(line, url, f"<p>page {line} – ü".encode(), {"url": url, "elapsed": 0.5, "scraper": "raw"})
    for _ in range(closes):
        writer.close()
    return writer


def tar_of(path, *members, compression="gz"):
    """An archive of (name, data) or of TarInfos."""
    with tarfile.open(path, "w:" + compression) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return str(path)


def read(path, **options):
    outcomes = collections.Counter()
    return list(archives.pages(str(path), outcomes=outcomes, **options)), outcomes


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
    found, outcomes = read(archives.find(str(tmp_path), "RS_2017-04")[1])
    assert found == [(archives.stem_of(line, url), f"<p>page {line} – ü".encode()) for line, url in URLS.items()]
    assert outcomes == {"page": 3}
    meta = archives.members(archives.find(str(tmp_path), "RS_2017-04", "meta")[1], (".json",))
    assert [json.loads(data)["url"] for _, data in meta] == list(URLS.values())


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
    assert list(archives.read_state(writer.state_path)) == [4, 5]


def test_what_is_abandoned_leaves_nothing(tmp_path):
    writer = archives.Writer(str(tmp_path), str(tmp_path / "state" / "m.txt"), "m")
    writer.add(1, "http://a", b"page", {})
    assert all(name.startswith(".partial-") for name in os.listdir(tmp_path)) and len(os.listdir(tmp_path)) == 2
    writer.abandon()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name, month", [
    ("RS_2017-04.txt", "RS_2017-04"), ("x/RS_v2_2005-12.xz.deduped.txt", "RS_v2_2005-12"),
    ("RS_2017-04-12_data.xz", "RS_2017-04"), ("urls.txt", "urls"), ("urls-3_data.bz2", "urls"),
    ("openwebtext/urlsf_subset07-995_data.xz", "urlsf_subset07"), ("a.b.txt", "a.b"), ("RS_1999-04.txt", "RS_1999-04")])
def test_the_month_comes_from_the_name(name, month):
    assert archives.month_of(name) == month


def test_a_state_that_a_kill_cut_short_loses_its_last_line_only(tmp_path):
    path = str(tmp_path / "state" / "m.txt")
    archives.append_state(path, [12, 5])
    with open(path, "a") as f:
        f.write("1234")
    assert list(archives.read_state(path)) == [5, 12]
    archives.append_state(path, [1239])
    with open(path) as f:
        assert f.read() == "5\n12\n1239\n"


def test_a_state_of_something_else_is_an_error(tmp_path):
    (tmp_path / "m.txt").write_text("1\n2\nthree\n")
    with pytest.raises(UserError, match="m.txt line 3: b'three"):
        list(archives.read_state(str(tmp_path / "m.txt")))


def test_a_full_disk_leaves_the_state_as_it_was(tmp_path):
    path = str(tmp_path / "m.txt")
    archives.append_state(path, [1])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, before[1]))  # two bytes of the new ones still fit
    try:
        with pytest.raises(OSError, match="File too large"):
            archives.append_state(path, [23, 3])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with open(path) as f:
        assert f.read() == "1\n"


def test_unsafe_members_are_counted_and_skipped(tmp_path):
    def special(name, kind, link=""):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        return info
    path = tar_of(
        tmp_path / "x.gz", ("/etc/passwd.txt", b"a"), ("../up.txt", b"b"), ("in/../../up.txt", b"c"),
        ("a\\b.txt", b"d"), ("line\nbreak.txt", b"e"), ("n" * 300 + ".txt", b"f"), ("...txt", b"g"),
        special("link.txt", tarfile.SYMTYPE, "/etc/passwd"), special("hard.txt", tarfile.LNKTYPE, "good.txt"),
        special("device.txt", tarfile.CHRTYPE), special("pipe.txt", tarfile.FIFOTYPE),
        special("folder.txt", tarfile.DIRTYPE), ("about.json", b"{}"),
        ("./good.txt", b"good"), ("sub/page.html", b"<p>"), ("other/good.txt", b"again"),
        ("big.txt", b"x" * 11), ("last.txt", b"0123456789"))
    found, outcomes = read(path, max_bytes=10)
    assert found == [("good", b"good"), ("page", b"<p>"), ("last", b"0123456789")]
    assert outcomes == {"unsafe_name": 6, "not_a_file": 5, "other_suffix": 2, "repeated_name": 1, "too_big": 1,
                        "page": 3}


@pytest.mark.parametrize("compression", ["xz", "bz2", "gz"])
def test_wherever_an_archive_is_cut_it_says_so_after_the_pages_before(tmp_path, compression):
    pages = [(f"{i:07d}-a.txt", os.urandom(3000)) for i in range(7)]
    with open(tar_of(tmp_path / "whole", *pages, compression=compression), "rb") as f:
        whole = f.read()
    assert len(read(tmp_path / "whole")[0]) == 7
    most = -1
    for size in (11, 40, 1000, len(whole) // 2, len(whole) - 500, len(whole) - 9, len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:size])
        found = []
        with pytest.raises(UserError, match=rf"cut is truncated or damaged near byte {size} of {size}, after \d page"):
            for _, data in archives.pages(str(tmp_path / "cut")):
                found.append(data)
        assert found == [data for _, data in pages[:len(found)]] and len(found) >= most
        most = len(found)
    assert most == 7  # of the last cut, in the checksums


@pytest.mark.parametrize("compression", ["xz", "bz2", "gz"])
def test_a_spoiled_byte_is_found(tmp_path, compression):
    with open(tar_of(tmp_path / "x", ("a.txt", os.urandom(5000)), ("b.txt", b"b"), compression=compression), "rb") as f:
        data = bytearray(f.read())
    data[len(data) // 2] ^= 1
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UserError, match="truncated or damaged"):
        read(tmp_path / "x")


def compressed(path, data):
    with archives.gzip.open(path, "wb") as f:
        f.write(data)
    return path


def test_a_tar_that_was_cut_before_it_was_compressed_is_found(tmp_path):
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as t:
        for name in ("a.txt", "b.txt"):
            info = tarfile.TarInfo(name)
            info.size = 600
            t.addfile(info, io.BytesIO(b"x" * 600))
    whole = tar.getvalue()
    assert len(read(compressed(tmp_path / "x", whole))[0]) == 2
    for end, problem in ((3072, "empty header"), (1536 + 100, "truncated header"),
                         (1536 + 512 + 30, "unexpected end of data"), (0, "empty header")):
        with pytest.raises(UserError, match=problem):
            read(compressed(tmp_path / "x", whole[:end]))
    with pytest.raises(UserError, match="bad checksum"):
        read(compressed(tmp_path / "x", whole[:1536] + b"y" + whole[1537:]))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_name_that_would_fill_the_memory_is_refused(tmp_path, kind):
    info = tarfile.TarInfo("x.txt")
    info.type, info.size = kind, 1 << 30
    data = info.tobuf() + bytes(1 << 24)
    with pytest.raises(UserError, match="a header of 1073741824 bytes"):
        read(compressed(tmp_path / "x", data))


def test_pages_of_any_number_and_size_need_the_memory_of_one(tmp_path):
    def many():
        for i in range(400):
            info = tarfile.TarInfo(f"{i:07d}-x.txt")
            info.size = 200_000
            yield info
    with tarfile.open(tmp_path / "x", "w:gz", compresslevel=1) as tar:
        for info in many():
            tar.addfile(info, io.BytesIO(bytes(200_000)))
        info = tarfile.TarInfo("bomb.txt")
        info.size = 1 << 26
        tar.addfile(info, io.BytesIO(bytes(1 << 26)))
    tracemalloc.start()
    assert sum(len(data) for _, data in archives.pages(str(tmp_path / "x"))) == 80_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("content", [b"no archive at all", b"PK\3\4 zip"])
def test_what_is_no_archive_is_an_error(tmp_path, content):
    (tmp_path / "x.xz").write_bytes(content)
    with pytest.raises(UserError, match="x.xz is truncated or damaged.*neither xz, bz2 nor gz"):
        read(tmp_path / "x.xz")
    with pytest.raises(UserError, match="nowhere.xz: No such file"):
        read(tmp_path / "nowhere.xz")


def test_the_contents_count_not_the_name(tmp_path):
    write(tmp_path, compression="gz")
    os.rename(tmp_path / "RS_2017-04-1_data.gz", tmp_path / "RS_2017-04-1_data.xz")
    assert len(read(tmp_path / "RS_2017-04-1_data.xz")[0]) == 3
