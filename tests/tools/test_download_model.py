"""Downloads from a server on loopback that cuts connections, forgets, lies and fails as real ones do."""
import base64
import contextlib
import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from configs.errors import UserError
from encoder import bpe
from models.checkpoints import convert, proof
from tests.helpers import graphs
from tests.helpers.runs import ROOT
from tests.helpers.weight_files import theirs, write_hf, write_openai
from tools import download_model, fetch

DATA = "model.ckpt.data-00000-of-00001"


class Mirror:
    """`files`: {path: bytes}; `requests`: (path, Range or None) so far; the rest says how it misbehaves."""

    def __init__(self, tls=None):
        self.tls, self.files, self.requests, self.authorizations = tls, {}, [], []
        self.cut = None  # bytes after which a connection breaks off
        self.failures, self.status = 0, 503  # so many requests are answered with that status first
        self.page = None  # sent with status 200 in place of every file
        self.ranges, self.length, self.type = True, True, "application/octet-stream"
        self.headers = lambda path, data: {}
        self.redirect = lambda path, data: None  # headers of a redirect to /cdn + path
        self.etag = lambda data: '"%s"' % hashlib.md5(data).hexdigest()

    def __enter__(self):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads, self._server.mirror = True, self
        if self.tls:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True,
                                                       do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = "http://127.0.0.1:%d" % self._server.server_port
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def asked(self, name):
        """The ranges of the requests for a file."""
        return [wanted for path, wanted in self.requests if path.endswith(name)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        mirror, wanted = self.server.mirror, self.headers["Range"]
        mirror.requests.append((self.path, wanted))
        mirror.authorizations.append(self.headers["Authorization"])
        self.close_connection = True
        path = self.path.replace("/cdn", "", 1)
        if mirror.failures:
            mirror.failures -= 1
            return self._say(mirror.status, b"<html>no</html>", {})
        if path not in mirror.files:
            return self._say(404, b"<html>not found</html>", {"Content-Type": "text/html"})
        data = mirror.files[path]
        redirect = None if self.path.startswith("/cdn") else mirror.redirect(path, data)
        if redirect:
            return self._say(302, b"", {**redirect, "Location": mirror.url + "/cdn" + path})
        if mirror.page is not None:
            return self._say(200, mirror.page, {"Content-Type": mirror.type})
        headers = {"Content-Type": mirror.type, "ETag": mirror.etag(data), **mirror.headers(path, data)}
        if not (wanted and mirror.ranges):
            return self._say(200, data, headers)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1))
        if start >= len(data):
            return self._say(416, b"", {})
        return self._say(206, data[start:], {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})

    def do_CONNECT(self):
        tunnel = self.server.mirror
        tunnel.requests.append((self.path, None))
        self.send_response(200)
        self.end_headers()
        with socket.create_connection(("127.0.0.1", tunnel.port)) as other:
            threading.Thread(target=_pass_on, args=(other, self.connection), daemon=True).start()
            _pass_on(self.connection, other)
        self.close_connection = True

    def _say(self, status, body, headers):
        self.send_response(status)
        self.send_header("Connection", "close")  # else a client may use it again while it is closed
        for name, value in headers.items():
            self.send_header(name, value)
        if self.server.mirror.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = self.server.mirror.cut
        self.wfile.write(body if cut is None or status not in (200, 206) else body[:cut])

    def log_message(self, *_):
        pass


class Tunnel(Mirror):
    """A proxy that connects whoever asks to the server of `mirror`."""

    def __init__(self, mirror):
        super().__init__()
        self.port = int(mirror.url.rpartition(":")[2])


