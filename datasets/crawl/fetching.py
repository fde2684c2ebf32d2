"""Fetches web pages from a hostile web: every wait, size and address has a limit, every failure has a name.

It is polite as RFC 9309 asks (https://www.rfc-editor.org/rfc/rfc9309): robots.txt, few requests per host, our own name.
"""
import asyncio
import contextlib
import random
import ssl
import time
import types

import aiohttp
import certifi
from aiohttp import helpers
from yarl import URL

from datasets.crawl import addresses, answers, charsets, robots
from datasets.crawl.answers import Failure, named_failures

TYPES = ("text/html", "application/xhtml+xml", "text/plain")
MAX_HEADER_BYTES = 1 << 15  # of one; there may be 128
MAX_WAIT_SECONDS = 120  # before a page is tried again, whatever the server wishes
REDIRECTS = (301, 302, 303, 307, 308)
PASSING_STATUSES = (408, 425, 429)  # and all from 500 on
IDLE_HOSTS = 10_000  # whose last visit is remembered


class Fetcher:
    """Pages by their URL, within `limits`, the options of datasets/download.py.

    An async context manager; made and used inside one event loop.
    """

    def __init__(self, limits):
        self.limits = limits
        self._turns = asyncio.Semaphore(limits.concurrency)
        self.open = asyncio.Event()  # cleared while pages come faster than they are stored
        self.open.set()
        self._hosts = {}
        self._robots = robots.Cache(self._fetch_robots, limits.user_agent)
        self._names_work = False
        certificates = ssl.create_default_context()
        certificates.load_verify_locations(certifi.where())  # for systems without certificates
        connector = aiohttp.TCPConnector(limit=0, ssl=certificates, keepalive_timeout=2,
                                         socket_factory=None if limits.allow_private else addresses.public_socket)
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=limits.timeout, sock_connect=limits.connect_timeout,
                                          sock_read=limits.read_timeout),
            max_field_size=MAX_HEADER_BYTES, max_line_size=MAX_HEADER_BYTES,
            headers={"User-Agent": limits.user_agent, "Accept": ", ".join(TYPES[:2]) + ", text/plain;q=0.9",
                     "Accept-Encoding": "gzip, deflate"})

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._session.close()

    async def page(self, url):
        """(text in UTF-8, seconds without the waiting for turns) of a URL, a str.

        Raises Failure when there is no page for certain, or after the last try.
        """
        for attempt in range(self.limits.retries + 1):
            try:
                content_type, body, seconds = await self._follow(url, self.limits.max_bytes, is_page=True)
                text = charsets.decode(body, answers.charset(content_type))
                if not charsets.is_text(text):
                    raise Failure("binary")
                if not text.strip():
                    raise Failure("empty")
                return text.encode(), seconds
            except Failure as failure:
                # Without a network no host exists: until a name has been found, the page stays to be tried again.
                failure.passing = failure.passing or failure.outcome == "no_such_host" and not self._names_work
                if not failure.passing or attempt == self.limits.retries:
                    raise
                wait = self.limits.retry_wait * 2 ** attempt * random.uniform(0.5, 1.5)
                await asyncio.sleep(min(max(wait, failure.wait), MAX_WAIT_SECONDS))

    async def _follow(self, url, max_bytes, *, is_page):
        """(Content-Type, body, seconds) at the end of the redirects; robots.txt must allow each redirect of a page."""
        seconds, delay = 0.0, 0.0
        with named_failures():
            url = URL(url)
            for _ in range(self.limits.max_redirects + 1):
                if url.scheme not in ("http", "https") or not url.host:
                    raise Failure("bad_redirect")
                if is_page and not self.limits.ignore_robots:
                    allowed, delay = await self._robots.ask(url)
                    if not allowed:
                        raise Failure("robots")
                async with self._turn(url.host, delay):
                    start = time.monotonic()
                    location, content_type, body = await self._get(url, max_bytes, is_page)
                    seconds += time.monotonic() - start
                if not location:
                    return content_type, body, seconds
                with named_failures("bad_redirect"):
                    url = url.join(URL(location))
        raise Failure("too_many_redirects")

    async def _get(self, url, max_bytes, is_page):
        """(Location or None, Content-Type, body); a page must be a text and not too long, other files are cut off."""
        async with self._session.get(url, allow_redirects=False) as response:
            status, headers = response.status, response.headers
            self._names_work = self._names_work or not helpers.is_ip_address(url.host)
            if status in REDIRECTS and headers.get("Location"):
                return headers["Location"], "", b""
            if status != 200:
                raise Failure(f"http_{status}", passing=status >= 500 or status in PASSING_STATUSES,
                              wait=answers.seconds_to_wait(headers.get("Retry-After", "")))
            content_type = headers.get("Content-Type", "")
            if is_page and content_type.partition(";")[0].strip().lower() not in (*TYPES, ""):
                raise Failure("other_type")
            if is_page and (response.content_length or 0) > max_bytes:
                raise Failure("too_big")
            return None, content_type, await answers.read_body(response, max_bytes, cut=not is_page)

    async def _fetch_robots(self, url):
        """The bytes, or None where the host has no rules; raises Failure where that cannot be known."""
        try:
            _, body, _ = await self._follow(url, robots.MAX_BYTES, is_page=False)
            return body
        except Failure as failure:
            if failure.outcome.startswith("http_5") or failure.outcome == "http_429":
                raise Failure("robots_unreachable", passing=True, wait=failure.wait)
            if failure.outcome.startswith("http_") or failure.outcome in ("bad_redirect", "too_many_redirects"):
                return None
            raise

    @contextlib.asynccontextmanager
    async def _turn(self, name, delay):
        """Waits for a turn among the requests to a host, then among all, so that a slow host holds up no other."""
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) >= IDLE_HOSTS:
                now = time.monotonic()
                self._hosts = {name: host for name, host in self._hosts.items() if host.users or host.ready > now}
            turns = asyncio.Semaphore(self.limits.per_host)
            host = self._hosts[name] = types.SimpleNamespace(turns=turns, users=0, ready=0.0)
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
