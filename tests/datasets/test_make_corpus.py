"""URLs -> verified shards in one command, against a server that misbehaves: the report, kills, mistakes."""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from configs.errors import UserError
from datasets import make_corpus
from tests.datasets.test_download import server  # noqa: F401 (a fixture)
from tests.datasets.test_extract_text import contents
from tests.helpers import bad_server
from tests.helpers.pages import NAVIGATION
from tests.helpers.runs import ROOT
from tests.helpers.waiting import alive

WORDS = [start + middle + end for start in ("ba", "co", "di", "fe", "gu") for middle in ("lan", "rim", "tos", "ven")
         for end in ("", "ed", "ing", "ly")]
DOWNLOAD = (f"--download=--allow_private --max_bytes {bad_server.MAX_BYTES} --per_host 40 --connect_timeout 2 "
            "--read_timeout 1 --timeout 9 --retries 1 --retry_wait 0.05 --compression gz --urls_per_archive 9")
OPTIONS = [DOWNLOAD, "--extract=--extractor resiliparse --minimum_characters 300",
           "--create_tfrecords=--files_per 4 --eval_fraction 0.2 --no_ftfy", "--processes", "1"]


def page(kind, number):
    """In place of bad_server.page: an article of its own for each number; 7 and 70 have the same one, 5 is short."""
    rng = random.Random(int(number) % 63)
    length = 8 if int(number) == 5 else 300
    sentences = "".join(f"<p>{' '.join(rng.choices(WORDS, k=length // 4))}.</p>" for _ in range(4))
    meta = '<meta charset="iso-8859-1">' if kind == "declared_inside" else ""
    return (f"<html><head>{meta}<title>{number}</title></head><body><nav><ul>{NAVIGATION}</ul></nav><main><article>"
            f"{sentences}</article></main></body></html>")


@pytest.fixture
def lists(server, tmp_path, monkeypatch):  # noqa: F811
    """Two lists: nine good pages, of which one is a copy and one short, and what is lost on the way."""
    monkeypatch.setattr(bad_server, "page", page)
    urls = [server.url(kind, number) for kind, number in (
        ("plain", 7), ("zipped", 70), ("moved", 1), ("latin", 2), ("ill_once", 3), ("tls", 4), ("text", 5),
        ("chunked", 6), ("missing", 8), ("image", 9), ("bomb", 10), ("ill", 11), ("closed", 12))]
    (tmp_path / "RS_2017-04.txt").write_text("\n".join([*urls, "", urls[0], "no url"]) + "\n")
    (tmp_path / "RS_2017-05.txt").write_text("\n".join([server.url("slow", 20), server.url("plain", 21), urls[2]]))
    return [str(tmp_path / "RS_2017-04.txt"), str(tmp_path / "RS_2017-05.txt")]


def make(lists, folder, *more):
    return make_corpus.main(["--urls", *lists, "--output_dir", str(folder), *OPTIONS, *more])