def _pass_on(source, target):
    with contextlib.suppress(OSError):  # the other side may be gone
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def mirror(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE", 0)
    with Mirror() as made:
        yield made


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """{"openai", "hf": {file name: bytes}} of a small model with GPT-2's vocabulary, named as the released ones."""
    folder = tmp_path_factory.mktemp("models")
    vocabulary = bpe.read_files()
    found = {}
    weights = graphs.random_weights(graphs.small_config(n_vocab=50257))
    write_openai(folder / "openai", weights=weights)
    write_hf(folder / "hf", theirs(weights), {"vocab_size": 50257})
    for source in ("openai", "hf"):
        found[source] = {name: (folder / source / name).read_bytes() for name in download_model.FILES[source]
                         if (folder / source / name).exists()}
        names = [name for name in download_model.FILES[source] if name in ("vocab.json", "encoder.json")]
        found[source][names[0]] = vocabulary["encoder.json"]
        found[source]["vocab.bpe" if source == "openai" else "merges.txt"] = vocabulary["vocab.bpe"]
        assert set(found[source]) == set(download_model.FILES[source])
    return found


def offer(mirror, models, source):
    for name, data in models[source].items():
        mirror.files["/124M/" + name if source == "openai" else "/gpt2/resolve/main/" + name] = data


def call(mirror, folder, *more):
    return download_model.main(["124M", "--base_url", mirror.url, "--output_dir", str(folder), *more])


def mistake(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def content(folder):
    return {name: (folder / name).read_bytes() for name in os.listdir(folder)}


@pytest.mark.parametrize("source", ["openai", "hf"])
def test_model_arrives_over_connections_that_break_and_can_be_imported(mirror, models, tmp_path, source, capsys,
                                                                       monkeypatch):
    monkeypatch.setattr(proof, "TRANSFORMERS_BYTES", 0)  # it takes seconds to import
    offer(mirror, models, source)
    mirror.cut, mirror.failures = 400_000 if source == "openai" else 7_001, 3
    assert call(mirror, tmp_path / "got", "--source", source) == 0
    assert content(tmp_path / "got") == models[source]
    large = DATA if source == "openai" else "model.safetensors"
    assert mirror.asked("vocab.bpe" if source == "openai" else large)[-1].startswith("bytes=")
    command = re.search(r"python3 -m models.checkpoints (import-\w+) (\S+) ", capsys.readouterr().out)
    assert convert.main([command.group(1), command.group(2), str(tmp_path / "dst")]) == 0
    before = len(mirror.requests)
    assert call(mirror, tmp_path / "got", "--source", source) == 0
    assert len(mirror.requests) == before and "already there" in capsys.readouterr().out


DOCUMENT = os.urandom(50_021)


def get(mirror, folder, checksum=None, data=DOCUMENT):
    mirror.files.setdefault("/file", data)
    fetch.fetch(mirror.url + "/file", str(folder / "file"), checksum)
    return (folder / "file").read_bytes()


def test_each_attempt_goes_on_where_the_last_was_cut(mirror, tmp_path):
    mirror.cut = 20_000
    assert get(mirror, tmp_path) == DOCUMENT
    assert mirror.asked("/file") == [None, "bytes=20000-", "bytes=40000-"]
    assert os.listdir(tmp_path) == ["file"]


def test_another_process_goes_on_where_the_first_stopped(mirror, tmp_path):
    mirror.cut = 20_000

    def interrupt(*_):
        mirror.cut = None
        raise KeyboardInterrupt
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fetch.time, "sleep", interrupt)
        get(mirror, tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".partial-file", ".partial-file.json"]
    assert get(mirror, tmp_path) == DOCUMENT
    assert mirror.asked("/file")[-1] == "bytes=20000-"


@pytest.mark.parametrize("told", [False, True])
def test_a_part_goes_on_in_another_process_only_where_it_can_be_told_that_the_file_is_the_same(mirror, tmp_path, told):
    mirror.cut, mirror.etag = 20_000, lambda data: ""
    mirror.headers = lambda path, data: {"Last-Modified": "Sun, 29 Nov 2026 00:00:00 GMT"} if told else {}

    def no_more(*_):
        mirror.failures = 99
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch.time, "sleep", no_more)
        assert ("later, and it goes on from there, or" if told else "later, or") in mistake(get, mirror, tmp_path)
    mirror.cut, mirror.failures = None, 0
    mirror.files = {path: data[::-1] for path, data in mirror.files.items()}
    assert get(mirror, tmp_path) == (DOCUMENT[:20_000] + DOCUMENT[::-1][20_000:] if told else DOCUMENT[::-1])


@pytest.mark.parametrize("change", [
    {"total": "7"}, {"total": 10**400}, {"total": -1}, {"total": 7.0}, {"version": None}, {"checksum": "ab"},
    {"checksum": ["md5"]}, {"checksum": ["md5", 1, "x"]}, {"checksum": ["crc", "00", "x"]}])
