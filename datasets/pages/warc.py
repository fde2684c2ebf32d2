"""Reads the pages of WARC files, plain or gzip: the responses that hold HTML.

The format: https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/
"""
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
            for number, record in enumerate(ArchiveIterator(stream, WarcRecordType.response, parse_http=False)):
                page, reason = _page(record, max_bytes)
                stem = None if reason else archives.stem_of(number, record.headers.get("WARC-Target-URI") or "")
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


def _page(record, max_bytes):
    """(bytes, None) or (None, why it is skipped); text in a charset that only the HTTP header names becomes UTF-8."""
    length = record.content_length
    if length > max_bytes + HTTP_HEADER_BYTES:
        return None, "too_big"
    content = record.reader.read(length) if length else b""
    if len(content) < length:
        raise EOFError(f"a record of {length} bytes ends after {len(content)}")
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
