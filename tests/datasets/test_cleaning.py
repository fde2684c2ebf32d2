"""datasets/cleaning.py: the proof that its short way is ftfy's, from ftfy's own tables, and texts of every kind."""
import functools
import glob
import itertools
import os
import random
import re
import sysconfig
import unicodedata

import ftfy
import pytest
from ftfy import badness, chardata

from datasets import cleaning

try:
    from re import _constants as constants
    from re import _parser as parser
except ImportError:  # Python 3.9 and 3.10
    import sre_constants as constants
    import sre_parse as parser

STDLIB = sysconfig.get_paths()["stdlib"]
WORDS = "The “naïve” café’s menu — 3…5 €, Ærøskøbing; Übergröße! Привет, мир. Ελληνικά 東京タワー、한국어 العربية עברית"
MOJIBAKE = [word.encode().decode(encoding, "replace") for word in [*WORDS.split(), "\U0001f600", "\xa0", "„à la“"]
            for encoding in ("latin-1", "cp1252", "cp1251", "cp1250", "cp1253", "mac_roman", "cp437",
                             "sloppy-windows-1252")]
ENTITIES = ["&amp;", "&lt;", "&eacute;", "&EACUTE;", "&#8217;", "&#x2019;", "&#128;", "&amp;lt;", "&nosuch;", "&amp",
            "& ;", "&\uff41mp;", "\uff06lt\uff1b", "&ﬂ;", "&\u2460;", "<", "<b>", "&", ";", "#", "&" + "a" * 24 + ";"]
CONTROLS = [*map(chr, [*range(32), *range(127, 160)]), "\r\n", "\x1b[31m", "\u2028", "\u2029", "\ufeff", "\ufff9",
            "\ufffc", "\u206a", "\ud83d", "\ude00", "\ud83d\ude00", "\ufffd"]
JOINING = ["e\u0301", "\u0301", "\u0327", "\u1100", "\u1161", "\u11a8", "가", "か", "\u3099", "ｶ", "ﾞ", "\u0653", "ا",
           "\u0338", "="]
CHANGING = [*map(chr, chardata.LIGATURES), "ｆ", "＜", "＆", "；", "ｱ", "\u3000",
            *"“”‘’‚„‛‟ʼ…½⅓™№µ²ªº¨´˜ſ№℃㎏①Ⅷ‶￥"]
SUSPECTS = sorted(set("".join(badness.MOJIBAKE_CATEGORIES.values())) | {c for c in badness.BADNESS_RE.pattern
                                                                            if c > "\x7f"})


def fixed(text):
    return ftfy.fix_text(text, normalization="NFKC")


def test_text_is_cleaned_as_in_the_original():
    assert cleaning.original("schÃ¶n &lt;b&gt; ﬁne “quoted”\r\n") == 'schön <b> fine "quoted"\n'


def repaired(text):
    """What --clean repair promises, by ftfy itself and without a short way."""
    lines = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", "\n".join(map(ftfy.fix_encoding, lines.split("\n"))))


@pytest.mark.parametrize("rule, expected", [
    ("repair", 'schön &lt;b&gt; ﬁne “quoted” ｆ，x² №…\ncafé\n\x0cif x < 1: s = "\x07"\n\n'),
    ("original", 'schön <b> fine "quoted" f,x2 No...\ncafé\n\x0cif x < 1: s = ""\n\n'),
    ("none", 'schÃ¶n &lt;b&gt; ﬁne “quoted” ｆ，x² №…\r\ncafe\u0301\n\x0cif x < 1: s = "\x07"\r\r\n')])
def test_each_rule_mends_what_it_says_and_nothing_else(rule, expected):
    text = 'schÃ¶n &lt;b&gt; ﬁne “quoted” ｆ，x² №…\r\ncafe\u0301\n\x0cif x < 1: s = "\x07"\r\r\n'
    assert cleaning.clean(text, rule) == expected
    assert cleaning.clean("a\ud83d\ude00\ud83d", rule) == "a\U0001f600\ufffd"


def test_line_is_mended_beside_one_that_fits_no_single_encoding():
    assert cleaning.repair("中文 “ok”\rschÃ¶n\nи Ã©tÃ©\r\n") == "中文 “ok”\nschön\nи été\n"


@functools.lru_cache(maxsize=1)
def classes():
    everything = "".join(map(chr, range(0x110000)))
    return [set(re.findall(f"[{characters}]", everything)) for characters in
            (cleaning.SURE, cleaning.LOUD, cleaning.QUIET)]


