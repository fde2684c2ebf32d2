"""Downloads one file over HTTP: goes on where it was cut off, checks it, and names it only when it is whole and right.

Checksums that servers publish: Hugging Face's X-Linked-ETag (sha256 of a large file) and ETag (git's sha1 of a small
one), https://huggingface.co/docs/huggingface_hub; Azure's Content-MD5; Google Storage's x-goog-hash.
"""
from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from typing import NamedTuple

from tqdm import tqdm

from configs import storage
from configs.errors import UserError

ATTEMPTS = 5  # in a row that bring nothing
PAUSE = 1.0  # seconds before the second attempt, doubled before each further one
TIMEOUT = 60  # seconds without a byte
CHUNK = 2**20
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # answers that may be another one soon


class Checksum(NamedTuple):
    """What a file must hash to."""
    kind: str  # a hash of hashlib, or "git": sha1 over git's header and the file
    value: str  # hex
    origin: str  # who says so


class _Answer(NamedTuple):
    """What a server says before the bytes."""
    start: int  # of the bytes that are to come
    total: int  # bytes of the whole file
    version: str  # the same as long as the file is
    checksum: Checksum | None


class _Retry(Exception):
    """The attempt failed, the next may not."""


def fetch(url, path, checksum=None):
    """Downloads `url` to local `path`, unless that is there; returns the Checksum it has passed, None without one.

    `checksum` goes before what the server publishes.  A part of the file stays in `path`.partial until the rest has
    come.  Raises UserError: no such file, a web page instead, wrong bytes, or a server that gives up.
    """
    if os.path.exists(path):
        wrong = _mismatch(path, checksum)
        if wrong:
            raise UserError(f"{path}: {wrong}; delete it and run again")
        return checksum
    partial, failures = path + ".partial", 0
    while True:
        before = _size(partial)
        try:
            answer = _attempt(url, partial, os.path.basename(path))
            break
        except (_Retry, OSError, http.client.HTTPException) as error:
            if getattr(error, "filename", None) or getattr(error, "errno", None) in OF_THE_DISK:
                raise
            failures = 0 if _size(partial) > before else failures + 1
            if failures == ATTEMPTS:
                reason = getattr(error, "reason", None) or str(error) or type(error).__name__
                raise UserError(f"{url}: no more comes after {ATTEMPTS} attempts ({reason}); run the same command"
                                " later, and it goes on from there, or give another --base_url")
            time.sleep(PAUSE * 2 ** max(failures - 1, 0))
        except UserError:
            if not _size(partial):
                _forget(partial)
            raise
    checksum = checksum or answer.checksum
    wrong = _mismatch(partial, checksum)
    if wrong:
        _forget(partial)
        raise UserError(f"{path}: {wrong}; it is deleted; run again, or give another --base_url")
    with open(partial, "rb") as f:
        os.fsync(f.fileno())
    os.replace(partial, path)
    _forget(partial)
    return checksum


def _attempt(url, partial, name):
    """Appends to `partial` until it is whole; returns the _Answer.  Raises _Retry where it is not whole yet."""
    noted = _noted(partial)
    have = _size(partial) if noted else 0
    if noted and have == noted.total:
        return noted
    try:
        request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "gpt2-download"})
    except ValueError:
        raise UserError(f"{url} is no address; give --base_url as https://HOST/PATH")
    if have:
        request.add_header("Range", f"bytes={have}-")
    with _open(request, partial) as (response, redirects):
        answer = _read_headers(url, response, redirects)
        if answer.start and (noted is None or (answer.start, answer.total, answer.version)
                             != (have, noted.total, noted.version)):
            _forget(partial)
            raise _Retry("the file has changed on the server")
        free = shutil.disk_usage(os.path.dirname(partial) or ".").free
        if answer.total - answer.start > free:
            raise UserError(f"{url}: {answer.total - answer.start:,} bytes are to come, and the disk has {free:,} left;"
                            " make room")
        if not answer.start:
            storage.write_whole(_note_of(partial), json.dumps({**answer._asdict(), "start": 0}))
        with open(partial, "r+b" if answer.start else "wb") as f, \
                tqdm(total=answer.total, initial=answer.start, unit="B", unit_scale=True, unit_divisor=1000, desc=name,
                     mininterval=0.5 if sys.stderr.isatty() else 30) as bar:
            f.seek(answer.start)
            _copy(url, response, f, bar)
    if _size(partial) < answer.total:
        raise _Retry(f"the connection was cut at {_size(partial):,} of {answer.total:,} bytes")
    return noted if answer.start else answer  # the first answer's checksum is that of the whole


