"""Downloads one file over HTTP: goes on where it was cut off, checks it, and names it only when it is whole and right.

Checksums that servers publish: Hugging Face's X-Linked-ETag (sha256 of a large file) and ETag (git's sha1 of a small
one), https://huggingface.co/docs/huggingface_hub; Azure's Content-MD5; Google Storage's x-goog-hash.
"""
from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import ssl
import time
import urllib.parse
from typing import NamedTuple

import requests

from configs import progress, reading, storage
from configs.errors import UserError

ATTEMPTS = 5  # in a row that bring nothing
PAUSE = 1.0  # seconds before the second attempt, doubled before each further one
TIMEOUT = 60  # seconds without a byte
CHUNK = 2**20
NOTE = ".json"  # ending of the file that says what a partial file is part of
LONGEST_NOTE = 1 << 16  # bytes of it that are read
KINDS = ("sha256", "git", "md5")  # of the checksums that servers publish
NUMBER = "[0-9]{1,15}"  # regex: of bytes
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # statuses after which the same request may succeed
LINKED = ("X-Linked-ETag", "X-Repo-Commit")  # headers of Hugging Face on the file, which stand in redirects to it
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "gpt2-download"}


class Checksum(NamedTuple):
    """What a file must hash to."""
    kind: str  # a hash of hashlib, or "git": sha1 over git's header and the file
    value: str  # hex
    origin: str  # who says so


class _RemoteFile(NamedTuple):
    """What the server says about the file as a whole."""
    total: int  # bytes
    version: str  # the same as long as the file is
    checksum: Checksum | None


def fetch(url, path, checksum=None):
    """Downloads `url` to local `path`, unless that is there; returns the Checksum it has passed, None without one.

    `checksum` goes before what the server publishes.  A part of the file stays beside `path` until the rest has come;
    the caller holds a lock.  Raises UserError: no such file, a web page instead, wrong bytes, a server that gives up.
    """
    if os.path.exists(path):
        wrong = _mismatch(path, checksum)
        if wrong:
            raise UserError(f"{path}, which lay there before: {wrong}; move it elsewhere and run again")
        return checksum
    partial, failures = os.path.join(os.path.dirname(path), storage.PARTIAL + os.path.basename(path)), 0
    if not _is_known(partial, checksum):
        _forget(partial)
    most = _size(partial)
    while True:
        try:
            remote = _attempt(url, partial, os.path.basename(path))
            break
        except requests.RequestException as error:
            held = _size(partial)  # it is progress only if it is more than ever before: a server may begin again
            failures, most = (0, held) if held > most else (failures + 1, most)
            if failures == ATTEMPTS:
                goes_on = ", and it goes on from there" if _is_known(partial, checksum) else ""
                raise UserError(f"{url}: no more comes after {ATTEMPTS} attempts ({_cause(error)}); run the same"
                                f" command later{goes_on}, or give another --base_url")
            time.sleep(PAUSE * 2 ** max(failures - 1, 0))
    checksum = checksum or remote.checksum
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
    """Appends to `partial` until it is whole; returns the _RemoteFile.  Raises RequestException if a retry may help."""
    remote = _noted(partial)
    have = _size(partial) if remote else 0
    if remote and have == remote.total:
        return remote
    with _request(url, partial, have) as response:
        start, current = _read_headers(url, response)
        if start and (not have or start != have or current[:2] != remote[:2]):
            _forget(partial)
            raise requests.ConnectionError("the file has changed on the server")
        free = shutil.disk_usage(os.path.dirname(partial) or ".").free
        if current.total - start > free:
            raise UserError(f"{url}: {current.total - start:,} bytes are to come, and the disk has {free:,} left;"
                            " make room")
        if not start:  # only an answer with the whole file publishes the checksum of the whole
            remote = current
            storage.write_whole(partial + NOTE, json.dumps(remote._asdict()))
        with open(partial, "ab" if start else "wb") as f, \
                progress.bar(remote.total, name, "B", start, unit_scale=True, unit_divisor=1000) as bar:
            for data in _body(url, response):
                if f.tell() == 0 and re.match(rb"\s*<(!doctype|html|\?xml|error)", data[:100], re.I):
                    _forget(partial)
                    raise UserError(f"{url} answers with a page of text instead of the file; give another --base_url")
                if f.tell() + len(data) > remote.total:  # of chunks, which nobody counts
                    _forget(partial)
                    raise requests.ConnectionError(f"more comes than the {remote.total:,} bytes that were announced")
                f.write(data)
                bar.update(len(data))
    if _size(partial) < remote.total:
        raise requests.ConnectionError(f"the connection was cut at {_size(partial):,} of {remote.total:,} bytes")
    return remote


