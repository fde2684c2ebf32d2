"""One web page at a time, out of a hostile web: every wait, size and address has a limit, every end a name.

Politeness after RFC 9309 (https://www.rfc-editor.org/rfc/rfc9309): robots.txt, a few requests per host, a name of ours.
"""
from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
import ssl
import time
import zlib
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp
import certifi
from yarl import URL

from datasets.crawl import charsets, robots

KINDS = ("text/html", "application/xhtml+xml", "text/plain")
MAX_HEADER_BYTES = 1 << 15  # of one; there may be 128
MAX_WAIT_SECONDS = 120  # before a page is tried again, whatever the server wishes
PASSING_STATUSES = (408, 425, 429)  # and all from 500 on
NO_SUCH_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
NAT64 = ipaddress.ip_network("64:ff9b::/96")
IDLE_HOSTS = 10_000  # whose last visit is remembered


class Limits(NamedTuple):
    """What the command line says; seconds and bytes."""
    concurrency: int
    per_host: int
    connect_timeout: float
    read_timeout: float  # between two pieces
    timeout: float  # for one answer as a whole
    max_bytes: int  # decoded
    max_redirects: int
    retries: int
    retry_wait: float  # doubled each time
    user_agent: str
    allow_private: bool
    ignore_robots: bool


class Page(NamedTuple):
    text: bytes  # UTF-8
    seconds: float  # that requests took, without the waiting for a turn


class Failure(Exception):
    """Why there is no page: `outcome` is counted; if `passing`, it may go better next time."""

    def __init__(self, outcome, *, passing=False, wait=0.0):
        super().__init__(outcome)
        self.outcome, self.passing, self.wait = outcome, passing, wait


class PrivateAddress(OSError):
    """Always the same words, so that several addresses of a host make one error."""

    def __init__(self, *_):
        super().__init__("not an address of the public Internet")


class Fetcher:
    """Pages by their URL.  An async context manager; made and used inside one event loop."""

    def __init__(self, limits):
        self.limits = limits
        self._turns = asyncio.Semaphore(limits.concurrency)
        self.open = asyncio.Event()  # whoever cannot store pages as fast as they come clears it
        self.open.set()
        self._hosts = {}
        self._robots = robots.Cache(self._fetch_robots, limits.user_agent)
        self._names_work = False

    async def __aenter__(self):
        limits = self.limits
        certificates = ssl.create_default_context()
        certificates.load_verify_locations(certifi.where())  # some systems have none of their own
        connector = aiohttp.TCPConnector(limit=0, ssl=certificates, keepalive_timeout=2,
                                         socket_factory=None if limits.allow_private else _public_socket)
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=limits.timeout, sock_connect=limits.connect_timeout,
                                          sock_read=limits.read_timeout),
            max_field_size=MAX_HEADER_BYTES, max_line_size=MAX_HEADER_BYTES,
            headers={"User-Agent": limits.user_agent, "Accept": ", ".join(KINDS[:2]) + ", text/plain;q=0.9",
                     "Accept-Encoding": "gzip, deflate"})
        return self

    async def __aexit__(self, *_):
        await self._robots.close()
        await self._session.close()

    async def page(self, url):
        """The Page at an URL (str); raises Failure when it is clear that there is none, or after the last try."""
        for attempt in range(self.limits.retries + 1):
            try:
                return await self._try(url)
            except Failure as failure:
                # Without a network no host exists; until one was found, that is no reason to give up a page for good.
                failure.passing = failure.passing or failure.outcome == "no_such_host" and not self._names_work
                if not failure.passing or attempt == self.limits.retries:
                    raise
                wait = self.limits.retry_wait * 2 ** attempt * random.uniform(0.5, 1.5)
                await asyncio.sleep(min(max(wait, failure.wait), MAX_WAIT_SECONDS))

    async def _try(self, url):
        with _named_failures():
            started = URL(url)
        answer = await self._follow(started, self.limits.max_bytes, check=True)
        text = charsets.decode(answer.body, _charset(answer.kind))
        if not charsets.is_text(text):
            raise Failure("binary")
        if not text.strip():
            raise Failure("empty")
        return Page(text.encode(), answer.seconds)

    async def _follow(self, url, max_bytes, *, check, cut=False):
        """The _Answer with status 200 at the end of the redirects; `check`: only where robots.txt allows each."""
        seconds = 0.0
        for _ in range(self.limits.max_redirects + 1):
            if url.scheme not in ("http", "https") or not url.host:
                raise Failure("bad_redirect")
            delay = 0.0
            if check and not self.limits.ignore_robots:
                with _named_failures():
                    allowed, delay = await self._robots.ask(url)
                if not allowed:
                    raise Failure("robots")
            async with self._turn(url.host, delay):
                with _named_failures():
                    answer = await self._get(url, max_bytes, cut)
            seconds += answer.seconds
            if not answer.location:
                return answer._replace(seconds=seconds)
            with _named_failures("bad_redirect"):
                url = url.join(URL(answer.location))
        raise Failure("too_many_redirects")

    async def _get(self, url, max_bytes, cut):
        start = time.monotonic()
        async with self._session.get(url, allow_redirects=False) as response:
            status, headers = response.status, response.headers
            self._names_work = self._names_work or not _is_ip(url.host)
            location = headers.get("Location") if status in (301, 302, 303, 307, 308) else None
            if location:
                return _Answer(location, "", b"", time.monotonic() - start)
            if status != 200:
                raise Failure(f"http_{status}", passing=status >= 500 or status in PASSING_STATUSES,
                              wait=_wait(headers.get("Retry-After", "")))
            kind = headers.get("Content-Type", "")
            if not cut and kind.partition(";")[0].strip().lower() not in (*KINDS, ""):
                raise Failure("other_type")
            if not cut and (response.content_length or 0) > max_bytes:
                raise Failure("too_big")
            body = await _read(response, max_bytes, cut)
        return _Answer(None, kind, body, time.monotonic() - start)

    async def _fetch_robots(self, url):
        """The bytes, or None where the host has no rules; raises Failure where that cannot be known."""
        try:
            return (await self._follow(url, robots.MAX_BYTES, check=False, cut=True)).body
        except Failure as failure:
            if failure.outcome.startswith("http_5") or failure.outcome == "http_429":
                raise Failure("robots_unreachable", passing=True, wait=failure.wait)
            if failure.outcome.startswith("http_") or failure.outcome in ("bad_redirect", "too_many_redirects"):
                return None
            raise

    @contextlib.asynccontextmanager
    async def _turn(self, name, delay):
        """A place among the requests to a host, then among all: who waits for a host keeps nobody else waiting."""
        host = self._hosts.get(name)
        if host is None:
            self._forget_hosts()
            host = self._hosts[name] = _Host(asyncio.Semaphore(self.limits.per_host))
        host.users += 1
        try:
            async with host.turns:
                now = time.monotonic()
                host.ready, wait = max(now, host.ready) + delay, host.ready - now
                if delay and wait > 0:
                    await asyncio.sleep(wait)
                async with self._turns:
                    await self.open.wait()
                    yield
        finally:
            host.users -= 1

    def _forget_hosts(self):
        if len(self._hosts) >= IDLE_HOSTS:
            now = time.monotonic()
            self._hosts = {name: host for name, host in self._hosts.items() if host.users or host.ready > now}


