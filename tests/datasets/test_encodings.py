"""datasets/encodings.py: what bytes mean, and copies in UTF-8."""
import argparse
import codecs
import gzip
import random

import pytest

from datasets import encodings

TEXT = "Größe, naïve Straße, Übermaß\r\n"
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. Привет всем.\n" * 3


@pytest.mark.parametrize("data, encoding, expected", [
    (TEXT.encode(), None, TEXT), (codecs.BOM_UTF8 + TEXT.encode(), None, TEXT), (TEXT.encode("utf-16"), None, TEXT),
    (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), None, TEXT), (TEXT.encode("cp1252"), None, None),
    (TEXT.encode("utf-16")[:-1], None, None), (TEXT.encode("utf-32"), None, None), (b"", None, ""),
    (TEXT.encode("cp1252"), "cp1252", TEXT), (TEXT.encode(), "cp1252", TEXT), (TEXT.encode("utf-16"), "cp1252", TEXT),
    (b"a\x81", "cp1252", None), (TEXT.encode("utf-16-le"), "utf-16-le", TEXT), (TEXT.encode("utf-32"), "utf-32", TEXT),
    ("あ a".encode("iso2022_jp"), "iso2022_jp", "あ a"), ("+ü".encode("utf-7"), "utf-7", "+ü"),
    ("~{a".encode("hz"), "hz", "~{a"), ("日本".encode("shift_jis"), "shift_jis", "日本"),
    (RUSSIAN.encode("cp1251"), "detect", RUSSIAN), (RUSSIAN.encode("koi8-r"), "detect", RUSSIAN),
    (RUSSIAN.encode(), "detect", RUSSIAN), (bytes(range(256)) * 9, "detect", None),
    # What is packed is in no encoding; UTF-16 without its mark is valid UTF-8, and full of control characters.
    (gzip.compress(b"words " * 9, mtime=0), None, None), (gzip.compress(RUSSIAN.encode(), mtime=0), "latin-1", None),
    (gzip.compress(RUSSIAN.encode(), mtime=0), "detect", None), (b"PK\3\4 \x14 and more", "cp437", None),
    ("plain words".encode("utf-16-le"), None, None), (RUSSIAN.encode("utf-16-be"), None, None),
    (RUSSIAN.encode("utf-16-be"), "cp1251", None), (RUSSIAN.encode("utf-16-be"), "utf-16-be", RUSSIAN),
    ("हिन्दी भाषा".encode("utf-16-le"), None, None), (random.Random(2).randbytes(999), "latin-1", None),
    (codecs.BOM_UTF16_LE + b"\0\1" * 9 + b"a", "cp1252", None),
    (b"man\bn p\bpages \x1b[1mbold\x1b[0m\f and one \x01 in many words, more than twenty", None,
     "man\bn p\bpages \x1b[1mbold\x1b[0m\f and one \x01 in many words, more than twenty"),
    (b"one \0 in many words" + b", more than enough" * 99, None, None), (b"a \0" + b" word" * 999, "latin-1", None),
    (b"many words and ~{VPND~}", None, None), ("“啊！”、“呀！”魑、“哦！”".encode("hz"), None, None),
    ("\ufeff".encode(), None, ""), ("в«text»".encode("cp1251"), "cp1251", "в«text»")])
def test_bytes_are_read_as_what_they_are_or_not_at_all(data, encoding, expected):
    assert encodings.decode(data, encoding) == expected


JAPANESE, CHINESE, KOREAN = "雪国の夜は長い。\n" * 9, "床前明月光，疑是地上霜。\n" * 9, "봄이 온다.\n" * 9


@pytest.mark.parametrize("text, encoding", [
    (JAPANESE, "iso2022_jp"), (JAPANESE, "iso2022_jp_3"), ("words, " * 99 + JAPANESE, "iso2022_jp_2"),
    (KOREAN, "iso2022_kr"), (CHINESE, "hz"), ("a ~ " + CHINESE, "hz")])
def test_letters_in_bytes_of_ascii_are_read_in_their_encoding_or_not_at_all(tmp_path, text, encoding):
    data = text.encode(encoding)
    assert data.isascii() and data.decode() != text
    assert [encodings.decode(data, given) for given in (None, "cp1252", encoding)] == [None, None, text]
    assert encodings.decode(data, "detect") in (text, None)
    (tmp_path / "in.txt").write_bytes(data)
    found = encodings.to_bring_to_utf8(str(tmp_path / "in.txt"), "detect")
    assert data.decode(found) == text


@pytest.mark.parametrize("text", [
    "\x1b[31mred\x1b[0m and \x1b(Bplain\x1b[m", "Fig.~{\\ref{a}} and ~{VPND", '(format t "~{~a~^, ~}" list)',
    "(format t ~{item~})", "a ~{ab~} b", "(format nil \"~{A B~}\" x)", '(format t "~{item~%~}~{ab~}" list)',
    "~~{ ~} ~{~}", "+120 is UTC+2; c++; a + b", "$B8cGZ(B", "ustar " * 99])
@pytest.mark.parametrize("encoding", [None, "cp1252", "detect"])
def test_signs_of_other_encodings_in_a_text_do_no_harm(tmp_path, text, encoding):
    (tmp_path / "in.txt").write_text(text)
    assert encodings.decode(text.encode(), encoding) == text
    assert encodings.to_bring_to_utf8(str(tmp_path / "in.txt"), encoding) is None


def test_a_name_is_that_of_an_encoding_of_files():
    assert [encodings.check(name) for name in ("CP1252", "latin-1", "Shift-JIS", "detect", "UTF_16_LE")] == [
        "cp1252", "iso8859-1", "shift_jis", "detect", "utf-16-le"]
    for name in ("none", "base64", "rot13", "idna", "undefined"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no encoding of text that Python knows: give a"):
            encodings.check(name)


@pytest.mark.parametrize("data, encoding, expected", [
    (TEXT.encode(), None, None), (TEXT.encode("cp1252"), None, None), (TEXT.encode("utf-16"), None, "utf-16"),
    (TEXT.encode(), "cp1252", None), (TEXT.encode("cp1252"), "cp1252", "cp1252"), (b"+AOQ-", "utf-7", "utf-7"),
    (TEXT.encode(), "detect", None), (RUSSIAN.encode("cp1251"), "detect", "cp1251"),
    (TEXT.encode("utf-16"), "detect", "utf-16")])
def test_files_that_are_no_utf8_are_copied_in_it(tmp_path, monkeypatch, data, encoding, expected):
    monkeypatch.setattr(encodings, "READ_CHARACTERS", 7)
    path, target = tmp_path / "in.txt", tmp_path / "out.txt"
    path.write_bytes(data)
    assert encodings.to_bring_to_utf8(str(path), encoding) == expected
    if expected:
        encodings.bring_to_utf8(str(path), str(target), expected)
        assert target.read_bytes() == (encodings.decode(data, encoding) or "").encode() != b""


def test_a_file_that_is_not_what_was_said_leaves_no_copy(tmp_path):
    path, target = tmp_path / "in.txt", tmp_path / "out.txt"
    path.write_bytes(b"text\n" * 9 + b"\x81\n")
    with pytest.raises(UnicodeError):
        encodings.bring_to_utf8(str(path), str(target), "cp1252")
    path.write_bytes(bytes(range(256)) * 9)
    with pytest.raises(UnicodeError):
        encodings.to_bring_to_utf8(str(path), "detect")
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]