class _SystemCertificates(requests.adapters.HTTPAdapter):
    """Trusts the system's certificates and those in SSL_CERT_FILE, too: no package holds a company's own."""

    def build_connection_pool_key_attributes(self, request, verify, cert=None):
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {**pool, "ssl_context": ssl.create_default_context()}


class _Session(requests.Session):
    """Sends no password of ~/.netrc, which nobody asked for, and trusts the certificates of this machine."""

    def __init__(self):
        super().__init__()
        self.trust_env = False  # else it reads ~/.netrc
        self.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        self.mount("https://", _SystemCertificates())

    def get_redirect_target(self, response):
        target = super().get_redirect_target(response)
        scheme = "https:" if response.url.startswith("https:") else "https?:"  # who begins safely stays safe
        if target is not None and not re.match(scheme, urllib.parse.urljoin(response.url, target)):
            raise UserError(f"{response.url}: the server redirects to {target[:200]!a}, which is not followed; give"
                            " another --base_url")
        return target

    def rebuild_proxies(self, prepared_request, proxies):  # after a redirect, perhaps to a host of no_proxy
        return requests.utils.get_environ_proxies(prepared_request.url)


@contextlib.contextmanager
def _usable(url):
    """Turns what the libraries raise at an answer that would be the same again into a UserError."""
    try:
        yield
    except Exception as error:  # of headers, redirects, chunks, of what unpacks a page: requests passes all of it on
        passing = isinstance(error, requests.RequestException)
        if passing and not isinstance(error, (ValueError, requests.TooManyRedirects)):
            raise
        raise UserError(f"{url}: the server's answer cannot be used ({_cause(error)}); give another --base_url")


def _body(url, response):
    """Yields the bytes of the body.  Raises as `_attempt`."""
    with _usable(url):
        yield from response.iter_content(CHUNK)


def _request(url, partial, have):
    """The response with the bytes from `have` on.  Raises as `_attempt`, UserError for a refusal."""
    wanted = {"Range": f"bytes={have}-"} if have else {}
    try:
        if not re.match("https?://", url, re.I):
            raise ValueError
        requests.Request("GET", url).prepare()
    except ValueError:
        raise UserError(f"{url} is no address; give --base_url as https://HOST/PATH")
    with _usable(url):
        response = _Session().get(url, headers={**HEADERS, **wanted}, stream=True, timeout=TIMEOUT,
                                  proxies=requests.utils.get_environ_proxies(url))
    if response.status_code in (200, 206):
        response.raw.enforce_content_length = False  # else the last bytes before a cut would be lost
        return response
    response.close()
    answer = f"the server answers {response.status_code} {response.reason}"
    if response.status_code == 416:  # the file is shorter than what we have
        _forget(partial)
    elif response.status_code not in TEMPORARY:
        raise UserError(f"{url}: {answer}; give another --base_url")
    raise requests.ConnectionError(answer)


