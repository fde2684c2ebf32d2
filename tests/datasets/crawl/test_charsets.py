"""datasets/charsets.py: text of pages whatever they say of their encoding."""
import pytest

from datasets.crawl import charsets

RUSSIAN, JAPANESE, CHINESE = "Привет, мир " * 5, "こんにちは世界 " * 5, "你好，世界 " * 5


@pytest.mark.parametrize("text, encoding, declared, inside", [
    ("café – “quoted”", "utf-8", None, None), ("café – “quoted”", "utf-8", "utf-8", None),
    ("café – “quoted”", "cp1252", None, None), ("café – “quoted”", "cp1252", "iso-8859-1", None),
    ("café – “quoted”", "cp1252", "us-ascii", None), (RUSSIAN, "cp1251", "windows-1251", None),
    (RUSSIAN, "koi8-r", None, "koi8-r"), (JAPANESE, "shift_jis", "Shift_JIS", None),
    (JAPANESE, "euc-jp", None, "euc-jp"),
    (JAPANESE, "iso-2022-jp", "iso-2022-jp", None), (CHINESE, "gb18030", "gb2312", None),
    (CHINESE, "gbk", None, "GBK"), (CHINESE, "utf-16", "utf-16", None), (CHINESE, "utf-8-sig", "latin-1", None),
    ("Grüße ńot", "iso-8859-2", "iso-8859-2", None),
    # Said wrongly: valid UTF-8 is UTF-8, a header goes before what the page says, nonsense is nothing.
    (RUSSIAN, "utf-8", "iso-8859-1", None), (RUSSIAN, "utf-8", None, "windows-1251"),
    (RUSSIAN, "cp1251", "windows-1251", "koi8-r"), ("café", "cp1252", "no-such-charset", None),
    ("café", "cp1252", "utf-8", None), ("café", "utf-8", None, "utf-16")])
def test_text_is_read_in_the_encoding_that_it_is_in(text, encoding, declared, inside):
    head = f'<html><META http-equiv="Content-Type" content="text/html; charset={inside}">' if inside else "<html>"
    assert charsets.decode((head + text).encode(encoding), declared) == head + text


def test_both_orders_of_bytes_are_told_by_their_mark():
    for encoding, mark in (("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff")):
        assert charsets.decode(mark + CHINESE.encode(encoding)) == CHINESE


@pytest.mark.parametrize("name", ["idna", "punycode", "unicode_escape", "zlib", "rot13", "utf-7", "undefined", "mbcs",
                                  "\ud800", "a\0b", "x" * 5000])
def test_an_encoding_that_no_page_should_name_is_ignored(name):
    assert charsets.decode(b"caf\xe9 +AGE- \\u0041", name) == "café +AGE- \\u0041"


@pytest.mark.parametrize("body", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"text\0text", bytes(100), b"x\x81\x8d\x8f" * 9])
def test_what_is_no_text_is_none(body):
    assert charsets.decode(body) is None


def test_a_few_unreadable_bytes_are_replaced():
    assert charsets.decode(b"\x81 " + b"text caf\xe9 " * 20) == "\ufffd " + "text café " * 20


def test_empty_is_empty_and_a_charset_beyond_the_first_kilobyte_does_not_count():
    assert charsets.decode(b"") == ""
    late = b" " * 1100 + b"<meta charset=koi8-r>\xe9"
    assert charsets.decode(late).endswith("é") and charsets.decode(late[100:]).endswith("И")