def test_a_note_that_nobody_wrote_so_has_the_file_fetched_anew(mirror, tmp_path, change):
    partial = tmp_path / ".partial-file"
    partial.write_bytes(b"1234567")
    note = {"total": 7, "version": "1", "checksum": None}
    for text in (json.dumps({**note, **change}), "[]", "[" * 100_000, "{"):
        (tmp_path / ".partial-file.json").write_text(text)
        assert fetch._noted(str(partial)) is None
    assert get(mirror, tmp_path) == DOCUMENT and os.listdir(tmp_path) == ["file"]


def test_server_without_ranges_is_asked_for_the_whole_again(mirror, tmp_path):
    mirror.ranges, mirror.cut = False, 20_000
    assert "after 5 attempts (the connection was cut at 20,000 of 50,021 bytes)" in mistake(get, mirror, tmp_path)
    assert not (tmp_path / "file").exists()
    # The server cuts at 5,000 and 10,000 bytes in turn.  The second cut is no progress after the first two.
    tried, attempt = [], fetch._attempt

    def cut_in_turn(*arguments):
        tried.append(len(tried))
        mirror.cut = (10_000, 5_000)[len(tried) % 2]
        assert len(tried) < 20
        return attempt(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "_attempt", cut_in_turn)
        assert "after 5 attempts" in mistake(get, mirror, tmp_path)
    mirror.cut = None
    assert get(mirror, tmp_path) == DOCUMENT


@pytest.mark.parametrize("size", [50_021, 30_000, 10_000])
def test_file_that_changes_on_the_server_is_fetched_anew(mirror, tmp_path, size):
    new = os.urandom(size)
    mirror.cut = 20_000
    ask = fetch._attempt
    with pytest.MonkeyPatch.context() as patch:
        def change(*arguments):
            if mirror.requests:
                mirror.files["/file"], mirror.cut = new, None
            return ask(*arguments)
        patch.setattr(fetch, "_attempt", change)
        assert get(mirror, tmp_path) == new
    assert mirror.asked("/file")[1] == "bytes=20000-" and mirror.asked("/file")[-1] is None


def test_server_that_recovers_is_waited_for_and_one_that_does_not_is_given_up(mirror, tmp_path):
    mirror.failures = 4
    assert get(mirror, tmp_path) == DOCUMENT
    os.unlink(tmp_path / "file")
    mirror.failures, before = 100, len(mirror.requests)
    message = mistake(get, mirror, tmp_path)
    assert "no more comes after 5 attempts (the server answers 503 Service Unavailable)" in message
    assert len(mirror.requests) == before + 5 and os.listdir(tmp_path) == []


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refusal_is_said_at_once(mirror, tmp_path, status):
    mirror.failures, mirror.status = 1, status
    assert f"/file: the server answers {status}" in mistake(get, mirror, tmp_path)
    assert len(mirror.requests) == 1 and os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind, page", [("text/html", b"<p>log in</p>"), ("application/xml", b"<Error>quota</Error>"),
                                        ("application/octet-stream", b"\n<!DOCTYPE html><html>log in")])
def test_page_is_never_saved_as_a_model(mirror, tmp_path, kind, page):
    mirror.page, mirror.type = page, kind
    assert "answers with a" in mistake(get, mirror, tmp_path)
    assert os.listdir(tmp_path) == []


def test_unknown_length_is_refused(mirror, tmp_path):
    mirror.length = False
    assert "does not say how long the file is" in mistake(get, mirror, tmp_path)
    assert os.listdir(tmp_path) == []