def _read_headers(url, response):
    """(first byte to come, the _RemoteFile).  Raises UserError for a web page and for a file of unknown size."""
    headers = response.headers
    if headers.get("Content-Type", "").startswith("text/html"):
        raise UserError(f"{url} answers with a web page instead of the file; give another --base_url")
    start, total = 0, headers.get("Content-Length")
    if response.status_code == 206:
        content_range = re.fullmatch(f"bytes ({NUMBER})-{NUMBER}/({NUMBER})", headers.get("Content-Range", ""))
        if not content_range:
            raise requests.ConnectionError("the server does not say which part it sends")
        start, total = content_range.groups()
    if total is None:
        raise UserError(f"{url}: the server does not say how long the file is; give another --base_url")
    packing = headers.get("Content-Encoding", "identity")
    if not re.fullmatch(NUMBER, total) or packing != "identity":
        raise UserError(f"{url}: the server announces {total[:40]!a} bytes in the encoding {packing[:40]!a}, and only a"
                        " number of bytes as they are can be checked; give another --base_url")
    linked = [(name, answer.headers[name]) for answer in response.history for name in LINKED if name in answer.headers]
    headers = requests.structures.CaseInsensitiveDict([*linked, *headers.items()])
    version = headers.get("X-Linked-ETag") or headers.get("ETag") or headers.get("Last-Modified") or ""
    return int(start), _RemoteFile(int(total), version, _published(headers))


def _published(headers):
    """The Checksum in the headers of the answer, with what the redirects to it say in LINKED, or None."""
    linked, git = (headers.get(name, "").replace("W/", "").strip('"') for name in ("X-Linked-ETag", "ETag"))
    if re.fullmatch(r"[0-9a-f]{64}", linked):
        return Checksum("sha256", linked, "the server")
    if headers.get("X-Repo-Commit") and re.fullmatch(r"[0-9a-f]{40}", git):
        return Checksum("git", git, "the server")
    google = re.search(r"md5=([\w+/=]+)", headers.get("x-goog-hash", ""))
    md5 = headers.get("x-ms-blob-content-md5") or headers.get("Content-MD5") or (google and google.group(1))
    try:
        value = base64.b64decode(md5 or "", validate=True).hex()
    except ValueError:  # some servers have a mark of their own there
        return None
    return Checksum("md5", value, "the server") if len(value) == 32 else None


def _cause(error):
    """The error at the bottom, which says most plainly what went wrong; the libraries wrap it again and again."""
    while error.__context__:
        error = error.__context__
    return str(error) or type(error).__name__


def _mismatch(path, checksum):
    """How the file at `path` differs from the checksum (or None), in words; None where it does not."""
    if not checksum:
        return None
    state = hashlib.new("sha1" if checksum.kind == "git" else checksum.kind)
    if checksum.kind == "git":
        state.update(b"blob %d\0" % _size(path))
    with open(path, "rb") as f:
        for data in iter(lambda: f.read(CHUNK), b""):
            state.update(data)
    if state.hexdigest() == checksum.value:
        return None
    return f"{checksum.kind} is {state.hexdigest()}, but {checksum.origin} says {checksum.value}"


def _noted(partial):
    """The _RemoteFile that `partial` began with; None where it is not known."""
    try:
        values = reading.parse(storage.read_bytes(partial + NOTE, LONGEST_NOTE))
        reading.check_kinds(values, {"total": int, "version": str, "checksum": (list, type(None))})
        checksum = values["checksum"] and Checksum(*values["checksum"])
        if checksum:
            reading.check_kinds(checksum._asdict(), dict.fromkeys(Checksum._fields, str))
    except (OSError, ValueError, TypeError):
        return None
    known = not checksum or checksum.kind in KINDS
    return _RemoteFile(values["total"], values["version"], checksum) if known and values["total"] >= 0 else None


def _is_known(partial, checksum):
    """Whether another run can tell, from the server's words or the Checksum, that `partial` is of the same file."""
    remote = _noted(partial)
    return bool(remote and (remote.version or remote.checksum or checksum))


def _forget(partial):
    for path in (partial, partial + NOTE):
        if os.path.exists(path):
            os.unlink(path)


def _size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0
