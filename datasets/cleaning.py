r"""Cleans text by one of three rules: "repair", "original" or "none".

"repair" mends what was decoded wrongly, by ftfy.fix_encoding line by line; line ends become "\n", and Unicode its form
NFC.  All else stays: quotes, full-width punctuation, superscripts, HTML entities, code.  "original" is what the
original did, ftfy.fix_text(text, normalization="NFKC").

ftfy (https://ftfy.readthedocs.io) works on every line, whether there is something to mend or not.  Here it gets only
the lines in which there may be, which is many times as fast; in the others single characters are replaced by others.
tests/datasets/test_cleaning.py proves from ftfy's own tables that the result is the same:

- What ftfy takes for a broken encoding (ftfy.badness.BADNESS_RE) always holds a character of none of the classes below,
  or a LOUD one next to one that is LOUD or QUIET.  A line without such a place passes that step as it is.
- No character of the classes joins or moves another one in Unicode's normalization, so each is mapped by itself.
- What they become is of the classes again, not mapped further, and makes no such place: ftfy, which repeats
  its steps until nothing changes, stops there.
- An entity begins with "&", ends with ";", and is mended only before the line of the document's first "<".
"""
import argparse
import functools
import re
import unicodedata
from importlib.metadata import version

from encoder import bpe

REPAIR, ORIGINAL, NONE = "repair", "original", "none"
# By what a manifest calls it.  "ftfy NFKC" stands in manifests from the time when there was no other rule.
RULES = {REPAIR: "repair", ORIGINAL: "ftfy NFKC", NONE: "none"}
PROVEN_FTFY = "6.3.1"  # another version gets all text
SEGMENT = 1_000_000  # characters after which ftfy cuts a line

# Classes of characters as they stand between the brackets of a regular expression.  INERT: whatever stands beside them.
INERT = (
    "\t\n\f\r -~\xa0\xad\xb7\xfd-\xff"
    # Latin
    "\u0108-\u010b\u0114\u0115\u011c\u011d\u0120\u0121\u0124-\u0129\u012c-\u012e\u0131\u0134\u0135\u0138\u0144\u0146"
    "\u0148\u014a\u014b\u014d-\u014f\u0151\u0154\u0156\u0157\u0159\u015c\u015d\u0163\u0166-\u0169\u016b-\u016d\u016f"
    "\u0171\u0173-\u0177\u0180-\u0191\u0193-\u01c3\u01cd-\u01f0\u01f4-\u02af\u02b9-\u02c5\u02c8-\u02d7\u1e00-\u1e99"
    "\u1e9c-\u1eff"
    # Greek, Cyrillic, Armenian, Hebrew, Arabic, Georgian
    "\u03ca-\u03ce\u0400\u0460-\u0481\u048a-\u048f\u0492-\u052f\u0531-\u0556\u0561-\u0586\u05be\u05c0\u05d0-\u05ea"
    "\u05f0-\u05f4\u060c\u061b\u061f-\u064a\u0660-\u066f\u0671-\u0674\u0679-\u06d5\u06ee-\u06ff\u10d0-\u10fa"
    # spaces, dashes, quotes, dots; arrows, mathematics, shapes, pictures
    "\u02bc\u2000-\u2016\u2019\u201b\u201f\u2023-\u2029\u202f\u2031-\u2034\u203b\u203d\u205f-\u2064\u2070\u2071"
    "\u2074-\u208e\u2160-\u217f\u2190-\u2201\u2203-\u2205\u2207-\u220e\u2210\u2212-\u2219\u221b-\u221d\u221f-\u2228"
    "\u222a\u222e\u2231-\u2247\u2249-\u225f\u2262\u2263\u2266-\u230f\u2460-\u2473\u2500\u25a0-\u25c9\u25cb-\u27bf"
    "\ufe0e\ufe0f\U0001f1e6-\U0001f1ff\U0001f300-\U0001f64f\U0001f680-\U0001f6ff\U0001f900-\U0001f9ff"
    # Chinese, Japanese, Korean, and wide and narrow forms
    "\u3000-\u3020\u3041-\u3096\u309d\u309e\u30a1-\u30fe\u3105-\u312f\u3400-\u4db5\u4e00-\u9fef\uac00-\ud7a3\ufb00"
    "\ufb03-\ufb06\uff01-\uff5e\uff61-\uff9d")
# Letters that are suspicious only next to a LOUD character.
QUIET = ("\xd2-\xd6\xda\xdb\xde-\xf6\xf8-\xfc\u0101\u0103\u0105\u0107\u010d\u010f\u0111\u0113\u0117\u0119\u011b\u011f"
         "\u0123\u012b\u012f\u0137\u013a\u013c\u013e\u0142\u014c\u0150\u0155\u015b\u015f\u0161\u0165\u016a\u0172"
         "\u017a\u017c\u017e\u0386\u0388-\u038a\u038c\u038e\u038f\u0391-\u03a1\u03a3-\u03c9\u0401\u0403-\u045f\u0491"
         "\ufb01\ufb02")
