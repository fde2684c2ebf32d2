"""datasets/crawl/robots.py: what is allowed, and how often a host is asked."""
import asyncio
import random
import re
import time

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
    # What the parser raises ValueError for does not take the other lines with it.
    (b"User-agent: *\nDisallow: //[x\nDisallow: a://[x\nDisallow: /a", False),
    ("User-agent: *\nCrawl-delay: ²\nDisallow: /a".encode(), False),
    # Only the group with the longest name that is in ours counts, wherever it stands; two of one name are one.
    (b"User-agent: *\nDisallow: /\nUser-agent: other\nUser-agent: ours # us\nDisallow: /b", True),
    (b"User-agent: our\nDisallow: /\n\nUser-agent: ours\nDisallow: /b", True),
    (b"User-agent: ours\nDisallow: /b\n\nUser-agent: any\nDisallow: /\n\nUser-agent: ours\nDisallow: /a", False),
    (b"User agent ours\nDisallow: /a\n\nUser-agent: *\nDisallow:", False)])
def test_rules_are_followed_whatever_else_the_file_holds(text, allowed):
    assert robots.parse(text, "ours").can_fetch("http://h.example/a/b", "*") is allowed


@pytest.mark.parametrize("rules, allowed, forbidden", [
    # Examples of RFC 9309, sections 2.2.2, 2.2.3 and 5.
    (b"Allow: /example/page/\nDisallow: /example/page/not.gif", "/example/page/", "/example/page/not.gif"),
    (b"Disallow: *.gif$\nAllow: /publications/\nDisallow: /example/", "/publications/a.gif", "/a.gif"),
    (b"Disallow: /*.gif$", "/a.gif?x", "/a/b.gif"), (b"Disallow: /file-%2A.html", "/file-b.html", "/file-%2A.html"),
    # The longest pattern counts, and among equals the one that allows; wherever they stand.
    (b"Disallow: /\nAllow: /a", "/ab", "/b"), (b"Allow: /a\nDisallow: /ab", "/a", "/ab"),
    (b"Disallow: /a\nAllow: /a", "/a", ""), (b"Allow: /a*c\nDisallow: /a", "/abc", "/ab"),
    (b"Disallow: /*?*sort=", "/x?a=sort", "/x/y?a=1&sort=2"), (b"Disallow: /a*b*b$", "/ab", "/abb"),
    (b"Disallow: /a*b*b$", "/abbc", "/axbxb"), (b"Disallow: /**/a*", "/a", "/b/a"), (b"Disallow: /a$", "/ab", "/a"),
    (b"Disallow: /a$b", "/a", "/a$b"), (b"Disallow: /\xc3\xbc", "/u", "/%C3%BC"), (b"Disallow: /%7ea", "/b", "/~a")])
def test_wildcards_and_the_longest_match_count(rules, allowed, forbidden):
    parsed = robots.parse(b"User-agent: *\n" + rules, "ours")
    assert parsed.can_fetch("http://h.example" + allowed, "*")
    assert not forbidden or not parsed.can_fetch("http://h.example" + forbidden, "*")


def test_wildcards_are_those_of_a_regular_expression():
    draw = random.Random(1)
    for _ in range(5000):
        pattern = "/" + "".join(draw.choices("ab*", k=draw.randrange(6))) + "*" + draw.choice(["", "a", "$", "b$"])
        path = "/" + "".join(draw.choices("ab", k=draw.randrange(7)))
        expected = re.match(re.escape(pattern).replace(r"\*", ".*").replace(r"\$", "$"), path)
        assert robots._Wildcards(pattern).match(path) is bool(expected), (pattern, path)


@pytest.mark.parametrize("body", [
    b"User-agent: *\nDisallow: /" + b"*a" * 50 + b"b", b"User-agent: *\n" + b"Disallow: /*a*aa*aaa*b\n" * 20_000,
    b"".join(b"User-agent: our%d\n" % i for i in range(15_000)) + b"Disallow: /x\n" * 20_000,
    b"".join(b"User agent %d\nUser-agent: o\n" % i for i in range(20_000)) + b"Disallow: /x\n" * 9000],
    ids=["one pattern", "patterns", "agents", "ill-formed agents"])
def test_a_file_made_to_keep_us_busy_takes_seconds_and_little_memory(body):
    start = time.process_time()
    rules = robots.parse(body[:robots.MAX_BYTES], "ours")
    assert rules.can_fetch("http://h.example/" + "a" * 8000, "*")
    assert time.process_time() - start < 20 and sum(len(group._rules) for group in rules._user_agents.values()) < 50_000


@pytest.mark.parametrize("value, delay", [(b"2.5", 2.5), (b"-7", 0), (b"nan", 0), (b"inf", 10), (b"86400", 10),
                                          (b"x", 0)])
def test_a_delay_is_no_longer_than_ten_seconds(value, delay):
    async def fetch(_):
        return b"User-agent: *\nCrawl-delay: " + value
    assert ask(["http://a.example/"], fetch)[0] == [(True, delay)]


def ask(urls, fetch):
    async def all_of_them():
        cache = robots.Cache(fetch, AGENT)
        return await asyncio.gather(*[cache.ask(URL(url)) for url in urls], return_exceptions=True), cache
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
        cache = robots.Cache(fetch, AGENT)
        first = await asyncio.gather(*[cache.ask(URL("http://a.example/")) for _ in range(3)],
                                     return_exceptions=True)
        return first, await cache.ask(URL("http://a.example/"))
    first, second = asyncio.run(twice())
    assert [str(error) for error in first] == ["ill"] * 3 and second == (True, 0.0) and len(asked) == 2


def test_the_oldest_hosts_are_forgotten(monkeypatch):
    monkeypatch.setattr(robots, "CACHED_BYTES", 5 * robots.HOST_BYTES)
    asked = []

    async def fetch(url):
        asked.append(url.host)

    async def one_by_one():
        cache = robots.Cache(fetch, AGENT)
        for host in [*range(20), 19, 0]:
            await cache.ask(URL(f"http://{host}.example/"))
        return cache
    cache = asyncio.run(one_by_one())
    assert asked == [f"{host}.example" for host in [*range(20), 0]]
    assert len(cache._known) <= 6
