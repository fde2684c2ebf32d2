"""What comes from outside: answers of HTTP, addresses, credentials, TF_CONFIG."""
from __future__ import annotations

import base64
import contextlib
import hashlib
import ipaddress
import json
import os
import socket
import threading
import time
from unittest import mock

from configs import cluster
from datasets.crawl import addresses, answers
from tests.fuzz.driver import Kind, Wrong
from tests.fuzz.mutations import NASTY, changed_bytes, changed_json, text_of

BODY = b"the weights " * 30


class Answers:
    """A server on loopback that sends what `answer` holds to whoever connects, and closes."""

    def __init__(self):
        self.answer = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            connection, _ = self._socket.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(1)
                connection.recv(65536)
                connection.sendall(self.answer)


def server(folder):
    return Answers()


def download(draw, there, folder):
    """What is downloaded is the whole body, or the program says why not."""
    md5 = base64.b64encode(hashlib.md5(BODY).digest()).decode()
    headers = {
        "Content-Length": draw.choice((str(len(BODY)),) * 6 + (
            "0", "-1", "x", "1e3", "+360", "9" * 30, "", " 360 ", "360, 360", "3_60", "361", "359")),
        "Content-Type": draw.choice(("application/octet-stream", "text/html", "", "x" * 3000)),
        "Content-MD5": draw.choice((None, None, md5, "x", "====", "é", md5[:10], "AAAA")),
        "ETag": draw.choice((None, '"x"', "W/", '"' + "0" * 64 + '"', "é", "")),
        "X-Linked-ETag": draw.choice((None, None, None, "0" * 64, "z" * 64, hashlib.sha256(BODY).hexdigest())),
        "Content-Range": draw.choice((None, None, "bytes 0-1/2", "bytes 5-9/*", "x", f"bytes 0-359/{len(BODY)}")),
        "Transfer-Encoding": draw.choice((None, None, None, None, "chunked", "gzip", "x")),
        "Content-Encoding": draw.choice((None, None, None, "gzip", "br", "x")),
        "Location": draw.choice((None, "", "//", "http://[", "/x", "http://127.0.0.1:1/", "\x7f", "http://x y/", "é"))}
    status = draw.choice(("200 OK",) * 6 + ("206 Partial", "301 Moved", "302 Found", "404 No", "200", "999 X", "0 X",
                                             "416 Range", "503 Later", "204 None"))
    text = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value is not None)
    data = f"HTTP/1.1 {status}\r\n{text}\r\n".encode("latin-1", "replace") + BODY
    there.answer = changed_bytes(draw, data) if draw.random() < 0.2 else data
    changed = there.answer != data

    def act():
        from tools import fetch
        path = str(folder / "file")
        with mock.patch.multiple(fetch, PAUSE=0.0, TIMEOUT=0.5, ATTEMPTS=2), mock.patch.dict(os.environ, no_proxy="*"):
            fetch.fetch(there.url + "/file", path)
        with open(path, "rb") as f:
            found = f.read()
        wanted = headers["Content-Length"].strip()
        if not changed and found != BODY and found != BODY[:int(wanted) if wanted.isdigit() else 0]:
            raise Wrong(f"{len(found)} bytes with {headers}")
    return act


def nothing(folder):
    return None


# Registries of IANA (iana-ipv4-special-registry, iana-ipv6-special-registry): not of the public Internet.
PRIVATE = [ipaddress.ip_network(text) for text in (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.2.0/24",
    "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",
    "240.0.0.0/4", "::/128", "::1/128", "64:ff9b:1::/48", "100::/64", "2001:2::/48", "2001:db8::/32", "3fff::/20",
    "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8")]
PUBLIC = [ipaddress.ip_network(text) for text in (
    "1.0.0.0/8", "8.0.0.0/9", "93.184.0.0/16", "2600::/16", "2a00::/16", "2001:4860::/32")]