class _Host:
    def __init__(self, turns):
        self.turns, self.users, self.ready = turns, 0, 0.0


class _Answer(NamedTuple):
    location: str | None  # of a redirect
    kind: str  # content type
    body: bytes
    seconds: float


def _public_socket(address):
    """The socket for a connection to (family, type, protocol, name, socket address).

    Here and not where names are resolved: this is the address that is really connected to, however the URL, a redirect
    or a name server that changes its mind came upon it.
    """
    family, kind, protocol, _, (ip, *_) = address
    if not is_public(ip):
        raise PrivateAddress
    return socket.socket(family, kind, protocol)


def _is_ip(host):
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host) is not None
    return False


def is_public(ip):
    """Whether an IP address, as text, is of the public Internet, also inside the wrappings of IPv6."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if address.version == 6:
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xffffffff))
        inner = [ip for ip in inner if ip is not None]
        if inner:
            return all(is_public(str(ip)) for ip in inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


async def _read(response, max_bytes, cut):
    """The body, decoded; `cut`: a longer one is cut off instead of refused.  Raises Failure."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise Failure("other_encoding")
    decoder, body, received = None, bytearray(), 0
    async for chunk in response.content.iter_any():
        received += len(chunk)
        if encoding in ("", "identity"):
            body += chunk
        else:
            decoder = _unpack(chunk, decoder or _decoder(encoding, chunk), body, max_bytes)
        if len(body) > max_bytes or received > max_bytes:
            if cut:
                return bytes(body[:max_bytes])
            raise Failure("too_big")
    if decoder is not None and not decoder.eof:
        raise Failure("cut_off", passing=True)
    return bytes(body)


def _unpack(chunk, decoder, body, max_bytes):
    """Adds to `body` what a chunk holds, at most one byte too many; returns the decoder to go on with."""
    while chunk:
        body += decoder.decompress(chunk, max(1, max_bytes + 1 - len(body)))
        chunk = decoder.unused_data
        if not chunk.startswith(b"\x1f\x8b"):  # else gzip again: files packed one by one may stand in a row
            break
        decoder = _decoder("gzip", chunk)
    return decoder


def _decoder(encoding, start):
    if encoding == "deflate":  # some servers leave out the zlib wrapping
        wrapped = len(start) > 1 and start[0] & 15 == 8 and (start[0] << 8 | start[1]) % 31 == 0
        return zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _wait(retry_after):
    """Seconds of a Retry-After header, 0 where it says nothing."""
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, float(retry_after))
    with contextlib.suppress(ValueError, TypeError, OverflowError, IndexError):
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    return 0.0


def _charset(content_type):
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("\"'")
    return None


@contextlib.contextmanager
def _named_failures(invalid="invalid"):
    """Turns what aiohttp, yarl and the system raise into Failures."""
    try:
        yield
    except (Failure, asyncio.CancelledError):
        raise
    except asyncio.TimeoutError:
        raise Failure("timeout", passing=True)
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError):
        raise Failure("tls")
    except aiohttp.ClientConnectorDNSError as error:
        unknown = getattr(error.os_error, "errno", None) in NO_SUCH_HOST
        raise Failure("no_such_host" if unknown else "name_server", passing=not unknown)
    except aiohttp.ClientConnectorError as error:
        private = isinstance(error.os_error, PrivateAddress)
        raise Failure("private_address" if private else "connection", passing=not private)
    except aiohttp.ClientPayloadError:
        raise Failure("cut_off", passing=True)
    except zlib.error:
        raise Failure("other_encoding")
    except aiohttp.ClientResponseError:
        raise Failure("bad_answer")
    except (aiohttp.InvalidURL, ValueError):
        raise Failure(invalid)
    except (aiohttp.ClientError, OSError):
        raise Failure("connection", passing=True)
    except Exception as error:  # a page that a library cannot bear must not end a run of millions
        raise Failure(f"error_{type(error).__name__}", passing=True)