def sets(pattern):
    """[(characters that an item of the parsed expression can match or None for any, its least count)]."""
    for kind, value in pattern:
        if kind is constants.AT:
            continue
        least = 1
        if kind is constants.MAX_REPEAT:
            least, _, ((kind, value),) = value
        if kind is constants.LITERAL:
            yield {chr(value)}, least
        elif kind is constants.IN and all(k in (constants.LITERAL, constants.RANGE) for k, _ in value):
            yield {chr(c) for k, v in value for c in (range(v[0], v[1] + 1) if k is constants.RANGE else [v])}, least
        else:
            assert kind in (constants.ANY, constants.IN), kind
            yield None, least


def test_ftfy_is_the_one_that_the_short_way_was_proven_for():
    assert ftfy.__version__ == cleaning.PROVEN_FTFY, "prove it anew for this one; until then it gets more text"


def test_whatever_ftfy_takes_for_a_broken_encoding_holds_a_suspicious_place():
    sure, loud, quiet = classes()
    assert not sure & loud and not sure & quiet and not loud & quiet
    (kind, (_, alternatives)), = parser.parse(badness.BADNESS_RE.pattern, re.VERBOSE)
    assert kind is constants.BRANCH and len(alternatives) > 30
    for alternative in alternatives:
        items = list(sets(alternative))
        needed = [known <= sure for known, least in items if known and least]
        pairs = [(left - sure, right - sure) for (left, one), (right, other) in zip(items, items[1:])
                 if left and right and one and other]
        assert any(needed) or any(left | right <= loud | quiet and not (left & quiet and right & quiet)
                                  for left, right in pairs), alternative


def test_suspicious_places_are_those_of_the_definition():
    sure, loud, quiet = classes()
    some = ["a", "\n", "’", "é", "ж", "©", "É", "“", "Ã", "\x85", "œ", "中"]
    for text in map("".join, itertools.product(some, repeat=3)):
        expected = set(text) & sure or any({left, right} <= loud | quiet and {left, right} & loud
                                           for left, right in zip(text, text[1:]))
        assert bool(cleaning.SUSPICIOUS.search(text)) == bool(expected), text


def test_ftfy_changes_no_plain_line():
    plain = "".join(chr(code) for code in range(256) if cleaning.PLAIN.fullmatch(chr(code)))
    assert "&" not in plain and set("\t\nz~;<") < set(plain) and plain.isascii()
    for character in plain:
        assert fixed(character) == character
    assert fixed(plain * 2) == plain * 2


ALPHABETS = {
    "mojibake": [*MOJIBAKE, *"ab \n", "Ã", "â€", "€", "œ"], "entities": [*ENTITIES, *"ab \n\n", "ﬁ", "é"],
    "controls": [*CONTROLS, *"ab \n[m", "é"], "joining": [*JOINING, *"ab \n"], "changing": [*CHANGING, *"ab &;\n"],
    "suspects": [*SUSPECTS, *"ab \nAB.", "\xa0"], "words": [*WORDS.split(), *"  \n\n<&;"],
    "all": [*MOJIBAKE[::7], *ENTITIES, *CONTROLS[::3], *JOINING, *CHANGING, *SUSPECTS[::2], *"aaa   \n\n\n\r"],
}


@pytest.mark.parametrize("name", ALPHABETS)
def test_random_texts_come_out_as_from_ftfy(name):
    numbers = random.Random(name)
    ways = set()
    for _ in range(700):
        text = "".join(numbers.choices(ALPHABETS[name], k=numbers.randrange(1, 30)))
        assert cleaning.original(text) == fixed(text), ascii(text)
        assert cleaning.repair(text) == repaired(text), ascii(text)
        cleaning.repair(text).encode()
        ways.update(bool(cleaning.SUSPICIOUS.search(line)) for line in text.split("\n"))
    assert ways == {False, True} or name in ("entities", "joining")


def test_pairs_of_suspects_come_out_as_from_ftfy():
    numbers = random.Random(0)
    for left, right in numbers.sample(list(itertools.product(SUSPECTS, SUSPECTS)), 4000):
        text = numbers.choice(["", "a", " ", "A"]) + left + right + numbers.choice(["", "a", " ", "\n"])
        assert cleaning.original(text) == fixed(text), ascii(text)
        assert cleaning.repair(text) == repaired(text), ascii(text)


