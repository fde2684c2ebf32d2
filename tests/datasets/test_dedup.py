"""datasets/dedup.py from end to end: what goes and what stays, determinism, kills, evaluation texts, errors."""
import gzip
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest

from configs.errors import UserError
from datasets import create_tfrecords, dedup, manifest
from datasets.duplicates import signing
from tests.helpers import measured, records
from tests.helpers.runs import ROOT

SCRIPT = os.path.join(ROOT, "datasets", "dedup.py")


def words(seed, count=200):
    rng = random.Random(seed)
    return [f"w{rng.randrange(10 ** 6)}" for _ in range(count)]


def changed(text, places):
    """`text` with other words at these places."""
    return [f"new{i}" if i in places else word for i, word in enumerate(text)]


def write(folder, **texts):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text if isinstance(text, str) else " ".join(text))
    return str(folder)


def run(output, *arguments, processes="1"):
    """The identities listed, and the report."""
    assert dedup.main([*arguments, "--output", str(output / "drop.txt"), "--processes", processes]) == 0
    return (output / "drop.txt").read_text().split("\n")[:-1], json.loads((output / "drop.json").read_text())


def start(output, *arguments, **options):
    command = [sys.executable, SCRIPT, "--output", str(output / "drop.txt"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                            **options)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """Documents whose fate is known."""
    folder, text = tmp_path_factory.mktemp("mixture"), words(1)
    write(folder, a=text, b=" ".join(text).upper().replace(" ", ",\n"), c=changed(text, {50}), d=words(2),
          e="two words", f="Two words!", g="", h=" \n", i="...", j=" ...", k="w1",
          l=changed(words(2), set(range(0, 200, 4))))
    lines = ['{"text": "' + " ".join(changed(text, {199})) + '"}', "{", "", '{"text": "two words"}']
    (folder / "m.jsonl").write_text("\n".join(lines))
    (folder / "n.txt").write_bytes(" ".join(changed(text, {100})).encode() + b" caf\xe9")
    return str(folder)


def test_copies_go_and_the_first_of_each_stays(mixture, tmp_path, capsys):
    dropped, report = run(tmp_path, "--input", mixture)
    assert dropped == ["b.txt", "c.txt", "f.txt", "j.txt", "m.jsonl:1", "m.jsonl:4"]
    assert report["outcomes"] == {"read": 17, "kept": 6, "exact": 4, "near": 2, "against": 0, "empty": 3,
                                  "bad_lines": 0, "no_object": 1, "other_encoding": 1, "packed": 0, "short": 6}
    said = capsys.readouterr().out
    assert "1 document left out that could not be read as UTF-8 or UTF-16: n.txt; give --encoding NAME" in said
    assert "1 line left out without a JSON object: m.jsonl:2; each line must" in said and "in 'text'" not in said
    assert report["clusters"] == {"number": 3, "largest": [
        {"kept": "a.txt", "documents": 4}, {"kept": "e.txt", "documents": 3}, {"kept": "i.txt", "documents": 2}]}
    assert sorted(os.listdir(tmp_path)) == ["drop.json", "drop.txt"]


def test_documents_in_other_encodings_and_parts_of_files_are_compared_and_named_as_they_are_read(
        mixture, tmp_path, capsys):
    dropped, report = run(tmp_path, "--input", mixture, "--encoding", "cp1252")
    assert dropped[-1] == "n.txt" and report["outcomes"]["near"] == 3
    with pytest.raises(UserError, match="encoding was cp1252, now None"):
        run(tmp_path, "--input", mixture)
    folder = tmp_path / "in"
    write(folder, parts="---".join(map(" ".join, (words(1), words(2), changed(words(1), {9})))))
    assert run(tmp_path / "parts", "--input", str(folder), "--split_on=---")[0] == ["parts.txt:3"]
    write(folder, stories="<|endoftext|>".join(map(" ".join, (words(3), words(4)))))
    (folder / "zipped.txt").write_bytes(gzip.compress(" ".join(words(1)).encode()))
    capsys.readouterr()
    dropped, report = run(tmp_path / "whole", "--input", str(folder))
    assert dropped == [] and report["outcomes"]["packed"] == 1 and report["outcomes"]["kept"] == 2
    assert ("<|endoftext|> stands in 1 document, compared whole: stories.txt; if it parts documents, give "
            "--split_on '<|endoftext|>'\n") in capsys.readouterr().out
    (tmp_path / "eval.txt").write_bytes(b"caf\xe9 " * 20)
    with pytest.raises(UserError, match="^--against: 1 document left out that could not be read .*: eval.txt; give"):
        run(tmp_path / "against", "--input", str(folder), "--against", str(tmp_path / "eval.txt"))


def test_the_order_of_the_inputs_decides_who_stays(tmp_path):
    one, two = write(tmp_path / "1", late=words(1)), write(tmp_path / "2", early=changed(words(1), {3}))
    assert run(tmp_path / "a", "--input", one, two)[0] == ["early.txt"]
    assert run(tmp_path / "b", "--input", two, one)[0] == ["late.txt"]


def test_clusters_are_transitive(tmp_path):
    """a is like b and b like c, but c no longer like a; all the same one is left."""
    text = words(7)
    steps = [changed(text, set(range(0, 36 * i, 6))) for i in range(3)]
    folder = write(tmp_path / "in", a=steps[0], b=steps[1], c=steps[2])
    assert run(tmp_path / "out", "--input", folder, "--threshold", "0.7")[0] == ["b.txt", "c.txt"]
    assert run(tmp_path / "ac", "--input", folder, "--threshold", "0.7", "--exclude", "b.txt")[0] == []


def test_the_threshold_is_that_of_the_estimate(tmp_path):
    folder = write(tmp_path / "in", a=words(8), b=changed(words(8), {20, 120}))  # 186 of 206 runs: 0.90
    assert run(tmp_path / "low", "--input", folder, "--threshold", "0.8")[0] == ["b.txt"]
    assert run(tmp_path / "high", "--input", folder, "--threshold", "0.99")[0] == []


def evaluation(tmp_path, *texts):
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps({"text": " ".join(text)}) + "\n" for text in texts))
    return str(tmp_path / "eval.jsonl")


