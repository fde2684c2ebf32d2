"""Archives -> texts from end to end: contents, counters, restarts, kills, damage, mistakes."""
import io
import json
import lzma
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile

import pytest

from configs import storage
from configs.errors import UserError
from datasets import create_tfrecords, extract_text, run_newspaper_extract
from datasets.pages import archive_texts, archive_writer, archives
from tests.datasets.pages import test_warc
from tests.helpers import records
from tests.helpers.pages import article, paragraphs
from tests.helpers.runs import ROOT
from tests.helpers.waiting import children, wait_until, wait_until_gone

ONE, MANY = (os.path.join(ROOT, "datasets", name) for name in ("extract_text.py", "run_newspaper_extract.py"))
MONTH, LINES = "RS_2017-04", 7
HANGS = b"<div>" * 60_000 + b"text " * 100  # resiliparse needs half a minute and more


def stem(line):
    return archives.stem_of(line, f"http://example.org/{line}")


def write_archive(folder, pages, month=MONTH, compression="xz"):
    """An archive of {line: bytes}, as datasets/download.py writes it; its path."""
    os.makedirs(folder, exist_ok=True)
    writer = archive_writer.Writer(str(folder), str(folder / "state" / f"{month}.txt"), month, compression)
    for line, page in pages.items():
        writer.add(line, f"http://example.org/{line}", page, {"url": str(line)})
    writer.close()
    return str(folder / f"{month}-{writer.number - 1}_data.{compression}")


def write_tar(path, members):
    """A compressed tar of members that no honest program writes: [(TarInfo or name, bytes)]."""
    with lzma.open(path, "wb") as f, tarfile.open(fileobj=f, mode="w") as tar:
        for member, data in members:
            member = tarfile.TarInfo(member) if isinstance(member, str) else member
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def one(archive, output, *more):
    return extract_text.main(["--archive", archive, "--output_dir", str(output), "--extractor", "resiliparse",
                              "--processes", "1", *more])


def many(folder, output, *more):
    return run_newspaper_extract.main(["--input", str(folder), "--output_dir", str(output), "--extractor",
                                       "resiliparse", "--processes", "1", *more])


def start(script, *arguments, **options):
    return subprocess.Popen([sys.executable, script, "--extractor", "resiliparse", *arguments], text=True, cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options)


def contents(folder):
    """{path below folder: bytes} of all files, those of the state too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def texts(folder):
    return {name: data for name, data in contents(folder).items() if name.endswith(".txt")}


def summary(output):
    return json.loads((output / "extraction.json").read_text())


def counts(output):
    """{outcome: how often}, those that occurred."""
    return {name: count for name, count in summary(output)["outcomes"].items() if count}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four archives: two of a month, in which one page is twice, OpenWebText's own, a WARC."""
    folder, rng = tmp_path_factory.mktemp("archives"), random.Random(3)
    write_archive(folder, {line: article(line).encode() for line in range(LINES)})
    second = {line: article(line, rng.choice(["en", "de"])).encode() for line in range(LINES, 3 * LINES)}
    second[2] = article(2, tail="").replace("<article>", f"<article><p>{paragraphs(99)[0]}</p>").encode()
    second[100], second[101], second[102] = b"", b"<p>few words</p>", HANGS
    second[103] = b"one line without an end " * 20_000
    write_archive(folder, second)
    write_archive(folder, {5: b"<b>1 < 2</b> & plain text. " * 9}, "urlsf_subset00")
    (folder / "CC-MAIN-1.warc.gz").write_bytes(b"".join(map(test_warc.gzip.compress, test_warc.RECORDS)))
    return folder


LIMITS = ("--page_seconds", "0.3", "--page_bytes", "400000")


@pytest.fixture(scope="module")
def reference(folder, tmp_path_factory):
    """The output of one process that nothing disturbed."""
    output = tmp_path_factory.mktemp("reference")
    assert many(folder, output, *LIMITS) == 0
    return output


def test_every_article_is_a_text_in_its_month(reference):
    found = texts(reference)
    expected = {f"{MONTH}/{stem(line)}.txt" for line in range(3 * LINES)}
    assert {name for name in found if name.startswith(MONTH)} == expected
    for line in range(LINES):
        text = found[f"{MONTH}/{stem(line)}.txt"].decode()
        assert all(paragraph in text for paragraph in paragraphs(line)) and "Menu entry" not in text
    assert len([name for name in found if name.startswith("CC-MAIN-1/")]) == 4


def test_released_text_passes_as_it_is(reference):
    assert texts(reference)[f"urlsf_subset00/{stem(5)}.txt"] == (b"<b>1 < 2</b> & plain text. " * 9).strip()


