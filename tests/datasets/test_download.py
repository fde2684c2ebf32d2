"""datasets/download.py against a server that misbehaves: what is saved, what is tried again, what survives a kill."""
import collections
import hashlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from configs import commands
from configs.errors import UserError
from datasets import download
from datasets.pages import archives
from tests.helpers import bad_server, fake_gcs, measured
from tests.helpers.runs import ROOT

MONTH = "RS_2017-04"


@pytest.fixture
def server(tmp_path, monkeypatch):
    certificate = tmp_path / "certificate.pem"
    certificate.write_text(bad_server.CERTIFICATE)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = bad_server.Server()
    server.certificate = str(certificate)
    with server:
        yield server


def options(folder, *more):
    return ["--output_dir", str(folder), "--allow_private", "--max_bytes", str(bad_server.MAX_BYTES),
            "--per_host", "40", "--connect_timeout", "5", "--read_timeout", "3", "--timeout", "4",
            "--retries", "1", "--retry_wait", "0.05", "--compression", "gz", *more]


def write_list(folder, urls, name=MONTH + ".txt"):
    path = folder / name
    path.write_text("".join(url + "\n" for url in urls))
    return str(path)


def read_pages(folder, month=MONTH):
    """{stem: text} of all archives, by tarfile alone, each of which must be whole; no page twice."""
    found = {}
    for name in sorted(os.listdir(folder)):
        if name.startswith(month + "-") and "_data." in name:
            with tarfile.open(os.path.join(folder, name)) as tar, \
                    tarfile.open(os.path.join(folder, name.replace("_data", "_meta"))) as meta:
                members = tar.getmembers()
                assert [m.name[:-4] for m in members] == [m.name[:-5] for m in meta.getmembers()]
                for member in members:
                    stem, suffix = os.path.splitext(member.name)
                    about = json.load(meta.extractfile(stem + ".json"))
                    assert suffix == ".txt" and set(about) == {"url", "elapsed", "scraper"}
                    assert stem == f"{int(stem[:7]):07d}-{hashlib.md5(about['url'].encode()).hexdigest()}"
                    assert stem not in found
                    found[stem] = tar.extractfile(member).read().decode()
    return found


def expected_pages(urls):
    """{stem: text} of the good ones."""
    return {archives.stem_of(line, url): bad_server.page(*url.split("/")[-2:]) for line, url in enumerate(urls)
            if url.split("/")[-2] in bad_server.GOOD}


def state(folder, month=MONTH):
    return [int(line) for line in (folder / "state" / f"{month}.txt").read_text().splitlines()]


def all_kinds(server, count, rare=()):
    """URLs of `count` pages of all kinds, mixed."""
    kinds = [*bad_server.KINDS, *bad_server.PASSING]
    urls = [server.url(kinds[i % len(kinds)] if i < len(kinds) or kinds[i % len(kinds)] not in rare else "plain", i)
            for i in range(count)]
    random.Random(1).shuffle(urls)
    return urls


def check_everything(server, tmp_path, count, *more, rare=()):
    urls = all_kinds(server, count, rare)
    report = tmp_path / "report.json"
    path = write_list(tmp_path, urls)
    assert download.main([path, *options(tmp_path / "out", *more), "--report", str(report)]) == 0
    assert read_pages(tmp_path / "out") == expected_pages(urls)
    kinds = [url.split("/")[-2] for url in urls]
    outcomes = {**bad_server.KINDS, **bad_server.PASSING}
    counts = json.loads(report.read_text())
    assert counts["outcomes"] == collections.Counter(outcomes[kind] for kind in kinds)
    assert counts["passing"] == collections.Counter(bad_server.PASSING[kind] for kind in kinds
                                                    if kind in bad_server.PASSING)
    assert counts["all_runs"] == counts["outcomes"]
    assert counts["lines"] == count and counts["left"] == sum(counts["passing"].values())
    assert sorted(state(tmp_path / "out")) == [line for line, kind in enumerate(kinds) if kind in bad_server.KINDS]
    return urls


