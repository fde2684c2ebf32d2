"""datasets/pages/extractors.py: real pages and written ones through each library."""
import argparse
import glob
import os
import socket
import sysconfig

import pytest

from configs.errors import UserError
from datasets.pages import extractors
from tests.helpers.pages import article, paragraphs

HTML = ("trafilatura", "newspaper", "resiliparse")
HEAD = '<meta charset="{}">'


def make_judge(name, language=None):
    return extractors.make(argparse.Namespace(extractors=[name], minimum_characters=100, language=language))


@pytest.fixture(scope="module")
def judges():
    """{extractor: its judge}."""
    return {name: make_judge(name) for name in extractors.EXTRACTORS}


@pytest.mark.parametrize("name", HTML)
def test_the_article_is_found_and_what_surrounds_it_is_not(judges, name):
    outcome, text = judges[name](article(7).encode())
    assert outcome == "kept" and all(paragraph in text for paragraph in paragraphs(7))
    for noise in ("Menu entry", "Copyright notice", "tracker", "<p>"):
        assert noise not in text


@pytest.mark.parametrize("name", HTML)
@pytest.mark.parametrize("page", [
    article(3, "de", HEAD.format("utf-8")).encode(),
    b"\xef\xbb\xbf" + article(3, "de").encode(),
    article(3, "de", HEAD.format("iso-8859-1")).encode("latin-1"),
    article(3, "de").encode("latin-1"),
    ('<?xml version="1.0" encoding="iso-8859-1"?>' + article(3, "de")).encode("latin-1"),
    ('<?xml version="1.0" encoding="utf-8"?>\n' + article(3, "de")).encode(),
    article(3, "de", HEAD.format("utf-16")).encode("utf-16"),
], ids=["utf-8", "mark", "latin-1", "undeclared", "xml latin-1", "xml utf-8", "utf-16"])
def test_every_encoding_gives_the_same_text(judges, name, page):
    outcome, text = judges[name](page)
    assert outcome == "kept" and all(paragraph in text for paragraph in paragraphs(3, "de"))


def test_japanese_encodings_are_read():
    text = "<html><head><meta charset=shift_jis></head><p>港は嵐のあとに再建された。"
    assert extractors.decode(text.encode("shift_jis")) == text


def test_a_few_broken_bytes_leave_a_page_in_its_encoding():
    page = article(1, "de")
    assert extractors.decode(page.encode() + b"\xe9 \xc3") == page + "\ufffd \ufffd"


@pytest.mark.parametrize("page", [b'<meta charset="utf-8">caf\xe9 au lait', b"\xff\xfe\xfd\x81\x8d", b"\x80" * 3000])
def test_a_page_that_is_not_what_it_says_is_read_as_something(page):
    assert "utf-8" not in str(page) or extractors.decode(page).endswith("caf\xe9 au lait")
    assert isinstance(extractors.decode(page), str)


@pytest.mark.parametrize("name", HTML)
def test_broken_markup_is_read(judges, name):
    page = article(5).replace("</p>", "").replace("</article></main>", "<b><i></b></div></i>").replace("</h1>", "<h1")
    outcome, text = judges[name](page.encode())
    assert outcome == "kept" and paragraphs(5)[2] in text


@pytest.mark.parametrize("name", HTML)
@pytest.mark.parametrize("page", [b"", b" \n", b"<html></html>", b"<", b"\x00\x01\x02\xff", b"%PDF-1.4 \xe2\xe3",
                                  b"<p>too short</p>"])
def test_pages_without_enough_text_are_not_kept(judges, name, page):
    outcome, text = judges[name](page)
    assert outcome in ("empty", "short") and text is None


def test_a_giant_single_line_is_read_whole(judges):
    sentence = "All of this stands on one line of the page, and so does the rest. "
    page = f"<html><body><article><p>{sentence * 20000}</p></article></body></html>".encode()
    for name in HTML:  # newspaper's own limit is 100,000 characters
        outcome, text = judges[name](page)
        assert outcome == "kept" and len(text) >= len(sentence) * 20000 - 1


def test_a_language_that_newspaper_has_no_tokenizer_for_is_no_error(judges):
    outcome, text = judges["newspaper"](article(2).replace('lang="en"', 'lang="ja"').encode())
    assert outcome == "kept" and paragraphs(2)[0] in text


def test_real_pages_give_their_words_and_no_markup(judges):
    """Of any Python with TensorFlow a page of TensorBoard, and of a Debian the manuals; others elsewhere."""
    places = [os.path.join(sysconfig.get_path("purelib"), "tensorboard", "plugins", "*", "*", "*.html"),
              "/usr/share/doc/python3*/*.html", "/usr/share/doc/*/[a-m]*.html"]
    paths = [path for place in places for path in sorted(glob.glob(place)) if 2000 < os.path.getsize(path) < 100_000]
    assert paths
    for path in paths[:6]:
        with open(path, "rb") as f:
            page = f.read()
        source = extractors.decode(page)
        for name in ("trafilatura", "resiliparse"):
            outcome, text = judges[name](page)
            assert outcome in ("kept", "short", "empty")
            if text:
                words = [word for word in text.split() if word.isalpha()]
                assert sum(word in source for word in words) >= 0.98 * len(words), path


def test_of_a_list_the_first_that_yields_enough_counts():
    calls = []

    def library(name, text):
        def function(html):
            calls.append(name)
            if text is None:
                raise ValueError
            return text
        return function
    broken, little, enough = library("a", None), library("b", "few"), library("c", "x" * 9)
    assert extractors._extract([broken, little, enough, little], b"page", 9) == ("kept", "x" * 9)
    assert calls == ["a", "b", "c"]
    assert extractors._extract([broken, little], b"page", 9) == ("short", None)
    assert extractors._extract([broken, library("d", " ")], b"page", 9) == ("error", None)


def test_only_the_language_that_is_asked_for_is_kept():
    judge = make_judge("resiliparse", "de")
    assert judge(article(1, "de").encode())[0] == "kept"
    assert judge(article(1, "en").encode()) == ("other_language", None)


def test_plain_text_passes_unchanged(judges):
    text = "1 < 2 & <b>so on</b> é " * 10
    assert judges["text"](text.encode()) == ("kept", text.strip())


def test_no_library_goes_to_the_network(judges, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("network")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    page = article(1, head='<link rel="canonical" href="/b"><meta property="og:image" content="/a.png">',
                   tail='<img src="https://example.org/a.png"><a href="https://www.example.co.uk">x</a>').encode()
    for name in HTML:
        assert judges[name](page)[0] == "kept"


def test_an_unknown_extractor_is_named():
    with pytest.raises(UserError, match="'goose' is none of trafilatura, newspaper, resiliparse, text"):
        extractors.parse_names("trafilatura,goose")