def test_of_a_page_that_two_archives_of_a_month_hold_the_longer_text_stays(reference):
    assert paragraphs(99)[0] in texts(reference)[f"{MONTH}/{stem(2)}.txt"].decode()


def test_every_page_is_counted_once_and_one_that_hangs_is_given_up(reference):
    skipped = {"not_html": 2, "bad_http": 1, "too_big": 1 + 1}
    assert counts(reference) == {"pages": LINES + (2 * LINES + 4) + 1 + 6, "kept": 3 * LINES + 1 + 1 + 4, "empty": 1,
                                 "short": 1 + 2, "timeout": 1, **skipped}
    content = summary(reference)
    assert content["documents"] == len(texts(reference)) == counts(reference)["kept"] - 1
    assert content["archives"] == 4 and content["damaged"] == []
    for report in content["reports"]:
        outcomes = report["outcomes"]
        assert outcomes["pages"] == sum(outcomes[name] for name in archive_texts.JUDGED)


def test_processes_do_not_change_a_byte(folder, reference, tmp_path):
    run = start(MANY, "--input", str(folder / "*"), "--output_dir", str(tmp_path), "--processes", "3", *LIMITS)
    out, err = run.communicate(timeout=100)
    assert run.returncode == 0, err
    assert contents(tmp_path) == contents(reference)
    assert "timeout" in out and "pages/s" in out


def test_one_archive_after_the_other_is_the_same_as_all_at_once(folder, reference, tmp_path):
    for path in sorted(folder.glob("*"), reverse=True):
        if "_data" in path.name or "warc" in path.name:
            one(str(path), tmp_path, *LIMITS, "--processes", "2")
    assert contents(tmp_path) == contents(reference)


def test_what_is_finished_is_left_as_it_is(folder, reference, capsys):
    before = {path: path.stat().st_mtime_ns for path in reference.rglob("*")}
    assert many(folder, reference, *LIMITS) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in reference.rglob("*")} == before


@pytest.mark.parametrize("left", [None, "old"])
def test_report_that_a_kill_prevented_is_made_up_for(folder, reference, left):
    path = reference / "extraction.json"
    before = path.read_bytes()
    path.unlink() if left is None else path.write_text('{"reports": []}')
    assert many(folder, reference, *LIMITS) == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("processes", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_killed_runs_leave_no_half_archive_and_continue_to_the_same_bytes(tmp_path, processes):
    source, output, undisturbed = tmp_path / "in", tmp_path / "out", tmp_path / "undisturbed"
    for number in range(3):
        write_archive(source, {100 * number + line: article(line).encode() for line in range(40)})
    arguments = ["--input", str(source), "--output_dir", str(output), "--processes", processes]
    state = output / archive_texts.STATE
    for marks in (0, 1):
        run = start(MANY, *arguments)
        wait_until(lambda run=run, at_least=marks: len(list(state.glob("*.done.json"))) >= at_least
                   and list(state.glob("*.partial/*.text")) or run.poll() is not None)
        workers = children(run.pid) if run.poll() is None else []
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
        wait_until_gone(workers)
        done = len(list(state.glob("*.done.json")))
        moved = len(list(state.glob("*.complete"))) + done
        assert not (output / "extraction.json").exists() or done == 3
        assert 40 * done <= len(texts(output)) <= 40 * moved
    assert many(source, output) == 0 and many(source, undisturbed) == 0
    assert contents(output) == contents(undisturbed) and len(texts(output)) == 120


@pytest.mark.parametrize("moved", [0, 3, LINES])
def test_a_kill_while_texts_are_moved_is_made_good(folder, tmp_path, monkeypatch, moved):
    archive, whole, output = str(folder / f"{MONTH}-1_data.xz"), tmp_path / "whole", tmp_path / "out"
    one(archive, whole)
    settle, calls = archive_texts._move_text, []

    def die(*arguments):
        if len(calls) == moved:
            raise KeyboardInterrupt
        calls.append(settle(*arguments))
    monkeypatch.setattr(archive_texts, "_move_text", die)
    if moved == LINES:
        monkeypatch.setattr(archive_texts, "load", die)
    with pytest.raises(KeyboardInterrupt):
        one(archive, output)
    assert len(texts(output)) == moved
    monkeypatch.undo()
    monkeypatch.setattr(archive_texts, "_extract_pages", None)  # nothing is extracted twice
    one(archive, output)
    if moved < LINES:
        assert contents(output) == contents(whole)
    assert texts(output) == texts(whole)


def test_what_a_kill_right_after_the_mark_left_is_cleared_up(folder, tmp_path):
    archive = str(folder / f"{MONTH}-1_data.xz")
    one(archive, tmp_path)
    before, base = contents(tmp_path), archive_texts.base_of(str(tmp_path), archive)
    os.mkdir(base + archive_texts.COMPLETE)
    with open(base + archive_texts.LOCK, "w"):
        pass
    one(archive, tmp_path)
    assert contents(tmp_path) == before and not os.path.exists(base + archive_texts.COMPLETE)
    with storage.only_run(base + archive_texts.LOCK, "wait"):
        one(archive, tmp_path)  # by now the other process is done but for its lock
        assert os.path.exists(base + archive_texts.LOCK)


@pytest.mark.parametrize("script, count", [(ONE, 1), (MANY, 2)])
def test_ctrl_c_stops_everything_and_says_so_in_one_line(tmp_path, script, count):
    pages = {0: article(0).encode(), **dict.fromkeys(range(1, 9), HANGS)}
    paths = [write_archive(tmp_path, pages) for _ in range(count)]
    run = start(script, "--archive" if script == ONE else "--input", *paths, "--output_dir", str(tmp_path / "out"),
                "--processes", "2")
    wait_until(lambda: len(list((tmp_path / "out").glob(".extraction/*.partial/*.text"))) == count, 60)
    workers = children(run.pid)
    os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=30)
    assert run.returncode == 130 and err.splitlines()[-1] == "interrupted", err
    assert "Traceback" not in err and "Warning" not in err
    wait_until_gone(workers)
    assert not texts(tmp_path / "out")