def test_of_sixty_pages_exactly_the_good_ones_are_saved(server, tmp_path):
    urls = check_everything(server, tmp_path, 61, "--urls_per_archive", "10")
    assert set(archives.find(str(tmp_path / "out"), MONTH)) == {1, 2, 3, 4, 5}
    assert len(server.agents) == 1 and download.USER_AGENT in server.agents.pop()
    for url in urls:
        kind, number = url.split("/")[-2:]
        # A connection that is kept and breaks at once is opened anew by aiohttp itself.
        most = 4 if kind in ("closed", "reset", "closed_once") else 2 if kind in bad_server.ONCE else None
        tries = 2 if kind in (*bad_server.PASSING, *bad_server.ONCE) else 1
        if kind not in ("no_tls", "refused", "untrusted", "private", "loop"):
            assert tries <= server.requests[f"/{kind}/{number}"] <= (most or tries), kind
    assert not any(path.startswith("/private") for path in server.requests)


@pytest.mark.slow
def test_of_a_thousand_pages_exactly_the_good_ones_are_saved(server, tmp_path):
    check_everything(server, tmp_path, 1000, "--urls_per_archive", "100", "--per_host", "100",
                     rare=("hang", "drip", "header_drip"))


def start(arguments, environment=()):
    return subprocess.Popen([sys.executable, os.path.join(ROOT, "datasets", "download.py"), *arguments],
                            env={**os.environ, **dict(environment)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def wait_for(condition, seconds=30):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end
        time.sleep(0.005)


def archives_in(folder):
    return sorted(name for name in os.listdir(folder) if "_data." in name) if os.path.isdir(folder) else []


def test_after_kills_at_any_time_the_union_is_right_and_no_archive_is_damaged(server, tmp_path):
    urls = [server.url("plain" if i % 5 else "missing", i) for i in range(400)]
    out = tmp_path / "out"
    arguments = [write_list(tmp_path, urls), *options(out, "--urls_per_archive", "25", "--concurrency", "5")]
    before = {}
    for count in (2, 6, 10):
        process = start(arguments)
        while len(archives_in(out)) < count:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.kill()
        process.communicate()
        for name, size in before.items():
            assert os.path.getsize(out / name) == size  # what was complete stays as it was
        before = {name: os.path.getsize(out / name) for name in archives_in(out)}
        found = read_pages(out)
        assert found.items() <= expected_pages(urls).items() and 0 < len(found) < 320
    (out / ".partial-of_a_kill").write_text("half")
    fetched = sum(server.requests.values())
    assert download.main(arguments) == 0
    assert read_pages(out) == expected_pages(urls)
    assert sorted(state(out)) == list(range(400))
    # Besides robots.txt, the missing ones of the last archive, if the kill came before its state: about 25 / 5, but
    # more if they were quicker; and what the killed one had asked for, which the server may count late.
    assert sum(server.requests.values()) - fetched <= 400 - 10 * 25 + 1 + 2 * 25 / 5 + 5
    assert sorted(os.listdir(out))[0] == f"{MONTH}-10_data.gz"  # no .partial-, no lock
    fetched, report = sum(server.requests.values()), tmp_path / "report.json"
    assert download.main([*arguments, "--report", str(report)]) == 0 and sum(server.requests.values()) == fetched
    counts = json.loads(report.read_text())
    assert counts["outcomes"] == {"earlier": 400} and counts["all_runs"] == {"saved": 320, "http_404": 80}
    (out / "state" / f"{MONTH}.outcomes").unlink()  # as after OpenWebText's own downloader, which notes none
    assert download.main([*arguments, "--report", str(report)]) == 0
    assert json.loads(report.read_text())["all_runs"] == {"earlier": 400}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_completes_the_archive_and_the_state(server, tmp_path, number):
    urls = [server.url("plain", i) for i in range(100)] + [server.url("hang", i) for i in range(30)]
    out = tmp_path / "out"
    arguments = [write_list(tmp_path, urls), *options(out, "--timeout", "50", "--read_timeout", "50")]
    process = start(arguments)
    wait_for(lambda: sum(path.startswith("/hang") for path in server.requests) == 30
             and sum(path.startswith("/plain") for path in server.requests) == 100)
    time.sleep(0.3)
    started = time.time()
    process.send_signal(number)
    output, error = process.communicate(timeout=30)
    assert process.returncode == 128 + number, error
    assert time.time() - started < 5
    assert read_pages(out) == expected_pages(urls) and sorted(state(out)) == list(range(100))
    assert "100 saved" in output and "30 lines are left" in output and "Traceback" not in error
    assert sorted(os.listdir(out)) == [f"{MONTH}-1_data.gz", f"{MONTH}-1_meta.gz", "state"]


def test_a_kill_between_archive_and_state_loses_and_repeats_nothing(server, tmp_path):
    urls = [server.url("plain", i) for i in range(9)]
    out = tmp_path / "out"
    arguments = [write_list(tmp_path, urls), *options(out, "--urls_per_archive", "3", "--concurrency", "1")]
    assert download.main(arguments) == 0
    path = out / "state" / f"{MONTH}.txt"
    lines = path.read_text().splitlines(True)
    path.write_text("".join(lines[:6]) + lines[6][:-1] + "77")
    server.requests.clear()
    assert download.main(arguments) == 0
    assert not server.requests and sorted(state(out)) == list(range(9))
    notes = (out / "state" / f"{MONTH}.outcomes").read_text().splitlines()
    assert {int(note.split()[0]) for note in notes} == set(range(9)) and all(" saved" in note for note in notes)
    assert len(archives_in(out)) == 3
    # A meta archive alone is what a kill between the two leaves.
    os.unlink(out / f"{MONTH}-3_data.gz")
    path.write_text("".join(lines[:6]))
    assert download.main(arguments) == 0
    os.unlink(out / f"{MONTH}-3_meta.gz")
    assert read_pages(out) == expected_pages(urls)


def test_what_failed_for_a_passing_reason_is_tried_at_the_next_run(server, tmp_path):
    urls = [server.url("busy_once", 1), server.url("plain", 2), server.url("ill", 3), server.url("missing", 4)]
    out = tmp_path / "out"
    arguments = [write_list(tmp_path, urls), *options(out, "--retries", "0")]
    assert download.main(arguments) == 0
    assert sorted(state(out)) == [1, 3] and len(read_pages(out)) == 1
    assert download.main(arguments) == 0
    assert sorted(state(out)) == [0, 1, 3] and read_pages(out) == expected_pages(urls)
    assert set(archives.find(str(out), MONTH)) == {1, 2}
    assert [server.requests[f"/{kind}"] for kind in ("busy_once/1", "plain/2", "ill/3", "missing/4")] == [2, 1, 2, 1]


def test_several_lists_make_archives_of_their_own_and_repeat_no_page(server, tmp_path):
    urls = [server.url("plain", i) for i in range(4)]
    first = write_list(tmp_path, [urls[0], "", urls[1], urls[0] + "#part", "mailto:a@b.c", "  " + urls[2] + "\r"])
    second = write_list(tmp_path, [urls[2], urls[3], "x" * 9000, "http://a b/", "http://"], "other.list.txt")
    out = tmp_path / "out"
    assert download.main([first, second, *options(out, "--report", str(tmp_path / "report"))]) == 0
    assert [len(read_pages(out, month)) for month in (MONTH, "other.list")] == [3, 1]
    assert sorted(state(out)) == [0, 2, 5] and state(out, "other.list") == [1]
    assert json.loads((tmp_path / "report").read_text())["outcomes"] == {
        "saved": 4, "blank": 1, "invalid": 4, "repeated": 2}
    assert {path: count for path, count in server.requests.items() if path != "/robots.txt"} == {
        f"/plain/{i}": 1 for i in range(4)}


def test_one_host_gets_few_requests_at_a_time_and_the_others_do_not_wait(server, tmp_path):
    urls = [server.url("slow", i) for i in range(12)]
    assert download.main([write_list(tmp_path, urls), *options(tmp_path / "out", "--per_host", "3")]) == 0
    assert server.busiest == 3 and len(read_pages(tmp_path / "out")) == 12


@pytest.mark.parametrize("kind", ["plain", "moved_far"])
def test_private_addresses_are_refused_unless_allowed(server, tmp_path, kind):
    names = ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "127.1", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0"]
    path = write_list(tmp_path, [f"http://{name}:{server.port}/{kind}/{i}" for i, name in enumerate(names)])
    arguments = options(tmp_path / "out", "--report", str(tmp_path / "r"), "--ignore_robots")
    arguments.remove("--allow_private")
    assert download.main([path, *arguments]) == 0
    outcomes = json.loads((tmp_path / "r").read_text())["outcomes"]
    outcomes["private_address"] += outcomes.pop("invalid", 0)  # newer releases of aiohttp take no 0x7f.1
    assert outcomes == {"private_address": len(names)}
    assert not server.requests
    assert state(tmp_path / "out") == list(range(len(names)))


def counts_of(tmp_path, path, *arguments):
    """(outcomes, those of all runs) after a run in tmp_path/out."""
    report = tmp_path / "report.json"
    assert download.main([path, *arguments, "--report", str(report)]) == 0
    counts = json.loads(report.read_text())
    return counts["outcomes"], counts["all_runs"]


def test_what_was_refused_is_tried_again_when_the_options_permit_it(server, tmp_path, capsys):
    path = write_list(tmp_path, [*(server.url("plain", i) for i in range(3)), server.url("plain", 9), "no url"])
    server.robots = b"User-agent: *\nDisallow: /plain/9"
    allowed = options(tmp_path / "out")
    refused = [option for option in allowed if option != "--allow_private"]
    everything = {"private_address": 4, "invalid": 1}
    assert counts_of(tmp_path, path, *refused) == (everything, everything)
    assert counts_of(tmp_path, path, *refused) == ({"earlier": 4, "invalid": 1}, everything)
    assert not server.requests and "tried again" not in capsys.readouterr().out
    assert counts_of(tmp_path, path, *allowed) == (({"saved": 3, "robots": 1, "invalid": 1},) * 2)
    assert "RS_2017-04.txt: tried again, since the options now permit it: 4 of the lines\n" in \
        capsys.readouterr().out
    ignoring = [*allowed, "--ignore_robots"]
    assert counts_of(tmp_path, path, *ignoring) == (
        {"earlier": 3, "saved": 1, "invalid": 1}, {"saved": 4, "invalid": 1})
    assert "now permit it: 1 of the lines\n" in capsys.readouterr().out
    assert server.requests == {"/robots.txt": 1, **{f"/plain/{i}": 1 for i in (0, 1, 2, 9)}}
    for given in (ignoring, refused):
        assert counts_of(tmp_path, path, *given) == ({"earlier": 4, "invalid": 1}, {"saved": 4, "invalid": 1})
    assert len(read_pages(tmp_path / "out")) == 4


def test_what_was_too_big_is_tried_again_with_a_higher_limit_only(server, tmp_path):
    path, given = write_list(tmp_path, [server.url("bomb", 1), server.url("loop", 2)]), options(tmp_path / "out")
    refused, requests = {"too_big": 1, "too_many_redirects": 1}, server.requests
    assert counts_of(tmp_path, path, *given) == (refused, refused)
    assert (requests["/bomb/1"], requests["/loop/2"]) == (1, 6)
    assert counts_of(tmp_path, path, *given) == ({"earlier": 2}, refused)
    higher = ["--max_bytes", str(bad_server.MAX_BYTES + 1), "--max_redirects", "6"]
    for _ in range(2):
        counts_of(tmp_path, path, *given, *higher)
        assert (requests["/bomb/1"], requests["/loop/2"]) == (2, 13)
    notes = tmp_path / "out" / "state" / f"{MONTH}.outcomes"
    notes.write_text("0 too_big\n1 too_many_redirects\n")  # as earlier releases noted them
    assert counts_of(tmp_path, path, *given, *higher) == ({"earlier": 1, "too_many_redirects": 1}, refused)


def test_robots_may_be_ignored_on_request(server, tmp_path):
    path = write_list(tmp_path, [server.url("plain", 1)])
    server.robots = b"User-agent: nobody\nDisallow:\n\nUser-agent: *\nDisallow: /"
    assert download.main([path, *options(tmp_path / "out")]) == 0
    assert server.requests == {"/robots.txt": 1}
    assert download.main([path, *options(tmp_path / "ours", "--user_agent", "Nobody/2 (mail@example.org)")]) == 0
    assert download.main([path, *options(tmp_path / "all", "--ignore_robots")]) == 0
    assert server.requests == {"/robots.txt": 2, "/plain/1": 2}


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(server, tmp_path, capsys):
    path = write_list(tmp_path, [server.url("large", i) for i in range(30)])
    small = [path, *options(tmp_path / "small", "--urls_per_archive", "5")]
    full = [path, *options(tmp_path / "full", "--urls_per_archive", "20")]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))  # a file of more is as hopeless as a full disk
    try:
        assert download.main(small) == 0
        with pytest.raises(SystemExit) as end:
            commands.run(download.main, full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(read_pages(tmp_path / "small")) == 30
    assert end.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path / 'full'}: File too large; allow larger files")
    assert os.listdir(tmp_path / "full") == []
    assert download.main(full) == 0 and len(read_pages(tmp_path / "full")) == 30


