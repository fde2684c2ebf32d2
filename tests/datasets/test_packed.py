"""datasets/packed.py: what packed files hold, and what is said of damaged ones."""
import gzip
import json
import random

import pytest
import zstandard

from configs.errors import UserError
from datasets import documents, packed

PACKED = {"gz": gzip.compress, "zst": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("kind", PACKED)
def test_packed_lines_are_read_as_plain_ones_and_unpacked_once(tmp_path, kind):
    lines = [json.dumps({"text": f"text {i} é"}) for i in range(50)] + ["broken"]
    halves = ["".join(line + "\n" for line in some).encode() for some in (lines[:20], lines[20:])]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"x.jsonl.{kind}").write_bytes(b"".join(map(PACKED[kind], halves)))  # members or frames in a row
    scratch = tmp_path / "scratch"
    index = documents.make_index([str(tmp_path / "in")], scratch=str(scratch))
    found = [documents.read(index, number) for number in range(51)]
    assert [document.text for document in found] == [f"text {i} é" for i in range(50)] + [None]
    assert found[17].identity == f"x.jsonl.{kind}:18"
    before = [(path, path.stat().st_mtime_ns) for path in scratch.iterdir()]
    documents.make_index([str(tmp_path / "in")], scratch=str(scratch))
    assert [(path, path.stat().st_mtime_ns) for path in scratch.iterdir()] == before and len(before) == 1


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("damage", ["cut off", "cut off early", "empty", "garbage behind", "garbage", "flipped"])
def test_a_damaged_packed_file_is_an_error_and_leaves_nothing(tmp_path, kind, damage):
    noise = random.Random(1).randbytes(3000)
    data = PACKED[kind](b'{"text": "' + noise.hex().encode() + b'"}\n')
    if kind == "zst" and damage == "flipped":  # only a frame with a checksum tells
        data = zstandard.ZstdCompressor(write_checksum=True).compress(b'{"text": "' + noise.hex().encode() + b'"}\n')
    bad = {"cut off": data[:-3], "cut off early": data[:7], "empty": b"", "garbage behind": data + b"not a member",
           "garbage": b"not packed at all", "flipped": data[:99] + bytes([data[99] ^ 4]) + data[100:]}[damage]
    (tmp_path / f"x.jsonl.{kind}").write_bytes(bad)
    problem = "does not begin as its name says" if damage == "garbage" else "is damaged or cut off"
    with pytest.raises(UserError, match=f"x.jsonl.{kind} {problem}"):
        documents.make_index([str(tmp_path)], scratch=str(tmp_path / "scratch"))
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("kind", PACKED)
def test_a_bomb_is_an_error_before_it_fills_the_disk(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(packed, "HARMLESS_BYTES", 1 << 16)
    (tmp_path / f"x.jsonl.{kind}").write_bytes(PACKED[kind](bytes(10 ** 7)))
    with pytest.raises(UserError, match="unpacks to more than 300 times its size"):
        documents.make_index([str(tmp_path)], scratch=str(tmp_path / "scratch"))
    assert not list((tmp_path / "scratch").iterdir())


def test_a_scratch_folder_outlives_a_kill_but_no_mistake(tmp_path):
    folder = tmp_path / "scratch"
    for error, stays in ((KeyboardInterrupt, True), (OSError, True), (UserError, False), (None, False)):
        try:
            with packed.scratch_folder(str(folder)):
                folder.mkdir(exist_ok=True)
                if error:
                    raise error
        except (KeyboardInterrupt, OSError, UserError):
            pass
        assert folder.exists() == stays, error


def test_a_length_that_a_frame_tells_is_not_believed(tmp_path):
    """zstd's frame header tells the contents' size and the window that the reader is to keep."""
    for header in (b"\xe0" + (2**62).to_bytes(8, "little"), b"\xc0\xff" + b"\xff" * 8, b"\x80\xf8" + b"\xff" * 4,
                   b"\x00\xff", b"\x00\xa0"):
        data = b"\x28\xb5\x2f\xfd" + header + (1 | 5 << 3).to_bytes(3, "little") + b"a\nb\nc"
        (tmp_path / "x.jsonl.zst").write_bytes(data)
        with pytest.raises(UserError, match=r"x.jsonl.zst is damaged or cut off \("):
            documents.make_index([str(tmp_path)], scratch=str(tmp_path / "scratch"))
        assert not list((tmp_path / "scratch").iterdir())
