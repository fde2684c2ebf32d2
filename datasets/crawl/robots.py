"""What robots.txt allows, asked once per host (https://www.rfc-editor.org/rfc/rfc9309)."""
from __future__ import annotations

import asyncio
import collections
import urllib.robotparser

MAX_BYTES = 512_000  # what RFC 9309 wants to be read at least, in round numbers
MAX_DELAY_SECONDS = 10.0  # of Crawl-delay; some ask for hours
CACHED_BYTES = 1 << 24
HOST_BYTES = 1000  # that a host without rules counts in the cache


class Cache:
    """The rules of the hosts last seen; `fetch`: async function (URL of robots.txt) -> bytes, None for no rules."""

    def __init__(self, fetch):
        self._fetch = fetch
        self._known = collections.OrderedDict()  # origin -> task of (rules or None, bytes that count)
        self._bytes = 0

    async def ask(self, url, user_agent):
        """(whether a page may be read, seconds between two requests); raises what `fetch` raises."""
        origin = url.origin()
        task = self._known.get(origin)
        if task is None:
            task = self._known[origin] = asyncio.ensure_future(self._load(origin))
            task.add_done_callback(_look_at_error)
        self._known.move_to_end(origin)
        rules, _ = await asyncio.shield(task)  # others wait for it too
        if rules is None:
            return True, 0.0
        delay = float(rules.crawl_delay(user_agent) or 0)
        return rules.can_fetch(user_agent, str(url)), min(delay, MAX_DELAY_SECONDS)

    async def close(self):
        tasks = list(self._known.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, origin):
        try:
            body = await self._fetch(origin / "robots.txt")
        except BaseException:
            del self._known[origin]  # the next page asks again
            raise
        size = HOST_BYTES + len(body or b"")
        self._bytes += size
        self._forget()
        return (None if body is None else parse(body)), size

    def _forget(self):
        for origin, task in list(self._known.items()):
            if self._bytes <= CACHED_BYTES:
                return
            if task.done():
                self._bytes -= task.result()[1]
                del self._known[origin]


def parse(body):
    """The rules in the bytes of a robots.txt, whatever they hold."""
    lines = body.decode("utf-8-sig", errors="replace").splitlines()
    try:
        return _parse(lines)
    except ValueError:  # of a path like //[x or a delay like ²: the other lines still count
        return _parse([line for line in lines if _is_sound(line)])


def _parse(lines):
    rules = urllib.robotparser.RobotFileParser()
    rules.parse(lines)
    return rules


def _is_sound(line):
    try:
        _parse(["User-agent: *", line])
    except ValueError:
        return False
    return True


def _look_at_error(task):
    """Keeps asyncio from reporting an error that nobody waited for any more."""
    if not task.cancelled():
        task.exception()