def test_memory_does_not_grow_with_the_list(server, tmp_path):
    def peak(lines):
        path = write_list(tmp_path, ["x"] * lines + [server.url("plain", 1)], f"list{lines}.txt")
        process, size = measured.run(sys.executable, "-m", "datasets.download", path, *options(tmp_path / str(lines)),
                                     cwd=ROOT)
        assert f"{lines} invalid" in process.stdout and "1 saved" in process.stdout, process.stderr
        return size
    assert peak(100_000) - peak(1) < 3 * 2**20


@pytest.mark.slow
def test_a_list_may_lie_on_google_storage(server, tmp_path):
    urls = [server.url("plain", i) for i in range(3)]
    with fake_gcs.FakeGCS() as storage:
        storage.put(f"gs://bucket/{MONTH}.txt", "\n".join(urls).encode())
        process = start([f"gs://bucket/{MONTH}.txt", *options(tmp_path / "out")], storage.environment())
        output, error = process.communicate(timeout=120)
    assert process.returncode == 0 and "3 saved" in output, error
    assert read_pages(tmp_path / "out") == expected_pages(urls)


def another_tool(folder, month):
    """Reads what openwebtext's downloader and extractor would: the next number, the finished lines, the texts."""
    numbers = [int(name.split("-")[-1].split("_")[0]) for name in os.listdir(folder) if name.startswith(month + "-")]
    with open(os.path.join(folder, "state", month + ".txt")) as f:
        finished = {int(line.strip()) for line in f}
    texts = {}
    for number in range(1, max(numbers) + 1):
        with tarfile.open(os.path.join(folder, f"{month}-{number}_data.xz")) as tar:
            texts.update({member.name: tar.extractfile(member).read().decode() for member in tar})
    return max(numbers), finished, texts