def report(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize("fraction", ["0.2", "0.00001"])
def test_one_command_makes_verified_shards_and_a_report_in_which_every_line_is_accounted_for(
        lists, tmp_path, capsys, fraction):
    """Also where the fraction takes no document, and all of them give their ends for evaluation."""
    out, options = tmp_path / "out", [f"--create_tfrecords=--files_per 4 --eval_fraction {fraction} --no_ftfy"]
    assert make(lists, out, *options) == 0
    found = report(out)
    assert [found[name] for name in ("urls", "pages", "texts", "documents", "unaccounted")] == [19, 10, 9, 8, 0]
    assert found["lost"] == {
        "download": {"blank": 1, "connection": 1, "http_404": 1, "http_500": 1, "invalid": 1, "other_type": 1,
                     "repeated": 2, "too_big": 1},
        "extract": {"short": 1}, "dedup": {"exact": 1}, "create_tfrecords": {}}
    verified, splits = found["stages"]["verify"], found["splits"]
    assert verified["problems"] == 0 and verified["tokens_in_them"] == found["tokens"] > 8 * 300
    assert verified["bytes"] == found["bytes"]["of_shards"] == sum(
        path.stat().st_size for path in (out / "shards").glob("*.tfrecords"))
    assert found["bytes"]["of_text"] == sum(split["text_bytes"] for split in splits.values()) > 8 * 300 * 4
    text = (out / "report.txt").read_text()
    assert text in capsys.readouterr().out
    assert "lost, dedup: exact                                         1\n" in text and "unaccounted" not in text

    before = contents(out)
    assert make(lists, out, *options) == 0  # nothing to do, and nothing changes
    assert contents(out) == before


def kill_when(command, condition):
    """Runs a command until `condition()`; whether it was killed and not done by itself."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 600  # a stage takes seconds, and minutes where the machine is kept busy by others
    while process.poll() is None and not condition():
        assert time.monotonic() < end
        time.sleep(0.003)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not alive(process.pid)
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_kills_at_every_stage_leave_the_same_bytes(lists, server, tmp_path):  # noqa: F811
    with open(lists[0], "a") as f:
        f.writelines(server.url("slow", number) + "\n" for number in range(22, 52))
    once, out = tmp_path / "once", tmp_path / "out"
    assert make(lists, once) == 0
    command = [sys.executable, "-m", "datasets.make_corpus", "--urls", *lists, "--output_dir", str(out), *OPTIONS]

    def any_of(folder, pattern):
        return lambda: any((out / folder).glob(pattern))
    assert kill_when(command, any_of("pages", "*_data.gz"))
    assert not (out / "download.json").exists()
    assert kill_when(command, any_of("texts/.extraction", "*.done.json"))
    assert kill_when(command, any_of(".", ".drop.txt.state"))
    assert kill_when(command, any_of("shards", "*.tfrecords"))
    assert kill_when(command, any_of("shards", "*.manifest.json"))
    assert make(lists, out) == 0

    assert report(out) == report(once) and (out / "drop.txt").read_bytes() == (once / "drop.txt").read_bytes()
    assert report(once)["unaccounted"] == 0 and report(once)["documents"] > 35
    for path in (out / "download.json", out / "drop.txt", out / "drop.json"):  # to try again what failed
        path.unlink()
    shutil.rmtree(out / "shards")
    assert make(lists, out) == 0 and report(out) == report(once)
    shards, expected = ({name: data for name, data in contents(folder / "shards").items() if ".tfrecords" in name}
                        for folder in (out, once))
    assert shards == expected and len(shards) > 9
    texts = [{name: data for name, data in contents(folder / "texts").items() if name.endswith(".txt")}
             for folder in (out, once)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("arguments, words", [
    (["--create_tfrecords=--files_per 0"], "create_tfrecords: argument --files_per: 0 is out of range"),
    (["--dedup=--threshold 2"], "dedup: argument --threshold: 2 is out of range"),
    (["--extract=--extractor none"], "run_newspaper_extract: .*none"),
    (["--download=--no_such_option 1"], "download: unrecognized arguments: --no_such_option"),
    (["--extract='"], "argument --extract: .*: No closing quotation"),
    (["--ray_address", "nowhere"], "give `auto` or HOST:PORT"),
    (["--name", "a/b"], "create_tfrecords: --name 'a/b'"),
    (["--encoder_path", "nowhere"], "nowhere"),
    (["--create_tfrecords=--eval_input nowhere.txt"], "create_tfrecords: --eval_input nowhere.txt: no such file"),
    (["--dedup=--against nowhere.txt"], "dedup: --against nowhere.txt: no such file"),
    (["--create_tfrecords=--name web"], "create_tfrecords: --name joins .* commands: give it outside of these options"),
    (["--create_tfrecords=--encoder_path nowhere"], "create_tfrecords: --encoder_path joins it to "),
    (["--download=--report other.json"], "download: --report joins it to the other commands: leave it out$"),
    (["--dedup=--output x.txt"], "dedup: --output joins "),
    (["--extract=--output_dir x"], "run_newspaper_extract: --output_dir joins it to "),
    (["--output_dir", "gs://bucket/x"], "write to a local folder")])
def test_mistakes_in_the_options_of_the_last_stage_are_found_before_the_first(tmp_path, arguments, words):
    (tmp_path / "urls.txt").write_text("http://localhost/\n")
    with pytest.raises(UserError, match=words):
        make_corpus.main(["--urls", str(tmp_path / "urls.txt"), "--output_dir", str(tmp_path / "out"), *arguments])
    assert os.listdir(tmp_path) == ["urls.txt"]


def test_a_report_of_the_download_that_is_none_is_named(tmp_path):
    (tmp_path / "urls.txt").write_text("http://localhost/\n")
    (tmp_path / "out").mkdir()
    for content, words in (("{}", '"stopped" is missing'), ('{"stopped": false, "all_runs": 1}', '"all_runs" is 1')):
        (tmp_path / "out" / "download.json").write_text(content)
        with pytest.raises(UserError, match=rf"out/download.json is no report of a download \({words}\); move"):
            make_corpus.main(["--urls", str(tmp_path / "urls.txt"), "--output_dir", str(tmp_path / "out")])


def test_list_that_is_not_there_and_lists_that_have_changed_are_one_line(lists, tmp_path, server):  # noqa: F811
    with pytest.raises(UserError, match="nothing.txt: no such file"):
        make([str(tmp_path / "nothing.txt")], tmp_path / "out")
    (tmp_path / "one.txt").write_text(server.url("missing", 1) + "\n")
    with pytest.raises(UserError, match=r"none of 1 lines gave a page \(http_404 1\)"):
        make([str(tmp_path / "one.txt")], tmp_path / "out")
    (tmp_path / "one.txt").write_text(server.url("missing", 2) + "\n")
    with pytest.raises(UserError, match=r"made of other lists of URLs \(one.txt\)"):
        make([str(tmp_path / "one.txt")], tmp_path / "out")