def address(draw, _, folder):
    """One of a private or public network, as itself or inside of an IPv6 address."""
    network = draw.choice(PRIVATE + PUBLIC)
    public = network in PUBLIC
    ip = network[draw.randrange(min(network.num_addresses, 2**64))]
    text = str(ip)
    if ip.version == 4:
        text = draw.choice((text, f"::ffff:{text}", f"64:ff9b::{text}", str(ipaddress.IPv6Address(
            (0x2002 << 112) | (int(ip) << 80)))))

    def act():
        if addresses.is_public(text) != public:
            raise Wrong(f"{text} of {network} is taken for {'private' if public else 'public'}")
    return act


def headers(draw, _, folder):
    """Headers of an answer that carry a time or a charset."""
    text = draw.choice((text_of(draw), "1" * 400, "nan", "inf", "-5", "Wed, 21 Oct 2099 07:28:00 GMT", "Wed, 99 Oct",
                        "text/html; charset=" + text_of(draw), "; charset", "1e400", "\ud800"))

    def act():
        wait = answers.seconds_to_wait(text)
        if not wait >= 0:
            raise Wrong(f"waits {wait} s")
        answers.charset(text).encode("utf-8", "surrogatepass")
    return act


def tf_config(draw, _, folder):
    value = {"cluster": {"worker": ["127.0.0.1:1234", "127.0.0.1:1235"]}, "task": {"type": "worker", "index": 0}}
    odd = draw.choice((*NASTY, "x", "host:99999", "host:0", "host:-1", ":1", "host:x", "[::1]:1234", {"worker": "x"},
                       ["a:1", "a:1"]))
    if draw.random() < 0.4:
        key = draw.choice(("worker", "chief", "ps", "evaluator"))
        value["cluster"][key] = odd if draw.random() < 0.5 else [odd, "127.0.0.1:1"]
        text = json.dumps(value)
    else:
        text = changed_json(draw, value, ("rpc_layer",)).decode("utf-8", "surrogateescape").replace("\0", "")

    def act():
        with mock.patch.dict(os.environ, {"TF_CONFIG": text.encode("utf-8", "replace").decode()}):
            hosts, place = cluster.hosts()
        for host in hosts:
            name, _, port = host.rpartition(":")
            if not name or not port.isdigit() or not 0 < int(port) < 65536:
                raise Wrong(f"the host {host!r}")
        if hosts and not 0 <= place < len(hosts) or len(set(hosts)) < len(hosts):
            raise Wrong(f"{hosts} {place}")
    return act


def credentials(draw, _, folder):
    """The file of credentials that the environment names; no answer may come from elsewhere."""
    value = draw.choice((
        {"type": "authorized_user", "client_id": "x", "client_secret": "y", "refresh_token": "z"},
        {"type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": "x", "client_email": "a@b",
         "token_uri": "http://127.0.0.1:1/"},
        {"type": "external_account", "audience": "x", "token_url": "http://127.0.0.1:1"}))
    path = folder / "key.json"
    path.write_bytes(changed_json(draw, value, ("type", "quota_project_id", "universe_domain")))

    def act():
        from configs import cloud_tpu
        variables = {"GOOGLE_APPLICATION_CREDENTIALS": str(path), "NO_GCE_CHECK": "True", "HOME": str(folder),
                     "CLOUDSDK_CONFIG": str(folder)}
        with mock.patch.dict(os.environ, variables):
            begun = time.monotonic()
            cloud_tpu._log_in()
            if time.monotonic() - begun > 2 * cloud_tpu.CREDENTIALS_SECONDS:
                raise Wrong("slow")
    return act


KINDS = (Kind("answer of HTTP", "downloads", server, download), Kind("address", "crawl", nothing, address),
         Kind("headers", "crawl", nothing, headers), Kind("TF_CONFIG", "hosts", nothing, tf_config),
         Kind("credentials", "TPUs", nothing, credentials))