def test_a_tool_for_openwebtexts_format_reads_ours(server, tmp_path):
    urls = [server.url(kind, i) for i, kind in enumerate(("latin", "missing", "plain", "zipped", "moved"))]
    assert download.main([write_list(tmp_path, urls),
                          *options(tmp_path / "out", "--urls_per_archive", "2", "--compression", "xz")]) == 0
    latest, finished, texts = another_tool(tmp_path / "out", MONTH)
    assert latest in (2, 3) and finished == {0, 1, 2, 3, 4}
    assert texts == {stem + ".txt": text for stem, text in expected_pages(urls).items()}


def test_a_run_of_openwebtexts_downloader_is_continued(server, tmp_path):
    urls = [server.url("plain", i) for i in range(5)]
    out, theirs = tmp_path / "scraped", tmp_path / "state"
    for folder in (out, theirs):
        folder.mkdir()
    for kind, suffix in (("data", "txt"), ("meta", "json")):
        with tarfile.open(out / f"{MONTH}-7_{kind}.bz2", "w:bz2") as tar:
            for line in (0, 2):
                member = tarfile.TarInfo(f"{line:07d}-{hashlib.md5(urls[line].encode()).hexdigest()}.{suffix}")
                data = bad_server.page("plain", line).encode() if kind == "data" else json.dumps(
                    {"url": urls[line], "elapsed": 1, "scraper": "newspaper"}).encode()
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    (theirs / f"{MONTH}.txt").write_text("0\n1\n2\n")
    assert download.main([write_list(tmp_path, urls), *options(out, "--state_dir", str(theirs))]) == 0
    assert set(archives.find(str(out), MONTH)) == {7, 8}
    assert sorted(read_pages(out)) == [archives.stem_of(line, urls[line]) for line in (0, 2, 3, 4)]
    assert (theirs / f"{MONTH}.txt").read_text() == "0\n1\n2\n3\n4\n"


