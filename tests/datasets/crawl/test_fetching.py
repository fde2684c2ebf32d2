"""datasets/crawl/fetching.py: addresses, turns, robots and odd servers, one page at a time."""
import argparse
import asyncio
import socket
import time

import aiohttp
import pytest

from datasets.crawl import addresses, fetching
from tests.helpers import bad_server

LIMITS = {"concurrency": 20, "per_host": 5, "connect_timeout": 2, "read_timeout": 1, "timeout": 2, "max_bytes": 10_000,
          "max_redirects": 3, "retries": 0, "retry_wait": 0.01, "user_agent": "test/1", "allow_private": True,
          "ignore_robots": False}


def limits(**changes):
    return argparse.Namespace(**{**LIMITS, **changes})


@pytest.fixture
def server(tmp_path):
    certificate = tmp_path / "certificate.pem"
    certificate.write_text(bad_server.CERTIFICATE)
    server = bad_server.Server()
    server.certificate = str(certificate)
    with server:
        yield server


def fetch(*urls, **changes):
    """What comes of each, all at once: text or Failure."""
    async def one(fetcher, url):
        try:
            return (await fetcher.page(url))[0].decode()
        except fetching.Failure as failure:
            return failure

    async def run():
        async with fetching.Fetcher(limits(**changes)) as fetcher:
            return await asyncio.gather(*[one(fetcher, url) for url in urls])
    return asyncio.run(run())


def outcomes(*urls, **changes):
    return [result.outcome if isinstance(result, fetching.Failure) else "saved" for result in fetch(*urls, **changes)]


def test_the_address_that_counts_is_the_one_connected_to(server, monkeypatch):
    """A name server may say one thing when asked first and another afterwards (DNS rebinding)."""
    async def resolve(self, host, port=0, family=socket.AF_INET):
        answers.append(host)
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0,
                 "flags": socket.AI_NUMERICHOST}]
    answers = []
    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    monkeypatch.setattr(aiohttp.connector, "DefaultResolver", aiohttp.ThreadedResolver)
    url = f"http://www.example.com:{server.port}/plain/1"
    assert outcomes(url) == ["saved"]
    assert outcomes(url, allow_private=False) == ["private_address"]
    assert answers == ["www.example.com"] * 2 and server.requests["/plain/1"] == 1


@pytest.mark.parametrize("error, names_work, outcome, passing", [
    (socket.EAI_NONAME, True, "no_such_host", False), (socket.EAI_NONAME, False, "no_such_host", True),
    (socket.EAI_AGAIN, True, "name_server", True), (socket.EAI_FAIL, False, "name_server", True)])
def test_a_host_that_is_not_found_may_be_for_want_of_a_network(server, monkeypatch, error, names_work, outcome,
                                                               passing):
    async def resolve(self, host, port=0, family=socket.AF_INET, original=aiohttp.ThreadedResolver.resolve):
        if host == "nowhere.example":
            raise socket.gaierror(error, "not found")
        return await original(self, host, port, family)
    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    monkeypatch.setattr(aiohttp.connector, "DefaultResolver", aiohttp.ThreadedResolver)
    url = f"http://localhost:{server.port}/plain/1" if names_work else server.url("plain", 1)

    async def run():
        async with fetching.Fetcher(limits()) as fetcher:
            await fetcher.page(url)
            with pytest.raises(fetching.Failure) as failure:
                await fetcher.page("http://nowhere.example/")
            return failure.value
    failure = asyncio.run(run())
    assert (failure.outcome, failure.passing) == (outcome, passing)


def test_a_redirect_from_outside_does_not_reach_inside(server, monkeypatch):
    """Only the first address is taken for public, as if the redirecting server were out there."""
    seen = []
    monkeypatch.setattr(addresses, "is_public", lambda ip: not seen.append(ip) and len(seen) == 1)
    assert outcomes(server.url("moved_far", 1), allow_private=False, ignore_robots=True) == ["private_address"]
    assert server.requests == {"/moved_far/1": 1} and len(seen) >= 2


def test_a_proxy_of_the_environment_is_not_used(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.closed_port}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.closed_port}")
    assert outcomes(server.url("plain", 1)) == ["saved"]


@pytest.mark.parametrize("url, outcome", [
    ("http://" + "a" * 70 + ".example/", "invalid"), ("http://host:port/", "invalid"), ("http://[::1", "invalid"),
    ("http://host:99999/", "invalid"), ("http://a..b.example/", "invalid")])
def test_urls_that_are_none_are_invalid(url, outcome):
    assert outcomes(url) == [outcome]


def test_what_servers_say_to_robots_txt(server):
    url = server.url("plain", 1)
    for body, outcome in ((b"User-agent: test\nDisallow: /plain", "robots"), (b"User-agent: *\nDisallow: /x", "saved"),
                          (None, "saved"), (b"User-agent: *\nDisallow: /\n" + b"#" * 600_000, "robots")):
        server.robots = body
        assert outcomes(url) == [outcome]


def test_an_ill_server_is_not_taken_as_one_without_rules(server, monkeypatch):
    async def ill(writer, path, original=server._one):
        if path == "/robots.txt":
            writer.write(b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n")
            return True
        return await original(writer, path)
    monkeypatch.setattr(server, "_one", ill)
    [failure] = fetch(server.url("plain", 1), retries=1)
    assert (failure.outcome, failure.passing) == ("robots_unreachable", True)
    assert server.requests == {"/robots.txt": 2}
    assert outcomes(server.url("plain", 1), ignore_robots=True) == ["saved"]


def test_crawl_delay_spreads_the_requests_to_a_host(server):
    server.robots = b"User-agent: *\nCrawl-delay: 1"
    start = time.monotonic()
    assert outcomes(*[server.url("plain", i) for i in range(3)]) == ["saved"] * 3
    assert 1.9 < time.monotonic() - start < 6


def test_who_waits_for_a_host_keeps_no_other_waiting(server):
    start = time.monotonic()
    slow = [server.url("hang", i) for i in range(4)]
    fast = [server.url("plain", i).replace("127.0.0.1", "localhost") for i in range(4)]
    times = []

    async def one(fetcher, url):
        try:
            await fetcher.page(url)
            times.append(time.monotonic() - start)
        except fetching.Failure:
            pass

    async def run():
        async with fetching.Fetcher(limits(concurrency=2, per_host=1, read_timeout=0.7)) as fetcher:
            await asyncio.gather(*[one(fetcher, url) for url in slow + fast])
    asyncio.run(run())
    assert len(times) == 4 and max(times) < 0.7


def test_no_request_begins_while_pages_cannot_be_stored(server):
    async def run():
        async with fetching.Fetcher(limits()) as fetcher:
            fetcher.open.clear()
            task = asyncio.ensure_future(fetcher.page(server.url("plain", 1)))
            await asyncio.sleep(0.2)
            before = sum(server.requests.values())
            fetcher.open.set()
            return before, (await task)[0].decode()
    assert asyncio.run(run()) == (0, bad_server.page("plain", "1"))


def test_a_page_of_just_the_most_bytes_is_kept(server):
    size = len(bad_server.page("plain", 1).encode())
    urls = [server.url(kind, 1) for kind in ("plain", "chunked", "text")]
    assert set(outcomes(*urls, max_bytes=size + 10)) == {"saved"}
    for kind in ("plain", "zipped", "zipped_twice", "raw_deflated", "chunked"):
        size = len(bad_server.page(kind, 1).encode())
        assert outcomes(server.url(kind, 1), max_bytes=size) == ["saved"]
        assert outcomes(server.url(kind, 1), max_bytes=size - 1) == ["too_big"]
