"""What robots.txt allows, asked once per host (https://www.rfc-editor.org/rfc/rfc9309)."""
import asyncio
import collections
import contextlib
import re

from protego import Protego

MAX_BYTES = 512_000  # what RFC 9309 wants to be read at least, in round numbers
MAX_DELAY_SECONDS = 10.0  # of Crawl-delay; some ask for hours
CACHED_BYTES = 1 << 24
HOST_BYTES = 1000  # that a host without rules counts in the cache
AGENT_LINE = re.compile(r"\s*user[- ]?agent\s*[:\s]([^#]*)(#.*)?", re.IGNORECASE)


class Cache:
    """Remembers the rules of hosts; `fetch`: async function (URL of robots.txt) -> bytes, or None for no rules."""

    def __init__(self, fetch, user_agent):
        self._fetch, self._product = fetch, user_agent.partition("/")[0]
        self._known = collections.OrderedDict()  # origin -> task of (rules or None, bytes that count)
        self._bytes = 0

    async def ask(self, url):
        """(whether a page may be read, seconds between two requests); raises what `fetch` raises."""
        origin = url.origin()
        if origin not in self._known:
            self._known[origin] = asyncio.ensure_future(self._load(origin))
        self._known.move_to_end(origin)
        # All who ask wait for one task.  Whoever is cancelled cancels it: only the end of a download does that.
        rules, _ = await self._known[origin]
        if rules is None:
            return True, 0.0
        delay = max(0.0, rules.crawl_delay("*") or 0.0)  # in this order `nan` becomes 0
        return rules.can_fetch(str(url), "*"), min(delay, MAX_DELAY_SECONDS)

    async def _load(self, origin):
        try:
            body = await self._fetch(origin / "robots.txt")
            rules = None if body is None else parse(body, self._product)
        except BaseException:
            del self._known[origin]  # the next page asks again
            raise
        size = HOST_BYTES + len(body or b"")
        self._bytes += size
        for oldest, task in list(self._known.items()):
            if self._bytes <= CACHED_BYTES:
                break
            if task.done():
                self._bytes -= task.result()[1]
                del self._known[oldest]
        return rules, size


def parse(body, product):
    """The Protego of a robots.txt, whatever its bytes are; its rules for "*" are those for our `product`."""
    lines = _choose_group(body.decode("utf-8-sig", errors="replace").splitlines(), product.strip().lower())
    try:
        rules = Protego.parse("\n".join(lines))
    except ValueError:  # of a path like a://[x: the other lines still count
        rules = Protego.parse("\n".join(filter(_is_sound, lines)))
    # Protego makes regular expressions of patterns with wildcards.  Each * more multiplies their time by the length of
    # the URL, so that a single line could stop a download for years: _Wildcards takes their place.  These
    # parts of Protego are private: look again with another release than 0.5.0.
    for group in rules._user_agents.values():
        for rule in group._rules:
            if "*" in rule.value._pattern:
                rule.value._pattern_compiled = _Wildcards(rule.value._pattern)
    return rules


def _choose_group(lines, product):
    """The lines, where agents are called "*" if our rules follow, else "nobody".

    Protego keeps each rule once for each agent it is for: thousands of both would fill the memory.
    """
    matches = [AGENT_LINE.fullmatch(line) for line in lines]
    names = [match and (match[1].strip().lower().rstrip("*") or "*") for match in matches]
    ours = max((name for name in names if name and name in product), key=len, default="*")
    return [line if name is None else f"User-agent: {'*' if name == ours else 'nobody'}"
            for line, name in zip(lines, names)]


def _is_sound(line):
    with contextlib.suppress(ValueError):
        return Protego.parse(f"User-agent: *\n{line}")


class _Wildcards:
    """A pattern in which * stands for any characters and a last $ for the end, matched without going back."""

    def __init__(self, pattern):
        self._open = not pattern.endswith("$")
        self._start, *self._parts = pattern.removesuffix("$").split("*")

    def match(self, path):
        position = len(self._start) if path.startswith(self._start) else -1
        for part in self._parts if self._open else self._parts[:-1]:
            if position >= 0:
                start = path.find(part, position)
                position = start + len(part) if start >= 0 else -1
        return position >= 0 and (self._open or path.endswith(self._parts[-1], position))
