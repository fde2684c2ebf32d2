"""Google Cloud Storage on loopback, for TensorFlow's own gs:// client: objects in memory, faults on demand.

    with FakeGCS() as gcs:
        gcs.put("gs://bucket/a.txt", b"...")
        subprocess.run([...], env={**os.environ, **gcs.environment()})

The hosts are fixed in TensorFlow's client, but it is libcurl and goes through `https_proxy`: this server is that
proxy.  It answers CONNECT itself, whatever the host, and speaks TLS with a throw-away certificate of Google's
names, which `CURL_CA_BUNDLE` makes the client trust.  Nothing is ever forwarded.  Sources:
https://cloud.google.com/storage/docs/json_api/v1 and
https://github.com/tensorflow/tensorflow/blob/v2.15.1/tensorflow/tsl/platform/cloud/gcs_file_system.cc
"""
from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Optional
from urllib.parse import parse_qsl, unquote, urlsplit

TOKEN = "token-of-the-tests"
TIME = "2024-01-01T00:00:00.000Z"
RESET = "reset"  # what was asked for is done, but the connection breaks off in the middle of the answer
SLOW = "slow"  # the answer pauses in its middle
PAUSE_SECONDS = 0.3
UPLOAD_URL = "https://www.googleapis.com/upload/storage/v1/b/%s/o?uploadType=resumable&upload_id=%d"


class Answer(NamedTuple):
    """`content`: bytes, or what is sent as JSON; `trouble`: None, RESET or SLOW."""
    status: int
    content: object = b""
    headers: tuple = ()
    trouble: Optional[str] = None


class Fault:
    """Every `every`-th request whose "METHOD url" contains the regular expression is answered with `status`: a number,
    RESET or SLOW.
    """

    def __init__(self, pattern, status, every=1):
        self.status, self.done = status, 0
        self._pattern, self._every, self._seen = re.compile(pattern), every, 0

    def strikes(self, request):
        if not self._pattern.search(request):
            return False
        self._seen += 1
        struck = self._seen % self._every == 0
        self.done += struck
        return struck