def test_only_lines_that_are_not_plain_go_to_fix_text(monkeypatch):
    monkeypatch.setattr(cleaning, "_fix", lambda line, entities: f"[{line!r}, {entities}]")
    assert cleaning.original("a; b\n’\n&lt;\nc<d\n&gt;\n\n\x07") == (
        "a; b\n['’\\n', auto]['&lt;\\n', auto]c<d\n['&gt;\\n', False]\n['\\x07', False]")


def test_only_lines_that_may_be_broken_go_to_fix_encoding(monkeypatch):
    monkeypatch.setattr(cleaning, "_fix_encoding", lambda line: f"[{line!r}]")
    for text in ("“It’s” — a\xa0naïve café…\n3 € &amp; ﬁ; Übermaß\n", "日本語テキスト。ー 한국어 Привет", "plain",
                 "中文“，”", "\U0001f600 \u2192 x", "Ελληνικά", "हिन्दी ไทย",
                 "zażółć gęślą jaźń, příliš žluťoučký kůň"):
        assert cleaning.repair(text) == text
    assert cleaning.repair("a\nÃ© b\n’\r\x85") == "a\n['Ã© b']\n’\n['\\x85']"


def test_another_ftfy_gets_every_line_that_is_not_ascii(monkeypatch):
    monkeypatch.setattr(cleaning, "_fix_encoding", lambda line: f"[{line}]")
    monkeypatch.setattr(cleaning, "PROVEN_FTFY", "6.3.0")
    cleaning._suspicious.cache_clear()
    try:
        assert cleaning.repair("é\n\nplain\n中") == "[é]\n\nplain\n[中]"
    finally:
        cleaning._suspicious.cache_clear()


SEGMENT = 1_000_000  # characters after which ftfy cuts a line


@pytest.mark.parametrize("text", [
    "a" * (SEGMENT - 1) + "\r\nb", "a" * SEGMENT + "\r\nb", "’" + "a" * SEGMENT + "’",
    "&lt;" + "a" * SEGMENT + "&lt;<&lt;\n&lt;", "\n\x07" + "a" * SEGMENT + "&lt;\n“", ""],
    ids=["end cut", "end whole", "quotes", "entities", "control", "empty"])
def test_lines_that_ftfy_cuts_come_out_as_from_it(text):
    assert cleaning.original(text) == fixed(text)


def real_texts(*patterns):
    for path in sorted(path for pattern in patterns for path in glob.glob(pattern, recursive=True)):
        with open(path, encoding="utf-8", errors="replace", newline="") as f:
            yield path, f.read(100_000)


def packages(*parts):
    return os.path.join(sysconfig.get_paths()["purelib"], *parts)


def test_real_texts_come_out_as_from_ftfy():
    found = 0
    for path, text in real_texts(packages("ftfy", "*.py"), packages("justext", "stoplists", "[A-F]*.txt"),
                                 os.path.join(STDLIB, "[t-z]*.py")):
        assert cleaning.original(text[:20_000]) == fixed(text[:20_000]), path
        assert cleaning.repair(text[:20_000]) == repaired(text[:20_000]), path
        found += 1
    assert found > 30


@pytest.mark.slow
def test_all_texts_at_hand_and_their_mojibake_come_out_as_from_ftfy():
    for path, text in real_texts(packages("**", "*.txt"), packages("**", "*.md"), packages("**", "*.rst"),
                                 os.path.join(STDLIB, "*.py"), os.path.join(STDLIB, "test", "test_[a-e]*.py"),
                                 os.path.join(STDLIB, "encodings", "*.py"), "/usr/share/doc/*/copyright"):
        assert cleaning.original(text) == fixed(text), path
        assert cleaning.repair(text) == repaired(text), path
        for encoding in ("cp1252", "latin-1", "cp1251", "mac_roman") if not text.isascii() else ():
            broken = text[:5000].encode().decode(encoding, "replace")
            assert cleaning.original(broken) == fixed(broken), (path, encoding)
            assert cleaning.repair(broken) == repaired(broken), (path, encoding)


@pytest.mark.slow
def test_every_character_alone_and_between_letters_comes_out_as_from_ftfy():
    # All of what Unicode gives, and of the planes that are empty or private some.
    for character in map(chr, [*range(0x34000), *range(0x34000, 0xe0000, 97), *range(0xe0000, 0xe1000),
                               *range(0xe1000, 0x110000, 97)]):
        for text in (character, f"a{character}b"):
            assert cleaning.original(text) == fixed(text), ascii(text)
            assert cleaning.repair(text) == repaired(text), ascii(text)