def published(kind, data):
    if kind == "sha256":  # Hugging Face, large files: on the redirect only
        return {"X-Linked-ETag": '"%s"' % hashlib.sha256(data).hexdigest()}
    if kind == "git":  # Hugging Face, small files
        return {"X-Repo-Commit": "c" * 40, "ETag": '"%s"' % hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    return {"azure": {"Content-MD5": md5}, "google": {"x-goog-hash": f"crc32c=AAAAAA==,md5={md5}"}}[kind]


@pytest.mark.parametrize("kind", ["sha256", "git", "azure", "google"])
@pytest.mark.parametrize("right", [True, False])
def test_published_checksums_are_held_against_the_bytes(mirror, tmp_path, kind, right):
    mirror.cut = 30_000  # the file comes in two parts
    said = published(kind, DOCUMENT if right else DOCUMENT + b".")
    if kind == "sha256":
        mirror.redirect = lambda path, data: said
    else:
        mirror.headers = lambda path, data: said
    if right:
        assert get(mirror, tmp_path) == DOCUMENT
    else:
        message = mistake(get, mirror, tmp_path)
        assert re.search(r"is [0-9a-f]+, but the server says [0-9a-f]+; it is deleted; run again", message)
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["azure", "google"])
def test_a_redirect_s_own_checksum_is_not_the_file_s(mirror, tmp_path, kind):
    mirror.redirect = lambda path, data: {**published(kind, b"moved"), "ETag": '"%d"' % len(mirror.requests)}
    mirror.etag, mirror.cut = lambda data: "", 30_000  # nor is its version: the second part belongs to the first
    assert get(mirror, tmp_path) == DOCUMENT
    assert mirror.asked("cdn/file") == [None, "bytes=30000-"]
    (tmp_path / "file").unlink()
    mirror.headers = lambda path, data: published(kind, data + b".")
    assert "but the server says" in mistake(get, mirror, tmp_path)


def test_own_checksum_goes_before_the_server_s(mirror, tmp_path):
    wrong = fetch.Checksum("sha256", "0" * 64, "--sha256")
    assert "--sha256 says 000" in mistake(get, mirror, tmp_path, wrong)
    right = wrong._replace(value=hashlib.sha256(DOCUMENT).hexdigest())
    assert get(mirror, tmp_path, right) == DOCUMENT
    (tmp_path / "file").write_bytes(b"something else")
    assert "move it elsewhere and run again" in mistake(get, mirror, tmp_path, right)


def test_disk_without_room_is_said_before_anything_is_written(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 50_000}))
    assert "50,021 bytes are to come, and the disk has 50,000 left" in mistake(get, mirror, tmp_path)
    assert os.listdir(tmp_path) == []


def test_wrong_bytes_without_a_published_checksum_are_found_by_tensorflow_s_own(mirror, models, tmp_path):
    offer(mirror, models, "openai")
    data = bytearray(models["openai"][DATA])
    data[len(data) // 2] ^= 1
    mirror.files["/124M/" + DATA] = bytes(data)
    assert "is damaged or incomplete" in mistake(call, mirror, tmp_path / "got")
    assert os.listdir(tmp_path / "got") == []


def test_files_that_were_there_before_are_not_deleted_whatever_is_wrong(mirror, models, tmp_path):
    offer(mirror, models, "hf")
    folder = tmp_path / "got"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "mine"}')
    (folder / "checkpoint").write_text("mine")
    message = mistake(call, mirror, folder, "--source", "hf")
    assert '"model_type" is "mine"' in message and "config.json lay there before" in message
    assert content(folder) == {"config.json": b'{"model_type": "mine"}', "checkpoint": b"mine"}


def test_another_vocabulary_under_gpt2_s_name_is_refused(mirror, models, tmp_path):
    offer(mirror, models, "openai")
    mirror.files["/124M/encoder.json"] += b" "
    assert "sha256 is" in mistake(call, mirror, tmp_path / "got")
    offer(mirror, models, "hf")
    tokens = json.loads(models["hf"]["vocab.json"])
    tokens["Ġthe"], tokens["Ġa"] = tokens["Ġa"], tokens["Ġthe"]
    mirror.files["/gpt2/resolve/main/vocab.json"] = json.dumps(tokens).encode()
    assert "the vocabulary there is not GPT-2's" in mistake(call, mirror, tmp_path / "hf", "--source", "hf")


def test_sha256_option_pins_a_file(mirror, models, tmp_path):
    offer(mirror, models, "openai")
    assert f"{DATA}: sha256 is" in mistake(call, mirror, tmp_path / "got", "--sha256", f"{DATA}={'0' * 64}")
    for wrong in ("x=" + "0" * 64, DATA + "=12"):
        assert "must be FILE=HEX with 64 digits" in mistake(call, mirror, tmp_path / "got", "--sha256", wrong)
    right = hashlib.sha256(models["openai"][DATA]).hexdigest()
    assert call(mirror, tmp_path / "got", "--sha256", f"{DATA}={right}") == 0