def test_a_list_that_changed_is_an_error(server, tmp_path):
    urls = [server.url("plain", i) for i in range(3)]
    arguments = options(tmp_path / "out")
    assert download.main([write_list(tmp_path, urls), *arguments]) == 0
    assert download.main([write_list(tmp_path, [*urls, server.url("plain", 3)]), *arguments]) == 0  # a longer is none
    with pytest.raises(UserError, match="RS_2017-04.txt line 4 is not the URL whose page is in the archive as 0000003"):
        download.main([write_list(tmp_path, ["http://new.example", *urls]), *arguments])


@pytest.mark.parametrize("arguments, message", [
    (["nowhere.txt"], "nowhere.txt: no such file"), (["."], ": no such file"),
    (["a/RS_2017-04", "b/RS_2017-04.txt"], "a/RS_2017-04 and b/RS_2017-04.txt would both write RS_2017-04-1_data"),
    (["x", "--concurrency", "0"], "--concurrency: 0 is out of range: give at least 1"),
    (["x", "--timeout", "0"], "--timeout: 0 is out of range"), (["x", "--retries", "-1"], "--retries: -1 is out of"),
    (["x", "--timeout", "nan"], "--timeout: nan is out of range"), (["x", "--user_agent", "a\nb"], "printable"),
    (["x", "--output_dir", "gs://b/x"], "write to a local folder"),
    (["x", "--per_hostt", "1"], "unknown option --per_hostt; did you mean --per_host?")])
def test_wrong_arguments_are_told(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        download.main(["--output_dir", "out", *arguments])


def test_two_runs_at_once_are_refused(server, tmp_path):
    path = write_list(tmp_path, [server.url("hang", 1)])
    process = start([path, *options(tmp_path / "out", "--timeout", "50", "--read_timeout", "50")])
    wait_for(lambda: server.requests["/hang/1"])
    with pytest.raises(UserError, match="another run holds .*choose another --output_dir"):
        download.main([path, *options(tmp_path / "out")])
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143