def test_documents_that_share_13_words_with_an_evaluation_text_go(tmp_path):
    wanted, other = words(20, 60), words(21, 13)
    against = evaluation(tmp_path, wanted, other, words(22, 12))
    folder = write(tmp_path / "in", clean=words(30), thirteen=[*words(31), *wanted[20:33], *words(32)],
                   twelve=[*words(33), *wanted[20:32], *words(34)], cut=[*wanted[:12], "x", *wanted[12:24]],
                   small=" ".join(other).upper(), short=wanted[:4], whole=wanted, across=[*wanted[-7:], *other[:7]],
                   only_twelve=words(22, 12))
    dropped, report = run(tmp_path / "out", "--input", folder, "--against", against)
    assert dropped == ["small.txt", "thirteen.txt", "whole.txt"]
    assert report["outcomes"]["against"] == 3
    assert report["against_texts"] == {"texts": 3, "too_short": 1, "ngrams": 48 + 1, "common": 0}
    dropped, _ = run(tmp_path / "eight", "--input", folder, "--against", against, "--against_words", "12")
    assert set(dropped) == {"cut.txt", "only_twelve.txt", "small.txt", "thirteen.txt", "twelve.txt", "whole.txt"}


@pytest.mark.parametrize("holders, common", [(10, False), (11, True)])
def test_what_more_than_ten_documents_hold_is_a_common_phrase(tmp_path, holders, common):
    phrase = words(40, 13)
    folder = write(tmp_path / "in", **{f"d{i}": [*words(100 + i), *phrase] for i in range(holders)})
    dropped, report = run(tmp_path / "out", "--input", folder, "--against", evaluation(tmp_path, phrase))
    assert len(dropped) == (0 if common else holders) and report["against_texts"]["common"] == common


