"""The text of a web page from its bytes, whatever it says of its charset (https://encoding.spec.whatwg.org/)."""
import codecs
import contextlib
import re

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
START_BYTES = 1024  # where browsers look for a declaration
DECLARED = (re.compile(rb"""\s*<\?xml\b[^>]*\bencoding\s*=\s*["']([\w.:-]{1,40})["']""", re.IGNORECASE),
            re.compile(rb"""<meta[^>]{0,300}?charset\s{0,9}=\s{0,9}["']?\s{0,9}([\w:.-]{1,40})""", re.IGNORECASE))
# Python's codecs for what pages really use under the names that resiliparse knows.
SUPERSETS = {"gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs", "iso8859-11": "cp874",
             "tis-620": "cp874", "iso8859-1": "cp1252"}
BROKEN_SHARE = 0.1  # of the characters beyond ASCII, in a text that is UTF-8 all the same
UNREADABLE_SHARE = 0.1  # of all characters, in what is no text
ASCII = bytes(range(128))
TAGS = re.compile(rb"<[^<>]*>")
SAMPLE_BYTES = 1 << 17  # tell the charset
FOREIGN_BYTES, FOREIGN_SHARE = 30, 0.01  # with fewer letters beyond ASCII a Western text looks like any other


def decode(page, declared=None):
    """The text of a page; `declared` is the charset of its HTTP header.

    >>> decode(b"<meta charset=gbk>\\xc4\\xe3")
    '<meta charset=gbk>你'
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if page.startswith(mark):
            return page[len(mark):].decode(encoding, "replace")
    if not declared and b"\x1b" not in page:  # which ISO 2022 needs, whose bytes look like UTF-8
        with contextlib.suppress(UnicodeDecodeError):
            return page.decode()  # as nearly all pages are: in a tenth of the time
    encoding = _declared(page, declared)
    if not encoding.startswith(("utf-16", "iso2022")):  # whose bytes may be valid UTF-8
        # Whatever was declared: other text of more than a few bytes is hardly ever valid UTF-8.
        text = page.decode("utf-8", "replace")
        broken = text.count("\ufffd")
        if broken <= BROKEN_SHARE * (len(text) - len(text.encode("ascii", "ignore"))):
            return text
    if encoding == "utf-8":  # which it is not, whatever it says
        words = TAGS.sub(b" ", page[:SAMPLE_BYTES])
        foreign = len(words.translate(None, ASCII)) >= max(FOREIGN_BYTES, FOREIGN_SHARE * len(words))
        encoding = (foreign and detect_encoding(words, html5_compatible=False)) or "cp1252"
    return page.decode(SUPERSETS.get(encoding, encoding), "replace")


def is_text(text):
    """Whether what was decoded is text at all."""
    return "\0" not in text and text.count("\ufffd") <= UNREADABLE_SHARE * len(text)


def _declared(page, declared):
    """Python's name for what the header says, else the page; "utf-8" where neither says anything known."""
    inside = [name.decode() for pattern in DECLARED for name in pattern.findall(page[:START_BYTES])]
    for name in (declared or "", *inside):
        known = map_encoding_to_html5(name.encode("ascii", "ignore").decode(), fallback_utf8=False)
        # A page whose bytes said `meta` in ASCII cannot be UTF-16.
        if known and not (known.startswith("utf-16") and name != declared):
            return known
    return "utf-8"
