"""datasets/pages/archives.py: what the reader makes of the archives of other tools, whole or damaged."""
import bz2
import collections
import gzip
import io
import lzma
import os
import random
import tarfile
import time
import tracemalloc

import pytest

from configs.errors import UserError
from datasets.pages import archives
from tests.datasets.pages.test_archive_writer import write


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
    """([(stem, page)], {reason or "page": members})."""
    members = list(archives.members(str(path), **options))
    return ([(stem, page) for stem, page, reason, _ in members if not reason],
            collections.Counter(reason or "page" for _, _, reason, _ in members))


@pytest.mark.parametrize("name, month", [
    ("RS_2017-04.txt", "RS_2017-04"), ("x/RS_v2_2005-12.xz.deduped.txt", "RS_v2_2005-12"),
    ("RS_2017-04-12_data.xz", "RS_2017-04"), ("urls.txt", "urls"), ("urls-3_data.bz2", "urls"),
    ("openwebtext/urlsf_subset07-995_data.xz", "urlsf_subset07"), ("a.b.txt", "a.b"), ("RS_1999-04.txt", "RS_1999-04")])
def test_the_month_comes_from_the_name(name, month):
    assert archives.month_of(name) == month


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
            for _, data, _, _ in archives.members(str(tmp_path / "cut")):
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
    assert sum(len(data or b"") for _, data, _, _ in archives.members(str(tmp_path / "x"))) == 80_000_000
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


def header(name="big.txt", size=2**62, kind=tarfile.REGTYPE, pax=None):
    """The bytes of a member's header, with pax headers before it."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.pax_headers = size, kind, pax or {}
    return info.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT)


def archive_of(path, data, module=gzip):
    path.write_bytes(module.compress(data))
    return str(path)


GOOD = header("0000001-a.txt", 5) + b"a page".ljust(512, b"\0")
ENDS_EARLY = "a member is longer than what is left|unexpected end of data"


@pytest.mark.parametrize("module", [gzip, bz2, lzma])
@pytest.mark.parametrize("what, words", [
    (header(), ENDS_EARLY), (header(size=2**80), ENDS_EARLY), (header(size=6000), ENDS_EARLY),
    (header("big.bin"), ENDS_EARLY), (header("../x.txt"), ENDS_EARLY), (header(kind=b"7", size=2**40), ENDS_EARLY),
    (header(size=4, pax={"size": str(2**62)}), ENDS_EARLY), (header(size=4, pax={"size": "9" * 4000}), ENDS_EARLY),
    (header(size=4, pax={"size": "-1024"}), "damaged"),
    (header(size=4, pax={"path": "a" * 10**5 + ".txt"}), "header of"),
    (header(size=4, pax={"GNU.sparse.realsize": "9"}) + bytes(1536), "sparse files"),
    (header(size=2**62, kind=tarfile.GNUTYPE_LONGNAME), "a header of"),
    (header(size=2**62, kind=tarfile.XHDTYPE), "a header of"),
    (header(size=2**62, kind=tarfile.XGLTYPE), "a header of"),
    (header(size=512, pax={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x.txt",
                           "GNU.sparse.realsize": str(2**62)}) + str(2**62).encode().ljust(512, b"\n"), "sparse files"),
    (header(size=0, pax={"GNU.sparse.map": "0,1," * 4000 + "0,1"}), "header of|sparse files"),
    (header(kind=tarfile.GNUTYPE_SPARSE, size=5), "sparse files"),
    ((header("././@LongLink", 5, tarfile.GNUTYPE_LONGNAME) + b"a.txt".ljust(512, b"\0")) * 2000, "recursion"),
])
def test_what_a_header_tells_is_held_against_what_is_there(tmp_path, module, what, words):
    """A reader that believes the header goes on for ever: it stops after a second or the test's time is over."""
    path = archive_of(tmp_path / "x", GOOD + what, module)
    found, begun = [], time.monotonic()
    with pytest.raises(UserError, match=words) as caught:
        found += [page for _, page, reason, _ in archives.members(path) if not reason]
    assert str(caught.value).startswith(f"{path} is truncated or damaged near byte ") and time.monotonic() - begun < 5


@pytest.mark.parametrize("name, value, words", [
    ("size", "1" + "0" * 20, "size"), ("size", "100", "size"), ("size", "1900", "size"), ("size", "1301", "size"),
    ("size", "-5", "size"), ("path", "one.txt", "path"), ("GNU.sparse.realsize", "77", "sparse"),
    ("GNU.sparse.name", "one.txt", "sparse"), ("GNU.sparse.size", "77", "sparse")])
def test_a_header_for_all_members_may_not_tell_what_is_each_ones_own(tmp_path, name, value, words):
    def archive(headers):
        with tarfile.open(tmp_path / "x", "w:gz", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar:
            for number, length in enumerate((1300, 1311)):
                info = tarfile.TarInfo(f"{number}-\xe9.txt")  # whose name needs a header of its own
                info.size = length
                tar.addfile(info, io.BytesIO(b"%d" % number * length))
        return str(tmp_path / "x")
    with pytest.raises(UserError, match=f"x is truncated or damaged.*after 0 pages.*{words}"):
        read(archive({name: value}))
    assert read(archive({"comment": "of git archive", "mtime": "1"})) == (
        [("0-\xe9", b"0" * 1300), ("1-\xe9", b"1" * 1311)], {"page": 2})


def test_archives_with_short_marks_and_without_padding_at_their_end_are_whole(tmp_path):
    for end in (b"\0" * 512, b"\0" * 1024, b"\0" * 20 * 512):
        assert read(archive_of(tmp_path / "x", GOOD + end)) == ([("0000001-a", b"a pag")], {"page": 1})
    path = archive_of(tmp_path / "x", header("skipped.bin", 5) + b"a page".ljust(512, b"\0") + bytes(512))
    assert read(path) == ([], {"other_suffix": 1})


@pytest.mark.parametrize("module", [gzip, bz2, lzma])
def test_an_archive_with_any_bytes_changed_is_read_or_named(tmp_path, module):
    chance = random.Random(5)
    whole = bytearray(GOOD + header("x.txt", 700, pax={"path": "é.txt"}) + bytes(1024) + header("y.bin", 9))
    whole += bytes(2048)
    ends = collections.Counter()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.choice(b"0179 \x80\xff\0xgL=\n")
        for at in range(0, len(data), 512):  # so that the rest of the header is believed
            if chance.random() < 0.8 and data[at + 257:at + 262] == b"ustar":
                data[at + 148:at + 156] = b" " * 8
                data[at + 148:at + 156] = b"%06o\0 " % (sum(data[at:at + 512]) & 0o777777)
        try:
            read(archive_of(tmp_path / "x", bytes(data), module))
            ends["read"] += 1
        except UserError as error:
            assert "is truncated or damaged" in str(error)
            ends["named"] += 1
    assert min(ends["read"], ends["named"]) > 20
