"""The text of a web page from its bytes, in the few steps of browsers that matter (https://encoding.spec.whatwg.org/)."""
from __future__ import annotations

import codecs
import re

META = re.compile(rb"<meta[^>]{0,300}?charset\s{0,9}=\s{0,9}[\"']?\s{0,9}([\w:.-]{1,40})", re.IGNORECASE)
META_BYTES = 1024  # where browsers look for it
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# What browsers read under these names: the superset that pages really use.
SUPERSETS = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932",
             "euc_kr": "cp949", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874", "big5": "big5hkscs"}
# Python also knows encodings that are no text (zlib, rot13), or slow on purpose of whoever names them (idna).
OF_TEXT = re.compile(r"utf-8|utf-16(-[lb]e)?|cp\d+|iso8859-\d+|iso2022_jp.*|koi8-[ru]|gb\w+|big5\w*|euc_\w+|"
                     r"shift_jis.*|hz|mac-(roman|cyrillic)|tis-620|ascii")
NOT_OF_SINGLE_BYTES = re.compile(r"utf-16.*|iso2022.*|hz")  # their bytes may look like UTF-8
MAX_UNREADABLE = 0.1


def decode(body, declared=None):
    """The text of a page, or None where it is no text; `declared` is the charset of its HTTP header.

    >>> decode(b"<meta charset=gbk>\\xc4\\xe3")
    '<meta charset=gbk>你'
    """
    encoding = _encoding(body, declared)
    for mark, marked in BYTE_ORDER_MARKS:
        if body.startswith(mark):
            body, encoding = body[len(mark):], marked
    try:
        # Whatever was declared: other text of more than a few bytes is hardly ever valid UTF-8.
        text = body.decode("utf-8" if not NOT_OF_SINGLE_BYTES.fullmatch(encoding) else encoding)
    except UnicodeDecodeError:
        text = body.decode(encoding if encoding != "utf-8" else "cp1252", errors="replace")
    unreadable = text.count("\ufffd")
    return None if "\0" in text or unreadable > MAX_UNREADABLE * len(text) else text


def _encoding(body, declared):
    """Python's name for what the header says, else the page; "utf-8" where neither says anything known."""
    for name in (declared, *(found.decode() for found in META.findall(body[:META_BYTES]))):
        try:
            known = codecs.lookup(name or "").name
        except (LookupError, ValueError):
            continue
        if OF_TEXT.fullmatch(known):
            # A page whose bytes said `meta` in ASCII cannot be UTF-16.
            return "utf-8" if known.startswith("utf-16") and name != declared else SUPERSETS.get(known, known)
    return "utf-8"
