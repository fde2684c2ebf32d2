r"""Cleans text by one of three rules: "repair", "original" or "none".

"repair" mends what was decoded wrongly, by ftfy.fix_encoding line by line; line ends become "\n", and Unicode its form
NFC.  All else stays: quotes, full-width punctuation, superscripts, HTML entities, code.  "original" is what the
original did, ftfy.fix_text(text, normalization="NFKC").

ftfy (https://ftfy.readthedocs.io) is slow, so it gets only the lines in which it may find something to mend.
tests/datasets/test_cleaning.py proves from ftfy's own expression that the result is the same: whatever ftfy takes for a
broken encoding (ftfy.badness.BADNESS_RE) holds a character of SURE, or one of LOUD beside one of LOUD or QUIET.
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
PROVEN_FTFY = "6.3.1"  # another version gets all lines that are not ASCII

# Classes of characters as they stand between the brackets of a regular expression; all others are never mended.
LATIN = [chr(code) for code in range(0xc0, 0x180)]  # letters with accents, and what lies among them
SURE = "\x80-\x9fÂÃÎÐØÙŒœЂ"  # may be broken whatever stands beside them
QUIET = "".join(c for c in LATIN if c.islower() and c != "œ") + "\u0386-\u0401\u0403-\u048f"  # Greek, Cyrillic
LOUD = "".join(c for c in LATIN if not c.islower() and c not in "ÂÃÎÐØÙŒ") + (
    "\xa1-\xac\xae-\xb6\xb8-\xbfƒ\u02c6-\u02dd\u0384\u0385\u0490\u0491\u2018\u201a\u201c-\u201e\u2020-\u2022\u2030\u2039"
    "\u203a\u2044\u20a7\u20ac\u2116\u2122\u2202-\u2265\u2310\u2502-\u2593\u25ca\uf8ff\ufb01\ufb02\ufffd")
SUSPICIOUS = re.compile(f"[{SURE}{LOUD}](?:(?<=[{SURE}])|(?=[{LOUD}{QUIET}])|(?<=[{LOUD}{QUIET}].))")
NOT_ASCII = re.compile("[^\0-\x7f]")
# A line that "original" leaves as it is, and a line with its end.
PLAIN = re.compile(r"[\t\n -%'-~]*")
LINE = re.compile(r"[^\n]*\n|[^\n]+")


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
    suspicious = _suspicious()
    if suspicious.search(text):
        text = "\n".join(_fix_encoding(line) if suspicious.search(line) else line for line in text.split("\n"))
    return unicodedata.normalize("NFC", text)


def original(text):
    """`text` with broken encodings, entities, quotes, ligatures and line ends mended, in NFKC."""
    parts, entities = [], "auto"
    for line in LINE.findall(text):
        parts.append(line if PLAIN.fullmatch(line) else _fix(line, entities))
        if "<" in line:  # HTML, in which ftfy mends no entities from here on
            entities = False
    return "".join(parts)


@functools.lru_cache(maxsize=1)
def _suspicious():
    return SUSPICIOUS if version("ftfy") == PROVEN_FTFY else NOT_ASCII


def _fix_encoding(line):
    import ftfy  # half a second that many texts save
    return ftfy.fix_encoding(line)


def _fix(line, entities):
    import ftfy
    return ftfy.fix_text(line, normalization="NFKC", unescape_html=entities)
