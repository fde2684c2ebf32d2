"""Reads the pages of WARC files, plain or gzip: the responses that hold HTML.

The format: https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/
"""
import functools
import gzip
import io
import warnings
import zlib

from configs.errors import UserError
from datasets.pages import archives

SUFFIXES = (".warc", ".warc.gz")
HTML_TYPES = ("text/html", "application/xhtml+xml")
END = b"\r\n\r\n"  # of each record, and so of the file
HTTP_HEADER_BYTES = 1 << 16
READ_BYTES = 1 << 16
RECORD = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http\r\nContent-Length: %d\r\n\r\n"


def members(path, max_bytes=archives.MAX_BYTES):
    """Yields (stem, page, reason, position) of each response, like archives.members.

    A stem is the record's number and the md5 of its URL.  Reasons to skip: `too_big`, `not_html` (other types, and
    answers other than 200), `bad_http`.
    """
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    with archives.open_archive(path) as raw:
        stream, problem = _Stream(raw), None
        try:
            number = 0  # of responses
            for record in ArchiveIterator(stream, parse_http=False):  # all kinds: each may tell of a wrong length
                response = record.record_type == WarcRecordType.response
                content = _content(record, max_bytes + HTTP_HEADER_BYTES if response else 0)
                if not response:
                    continue
                page, reason = _page(content, max_bytes)
                stem = None if reason else archives.stem_of(number, record.headers.get("WARC-Target-URI") or "")
                number += 1
                yield stem, page, reason, raw.tell()
        except Exception as error:  # each release of fastwarc has exceptions of its own
            problem = error
        problem = stream.problem or problem or (None if stream.tail == END else "the last record is cut short")
        if problem:
            raise UserError(f"{path} is truncated or damaged near byte {raw.tell()} ({problem}): get or make it again")


class _Stream:
    """What fastwarc reads from.  Damage ends it without an exception, so that the records before are not lost."""

    def __init__(self, raw):
        self.stream = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
        self.tail, self.problem, self.position = b"", None, 0

    def read(self, size=-1):
        try:
            data = self.stream.read1(size)  # not all at once: what comes before the damage counts
        except (EOFError, OSError, zlib.error) as error:
            self.problem, data = error, b""
        self.tail = (self.tail + data)[-len(END):]
        self.position += len(data)
        return data

    def tell(self):
        return self.position

    def close(self):
        """Left to who opened the file."""


def _content(record, most):
    """The bytes of a record, or None where there are more than `most`.  Raises EOFError where the file ends within."""
    parts, size = [], 0
    for part in iter(functools.partial(record.reader.read, READ_BYTES), b""):
        size += len(part)
        if size <= most:
            parts.append(part)
    if size < record.content_length:
        raise EOFError(f"a record of {record.content_length} bytes ends after {size}")
    return b"".join(parts) if size <= most else None


def _page(content, max_bytes):
    """(bytes, None) or (None, why it is skipped); text in a charset that only the HTTP header names becomes UTF-8.

    `content` is that of a response, or None where it is too big.
    """
    if content is None:
        return None, "too_big"
    try:
        response, page = _response(content, max_bytes)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # errors of fastwarc, and a panic of fastwarc's Rust, which is no Exception
        return None, "bad_http"
    if (response.http_headers is None or response.http_headers.status_code != 200
            or response.http_content_type not in HTML_TYPES):
        return None, "not_html"
    if len(page) > max_bytes:
        return None, "too_big"
    if (response.http_charset or "utf-8").lower() != "utf-8":
        from datasets.crawl import charsets
        page = charsets.decode(page, response.http_charset).encode("utf-8", "replace")
    return page, None


def _response(content, max_bytes):
    """(record, body without its transfer and content encodings, at most one byte longer than max_bytes)."""
    from fastwarc.warc import ArchiveIterator
    # A file of its own: an error in a record's encodings ends the reading of the file that it belongs to.
    record = next(iter(ArchiveIterator(io.BytesIO(RECORD % len(content) + content + END), parse_http=False)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # with a warning the releases for Python 3.9 leave chunks as they are
        record.parse_http(auto_decode="all")
    body = b""
    while len(body) <= max_bytes and (more := record.reader.read(max_bytes + 1 - len(body))):
        body += more
    return record, body