class FakeGCS:
    """`objects`: {gs:// path: bytes}; `requests`: every "METHOD url" so far."""

    def __init__(self, buckets=("bucket",)):
        self.buckets, self.objects, self.requests = set(buckets), {}, []
        self._uploads, self._faults, self._lock = [], [], threading.Lock()

    def put(self, path, content):
        self.objects[path] = content

    def put_folder(self, folder, path):
        """Uploads the files below a local folder."""
        for parent, _, names in os.walk(folder):
            for name in names:
                local = os.path.join(parent, name)
                with open(local, "rb") as f:
                    self.put("%s/%s" % (path, os.path.relpath(local, folder)), f.read())

    def get_folder(self, path, folder):
        """Writes the objects below a gs:// folder into a local one."""
        for name in self.names(path):
            local = os.path.join(folder, name)
            os.makedirs(os.path.dirname(local), exist_ok=True)
            with contextlib.suppress(IsADirectoryError), open(local, "wb") as f:
                f.write(self.objects["%s/%s" % (path, name)])

    def names(self, path):
        """Sorted names of the objects below a gs:// folder."""
        return sorted(name[len(path) + 1:] for name in self.objects if name.startswith(path + "/"))

    def fail(self, pattern, status, every=1):
        """The Fault, now in force until `heal`."""
        self._faults.append(Fault(pattern, status, every))
        return self._faults[-1]

    def heal(self):
        self._faults.clear()

    def environment(self):
        """What a process needs in its environment to see this storage, and nothing beyond this machine."""
        proxy, cert = "http://127.0.0.1:%d" % self._server.server_port, os.path.join(self._folder.name, "cert.pem")
        return {"https_proxy": proxy, "http_proxy": proxy, "CURL_CA_BUNDLE": cert, "NO_GCE_CHECK": "true",
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": TOKEN}

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="fake_gcs")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.gcs, self._server.tls = self, _tls(self._folder.name)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    def answer(self, method, url, headers, body):
        """The Answer to one request."""
        with self._lock:
            request = "%s %s" % (method, url)
            self.requests.append(request)
            struck = next((fault.status for fault in self._faults if fault.strikes(request)), None)
            if struck not in (None, RESET, SLOW):
                return Answer(struck, {"error": {"code": struck, "message": "injected"}})
            if headers.get("Authorization") != "Bearer " + TOKEN:
                return Answer(401)
            answer = self._route(method, urlsplit(url), headers, body)
            return answer._replace(trouble=struck)

    def _route(self, method, url, headers, body):
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        for wanted, pattern, operation in ROUTES:
            found = re.fullmatch(pattern, url.path)
            names = [unquote(name) for name in found.groups()] if found else ()
            if found and wanted == method and self.buckets.issuperset(names[::2]):
                with contextlib.suppress(KeyError):
                    return operation(self, *names, query=query, headers=headers, body=body)
        return Answer(404, {"error": {"code": 404, "message": "not found"}})

    # The operations.  A KeyError in one of them is "not found".

    def _stat_bucket(self, bucket, **_):
        return Answer(200, {"kind": "storage#bucket", "name": bucket, "updated": TIME, "location": "US"})

    def _stat(self, bucket, name, **_):
        size = len(self.objects[_path(bucket, name)])
        return Answer(200, {"name": name, "bucket": bucket, "size": str(size), "generation": "1", "updated": TIME})

    def _list(self, bucket, query, **_):
        """One page of the objects that begin with `prefix`; what lies behind a `delimiter` only as its folder."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        found = {}  # name or folder -> whether it is a folder
        for path in sorted(self.objects):
            name = path[len(_path(bucket, "")):]
            if path.startswith(_path(bucket, prefix)):
                head, cut, _ = name[len(prefix):].partition(delimiter) if delimiter else (name, "", "")
                found[prefix + head + cut if cut else name] = bool(cut)
        first = int(query.get("pageToken", 0))
        last = first + int(query.get("maxResults", 1000))
        page = list(found.items())[first:last]
        content = {"items": [self._stat(bucket, name).content for name, folder in page if not folder],
                   "prefixes": [name for name, folder in page if folder]}
        if last < len(found):
            content["nextPageToken"] = str(last)
        return Answer(200, content)

    def _download(self, bucket, name, headers, **_):
        data = self.objects[_path(bucket, name)]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range", ""))
        if not asked:
            return Answer(200, data)
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        if first >= len(data):
            return Answer(416, b"", (("Content-Range", "bytes */%d" % len(data)),))
        return Answer(206, data[first:last + 1], (("Content-Range", "bytes %d-%d/%d" % (first, last, len(data))),))

    def _begin_upload(self, bucket, query, body, **_):
        if query["uploadType"] == "media":  # all of it at once: the empty objects that stand for folders
            self.objects[_path(bucket, query["name"])] = body
            return Answer(200, {})
        self._uploads.append((_path(bucket, query["name"]), bytearray()))
        return Answer(200, {}, (("Location", UPLOAD_URL % (bucket, len(self._uploads) - 1)),))

    def _continue_upload(self, bucket, query, headers, body, **_):
        """Takes bytes first-last/total, or with */total tells how many have come; complete, the object appears."""
        path, data = self._uploads[int(query["upload_id"])]
        come = headers.get("Content-Range", "bytes */0")  # an empty object has none
        first, total = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", come).groups()
        if first is not None:
            data[int(first):] = body
        if len(data) == int(total):
            self.objects[path] = bytes(data)
            return Answer(200, {})
        return Answer(308, b"", (("Range", "bytes=0-%d" % (len(data) - 1)),) if data else ())

    def _copy(self, bucket, name, to_bucket, to_name, **_):
        self.objects[_path(to_bucket, to_name)] = self.objects[_path(bucket, name)]
        return Answer(200, {"done": True})

    def _delete(self, bucket, name, **_):
        del self.objects[_path(bucket, name)]
        return Answer(204)


# The groups of a pattern are bucket, object, bucket, object.
ROUTES = (
    ("GET", r"/storage/v1/b/([^/]+)", FakeGCS._stat_bucket),
    ("GET", r"/storage/v1/b/([^/]+)/o", FakeGCS._list),
    ("GET", r"/storage/v1/b/([^/]+)/o/([^/]+)", FakeGCS._stat),
    ("DELETE", r"/storage/v1/b/([^/]+)/o/([^/]+)", FakeGCS._delete),
    ("POST", r"/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)", FakeGCS._copy),
    ("POST", r"/upload/storage/v1/b/([^/]+)/o", FakeGCS._begin_upload),
    ("PUT", r"/upload/storage/v1/b/([^/]+)/o", FakeGCS._continue_upload),
    ("GET", r"/([^/]+)/([^/]+)", FakeGCS._download),
)


class Handler(BaseHTTPRequestHandler):
    """HTTP, first in the clear as a proxy, then inside TLS as each of Google's hosts."""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits for its delayed acknowledgement, 40 ms

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.request = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.setup()  # this connection goes on inside TLS

    def _serve(self):
        status, content, headers, trouble = self.server.gcs.answer(self.command, self.path, self.headers, self._body())
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", len(data))):
            self.send_header(name, str(value))
        self.end_headers()
        if trouble:
            self.wfile.write(data[:len(data) // 2])
            data = data[len(data) // 2:]
        if trouble == RESET:
            self.close_connection = True
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.request.close()
            return
        if trouble == SLOW:
            time.sleep(PAUSE_SECONDS)
        self.wfile.write(data)

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while not chunks or chunks[-1]:
            size = int(self.rfile.readline(), 16)
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(chunks)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def log_message(self, *_):
        pass


def _path(bucket, name):
    return "gs://%s/%s" % (bucket, name)


def _tls(folder):
    """TLS context of a new certificate, cert.pem in `folder`."""
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=fake_gcs",
                    "-addext", "subjectAltName=DNS:*.googleapis.com", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context