def test_copies_of_a_leaked_text_do_not_make_it_common(tmp_path):
    leaked = words(41, 150)
    folder = write(tmp_path / "in", **{f"d{i:02}": changed(leaked, {i}) for i in range(14)})
    dropped, report = run(tmp_path / "out", "--input", folder, "--against", evaluation(tmp_path, leaked))
    assert len(dropped) == 14 and report["outcomes"]["against"] == 1 and report["outcomes"]["near"] == 13


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Ten chunks of lines with copies and near copies, far apart; what one process makes of them."""
    folder, rng = tmp_path_factory.mktemp("many"), random.Random(9)
    texts = [words(1000 + i, 25) for i in range(2600)]
    texts += [rng.choice(texts) for _ in range(900)]
    texts += [changed(rng.choice(texts), {rng.choice((0, 24))}) for _ in range(900)]
    texts += [words(5000 + i, 25) for i in range(5000)]
    with gzip.open(folder / "lines.jsonl.gz", "wt") as f:
        f.writelines(json.dumps({"text": " ".join(text)}) + "\n" for text in texts)
    (folder / "eval").mkdir()
    arguments = ["--input", str(folder / "lines.jsonl.gz"), "--against",
                 evaluation(folder / "eval", texts[5], texts[5000])]
    reference = folder / "reference"
    dropped, report = run(reference, *arguments)
    assert report["outcomes"]["exact"] > 800 and report["outcomes"]["near"] > 500 and report["outcomes"]["against"] == 2
    return arguments, contents(reference)


@pytest.mark.parametrize("command", [[SCRIPT], ["-m", "datasets.dedup"]])
def test_two_processes_write_the_same_bytes(many, tmp_path, command):
    arguments, expected = many
    subprocess.run([sys.executable, *command, *arguments, "--output", str(tmp_path / "drop.txt"), "--processes", "2"],
                   cwd=ROOT, check=True)
    assert contents(tmp_path) == expected


def test_a_killed_run_goes_on_with_the_next_chunk(many, tmp_path):
    arguments, expected = many
    state = tmp_path / ".drop.txt.state"
    process = start(tmp_path, *arguments, "--processes", "1")
    end = time.monotonic() + 30
    while not list(state.glob("signatures-*")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = list(state.glob("signatures-*"))
    assert done and "drop.txt" not in os.listdir(tmp_path)
    (state / ".partial-left").write_text("of the run that was killed")
    before = os.stat(done[0]).st_mtime_ns
    signed = []
    original = signing.sign
    try:
        signing.sign = lambda job, advance: signed.append((job.number, os.stat(done[0]).st_mtime_ns)) \
            or original(job, advance)
        run(tmp_path, *arguments)
    finally:
        signing.sign = original
    assert [number for number, _ in signed] == list(range(len(done), 10)) and all(t == before for _, t in signed)
    assert contents(tmp_path) == expected


def test_what_is_finished_is_left_as_it_is_and_other_options_are_refused(mixture, tmp_path, capsys):
    run(tmp_path, "--input", mixture)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    run(tmp_path, "--input", mixture)
    assert "nothing to do" in capsys.readouterr().out
    for more, message in ((["--threshold", "0.9"], "threshold was 0.75, now 0.9"),
                          (["--exclude", "b.txt"], "documents was 17, now 16")):
        with pytest.raises(UserError, match=message):
            run(tmp_path, "--input", mixture, *more)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_list_that_is_not_the_one_its_report_tells_of_is_not_called_finished(mixture, tmp_path):
    run(tmp_path, "--input", mixture)
    whole = (tmp_path / "drop.txt").read_bytes()
    for changed in (whole[:-3], b"", whole + b"mine\n"):
        (tmp_path / "drop.txt").write_bytes(changed)
        with pytest.raises(UserError, match=r"drop.txt is not the list of which .*drop.json tells: choose another"):
            run(tmp_path, "--input", mixture)
        assert (tmp_path / "drop.txt").read_bytes() == changed


def test_an_output_that_is_no_file_or_would_be_read_as_a_text_is_refused_before_any_work(mixture, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a text")
    with pytest.raises(UserError, match="--output '': give a file"):
        dedup.main(["--input", mixture, "--output", ""])
    with pytest.raises(UserError, match=r"--output .*/in/drop.txt lies in --input .*/in, and would be read as a text"):
        run(tmp_path / "in", "--input", str(tmp_path / "in"))
    assert sorted(os.listdir(tmp_path / "in")) == ["a.txt"]
    for _ in range(2):
        run(tmp_path / "in", "--input", str(tmp_path / "in"), "--exclude", "drop.*")


def test_the_same_text_with_another_time_is_told_as_what_it_is(mixture, tmp_path):
    (tmp_path / "a.txt").write_text("a text")
    run(tmp_path, "--input", str(tmp_path / "a.txt"))
    os.utime(tmp_path / "a.txt", (0, 0))
    with pytest.raises(UserError, match=r"in another way \(names, sizes or times of the files of --input were oth"):
        run(tmp_path, "--input", str(tmp_path / "a.txt"))


def test_a_file_from_elsewhere_is_not_overwritten(mixture, tmp_path):
    (tmp_path / "drop.json").write_text("mine")
    with pytest.raises(UserError, match="drop.json comes from elsewhere"):
        run(tmp_path, "--input", mixture)
    assert contents(tmp_path) == {"drop.json": b"mine"}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tmp_path, processes):
    limit = 200_000  # bytes a file; stands in for a disk that is full: a chunk has more, what comes before it less
    (tmp_path / "in").mkdir()
    lines = "".join(json.dumps({"text": f"{i} of a small text"}) + "\n" for i in range(9000))
    (tmp_path / "in" / "lines.jsonl").write_text(lines)
    (tmp_path / "out").mkdir()
    command = ["--input", str(tmp_path / "in"), "--processes", processes]
    process = start(tmp_path / "out", *command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE,
                                                                                       (limit, limit)))
    _, err = process.communicate(timeout=60)
    last = err.strip().split("\n")[-1]
    assert process.returncode == 2 and "error: " in last and "File too large" in last and "Traceback" not in err
    assert "signatures" in last and os.listdir(tmp_path / "out") == [".drop.txt.state"]
    run(tmp_path / "out", *command)
    run(tmp_path / "again", *command)
    assert contents(tmp_path / "out") == contents(tmp_path / "again")


def test_equal_names_are_told_apart_by_the_folders_around_them_and_line_breaks_are_refused(tmp_path):
    one, two = write(tmp_path / "1", same="a b c d e f"), write(tmp_path / "2", same="a b c d e f")
    assert run(tmp_path / "out", "--input", one, two)[0] == ["2/same.txt"]
    with pytest.raises(UserError, match="line break"):
        run(tmp_path / "out2", "--input", write(tmp_path / "3", **{"line\nbreak": "x"}))


def test_a_list_of_its_own_output_leaves_the_documents_out_of_the_shards(mixture, tmp_path):
    dropped, _ = run(tmp_path, "--input", mixture)
    create_tfrecords.main(["--input", mixture, "--output_dir", str(tmp_path / "shards"), "--name", "a", "--drop",
                           str(tmp_path / "drop.txt"), "--eval_fraction", "0", "--processes", "1"])
    entries = manifest.load(str(tmp_path / "shards" / "a.manifest.json")).entries
    assert manifest.sum_outcomes(entries)["dropped"] == len(dropped) == 6
    kept = [key.decode() for key, _ in records.read(entries[0].shard.path)]
    assert sorted(kept) == ["a.txt", "d.txt", "l.txt"]


@pytest.mark.parametrize("more, message", [
    (["--input", "/nowhere"], "/nowhere: no such file"),
    (["--threshold", "0"], "--threshold: 0 is out of range"),
    (["--threshold", "nan"], "--threshold: nan is out of range"),
    (["--against_words", "0"], "--against_words: 0 is out of range"),
    (["--against", "/nowhere"], "--against /nowhere: no such file"),
    (["--against", __file__, "--against_words", "100000"], "none of its 1 texts has 100000 words"),
    (["--output", "gs://bucket/drop.txt"], "local file"),
    (["--output", "drop.json"], "ends in .json"),
    (["--output", __file__ + "/drop.txt"], "File exists"),
])
def test_mistakes_are_one_line_and_status_2(mixture, tmp_path, more, message):
    process = start(tmp_path, "--input", mixture, *more)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and len(err.strip().split("\n")) == 1
    assert err.startswith("error: ") and message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_line_of_100_megabytes_fits_in_2_gigabytes(tmp_path):
    rng = random.Random(12)
    vocabulary = [f"word{i}" for i in range(50000)]
    line = " ".join(rng.choices(vocabulary, k=10 ** 7))
    assert len(line) > 9e7
    write(tmp_path / "in", a=line, b="x" * 10 ** 8, c=line.upper() + " and a little more", d="x" * 10 ** 8, e=words(1))
    result, peak = measured.run(sys.executable, SCRIPT, "--output", tmp_path / "drop.txt", "--input", tmp_path / "in",
                                "--processes", "1")
    assert result.returncode == 0 and peak < 2 * 1024 ** 3, result.stderr
    assert (tmp_path / "drop.txt").read_text() == "c.txt\nd.txt\n"
