"""datasets/pages/warc.py: files as crawlers write them, and damaged ones."""
import collections
import gzip
import hashlib
import sys
import time

import pytest

from configs.errors import UserError
from datasets.pages import warc
from tests.helpers.pages import article

URL = "http://example.org/{}"
HTML = "text/html; charset=utf-8"


def record(number, body, kind="response", status="200 OK", content_type=HTML, header=""):
    """A record of WARC 1.0 around an answer of HTTP."""
    http = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{header}\r\n".encode() + body
    return (f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {URL.format(number)}\r\n"
            f"WARC-Record-ID: <urn:uuid:{number}>\r\nWARC-Date: 2020-01-01T00:00:00Z\r\n"
            f"Content-Type: application/http; msgtype={kind}\r\nContent-Length: {len(http)}\r\n\r\n"
            ).encode() + http + b"\r\n\r\n"


def page(number):
    return article(number).encode()


RECORDS = [
    record(0, page(0)),
    record(1, page(1), kind="request"),
    record(2, page(2), status="404 Not Found"),
    record(3, bytes(range(256)), content_type="image/png"),
    record(4, gzip.compress(page(4)), header="Content-Encoding: gzip\r\n"),
    record(5, b"hello world", content_type="application/xhtml+xml"),
    record(6, b"no gzip at all", header="Content-Encoding: gzip\r\n"),
    record(7, gzip.compress(b"<p>" + b"a" * 3_000_000), header="Content-Encoding: gzip\r\n"),
    record(8, b"x" * 200_000),
    record(9, "<p>déjà vu".encode("latin-1"), content_type="text/html; charset=ISO-8859-1"),
    record(10, page(10)),
]
EXPECTED = [(0, 0, page(0)), (3, 4, page(4)), (4, 5, b"hello world"), (8, 9, "<p>déjà vu".encode()), (9, 10, page(10))]
OUTCOMES = {"page": 5, "not_html": 2, "bad_http": 1, "too_big": 2}


def read(path, content, outcomes=None):
    """Yields (stem, page); counts pages and what is skipped in `outcomes`."""
    path.write_bytes(content)
    for stem, page, reason, _ in warc.members(str(path), 20_000):
        if outcomes is not None:
            outcomes[reason or "page"] += 1
        if not reason:
            yield stem, page


@pytest.mark.parametrize("compress", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
def test_html_responses_are_read_and_the_rest_is_counted(tmp_path, compress):
    outcomes = collections.Counter()
    found = list(read(tmp_path / "a", b"".join(map(compress, RECORDS)), outcomes))
    assert found == [(f"{place:07d}-{hashlib.md5(URL.format(number).encode()).hexdigest()}", data)
                     for place, number, data in EXPECTED]
    assert outcomes == OUTCOMES


def test_chunks_are_joined(tmp_path):
    chunks = record(1, b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", header="Transfer-Encoding: chunked\r\n")
    found = [data for _, data in read(tmp_path / "a", chunks)]
    assert found == ([b"hello world"] if sys.version_info >= (3, 10) else [])  # see _response


@pytest.mark.parametrize("compress", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("cut", [3, 200, 400])
def test_a_file_that_is_cut_short_gives_the_pages_before_and_says_so(tmp_path, compress, cut):
    content = b"".join(map(compress, RECORDS))[:-cut]
    with pytest.raises(UserError, match=rf"a is truncated or damaged near byte {len(content)} \("):
        found = []
        for stem, data in read(tmp_path / "a", content):
            found.append((stem, data))
    assert [data for _, data in found][:4] == [data for _, _, data in EXPECTED[:4]]


@pytest.mark.parametrize("content", [b"", b"<html>no WARC</html>" * 50, gzip.compress(b"text" * 99),
                                     bytes(range(256)) * 9], ids=["empty", "html", "gzip", "binary"])
def test_what_is_no_warc_is_an_error(tmp_path, content):
    with pytest.raises(UserError, match="a is truncated or damaged"):
        list(read(tmp_path / "a", content))


def test_a_broken_byte_in_gzip_is_found(tmp_path):
    content = bytearray(b"".join(map(gzip.compress, RECORDS)))
    content[-60] ^= 255
    with pytest.raises(UserError, match="truncated or damaged"):
        list(read(tmp_path / "a", bytes(content)))


def test_a_file_that_is_not_there_is_an_error():
    with pytest.raises(UserError, match="/nowhere.warc: No such file"):
        list(warc.members("/nowhere.warc"))


def lying(number, length, kind="response"):
    """A record of a page that tells of another length than it has."""
    head, rest = record(number, page(number), kind).split(b"Content-Length: ")
    return head + b"Content-Length: " + str(length).encode() + rest[rest.index(b"\r"):]


@pytest.mark.parametrize("compress", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("length", [2**62, 2**63, 2**64 + 5, 10**400, 20_000_000, 20_000, 3000, 90, -1, -2**63, "x", "",
                                    "1e3", "\u0663"])
def test_a_length_that_a_record_tells_is_held_against_what_is_there(tmp_path, compress, place, length):
    content = b"".join(compress(lying(5, length) if number == place else record(number, page(number)))
                       for number in range(4))
    found, begun = [], time.monotonic()
    with pytest.raises(UserError, match="a is truncated or damaged near byte"):
        found += (data for _, data in read(tmp_path / "a", content))
    assert found[:place] == [page(number) for number in range(place)]
    assert len(found) <= place + 1 and time.monotonic() - begun < 5


@pytest.mark.parametrize("compress", [lambda data: data, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind, length", [("request", 2**62), ("warcinfo", 99_999_999), ("metadata", 4000),
                                          ("resource", 2**63), ("of no standard", 7_000_000)])
def test_pages_after_a_record_of_another_kind_are_not_lost_to_its_wrong_length(tmp_path, compress, kind, length):
    content = b"".join(map(compress, [record(2, page(2)), lying(4, length, kind), record(6, page(6))]))
    with pytest.raises(UserError, match="a is truncated or damaged near byte"):
        list(read(tmp_path / "a", content))
    whole = b"".join(map(compress, [record(2, page(2)), record(4, b"y" * 70_000, kind), record(6, page(6))]))
    assert [(stem[:7], data) for stem, data in read(tmp_path / "a", whole)] == [
        ("0000000", page(2)), ("0000001", page(6))]
