"""A web server on loopback that misbehaves in every way, for the tests of the downloader.

Pages are at /KIND/NUMBER; KINDS says what each kind comes to.  Everything is written by hand on the socket: a library
for servers would not lie about lengths.
"""
from __future__ import annotations

import asyncio
import collections
import contextlib
import gzip
import random
import socket
import ssl
import threading
import zlib

# A key that protects nothing: for the name localhost, from 2020 to 2120, signed by itself.
CERTIFICATE = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgVBa9kyKSkUmn8Ona
DtFIbu28pfRG+azbwStoLHCtSgyhRANCAARe6lmRAS82+/12KMDaNxx9kD1Kr5ET
WeEitIWe7Ysy3RWX1R/bgu5r4J6fJWel+BYiaSo/P4dY7WVQQeCmeVm8
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBYTCCAQegAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABF7qWZEBLzb7/XYo
wNo3HH2QPUqvkRNZ4SK0hZ7tizLdFZfVH9uC7mvgnp8lZ6X4FiJpKj8/h1jtZVBB
4KZ5WbyjSDBGMBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAPBgNVHRMBAf8EBTADAQH/
MB0GA1UdDgQWBBTkc4u9+nFsCwZgqpmnMoCl93k4ijAKBggqhkjOPQQDAgNIADBF
AiEA28keJJtJdPR/QXruIc/dUTdCD3WfnAUkb+0OBGedX/QCIEQkL1158sd0aqnY
EM1GlJg5QiFiAdK9HRGSpouTP0DS
-----END CERTIFICATE-----
"""
MAX_BYTES = 100_000  # to be given to the downloader
GOOD = ("plain", "chunked", "zipped", "zipped_twice", "deflated", "raw_deflated", "latin", "declared_inside", "unnamed",
        "text", "slow", "moved", "moved_far", "ill_once", "closed_once", "busy_once", "cut_once", "large", "tls")
KINDS = {
    **dict.fromkeys(GOOD, "saved"),
    "missing": "http_404", "gone": "http_410", "forbidden": "http_403", "nothing": "http_204", "nowhere": "http_301",
    "image": "other_type", "binary": "binary", "empty": "empty", "blank": "empty", "brotli": "other_encoding",
    "no_gzip": "other_encoding", "endless": "too_big", "declared_large": "too_big", "just_too_large": "too_big",
    "bomb": "too_big", "loop": "too_many_redirects", "chain": "too_many_redirects", "to_file": "bad_redirect",
    "to_nonsense": "bad_redirect", "huge_header": "bad_answer", "endless_headers": "bad_answer",
    "no_http": "bad_answer", "bad_length": "bad_answer", "private": "robots", "to_private": "robots",
    "untrusted": "tls", "no_tls": "tls"}
PASSING = {"ill": "http_500", "away": "http_503", "busy": "http_429", "hang": "timeout", "drip": "timeout",
           "header_drip": "timeout", "long": "cut_off", "half_gzip": "cut_off", "half_chunk": "cut_off",
           "closed": "connection", "reset": "connection", "refused": "connection"}
ONCE = ("ill_once", "closed_once", "busy_once", "cut_once")


def page(kind, number):
    """The text of a good page."""
    filler = random.Random(number).randbytes(45_000).hex() if kind == "large" else "word " * 50
    meta = '<meta charset="iso-8859-1">' if kind == "declared_inside" else ""
    return f"<html><head>{meta}<title>{kind} {number}</title></head><body>é £ {filler}</body></html>\n"


class Server:
    """Context manager; `url(kind, number)` tells where a page is, `requests` counts paths, `busiest` is per port."""

    def __init__(self, robots=b"User-agent: *\nDisallow: /private/\n"):
        self.robots = robots
        self.requests, self.agents, self.busiest = collections.Counter(), set(), 0
        self._active = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.certificate = None  # file, for the good kind of TLS

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)

    def url(self, kind, number):
        base = {"tls": f"https://localhost:{self.tls_port}", "untrusted": f"https://127.0.0.1:{self.tls_port}",
                "no_tls": f"https://127.0.0.1:{self.port}", "refused": f"http://127.0.0.1:{self.closed_port}"}
        return f"{base.get(kind, f'http://127.0.0.1:{self.port}')}/{kind}/{number}"

    async def _serve(self):
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        plain = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=500)
        secure = await asyncio.start_server(self._answer, "127.0.0.1", 0, ssl=context)
        self._loop.set_exception_handler(lambda *_: None)  # clients go away in the middle of things
        self.port, self.tls_port = (server.sockets[0].getsockname()[1] for server in (plain, secure))
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # bound and never listened to: nobody else takes it
            self.closed_port = closed.getsockname()[1]
            self._ready.set()
            await self._end.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _answer(self, reader, writer):
        self._active += 1
        self.busiest = max(self.busiest, self._active)
        try:
            while True:
                head = await reader.readexactly(1)
                if head == b"\x16":  # the greeting of TLS
                    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
                head += await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ")[1].decode()
                self.requests[path] += 1
                self.agents |= {line for line in head.decode().split("\r\n") if line.startswith("User-Agent:")}
                if not await self._one(writer, path):
                    return
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            self._active -= 1
            with contextlib.suppress(OSError):
                writer.close()

    async def _one(self, writer, path):
        """Answers one request; whether the connection may go on."""
        def send(body, kind="text/html; charset=utf-8", status="200 OK", length=None, **headers):
            lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}" if kind else "X-None: 1",
                     f"Content-Length: {len(body) if length is None else length}",
                     *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)

        if path == "/robots.txt":
            send(self.robots or b"", "text/plain", "200 OK" if self.robots is not None else "404 Not Found")
            return True
        _, kind, number = path.split("/")
        good = page(kind, number)
        body = good.encode()
        first = self.requests[path] == 1

        if kind in ("plain", "large", "tls", "untrusted"):
            send(body)
        elif kind == "latin":
            send(good.encode("latin-1"), "text/html; charset=ISO-8859-1")
        elif kind == "declared_inside":
            send(good.encode("latin-1"), "text/html")
        elif kind == "unnamed":
            send(body, None)
        elif kind == "text":
            send(body, "Text/Plain")
        elif kind == "zipped":
            send(gzip.compress(body), Content_Encoding="gzip")
        elif kind == "zipped_twice":
            send(gzip.compress(body[:50]) + gzip.compress(body[50:]), Content_Encoding="gzip")
        elif kind == "deflated":
            send(zlib.compress(body), Content_Encoding="deflate")
        elif kind == "raw_deflated":
            send(zlib.compress(body)[2:-4], Content_Encoding="deflate")
        elif kind == "chunked":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n")
            for part in (body[:7], body[7:]):
                writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            writer.write(b"0\r\n\r\n")
        elif kind == "slow":
            send(body[:10], length=len(body))
            for start in range(10, len(body), 100):
                await asyncio.sleep(0.05)
                writer.write(body[start:start + 100])
        elif kind == "moved":
            send(b"", status="301 Moved", Location=f"../moved_here/{number}")
        elif kind == "moved_here":
            send(page("moved", number).encode())
        elif kind == "moved_far":
            send(b"", status="307 Moved", Location=f"http://localhost:{self.port}/moved_away/{number}#x")
        elif kind == "moved_away":
            send(page("moved_far", number).encode())
        elif kind in ONCE and not first:
            send(body)
        elif kind in ("ill_once", "ill"):
            send(b"ill", status="500 Ill")
        elif kind in ("busy_once", "busy"):
            send(b"busy", status="429 Busy", Retry_After="0")
        elif kind == "away":
            send(b"away", status="503 Away", Retry_After="Thu, 01 Jan 2015 00:00:00 GMT")
        elif kind in ("closed_once", "closed"):
            return False
        elif kind in ("cut_once", "long"):
            send(body, length=len(body) + 10)
            return False
        elif kind in ("missing", "gone", "forbidden", "nothing", "nowhere"):
            send(b"<html>no</html>" * (kind != "nothing"), status={
                "missing": "404 No", "gone": "410 No", "forbidden": "403 No", "nothing": "204 No Content",
                "nowhere": "301 Moved"}[kind])
        elif kind == "image":
            send(b"\x89PNG\r\n" + bytes(100), "image/png")
        elif kind == "binary":
            send(b"\x89PNG\r\n" + bytes(100))
        elif kind in ("empty", "blank"):
            send(b"" if kind == "empty" else b" \r\n\t ")
        elif kind == "brotli":
            send(b"\x0b\x02\x80", Content_Encoding="br")
        elif kind == "no_gzip":
            send(body, Content_Encoding="gzip")
        elif kind == "half_gzip":
            send(gzip.compress(body)[:-20], Content_Encoding="gzip")
        elif kind == "half_chunk":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\nabc")
            return False
        elif kind == "endless":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
            while True:
                writer.write(b"more and " * 1000)
                await writer.drain()
        elif kind == "declared_large":
            send(b"x", length=10 ** 12)
        elif kind == "just_too_large":
            send(b"x" * (MAX_BYTES + 1))
        elif kind == "bomb":
            send(BOMB, Content_Encoding="gzip")
        elif kind == "loop":
            send(b"", status="302 Found", Location=path)
        elif kind == "chain":
            send(b"", status="302 Found", Location=f"/chain/{number}0")
        elif kind == "to_file":
            send(b"", status="302 Found", Location="file:///etc/passwd")
        elif kind == "to_nonsense":
            send(b"", status="302 Found", Location="http://[::1:99/")
        elif kind == "to_private":
            send(b"", status="302 Found", Location=f"/private/{number}")
        elif kind == "huge_header":
            send(body, X_Huge="x" * 200_000)
        elif kind == "endless_headers":
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                writer.write(b"X-More: more\r\n" * 1000)
                await writer.drain()
        elif kind == "no_http":
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            return False
        elif kind == "bad_length":
            send(body, length="many")
        elif kind == "hang":
            await asyncio.sleep(1000)
        elif kind in ("drip", "header_drip"):
            if kind == "drip":
                send(b"", length=10 ** 5)
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        elif kind == "reset":
            # Closing with SO_LINGER 0 sends RST.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return False
        else:
            raise AssertionError(path)
        await writer.drain()
        return True


BOMB = gzip.compress(bytes(1 << 28), compresslevel=1)  # 256 MB in a megabyte