def test_addresses_are_those_that_the_sources_publish(monkeypatch, tmp_path):
    asked = []

    def note(url, path, checksum):
        asked.append(url)
        raise UserError("seen")
    monkeypatch.setattr(fetch, "fetch", note)
    for arguments in (["774M"], ["1558M", "--source", "hf"]):
        mistake(download_model.main, [*arguments, "--output_dir", str(tmp_path)])
    assert asked == ["https://openaipublic.blob.core.windows.net/gpt-2/models/774M/hparams.json",
                     "https://huggingface.co/openai-community/gpt2-xl/resolve/main/config.json"]


def test_server_that_is_not_there_and_an_address_that_is_none_are_one_line(mirror, tmp_path):
    mirror.__exit__()
    message = mistake(fetch.fetch, mirror.url + "/x", str(tmp_path / "x"))
    assert "no more comes after 5 attempts ([Errno 111] Connection refused); run" in message
    assert "is no address" in mistake(fetch.fetch, "somewhere/x", str(tmp_path / "x"))
    mirror.__enter__()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("proxy", [False, True])
def test_certificate_of_a_company_is_trusted_where_the_environment_names_it(tmp_path, monkeypatch, variable, proxy):
    certificate, private_key = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost", "-keyout", private_key, "-out", certificate], check=True,
                   capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private_key)
    monkeypatch.setattr(fetch, "PAUSE", 0)
    with Mirror(context) as mirror, Tunnel(mirror) as tunnel:
        mirror.files["/file"] = DOCUMENT
        if proxy:
            monkeypatch.setenv("https_proxy", tunnel.url)
        url = mirror.url.replace("http://127.0.0.1", "https://localhost")
        assert "self-signed certificate" in mistake(fetch.fetch, url + "/file", str(tmp_path / "file"))
        monkeypatch.setenv(variable, certificate)
        fetch.fetch(url + "/file", str(tmp_path / "file"))
        assert (tmp_path / "file").read_bytes() == DOCUMENT
        assert bool(tunnel.requests) == proxy


