"""datasets/create_tfrecords.py from end to end: contents, determinism, restarts, kills, full disks, errors."""
import gzip
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys

import pytest

from configs.errors import UserError
from datasets import building, create_tfrecords, integrity, manifest
from encoder import bpe
from tests.helpers import records
from tests.helpers.runs import ROOT
from tests.helpers.waiting import children, wait_until, wait_until_gone

SCRIPT = os.path.join(ROOT, "datasets", "create_tfrecords.py")
DOCUMENTS, PER_SHARD = 230, 20
KEPT = [*(f"{i:03}.txt" for i in range(180) if i != 7), *(f"lines.jsonl:{i}" for i in range(1, 47))]
WORDS = ["the", "of", "reader", "naïve", "copies", "1813", "isn't", "“quoted”", "truth", "wanting", "中文", "end.\n"]


def sentence(rng, words):
    return " ".join(rng.choice(WORDS) for _ in range(words))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """180 text files and 50 lines, of which two are bad, one empty, one short; one file is not UTF-8."""
    folder, rng = tmp_path_factory.mktemp("corpus"), random.Random(4)
    for i in range(180):
        (folder / f"{i:03}.txt").write_text(sentence(rng, rng.randrange(30, 400)), encoding="utf-8")
    (folder / "007.txt").write_bytes(sentence(rng, 50).encode() + b" caf\xe9")
    lines = [json.dumps({"text": sentence(rng, 90)}) for _ in range(46)] + ["{", '{"body": "x"}', "", '{"text": "few"}']
    (folder / "lines.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder)


def arguments(corpus, output, *more):
    return ["--input", corpus, "--output_dir", str(output), "--name", "a", "--files_per", str(PER_SHARD),
            "--eval_fraction", "0.2", "--seed", "3", *more]


def create(corpus, output, *more):
    return create_tfrecords.main(arguments(corpus, output, "--processes", "1", *more))


def start(corpus, output, *more, **options):
    return subprocess.Popen([sys.executable, SCRIPT, *arguments(corpus, output, *more)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, start_new_session=True, **options)


def contents(folder):
    """{name: bytes} of all that lies in `folder`."""
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


def keys(folder, pattern):
    """The names of the documents in shards, in order."""
    paths = sorted(folder.glob(pattern), key=lambda path: int(path.stem.split("_")[-1]))
    return [key.decode() for path in paths for key, _ in records.read(path)]


@pytest.fixture(scope="module")
def reference(corpus, tmp_path_factory):
    """The output of one process that nothing disturbed."""
    output = tmp_path_factory.mktemp("reference")
    assert create(corpus, output) == 0
    return output


def test_every_document_is_there_once_as_its_ids(corpus, reference):
    encoder, found = bpe.load(), keys(reference, "a*.tfrecords")
    assert sorted(found) == sorted(KEPT)
    ids = next(ids for path in reference.glob("a*.tfrecords") for key, ids in records.read(path) if key == b"042.txt")
    with open(os.path.join(corpus, "042.txt"), encoding="utf-8") as f:
        assert encoder.decode(ids) == f.read()


def test_the_manifest_says_what_the_shards_hold(reference):
    paths = [str(path) for path in reference.glob("*.tfrecords")]
    with open(reference / "a.manifest.json") as f:
        content = json.load(f)
    scanned = [integrity.scan(path) for path in paths]
    for key in ("records", "tokens", "size"):
        assert sum(totals[key] for totals in content["totals"].values()) == sum(getattr(s, key) for s in scanned)
    assert content["outcomes"] == {"read": DOCUMENTS, "kept": 225, "dropped": 0, "short": 1, "broken": 0,
                                   "empty": 1, "bad_lines": 1, "no_object": 1, "other_encoding": 1, "packed": 0}
    assert content["vocabulary"] == bpe.load().fingerprint and content["vocabulary_size"] == 50257
    assert [s._replace(text_bytes=None, sha256=None) for s in records.shards_of(*paths)] == scanned
    assert sorted(os.listdir(reference)) == sorted(["a.manifest.json", *map(os.path.basename, paths)])


def test_text_bytes_are_those_of_the_decoded_text(reference):
    entry = manifest.load(str(reference / "a.manifest.json")).entries[0]
    encoder = bpe.load()
    texts = [encoder.decode_bytes(ids) for _, ids in records.read(entry.shard.path)]
    assert entry.shard.text_bytes == sum(map(len, texts))


def test_shards_are_a_random_sample_that_the_seed_decides(corpus, reference, tmp_path):
    assert keys(reference, "a_*.tfrecords") != sorted(keys(reference, "a_*.tfrecords"))
    assert any(key.startswith("lines") for key in keys(reference, "a_0.tfrecords"))
    create(corpus, tmp_path, "--seed", "4")
    assert keys(tmp_path, "a_*.tfrecords") != keys(reference, "a_*.tfrecords")


@pytest.mark.parametrize("command", [[SCRIPT], ["-m", "datasets.create_tfrecords"]])
def test_two_processes_write_the_same_bytes(corpus, reference, tmp_path, command):
    subprocess.run([sys.executable, *command, *arguments(corpus, tmp_path, "--processes", "2")], cwd=ROOT, check=True)
    assert contents(tmp_path) == contents(reference)


def test_evaluation_takes_its_fraction_and_more_documents_move_none(corpus, reference, tmp_path):
    chosen = set(keys(reference, "a-eval_*.tfrecords"))
    assert 25 <= len(chosen) <= 65  # 0.2 of 225, give or take three standard deviations
    (tmp_path / "more").mkdir()
    for i in range(200, 240):
        (tmp_path / "more" / f"{i}.txt").write_text(sentence(random.Random(i), 60))
    create(corpus, tmp_path / "out", "--input", corpus, str(tmp_path / "more"))
    after = set(keys(tmp_path / "out", "a-eval_*.tfrecords"))
    assert {key for key in after if key < "200" or key[0] == "l"} == chosen and after > chosen


def with_eval_input(corpus, output, *paths, more=()):
    """`create` with --eval_input in the place of --eval_fraction."""
    given = arguments(corpus, output, "--processes", "1", *more, "--eval_input", *map(str, paths))
    at = given.index("--eval_fraction")
    return create_tfrecords.main(given[:at] + given[at + 2:])


@pytest.fixture
def held_out(tmp_path):
    """A folder of 23 documents: a file, lines, and one below."""
    folder = tmp_path / "held"
    (folder / "below").mkdir(parents=True)
    (folder / "000.txt").write_text("other words " * 30)  # the corpus has a file of that name too
    (folder / "below" / "y.txt").write_text("words below " * 30)
    (folder / "x.jsonl").write_text("\n".join(json.dumps({"text": f"line {i} of many " * 20}) for i in range(21)))
    return folder


def test_documents_named_for_evaluation_are_the_eval_shards(corpus, held_out, tmp_path):
    assert with_eval_input(corpus, tmp_path / "out", held_out) == 0
    expected = ["000.txt", "below/y.txt", *(f"x.jsonl:{i}" for i in range(1, 22))]
    found = keys(tmp_path / "out", "a-eval_*.tfrecords")
    assert sorted(found) == sorted(expected) and found != expected
    assert len(list((tmp_path / "out").glob("a-eval_*"))) == 2  # of PER_SHARD documents
    assert len(keys(tmp_path / "out", "a_*.tfrecords")) == len(KEPT)
    ids = [ids for path in (tmp_path / "out").glob("a-eval_*") for key, ids in records.read(path) if key == b"000.txt"]
    assert [bpe.load().decode(found) for found in ids] == ["other words " * 30]


@pytest.mark.parametrize("paths", [["1*.txt"], ["lines.jsonl", "000.txt"], ["."]])
def test_what_both_inputs_name_is_for_evaluation_alone(corpus, held_out, tmp_path, paths):
    with_eval_input(corpus, tmp_path / "out", *(os.path.join(corpus, path) for path in paths),
                    more=["--input", corpus, str(held_out)])
    train, evaluation = (keys(tmp_path / "out", f"{name}_*.tfrecords") for name in ("a", "a-eval"))
    wanted = {"1*.txt": lambda key: key[0] == "1", "lines.jsonl": lambda key: key[0] == "l" or key == "000.txt",
              ".": lambda key: True}[paths[0]]
    of_held_out = ["000.txt", "below/y.txt", *(f"x.jsonl:{i}" for i in range(1, 22))]
    # Only in the first case both folders have a 000.txt to train on: the names tell them apart.
    first, second = (os.path.basename(corpus) + "/", "held/") if paths == ["1*.txt"] else ("", "")
    assert sorted(evaluation) == sorted(first + key for key in KEPT if wanted(key))
    assert sorted(train) == sorted([*(first + key for key in KEPT if not wanted(key)),
                                    *(second + key for key in of_held_out)])


def test_folder_for_evaluation_may_lie_in_the_folder_of_the_input(held_out, tmp_path):
    (tmp_path / "mine.txt").write_text("my own words " * 30)
    with_eval_input(str(tmp_path), tmp_path / "out", held_out)
    assert keys(tmp_path / "out", "a_*.tfrecords") == ["mine.txt"]
    assert len(keys(tmp_path / "out", "a-eval_*.tfrecords")) == 23


def test_shards_of_named_documents_are_made_again_to_the_byte(corpus, held_out, tmp_path):
    out = tmp_path / "out"
    with_eval_input(corpus, out, held_out)
    before = contents(out)
    for name in ("a-eval_1.tfrecords", "a_3.tfrecords"):
        (out / name).unlink()
    with_eval_input(corpus, out, held_out, more=["--processes", "2"])
    assert contents(out) == before
    with pytest.raises(UserError, match="eval_fraction was 0.0, now 0.2; held_out was 23, now None"):
        create(corpus, out)
    with pytest.raises(UserError, match="held_out was 23, now 2"):
        with_eval_input(corpus, out, held_out / "000.txt", held_out / "below")
    assert contents(out) == before


@pytest.mark.parametrize("paths, more, message", [
    (["nowhere"], [], "--eval_input .*nowhere: no such file or folder"),
    (["none"], [], "no document in .*none: give files"),
    (["000.txt"], ["--input", "000.txt"], "no document in .*000.txt and --eval_input: give"),
    (["000.txt"], ["--minimum_size", "100"], "none of 181 documents is left for evaluation .* --minimum_size 100$"),
])
def test_nothing_to_evaluate_or_to_train_on_is_an_error_and_leaves_nothing(held_out, tmp_path, paths, more, message):
    (held_out / "none").mkdir()
    (tmp_path / "long").mkdir()
    for i in range(180):
        (tmp_path / "long" / f"{i}.txt").write_text("longer and longer " * 40)
    more = [str(held_out / word) if word.endswith(".txt") else word for word in more]
    with pytest.raises(UserError, match=message):
        with_eval_input(str(tmp_path / "long"), tmp_path / "out", *(held_out / path for path in paths), more=more)
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_without_evaluation_there_are_no_such_shards(corpus, tmp_path):
    create(corpus, tmp_path, "--eval_fraction", "0")
    assert len(keys(tmp_path, "a_*.tfrecords")) == len(KEPT) and not list(tmp_path.glob("a-eval*"))


def test_documents_below_the_minimum_size_are_dropped(corpus, tmp_path):
    create(corpus, tmp_path, "--minimum_size", "300")
    entries = manifest.load(str(tmp_path / "a.manifest.json")).entries
    assert min(entry.shard.shortest for entry in entries) >= 300
    counts = manifest.sum_outcomes(entries)
    assert counts["short"] + counts["kept"] == 226 and counts["short"] > 40


def test_dropped_documents_are_counted_and_the_others_stay_as_they_are(corpus, reference, tmp_path, capsys):
    expected, drop = keys(reference, "a_*.tfrecords"), tmp_path / "drop.txt"
    gone = [*sorted(expected)[:50:7], "lines.jsonl:9"]
    drop.write_text("\n".join([*gone, "nowhere.txt", "lines.jsonl:99"]) + "\n")
    create(corpus, tmp_path / "out", "--drop", str(drop))
    assert f"leaves out {len(gone)} documents; 2 of its {len(gone) + 2} lines name no document of --input" in \
        capsys.readouterr().out
    assert keys(tmp_path / "out", "a_*.tfrecords") == [key for key in expected if key not in gone]
    found = manifest.load(str(tmp_path / "out" / "a.manifest.json"))
    counts = manifest.sum_outcomes(found.entries)
    assert counts["dropped"] == len(gone) and counts["read"] == DOCUMENTS - len(gone)
    assert found.plan["drop"] == hashlib.sha256(drop.read_bytes()).hexdigest()
    drop.write_text(gone[0])
    with pytest.raises(UserError, match="drop was"):
        create(corpus, tmp_path / "out", "--drop", str(drop))
    create(corpus, tmp_path / "all_known", "--drop", str(drop))
    assert "leaves out 1 document; each of its lines names one\n" in capsys.readouterr().out


def test_a_list_leaves_what_is_held_out_for_evaluation_alone(corpus, held_out, tmp_path):
    with open(held_out / "x.jsonl", "rb") as f:
        (held_out / "x.jsonl.gz").write_bytes(gzip.compress(f.read()))
    (held_out / "x.jsonl").unlink()
    drop = tmp_path / "drop.txt"
    drop.write_text("000.txt\n001.txt\nx.jsonl.gz:2\n")  # the first of both folders
    with_eval_input(corpus, tmp_path / "out", held_out, more=["--drop", str(drop)])
    assert sorted(keys(tmp_path / "out", "a-eval_*.tfrecords")) == [
        "000.txt", "below/y.txt", *sorted(f"x.jsonl.gz:{i}" for i in range(1, 22))]
    train = keys(tmp_path / "out", "a_*.tfrecords")
    assert len(train) == len(KEPT) - 2 and not {"000.txt", "001.txt"} & {*train}
    drop.write_text("x.jsonl.gz:2\n")
    with pytest.raises(UserError, match="none of its 1 lines names a document of --input"):
        with_eval_input(corpus, tmp_path / "other", held_out, more=["--drop", str(drop)])


def test_packed_lines_become_the_same_records_and_are_cleared_up(corpus, tmp_path):
    (tmp_path / "in").mkdir()
    with open(os.path.join(corpus, "lines.jsonl"), "rb") as f:
        (tmp_path / "in" / "lines.jsonl.gz").write_bytes(gzip.compress(f.read()))
    create(str(tmp_path / "in"), tmp_path / "out", "--processes", "2")
    found = keys(tmp_path / "out", "a*.tfrecords")
    assert sorted(found) == sorted(f"lines.jsonl.gz:{i}" for i in range(1, 47))
    assert all(name.startswith("a") for name in os.listdir(tmp_path / "out"))


def test_finished_output_is_left_as_it_is(corpus, reference, capsys):
    before = contents(reference)
    assert create(corpus, reference) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert contents(reference) == before


def test_a_shard_that_was_removed_or_cut_is_made_again(corpus, reference, tmp_path, capsys):
    create(corpus, tmp_path)
    assert "\n1 document left out that could not be read as UTF-8" in capsys.readouterr().out
    (tmp_path / "a_2.tfrecords").unlink()
    (tmp_path / "a-eval_0.tfrecords").write_bytes(b"cut")
    untouched = (tmp_path / "a_1.tfrecords").stat().st_mtime_ns
    create(corpus, tmp_path)
    assert contents(tmp_path) == contents(reference)
    assert (tmp_path / "a_1.tfrecords").stat().st_mtime_ns == untouched
    for number, entry in enumerate(manifest.load(str(tmp_path / "a.manifest.json")).entries):
        os.unlink(entry.shard.path)
        capsys.readouterr()
        create(corpus, tmp_path)
        assert ("\nin the shards that were built again: 1 document left out that could not be read as UTF-8"
                in capsys.readouterr().out) == bool(entry.outcomes.get("other_encoding")), number


@pytest.mark.parametrize("processes", ["1", "2"])
def test_killed_runs_leave_nothing_running_and_continue_to_the_same_bytes(corpus, reference, tmp_path, processes):
    state = tmp_path / ".a.state"
    for shards in (0, 1, 4):
        run = start(corpus, tmp_path, "--processes", processes)
        wait_until(lambda at_least=shards: state.exists() and len(list(state.glob("*.complete.json"))) >= at_least)
        workers = children(run.pid)
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
        wait_until_gone(workers)
        assert not (tmp_path / "a.manifest.json").exists()
        for path in tmp_path.glob("*.tfrecords"):
            assert path.read_bytes() == (reference / path.name).read_bytes()
    assert create(corpus, tmp_path) == 0
    assert contents(tmp_path) == contents(reference)


def test_ctrl_c_stops_everything_and_says_so_in_one_line(corpus, tmp_path):
    run = start(corpus, tmp_path, "--processes", "2")
    wait_until(lambda: list(tmp_path.glob(".a.state/*.complete.json")))
    workers = children(run.pid)
    os.killpg(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=20)
    assert run.returncode == 130 and err.strip().endswith("interrupted") and "Traceback" not in err
    wait_until_gone(workers)


def test_a_worker_that_dies_ends_the_run_with_one_line(corpus, tmp_path):
    run = start(corpus, tmp_path, "--processes", "2")
    wait_until(lambda: list(tmp_path.glob(".a.state/*.complete.json")))
    for child in children(run.pid)[-1:]:
        os.kill(child, signal.SIGKILL)
    _, err = run.communicate(timeout=20)
    assert run.returncode == 2 and "a worker died" in err.strip().split("\n")[-1] and "Traceback" not in err


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_full_disk_is_one_line_and_leaves_no_partial_shard(corpus, tmp_path, processes):
    limit = 9000  # bytes a file; stands in for a disk that is full, and the lists of documents still fit
    run = start(corpus, tmp_path, "--processes", processes,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    _, err = run.communicate(timeout=60)
    last = err.strip().split("\n")[-1]
    assert run.returncode == 2 and "error: " in last and "File too large" in last and ".tfrecords" in last
    assert "Traceback" not in err
    for path in tmp_path.glob("*.tfrecords"):
        integrity.scan(str(path))


def test_a_second_run_at_the_same_time_is_refused(corpus, tmp_path):
    run = start(corpus, tmp_path, "--processes", "1")
    wait_until((tmp_path / ".a.state").exists)
    os.kill(run.pid, signal.SIGSTOP)
    try:
        with pytest.raises(UserError, match="another run"):
            create(corpus, tmp_path)
    finally:
        os.kill(run.pid, signal.SIGCONT)
        run.communicate(timeout=60)
    assert run.returncode == 0


@pytest.mark.parametrize("finished", [True, False])
def test_other_options_or_inputs_over_the_same_name_are_refused(corpus, tmp_path, finished):
    create(corpus, tmp_path)
    if not finished:
        plan = manifest.load(str(tmp_path / "a.manifest.json")).plan
        (tmp_path / "a.manifest.json").unlink()
        (tmp_path / ".a.state").mkdir()
        (tmp_path / ".a.state" / "plan.json").write_text(json.dumps(plan))
    before = contents(tmp_path) if finished else None
    for more, message in ((["--minimum_size", "26"], "minimum_size was 25, now 26"),
                          (["--no_ftfy"], "cleaning was repair, now none"),
                          (["--clean", "original"], "cleaning was repair, now ftfy NFKC"),
                          (["--encoding", "cp1252"], "encoding was None, now cp1252"),
                          (["--split_on", "\\n"], r"split_on was None, now \\n[;)]"),
                          (["--text_key", "body"], "text_key was None, now body"),
                          (["--exclude", "000.txt"], "documents was 230, now 229")):
        with pytest.raises(UserError, match=message):
            create(corpus, tmp_path, *more)
    assert not finished or contents(tmp_path) == before


def test_shards_from_elsewhere_are_not_overwritten(corpus, tmp_path):
    (tmp_path / "a_0.tfrecords").write_text("mine")
    with pytest.raises(UserError, match="a_0.tfrecords without a manifest"):
        create(corpus, tmp_path)
    assert (tmp_path / "a_0.tfrecords").read_text() == "mine"


def test_nothing_left_is_an_error_and_leaves_nothing(corpus, tmp_path):
    with pytest.raises(UserError, match="none of 230 documents is left for training .*short 226"):
        create(corpus, tmp_path, "--minimum_size", "100000")
    assert os.listdir(tmp_path) == []
    assert create(corpus, tmp_path) == 0


def test_an_empty_file_is_counted(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "empty.txt").write_text("")
    (tmp_path / "in" / "full.txt").write_text("word " * 40)
    (tmp_path / "in" / "marks.txt").write_text("! " * 3)
    create(str(tmp_path / "in"), tmp_path / "out", "--eval_fraction", "0")
    assert manifest.load(str(tmp_path / "out" / "a.manifest.json")).entries[0].outcomes == {
        "read": 3, "kept": 1, "dropped": 0, "short": 1, "broken": 0, "empty": 1, "bad_lines": 0, "no_object": 0,
        "other_encoding": 0, "packed": 0}


def test_a_vocabulary_that_lacks_a_character_names_document_and_character(tmp_path):
    bpe.write(str(tmp_path / "letters"), [], "abc")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.txt").write_text("abcd" * 20)
    with pytest.raises(UserError, match="x.txt: .*'d'"):
        create(str(tmp_path / "in"), tmp_path / "out", "--encoder_path", str(tmp_path / "letters"))


def write(folder, **texts):
    """Path of a new folder with `name.txt` for each text, str or bytes."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(folder)


def texts(folder, pattern):
    """{name: text} of the records of shards."""
    encoder = bpe.load()
    return {key.decode(): encoder.decode(ids) for path in folder.glob(pattern) for key, ids in records.read(path)}


VERSES = [f"Verse {i}: {'words of a long poem ' * (i % 7)}\n" for i in range(2000)]


@pytest.mark.parametrize("name, processes", [("poem.txt", "1"), ("poem.jsonl", "2")])
def test_the_end_of_a_lone_document_is_for_evaluation(tmp_path, capsys, name, processes):
    poem = "".join(VERSES)
    (tmp_path / name).write_text(json.dumps({"text": poem}) if name.endswith("l") else poem.replace("\n", "\r\n"))
    out = tmp_path / "out"
    given = ["--input", str(tmp_path / name), "--name", "mine", "--output_dir", str(out), "--processes", processes]
    assert create_tfrecords.main(given) == 0
    train, evaluation = texts(out, "mine_0.tfrecords"), texts(out, "mine-eval_0.tfrecords")
    key, = train
    assert list(evaluation) == [key] and train[key] + evaluation[key] == poem
    assert train[key].endswith("\n") and 0.009 < len(evaluation[key]) / len(poem) < 0.011
    assert f"the end of {key}, the only document, is put aside for evaluation" in capsys.readouterr().out
    before = contents(out)
    assert create_tfrecords.main(given) == 0 and contents(out) == before
    with pytest.raises(UserError, match="eval_fraction was 0.01, now 0.0; lone_document was its end is for evaluation, "
                                        "now None"):
        create_tfrecords.main([*given, "--eval_fraction", "0"])
    assert create_tfrecords.main([*given, "--eval_fraction", "0", "--name", "whole"]) == 0
    assert texts(out, "whole*.tfrecords") == {key: poem} and not list(out.glob("whole-eval*"))


@pytest.mark.parametrize("text, share, expected", [
    ("a\nbb\nccc\ndddd", 0.3, "dddd"), ("a\nbb\nccc\ndddd\n", 0.3, "dddd\n"), ("one two three four five", 0.2, "five"),
    ("one\n" + "two " * 99, 0.1, "two " * 10), ("x" * 50, 0.1, "x" * 5), ("", 0.1, ""), ("x", 0.5, "x")])
def test_a_text_is_cut_at_a_line_end_else_at_a_space_else_anywhere(text, share, expected):
    assert text[building.place_to_cut(text, share):] == expected


def test_what_cannot_be_read_is_counted_and_named_with_the_remedy_which_works(tmp_path, capsys):
    source = write(tmp_path / "in", **{f"latin{i}": ("café au lait " * 30).encode("cp1252") for i in range(7)},
                   good="good words " * 30, wide=("breit " * 30).encode("utf-16"))
    (tmp_path / "in" / "lines.jsonl").write_text("".join(
        json.dumps({"id": i, "title": "t", "body": f"body {i} " * 30}) + "\n" for i in range(3)) + "[]\n")
    (tmp_path / "in" / "page.html").write_text("<p>")
    create(source, tmp_path / "out")
    said = capsys.readouterr().out
    assert "--input: not read are 1 .html (page.html)\n" in said
    assert ("7 documents left out that could not be read as UTF-8 or UTF-16: latin0.txt, latin1.txt, latin2.txt, "
            "latin3.txt, latin4.txt, ...; give --encoding NAME, for instance cp1252, or --encoding detect, or leave "
            "out with --exclude what is no text, such as what holds NUL bytes\n") in said
    assert ("3 lines left out without a text in 'text': lines.jsonl:1, lines.jsonl:2, lines.jsonl:3; keys there are "
            "'id', 'title', 'body'; give --text_key body\n"
            "1 line left out without a JSON object: lines.jsonl:4; each line must be one such as {\"text\": \"...\"}, "
            "and end in \\n, not in \\r alone\n") in said
    assert sorted(keys(tmp_path / "out", "a*.tfrecords")) == ["good.txt", "wide.txt"]
    create(source, tmp_path / "all", "--encoding", "cp1252", "--text_key", "body")
    found = texts(tmp_path / "all", "a*.tfrecords")
    assert len(found) == 12 and found["latin0.txt"] == "café au lait " * 30 and found["wide.txt"] == "breit " * 30
    assert found["lines.jsonl:3"] == "body 2 " * 30
    plan = manifest.load(str(tmp_path / "all" / "a.manifest.json")).plan
    assert (plan["encoding"], plan["text_key"], plan["cleaning"]) == ("cp1252", "body", "repair")
    create(source, tmp_path / "guessed", "--encoding", "detect")
    plan = manifest.load(str(tmp_path / "guessed" / "a.manifest.json")).plan
    assert plan["encoding"] == "detect" and "charset-normalizer" in plan["tools"]


def test_lines_none_of_which_has_a_text_are_an_error_that_names_their_keys(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"body": "words", "id": 1}\n' * 2)
    with pytest.raises(UserError, match="none of 2 documents is left for training .*: 2 lines left out without a text "
                                        "in 'text': x.jsonl:1, x.jsonl:2; keys there are 'body', 'id'; give --text_"):
        create(str(tmp_path / "x.jsonl"), tmp_path / "out")
    (tmp_path / "x.jsonl").write_text('{"body": "words", "id": 1}\n')
    with pytest.raises(UserError, match="none of 1 document is left .*: 1 line left out without a text in 'text': "
                                        "x.jsonl:1; keys there"):
        create(str(tmp_path / "x.jsonl"), tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_marks_between_documents_are_told_once_and_cut_the_text_where_they_are_given(tmp_path, capsys):
    parts = [f"story {i} " * 30 for i in range(9)]
    (tmp_path / "stories.txt").write_text("<|endoftext|>".join(parts))
    (tmp_path / "chat.jsonl").write_text(json.dumps({"text": "a <|endoftext|> b " * 30}))
    given = [str(tmp_path / "stories.txt"), str(tmp_path / "chat.jsonl")]
    create(given[0], tmp_path / "out", "--input", *given)
    said = capsys.readouterr().out
    assert ("<|endoftext|> stands 8 times in stories.txt, and is read as any other text; if it parts documents, give "
            "--split_on '<|endoftext|>'\n") in said and said.count("--split_on") == 1
    assert ("<|endoftext|> stands 30 times in chat.jsonl:1, and is read as any other text; if it parts documents, give "
            "each a line of its own\n") in said
    create(given[0], tmp_path / "cut", "--split_on", "<|endoftext|>")
    assert texts(tmp_path / "cut", "a*.tfrecords") == {f"stories.txt:{i}": text for i, text in enumerate(parts, 1)}
    assert "--split_on" not in capsys.readouterr().out


def test_of_a_few_documents_none_of_which_the_fraction_takes_each_gives_its_end(tmp_path, capsys):
    source = write(tmp_path / "in", **{name: f"{name} line\n" * 3000 for name in ("one", "two", "three")})
    create(source, tmp_path / "out", "--eval_fraction", "0.01")
    said = capsys.readouterr().out
    assert "--eval_fraction 0.01 takes none of 3 documents: the end of each is put aside for evaluation\n" in said
    assert re.search(r"documents: read 6, kept 6, .*, packed 0 \(each for training and for evaluation\)\n", said)
    train, evaluation = texts(tmp_path / "out", "a_*.tfrecords"), texts(tmp_path / "out", "a-eval_*.tfrecords")
    for name in ("one", "two", "three"):
        parts = [found[f"{name}.txt"].count("\n") for found in (train, evaluation)]
        assert parts == [2970, 30] and train[f"{name}.txt"] + evaluation[f"{name}.txt"] == f"{name} line\n" * 3000
    create(source, tmp_path / "more")  # the fraction takes some, which are whole
    assert sorted(keys(tmp_path / "more", "a*.tfrecords")) == ["one.txt", "three.txt", "two.txt"]


def test_of_more_documents_none_of_which_the_fraction_takes_one_is_for_evaluation(tmp_path, capsys):
    source = write(tmp_path / "in", **{f"text{number}": f"words of {number} " * 30 for number in range(12)})
    create(source, tmp_path / "out", "--eval_fraction", "0.001")
    aside, = keys(tmp_path / "out", "a-eval_*.tfrecords")
    assert f"--eval_fraction 0.001 takes none of 12 documents: {aside} is put aside for evaluation\n" in \
        capsys.readouterr().out
    assert sorted([aside, *keys(tmp_path / "out", "a_*.tfrecords")]) == sorted(f"text{n}.txt" for n in range(12))


def test_a_text_that_is_too_short_to_give_its_end_says_what_to_do(tmp_path, capsys):
    create(write(tmp_path / "lone", a="few words " * 50), tmp_path / "short", "--eval_fraction", "0.02")
    assert re.search(r"no document is left for evaluation: .* and give more text or lower --minimum_size 25 or "
                     r"raise --eval_fraction 0.02\n", capsys.readouterr().out)


def test_a_vocabulary_of_ones_own_lies_beside_the_shards_and_no_other_may(tmp_path):
    source = write(tmp_path / "in", a="some words " * 30, b="more words " * 30)
    own, other, out = tmp_path / "own", tmp_path / "other", tmp_path / "out"
    bpe.write(str(own), [("s", "o")])
    bpe.write(str(other), [("w", "o")])
    create(source, out, "--encoder_path", str(own))
    assert contents(out / "encoder") == contents(own)
    create(source, out, "--encoder_path", str(out / "encoder"), "--name", "b")  # the same
    for more, remedy in (([], "that is not GPT-2's"), (["--encoder_path", str(other)], f"that is not that in {other}")):
        with pytest.raises(UserError, match=f"encoder holds a vocabulary {remedy}: give --encoder_path {out}/encoder "
                                            "to use it, or choose another --output_dir"):
            create(source, out, "--name", "c", *more)
    for path in (out / "encoder").iterdir():  # as an earlier release left it
        path.unlink()
    create(source, out, "--encoder_path", str(own))
    assert contents(out / "encoder") == contents(own)
    for name, theirs in zip(("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):  # Hugging Face's names
        os.rename(out / "encoder" / name, out / "encoder" / theirs)
    create(source, out, "--encoder_path", str(own), "--name", "d")
    assert sorted(os.listdir(out / "encoder")) == ["merges.txt", "vocab.json"]
    with pytest.raises(UserError, match="encoder holds a vocabulary that is not that in"):
        create(source, out, "--name", "e", "--encoder_path", str(other))


def test_gpt2s_vocabulary_is_not_copied(corpus, reference, tmp_path):
    for path in bpe.files():
        shutil.copy(path, tmp_path)
    create(corpus, tmp_path / "out", "--encoder_path", str(tmp_path))
    assert contents(tmp_path / "out") == contents(reference)


@pytest.mark.parametrize("more, message", [
    (["--input", "/nowhere"], "/nowhere: no such file"),
    (["--drop", "/nowhere"], "--drop /nowhere: no such file"),
    (["--drop", __file__], "lines names a document of --input"),
    (["--encoder_path", "/nowhere"], "/nowhere/encoder.json"),
    (["--output_dir", os.path.join(__file__, "out")], "Not a directory"),
    (["--work_dir", "work"], "--work_dir work: give a local folder, and only where --output_dir is on gs://"),
    (["--minimum_size", "0"], "--minimum_size: 0 is out of range"),
    (["--eval_fraction", "1"], "--eval_fraction: 1 is out of range"),
    (["--name", "../x"], "--name '../x'"),
    (["--eval_input", __file__], "--eval_input: not allowed with argument --eval_fraction"),
])
def test_mistakes_are_one_line_and_status_2(corpus, tmp_path, more, message):
    run = start(corpus, tmp_path, *more)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 2 and len(err.strip().split("\n")) == 1
    assert err.startswith("error: ") and message in err
    assert not list(tmp_path.iterdir())