def test_names_in_archives_are_never_trusted(tmp_path):
    good, page = stem(1), article(1).encode()
    special = []
    for kind, target in ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, f"{good}.txt"), (tarfile.FIFOTYPE, ""),
                         (tarfile.CHRTYPE, ""), (tarfile.DIRTYPE, "")):
        member = tarfile.TarInfo(f"{stem(int(kind))}.txt")
        member.type, member.linkname = kind, target
        special.append((member, b""))
    archive = write_tar(tmp_path / f"{MONTH}-1_data.xz", [
        (f"{good}.txt", page), ("/tmp/absolute.txt", page), ("../../escape.txt", page), (f"a/../{stem(2)}.txt", page),
        (f"{good}.txt", article(5).encode()), ("sub/folder.txt", page), (f"{stem(3)}.exe", page),
        ("report.json.txt", page), *special])
    one(archive, tmp_path / "deep" / "er" / "out")
    found = texts(tmp_path)
    assert sorted(os.path.basename(name) for name in found) == sorted([f"{good}.txt", "folder.txt", "report.json.txt"])
    assert all(name.startswith(f"deep/er/out/{MONTH}/") for name in found)
    assert paragraphs(1)[0].encode() in found[f"deep/er/out/{MONTH}/{good}.txt"]
    assert counts(tmp_path / "deep" / "er" / "out") == {"pages": 3, "kept": 3, "unsafe_name": 3, "repeated_name": 1,
                                                        "other_suffix": 1, "not_a_file": 5}


@pytest.fixture
def damaged(tmp_path):
    """A folder with a sound archive and one that is cut short."""
    rng = random.Random(1)
    write_archive(tmp_path / "in", {1: article(1).encode()})
    noise = ["".join(rng.choices("abcdefgh ", k=3000)) for _ in range(40)]
    path = write_archive(tmp_path / "in", {10 + i: article(i, tail=f"<!--{noise[i]}-->").encode() for i in range(40)})
    size = os.path.getsize(path)
    shutil.copy(path, tmp_path / "whole")
    os.truncate(path, size * 3 // 4)
    return tmp_path


def test_a_truncated_archive_gives_nothing_and_the_others_go_on(damaged):
    for _ in range(2):
        with pytest.raises(UserError, match=rf"1 of 2 archives damaged.*{MONTH}-2_data.xz is truncated or damaged"):
            many(damaged / "in", damaged / "out")
    assert list(texts(damaged / "out")) == [f"{MONTH}/{stem(1)}.txt"]
    assert summary(damaged / "out")["archives"] == 1
    shutil.copy(damaged / "whole", damaged / "in" / f"{MONTH}-2_data.xz")
    many(damaged / "in", damaged / "out")
    assert len(texts(damaged / "out")) == 41


def test_of_a_truncated_archive_the_pages_before_can_be_kept(damaged):
    many(damaged / "in", damaged / "out", "--keep_damaged")
    many(damaged / "in", damaged / "again", "--keep_damaged", "--processes", "2")
    assert contents(damaged / "out") == contents(damaged / "again")
    kept = len(texts(damaged / "out"))
    assert 5 < kept < 41 and counts(damaged / "out") == {"pages": kept, "kept": kept}
    assert summary(damaged / "out")["damaged"] == [f"{MONTH}-2_data.xz"]
    shutil.copy(damaged / "whole", damaged / "in" / f"{MONTH}-2_data.xz")
    many(damaged / "in", damaged / "out", "--keep_damaged")
    assert len(texts(damaged / "out")) == 41 and summary(damaged / "out")["damaged"] == []


def test_a_full_disk_is_one_line_and_leaves_no_text(tmp_path):
    archive = write_archive(tmp_path, {1: article(1).encode(), 2: b"<p>" + b"many words " * 5000})
    run = start(ONE, "--archive", archive, "--output_dir", str(tmp_path / "out"), "--processes", "1",
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))
    _, err = run.communicate(timeout=60)
    state = tmp_path / "out" / ".extraction" / f"{os.path.basename(archive)}.partial"
    assert run.returncode == 2 and "Traceback" not in err
    assert err.strip().split("\n")[-1].startswith(f"error: {state}/{stem(2)}.text: File too large; allow larger files")
    assert not texts(tmp_path / "out")
    one(archive, tmp_path / "out")
    assert len(texts(tmp_path / "out")) == 2