def test_password_in_netrc_is_sent_neither_to_the_mirror_nor_behind_a_redirect(mirror, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    mirror.redirect = lambda path, data: {"X-Redirect": "yes"}
    assert get(mirror, tmp_path) == DOCUMENT
    assert len(mirror.authorizations) == 2 and not any(mirror.authorizations)


def test_proxy_of_the_environment_is_asked_except_for_hosts_of_no_proxy(mirror, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", mirror.url)
    mirror.files["http://models.invalid/file"] = DOCUMENT
    fetch.fetch("http://models.invalid/file", str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == DOCUMENT
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    os.unlink(tmp_path / "file")
    assert get(mirror, tmp_path) == DOCUMENT


def test_encoder_needs_no_network_and_the_command_runs_both_ways(tmp_path):
    for number, start in enumerate((["tools/download_model.py"], ["-m", "tools.download_model"])):
        folder = tmp_path / str(number)
        result = subprocess.run([sys.executable, *start, "encoder", "--output_dir", str(folder)], cwd=ROOT, text=True,
                                capture_output=True, env={**os.environ, "https_proxy": "http://127.0.0.1:9"})
        assert result.returncode == 0 and result.stderr == "", result.stderr
        assert content(folder) == bpe.read_files()
        assert bpe.load().fingerprint in result.stdout


def answering(*answers):
    """URL of a server that sends these bytes, one after the other, to whoever connects, and then no more."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        for answer in answers:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
        server.close()
    threading.Thread(target=serve, daemon=True).start()
    return "http://127.0.0.1:%d" % server.getsockname()[1]


def http(*headers, body=b"12345", status="200 OK"):
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""]).encode("latin-1") + body


@pytest.mark.parametrize("answer, words", [
    (http("Content-Length: -5"), "announces '-5' bytes"), (http("Content-Length: five"), "announces 'five' bytes"),
    (http("Content-Length: 1_0"), "announces '1_0' bytes"), (http(f"Content-Length: {'9' * 5000}"), "announces '999"),
    (http("Content-Length: +5"), "announces '\\+5' bytes"), (http("Content-Length: 5, 6"), "answer cannot be used"),
    (http("Content-Length: 5", "Content-Encoding: gzip"), "in the encoding 'gzip'"),
    (http("Location: file:///etc/passwd", status="302 Found"), "redirects to 'file:///etc/passwd', which is not fol"),
    (http("Location: ftp://127.0.0.1/x", status="302 Found"), "redirects to 'ftp://127.0.0.1/x', which"),
    (http("Location: http://[", status="302 Found"), "answer cannot be used"),
    (http("Location: \xff\xfe", status="302 Found"), "answer cannot be used"),
    (http("Location: http://127.0.0.1:99999/", status="302 Found"), "answer cannot be used"),
    (http("Location: " + "x" * 70_000, status="302 Found"), "no more comes after 5 attempts"),
    (http(status="410 \x1b[3mGone\x9b"), r"the server answers 410 \\x1b\[3mGone\\x9b; give"),
    (b"HTTP/\x1b[7m 200 OK\r\n\r\n", r"no more comes after 5 attempts \(HTTP/\\x1b\[7m"),
    (http(status="302 Found"), "the server answers 302 Found"),
    (http("Content-Range: bytes 3-4/5", "Content-Length: 2", status="206 P"), "no more comes after 5 attempts"),
    (http("Content-Range: bytes x-4/5", "Content-Length: 5", status="206 P"), "no more comes after 5 attempts"),
    (http("Content-Length: 5", "Transfer-Encoding: chunked", body=b"9\r\n123456789\r\n0\r\n\r\n"),
     "more comes than the 5 bytes that were announced"),
    (http("Content-Length: 5", "Transfer-Encoding: chunked", body=b"5\r\n12345\r\n-7\r\n67"),
     "the server's answer cannot be used \\(.*negative"),
    (http("Content-Length: 5", "Transfer-Encoding: chunked", body=b"wide\r\n12345"), "no more comes after 5 attempts"),
    (http("Content-Length: 5", "Transfer-Encoding: chunked", body=b"5" * 70_000), "no more comes after 5 attempts"),
    (http(f"Content-Length: {10**15 - 1}"), "999,999,999,999,999 bytes are to come, and the disk has")])
def test_odd_answer_is_one_line_and_leaves_no_file(tmp_path, monkeypatch, answer, words):
    monkeypatch.setattr(fetch, "PAUSE", 0)
    with pytest.raises(UserError, match=words) as caught:
        fetch.fetch(answering(*[answer] * fetch.ATTEMPTS) + "/file", str(tmp_path / "file"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("mark", ["?", "é", "AAAA", "827ccb0eea8a706c4c34a16891f84e7b", "=" * 24])
def test_a_mark_that_is_no_md5_counts_for_none(tmp_path, mark):
    url = answering(http("Content-Length: 5", f"Content-MD5: {mark}"))
    assert fetch.fetch(url + "/file", str(tmp_path / "file")) is None
    assert (tmp_path / "file").read_bytes() == b"12345" and os.listdir(tmp_path) == ["file"]


def test_from_https_no_redirect_leads_to_http():
    response = fetch.requests.Response()
    response.status_code, response.url = 302, "https://example.org/file"
    response.headers["Location"] = "http://example.org/file"
    with pytest.raises(UserError, match="redirects to 'http://example.org/file', which is not followed"):
        fetch._Session().get_redirect_target(response)
    response.headers["Location"] = "/other"
    assert fetch._Session().get_redirect_target(response) == "/other"


def test_a_file_of_the_name_that_a_download_once_had_meanwhile_is_left_alone(tmp_path):
    (tmp_path / "file.partial").write_text("mine")
    fetch.fetch(answering(http("Content-Length: 5")) + "/file", str(tmp_path / "file"))
    assert (tmp_path / "file.partial").read_text() == "mine" and (tmp_path / "file").read_bytes() == b"12345"


@pytest.mark.parametrize("url", ["ftp://h/x", "file:///etc/passwd", "h/x", "http://", "http://[", "http://:99999/x"])
def test_what_is_no_address_is_told_before_anything_is_asked(tmp_path, url):
    with pytest.raises(UserError, match="is no address; give --base_url as https://HOST/PATH"):
        fetch.fetch(url, str(tmp_path / "file"))
