"""datasets/robots.py: what is allowed, and how often a host is asked."""
import asyncio

import pytest
from yarl import URL

from datasets.crawl import robots

AGENT = "ours/1.0"


@pytest.mark.parametrize("text, allowed", [
    (b"", True), (b"User-agent: *\nDisallow: /", False), (b"User-agent: *\nDisallow:", True),
    (b"\xef\xbb\xbfUser-agent: *\nDisallow: /a", False), (b"User-agent: *\r\nDisallow: /a/b # why\r\n", False),
    (b"User-agent: *\nDisallow: /b", True), (b"User-agent: ours\nDisallow:\n\nUser-agent: *\nDisallow: /", True),
    (b"User-agent: OURS\nDisallow: /a\n\nUser-agent: *\nAllow: /", False),
    (b"User-agent: other\nDisallow: /", True), (b"<html>no such page</html>", True), (b"\xff\0\x07" * 50, True),
    # What Python's parser raises ValueError for does not take the other lines with it.
    (b"User-agent: *\nDisallow: //[x\nDisallow: /a", False),
    ("User-agent: *\nCrawl-delay: ²\nDisallow: /a".encode(), False)])
def test_rules_are_followed_whatever_else_the_file_holds(text, allowed):
    assert robots.parse(text).can_fetch(AGENT, "http://h.example/a/b") is allowed


def ask(urls, fetch, **settings):
    async def all_of_them():
        cache = robots.Cache(fetch)
        try:
            return await asyncio.gather(*[cache.ask(URL(url), AGENT) for url in urls], return_exceptions=True), cache
        finally:
            await cache.close()
    return asyncio.run(all_of_them())


def test_a_host_is_asked_once_at_its_root():
    asked = []

    async def fetch(url):
        asked.append(str(url))
        await asyncio.sleep(0.01)
        return b"User-agent: *\nCrawl-delay: 3\nDisallow: /no" if "a.ex" in str(url) else None
    urls = ["http://a.example/x/y?q=1", "http://a.example/no", "https://a.example/", "http://a.example:8080/no",
            "http://b.example/no"]
    answers, _ = ask(urls, fetch)
    assert answers == [(True, 3), (False, 3), (True, 3), (False, 3), (True, 0)]
    assert sorted(asked) == ["http://a.example/robots.txt", "http://a.example:8080/robots.txt",
                             "http://b.example/robots.txt", "https://a.example/robots.txt"]


def test_a_failure_is_told_to_all_who_wait_and_not_remembered():
    asked = []

    async def fetch(url):
        asked.append(url)
        await asyncio.sleep(0.01)
        if len(asked) == 1:
            raise OSError("ill")

    async def twice():
        cache = robots.Cache(fetch)
        first = await asyncio.gather(*[cache.ask(URL("http://a.example/"), AGENT) for _ in range(3)],
                                     return_exceptions=True)
        return first, await cache.ask(URL("http://a.example/"), AGENT)
    first, second = asyncio.run(twice())
    assert [str(error) for error in first] == ["ill"] * 3 and second == (True, 0.0) and len(asked) == 2


def test_the_oldest_hosts_are_forgotten(monkeypatch):
    monkeypatch.setattr(robots, "CACHED_BYTES", 5 * robots.HOST_BYTES)
    asked = []

    async def fetch(url):
        asked.append(url.host)

    async def one_by_one():
        cache = robots.Cache(fetch)
        for host in [*range(20), 19, 0]:
            await cache.ask(URL(f"http://{host}.example/"), AGENT)
        return cache
    cache = asyncio.run(one_by_one())
    assert asked == [f"{host}.example" for host in [*range(20), 0]]
    assert len(cache._known) <= 6


def test_a_delay_of_hours_is_cut():
    async def fetch(_):
        return b"User-agent: *\nCrawl-delay: 86400"
    assert ask(["http://a.example/"], fetch)[0] == [(True, robots.MAX_DELAY_SECONDS)]