LOUD = ("\xa1-\xa7\xa9-\xac\xae\xb0-\xb3\xb5\xb6\xb9-\xc1\xc4-\xcd\xcf\xd1\xd7\xdc\xdd\xf7\u0100\u0102\u0104\u0106"
        "\u010c\u010e\u0110\u0112\u0116\u0118\u011a\u011e\u0122\u012a\u0130\u0136\u0139\u013b\u013d\u0141\u0143\u0145"
        "\u0147\u0158\u015a\u015e\u0160\u0162\u0164\u016e\u0170\u0178\u0179\u017b\u017d\u0192\u2018\u201a"
        "\u201c-\u201e\u2020-\u2022\u2030\u2039\u203a\u2044\u20ac\u2116\u2122\u2202\u2206\u220f\u2211\u221a\u221e"
        "\u2229\u222b\u2248\u2260\u2261\u2264\u2265\ufffd")
# Of all these, what ftfy replaces: quotes, dots, spaces, ligatures, wide and narrow forms, raised and lowered numbers.
REPLACED = re.compile("[\xa0\xaa\xb2\xb3\xb5\xb9\xba\xbc-\xbe\u02bc\u2000-\u200a\u2011\u2018-\u201f\u2024-\u2026"
                      "\u2028\u2029\u202f\u2033\u2034\u205f\u2070\u2071\u2074-\u208e\u2116\u2122\u2160-\u217f"
                      "\u2460-\u2473\u3000\ufb00-\ufb06\uff01-\uff5e\uff61-\uff9d]")
# By what, where that is not their NFKC form.
REPLACEMENTS = {**dict.fromkeys("\u02bc\u2018\u2019\u201a\u201b", "'"),
                **dict.fromkeys("\u201c\u201d\u201e\u201f", '"'), **dict.fromkeys("\u2028\u2029", "\n")}

SUSPICIOUS = re.compile(f"[^{INERT}{QUIET}](?:(?<=[^{LOUD}])|(?=[{LOUD}{QUIET}])|(?<=[{LOUD}{QUIET}].))")
ANYTHING = re.compile(".")
# Wide and narrow forms may become the letters, digits and signs of an entity, none becomes space.
ENTITY = re.compile(r"[&\uff06][^\s&;\uff06\uff1b]{1,25}[;\uff1b]")


def add_argument(parser):
    """Adds the option --clean, also called --no_ftfy where it is "none"."""
    add = parser.add_mutually_exclusive_group().add_argument
    add("--clean", choices=RULES, default=REPAIR,
        help="repair: mend what was decoded wrongly (ftfy's fix_encoding) and line ends, Unicode to NFC, nothing else; "
        "original: all of ftfy's repairs and NFKC, as the original did; none: the text as it is")
    add("--no_ftfy", dest="clean", action="store_const", const=NONE, default=argparse.SUPPRESS, help="--clean none")


def tools(rule):
    """{package: version} that decides what comes out."""
    return {} if rule == NONE else {"ftfy": version("ftfy")}


def clean(text, rule):
    """`text` by one of RULES, so that it can be encoded in UTF-8."""
    if rule == NONE:
        return bpe.well_formed(text)
    return repair(text) if rule == REPAIR else bpe.well_formed(original(text))


def repair(text):
    """`text` with broken encodings and line ends mended, in NFC."""
    text = bpe.line_ends(bpe.well_formed(text))
    if text.isascii():
        return text
    parts, position = [], 0
    pattern = SUSPICIOUS if _proven() else ANYTHING
    while (place := _find(pattern, text, position, len(text))) < len(text):
        start = max(position, text.rfind("\n", position, place) + 1)
        stop = text.find("\n", place) + 1 or len(text)
        parts += [text[position:start], _fix_encoding(text[start:stop])]
        position = stop
    return unicodedata.normalize("NFC", "".join([*parts, text[position:]]))


def original(text):
    """`text` with broken encodings, entities, quotes, ligatures and line ends mended, in NFKC."""
    if not _proven() or ("\r" in text and len(text) > SEGMENT):  # ftfy may cut between \r and \n
        return _fix(text)
    tag = text.find("<") if "<" in text else len(text)
    parts, position = [], 0
    suspicious = entity = -1
    while True:
        if suspicious < position:
            suspicious = _find(SUSPICIOUS, text, position, len(text))
        if entity < position:
            entity = _find(ENTITY, text, position, tag)
        place = min(suspicious, entity)
        if place == len(text):
            parts.append(_replace(text[position:]))
            return "".join(parts)
        start = max(position, text.rfind("\n", position, place) + 1)
        stop = text.find("\n", place) + 1 or len(text)
        parts += [_replace(text[position:start]),
                  _fix(text[start:stop], unescape_html="auto" if start <= tag else False)]
        position = stop


@functools.lru_cache(maxsize=1)
def _proven():
    return version("ftfy") == PROVEN_FTFY


def _find(pattern, text, start, stop):
    """Where the pattern first matches, the length of the text where it does not."""
    match = pattern.search(text, start, stop)
    return match.start() if match else len(text)


def _replace(text):
    """Lines in which nothing is suspicious, as ftfy gives them back."""
    text = bpe.line_ends(text)
    if not text.isascii():
        for character in set(REPLACED.findall(text)):
            text = text.replace(character, REPLACEMENTS.get(character) or unicodedata.normalize("NFKC", character))
    return text


def _fix(text, **options):
    import ftfy  # half a second that many texts save
    return ftfy.fix_text(text, normalization="NFKC", **options)


def _fix_encoding(line):
    import ftfy
    return ftfy.fix_encoding(line)
