"""datasets/crawl/charsets.py: text of pages whatever they say of their encoding."""
import pytest

from datasets.crawl import charsets
from tests.helpers.pages import article

RUSSIAN, JAPANESE, CHINESE = "Привет, мир " * 5, "こんにちは世界 " * 5, "你好，世界 " * 5


@pytest.mark.parametrize("text, encoding, declared, inside", [
    ("café – “quoted”", "utf-8", None, None), ("café – “quoted”", "utf-8", "utf-8", None),
    ("café – “quoted”", "cp1252", None, None), ("café – “quoted”", "cp1252", "iso-8859-1", None),
    ("café – “quoted”", "cp1252", "us-ascii", None), (RUSSIAN, "cp1251", "windows-1251", None),
    (RUSSIAN, "koi8-r", None, "koi8-r"), (JAPANESE, "shift_jis", "Shift_JIS", None),
    (JAPANESE, "euc-jp", None, "euc-jp"),
    (JAPANESE, "iso-2022-jp", "iso-2022-jp", None), (JAPANESE, "iso-2022-jp", None, "iso-2022-jp"),
    (CHINESE, "gb18030", "gb2312", None),
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
    assert not charsets.is_text(charsets.decode(body))


UNDECLARED = [
    ("Гавань старого города была восстановлена после бури, и рыбаки вернулись.", ("cp1251", "koi8-r", "cp866")),
    ("Пристанището на стария град беше възстановено след бурята.", ("cp1251",)),
    ("Το λιμάνι της παλιάς πόλης ξαναχτίστηκε μετά την καταιγίδα.", ("cp1253", "iso8859-7")),
    ("古い町の港は嵐のあとに再建され、漁師たちは年内に戻ってきた。", ("cp932", "euc_jp")),
    ("老城的港口在暴风雨之后重建，渔民们在一年之内回来了。", ("gbk", "gb18030")),
    ("老城的港口在暴風雨之後重建，漁民們在一年之內回來了。", ("big5",)),
    ("오래된 도시의 항구는 폭풍 뒤에 다시 지어졌고 어부들은 돌아왔다.", ("cp949",)),
    ("נמל העיר העתיקה נבנה מחדש לאחר הסערה, והדייגים חזרו.", ("cp1255",)),
    ("أعيد بناء ميناء المدينة القديمة بعد العاصفة وعاد الصيادون.", ("cp1256",)),
    ("Přístav starého města byl po bouři znovu vystavěn a rybáři se vrátili.", ("cp1250", "iso8859-2")),
    ("Le port de la vieille cité a été reconstruit après la tempête, où les pêcheurs sont revenus.", ("cp1252",))]


@pytest.mark.parametrize("text, encoding", [(text, name) for text, names in UNDECLARED for name in names])
def test_charset_that_a_page_does_not_declare_is_told_by_its_letters(text, encoding):
    page = article(1, tail=f"<p>{text}</p>\n" * 20)
    assert charsets.decode(page.encode(encoding)) == page
    # Wrong declarations do not matter: this is not UTF-8, and there is no such charset.
    assert charsets.decode(page.encode(encoding), "utf-8") == charsets.decode(page.encode(encoding), "none") == page


@pytest.mark.parametrize("words", ["© 2015 A Company", "it costs £5 today", "naïve café", "he’s – “quoted”…", "½ cup",
                                   "Jürgen and François", "El Niño", "résumé", "Besançon, Málaga, Århus", "• item ®"])
def test_western_pages_with_few_letters_beyond_ascii_are_not_taken_for_others(words):
    for page in (words, f"<p>{words}</p>", article(3, tail=words), article(3, tail=f"<p>{words}" * 3)):
        assert charsets.decode(page.encode("cp1252")) == page


def test_a_few_broken_bytes_leave_a_page_in_utf_8():
    page = f"<p>{RUSSIAN}</p>"
    assert charsets.decode(page.encode() + b"\xe9 \xc3") == page + "\ufffd \ufffd"
    assert charsets.decode(b"\xef\xbb\xbfcaf\xe9") == "caf\ufffd"


def test_characters_that_only_the_superset_of_a_charset_has_are_read():
    for text, encoding, name in (("①㈱髙" * 9, "cp932", "Shift_JIS"), ("€镕" * 9, "gb18030", "gb2312"),
                                 ("똠방각하 " * 9, "cp949", "euc-kr"), ("“ไทย” " * 9, "cp874", "tis-620"),
                                 ("香港嘅㗎 " * 9, "big5hkscs", "big5"), ("“ğış” " * 9, "cp1254", "iso-8859-9")):
        assert charsets.decode(text.encode(encoding), name) == text


def test_declaration_of_xml_counts():
    page = '<?xml version="1.0" encoding="iso-8859-2"?><p>Grüße ńot'
    assert charsets.decode(page.encode("iso-8859-2")) == page


def test_a_few_unreadable_bytes_are_replaced():
    assert charsets.decode(b"\x81 " + b"text caf\xe9 " * 20) == "\ufffd " + "text café " * 20


def test_empty_is_empty_and_a_charset_beyond_the_first_kilobyte_does_not_count():
    assert charsets.decode(b"") == ""
    late = b" " * 1100 + b"<meta charset=koi8-r>\xe9"
    assert charsets.decode(late).endswith("é") and charsets.decode(late[100:]).endswith("И")