def _copy(url, response, f, bar):
    while True:
        data = response.read(CHUNK)
        if not data:
            return
        if f.tell() == 0 and re.match(rb"\s*<(!doctype|html|\?xml|error)", data[:100], re.I):
            raise UserError(f"{url} answers with a page of text instead of the file; give another --base_url")
        f.write(data)
        bar.update(len(data))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Keeps the headers of the answers that send elsewhere: Hugging Face's checksums stand there."""

    def __init__(self):
        self.headers = []

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        self.headers.append(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def _open(request, partial):
    """(response, headers of the redirects to it).  Raises UserError for a final refusal, _Retry for another failure."""
    redirects = _Redirects()
    try:
        response = urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the file is shorter than what we have
            _forget(partial)
        elif error.code not in TEMPORARY:
            raise UserError(f"{request.full_url}: the server answers {error.code} {error.reason}; give another"
                            " --base_url")
        raise _Retry(f"the server answers {error.code} {error.reason}")
    with contextlib.closing(response):
        yield response, redirects.headers


def _read_headers(url, response, redirects):
    """The _Answer.  Raises UserError for a web page and for a file of unknown size."""
    headers = response.headers
    if headers.get_content_type() == "text/html":
        raise UserError(f"{url} answers with a web page instead of the file; give another --base_url")
    start, total = 0, headers.get("Content-Length")
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        if not found:
            raise _Retry("the server does not say which part it sends")
        start, total = found.groups()
    if total is None:
        raise UserError(f"{url}: the server does not say how long the file is; give another --base_url")
    every = [headers, *redirects]
    version = _first(every[::-1], "X-Linked-ETag") or headers.get("ETag") or headers.get("Last-Modified") or ""
    return _Answer(int(start), int(total), version, _published(every))


def _published(every):
    """The Checksum in the headers of all answers on the way, or None."""
    linked, git = _first(every, "X-Linked-ETag"), _first(every, "ETag")
    if re.fullmatch(r'"?[0-9a-f]{64}"?', linked):
        return Checksum("sha256", linked.strip('"'), "the server")
    if _first(every, "X-Repo-Commit") and re.fullmatch(r'(W/)?"?[0-9a-f]{40}"?', git):
        return Checksum("git", git.replace("W/", "").strip('"'), "the server")
    goog = re.search(r"md5=([\w+/=]+)", ",".join(value for headers in every
                                                 for value in headers.get_all("x-goog-hash", [])))
    # Content-MD5 of an answer with a part is that of the part.
    whole = next((headers.get("Content-MD5") for headers in every if not headers.get("Content-Range")), None)
    md5 = _first(every, "x-ms-blob-content-md5") or whole or (goog and goog.group(1))
    if md5:
        try:
            return Checksum("md5", base64.b64decode(md5, validate=True).hex(), "the server")
        except binascii.Error:
            return None
    return None


def _first(every, name):
    return next((headers[name] for headers in every if headers.get(name)), "")


def _mismatch(path, checksum):
    """How the file at `path` differs from the checksum (or None), in words; None where it does not."""
    value = checksum and digest(path, checksum.kind)
    if checksum and value != checksum.value:
        return f"{checksum.kind} is {value}, but {checksum.origin} says {checksum.value}"
    return None


def digest(path, kind):
    """Hex digest of a file; `kind` as in Checksum."""
    state = hashlib.new("sha1" if kind == "git" else kind)
    if kind == "git":
        state.update(b"blob %d\0" % _size(path))
    with open(path, "rb") as f:
        for data in iter(lambda: f.read(CHUNK), b""):
            state.update(data)
    return state.hexdigest()


def _note_of(partial):
    return partial + ".json"


def _noted(partial):
    """The _Answer that `partial` began with; None where it is not known."""
    try:
        with open(_note_of(partial), encoding="utf-8") as f:
            values = json.load(f)
        checksum = values.pop("checksum")
        return _Answer(**values, checksum=checksum and Checksum(*checksum))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _forget(partial):
    for path in (partial, _note_of(partial)):
        if os.path.exists(path):
            os.unlink(path)


def _size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0
