"""Turns a page into its text: calls the libraries that find the article in HTML, and judges what they return.

trafilatura: https://trafilatura.readthedocs.io; newspaper4k: https://newspaper4k.readthedocs.io, the heir of the
original's newspaper3k; resiliparse: https://resiliparse.chatnoir.eu, about 15 times as fast as either.
"""
import re
from importlib.metadata import version

from configs.errors import UserError

XML_DECLARATION = re.compile(r"\s*<\?xml\b[^>]*>", re.I)
UNLIMITED = 10 ** 9
LANGUAGE_CHARACTERS = 100_000  # that the language is told by; 10 million would take a second


def make(options):
    """The function `judge(page)`, with its libraries loaded: bytes -> (outcome, text or None).

    `options` hold `extractors` (names, the first that yields enough counts), `minimum_characters` and `language` (as
    resiliparse names it, or None).  Outcomes: kept, and without a text empty, short, other_language, error.
    """
    from resiliparse.parse import lang
    functions = [EXTRACTORS[name]() for name in options.extractors]

    def judge(page):
        outcome, text = _extract(functions, page, options.minimum_characters)
        if text and options.language and lang.detect_fast(text[:LANGUAGE_CHARACTERS])[0] != options.language:
            return "other_language", None
        return outcome, text
    return judge


def decode(page):
    """bytes -> str, without the declaration of XML: it is wrong by now, and lxml refuses text that has one."""
    from datasets.crawl import charsets
    text = charsets.decode(page)
    declaration = XML_DECLARATION.match(text)
    return text[declaration.end():] if declaration else text


def versions(extractors):
    """{library: version} of all that decides the text."""
    used = {"resiliparse"} | {LIBRARIES.get(name) for name in extractors} - {None}
    return {name: version(name) for name in sorted(used)}


def parse_names(names):
    """"a,b" -> ["a", "b"].  Raises UserError for what is no extractor."""
    parsed = [name.strip() for name in names.split(",")]
    for name in parsed:
        if name not in EXTRACTORS:
            raise UserError(f"--extractor {names}: {name!r} is none of {', '.join(EXTRACTORS)}")
    return parsed


def _extract(functions, page, minimum_characters):
    """(outcome, text) of the first that yields enough."""
    html, failures = decode(page), {"empty"}
    for function in functions:
        try:
            text = (function(html) or "").strip()
        except Exception:  # each library fails on some page in its own ways
            failures.add("error")
            continue
        if len(text) >= minimum_characters:
            return "kept", text
        failures.add("short" if text else "empty")
    return next(name for name in ("short", "error", "empty") if name in failures), None


def _trafilatura():
    import trafilatura
    # Comments are no part of the article; newspaper and the original leave them out too.
    return lambda html: trafilatura.extract(html, include_comments=False)


def _newspaper():
    import newspaper

    def parse(html, **config):
        article = newspaper.Article("http://localhost/", fetch_images=False, **config)
        article.config.max_text = UNLIMITED  # 100,000 characters are its own limit
        article.download(input_html=html)
        return article.parse().text

    def extract(html):
        try:
            return parse(html)
        except ImportError:  # the page declares a language whose tokenizer is a further package
            return parse(html, language="en")
    return extract


def _resiliparse():
    from resiliparse.extract import html2text
    return lambda html: html2text.extract_plain_text(html, main_content=True, comments=False)


EXTRACTORS = {"trafilatura": _trafilatura, "newspaper": _newspaper, "resiliparse": _resiliparse, "text": lambda: str}
LIBRARIES = {"trafilatura": "trafilatura", "newspaper": "newspaper4k"}