def test_only_the_language_asked_for_is_kept(tmp_path):
    archive = write_archive(tmp_path, {1: article(1).encode(), 2: article(2, "de").encode()}, compression="gz")
    one(archive, tmp_path / "out", "--language", "en")
    assert list(texts(tmp_path / "out")) == [f"{MONTH}/{stem(1)}.txt"]
    assert counts(tmp_path / "out") == {"pages": 2, "kept": 1, "other_language": 1}


def test_every_extractor_runs_from_the_command_line(tmp_path):
    archive = write_archive(tmp_path, {1: article(1).encode()}, "plain", "bz2")
    run = subprocess.run([sys.executable, "-m", "datasets.extract_text", "--archive", archive, "--output_dir",
                          str(tmp_path / "out"), "--extractor", "trafilatura,newspaper", "--processes", "1"],
                         cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    assert paragraphs(1)[3].encode() in texts(tmp_path / "out")[f"plain/{stem(1)}.txt"]
    assert {"trafilatura", "newspaper4k"} < summary(tmp_path / "out")["options"]["tools"].keys()


def test_texts_become_records_that_are_called_like_the_pages(reference, tmp_path):
    create_tfrecords.main(["--input", str(reference), "--output_dir", str(tmp_path), "--name", "a", "--eval_fraction",
                           "0", "--processes", "1", "--no_ftfy"])
    found = {key.decode() for key, _ in records.read(tmp_path / "a_0.tfrecords")}
    assert found == {os.path.basename(name)[:-4] for name in texts(reference)}


def test_other_options_over_the_same_folder_are_refused(folder, reference):
    before = contents(reference)
    with pytest.raises(UserError, match="minimum_characters was 100, now 101"):
        many(folder, reference, *LIMITS, "--minimum_characters", "101")
    assert contents(reference) == before


def test_an_archive_that_has_changed_is_refused(tmp_path):
    archive = write_archive(tmp_path, {1: article(1).encode()})
    one(archive, tmp_path / "out")
    os.unlink(archive)
    write_archive(tmp_path, {1: article(1).encode(), 2: article(2).encode()})
    os.rename(tmp_path / f"{MONTH}-2_data.xz", archive)
    with pytest.raises(UserError, match=rf"{archive} has \d+ bytes, and had \d+ when"):
        one(archive, tmp_path / "out")


def test_a_second_run_over_the_same_archive_is_refused(tmp_path):
    archive = write_archive(tmp_path, {1: HANGS})
    run = start(ONE, "--archive", archive, "--output_dir", str(tmp_path / "out"), "--processes", "1")
    try:
        wait_until(lambda: list((tmp_path / "out").glob(".extraction/*.partial")))
        with pytest.raises(UserError, match="another run holds"):
            one(archive, tmp_path / "out")
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()


def test_texts_from_elsewhere_are_not_mixed_in(folder, tmp_path):
    (tmp_path / MONTH).mkdir()
    with pytest.raises(UserError, match=f"{MONTH} is there already, from elsewhere"):
        many(folder, tmp_path)


@pytest.mark.parametrize("more, message", [
    (["--input", "/nowhere"], "--input /nowhere: no archive there"),
    (["--input", ROOT], "no archive there"),
    (["--extractor", "goose"], "'goose' is none of"),
    (["--language", "english"], "--language english: not one of"),
    (["--page_seconds", "0"], "--page_seconds: 0 is out of range"),
    (["--processes", "0"], "--processes/--n_procs: 0 is out of range"),
    (["--output_dir", "gs://bucket/x"], "local folder"),
])
def test_mistakes_are_named_and_write_nothing(folder, tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        many(folder, tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_two_archives_of_one_name_are_refused(tmp_path):
    paths = [write_archive(tmp_path / name, {1: b"x"}) for name in "ab"]
    with pytest.raises(UserError, match="have the same name"):
        many(paths[0], tmp_path / "out", "--input", *paths)
