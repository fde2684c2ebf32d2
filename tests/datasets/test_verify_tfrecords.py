"""datasets/verify_tfrecords.py: each thing that can be wrong with shards is named, and nothing where all is right."""
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from configs.errors import UserError
from datasets import framing, manifest, tfrecords, verify_tfrecords
from encoder import bpe, train
from tests.helpers.runs import ROOT


@pytest.fixture
def folder(text_corpus, tmp_path):
    """Two shards for training, one for evaluation and their manifest, with the vocabulary of 300 ids."""
    plan = {"name": "a", "vocabulary": bpe.load(str(text_corpus / "encoder")).fingerprint, "vocabulary_size": 300}
    entries = []
    for name, lengths in (("a_0", [50, 299, 40]), ("a_1", [60, 30]), ("a-eval_0", [70, 80, 90, 100])):
        shard = tfrecords.write(str(tmp_path / f"{name}.tfrecords"),
                              [(b"k%d" % length, np.arange(length), 3 * length) for length in lengths])
        entries.append(manifest.Entry("eval" if "eval" in name else "train", shard, {}))
    manifest.write(manifest.path_of(str(tmp_path), "a"), plan, entries)
    return tmp_path


def verify(capsys, *arguments):
    """(status, lines that name a problem, the whole output)."""
    status = verify_tfrecords.main([str(argument) for argument in [*arguments, "--processes", 1]])
    out = capsys.readouterr().out
    lines = out.split("files   ")[0].splitlines()
    assert status == (2 if lines else 0) and f"{len(lines)} problem{'s' * (len(lines) != 1)} in" in out
    return status, lines, out


def offsets(path):
    return [piece.offset for piece in framing.walk(str(path))]


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_clean_data_set_is_clean_however_it_is_named(folder, text_corpus, capsys):
    for paths, files in (([folder], 3), ([folder / "a.manifest.json"], 3), ([folder / "a_*.tfrecords"], 2),
                         ([folder / "a_1.tfrecords"], 1),
                         ([folder, folder / "a_0.tfrecords", "--encoder_path", text_corpus / "encoder"], 3)):
        status, _, out = verify(capsys, *paths)
        assert status == 0 and re.search(rf"^files +{files}$", out, re.M)


def test_all_that_is_wrong_is_named_with_file_record_and_offset(folder, capsys):
    names = [str(folder / name) for name in ("a_0.tfrecords", "a_1.tfrecords", "a-eval_0.tfrecords")]
    starts = [offsets(name) for name in names]
    flip(folder / "a_0.tfrecords", 20)
    flip(folder / "a_0.tfrecords", starts[0][2] + 20)
    flip(folder / "a_1.tfrecords", starts[1][0] + 2)
    (folder / "a-eval_0.tfrecords").write_bytes((folder / "a-eval_0.tfrecords").read_bytes()[:-1])
    _, lines, out = verify(capsys, folder)
    assert {line for line in lines if "not what" not in line} == {
        f"{names[0]}: record 0 at byte 0 is damaged (CRC mismatch)",
        f"{names[0]}: record 2 at byte {starts[0][2]} is damaged (CRC mismatch)",
        f"{names[1]}: record 0 at byte 0 has a damaged length (CRC mismatch)",
        f"{names[2]}: record 3 at byte {starts[2][3]} is cut off"}
    text = "\n".join(lines)
    assert re.search(r"a_0.tfrecords: not what .*a.manifest.json says: sha256 \w+, not \w+; records 1, not 3;"
                     r" tokens 299, not 389; shortest 299, not 40 \(of the good records\)", text)
    assert re.search(r"a_1.tfrecords: not what .*; records 1, not 2; tokens 30, not 90; largest_id 29, not 59", text)
    assert re.search(r"a-eval_0.tfrecords: not what .* says: size \d+, not \d+; sha256", text) and len(lines) == 7
    counts = [int(number) for number in re.findall(r"^damaged: .* (\d+)$", out, re.M)]
    assert counts == [0, 1, 2, 1, 0, 0] and re.search(r"^good records +5$", out, re.M)


def test_files_that_are_missing_or_in_no_manifest_are_named(folder, capsys):
    (folder / "a_1.tfrecords").rename(folder / "a_77.tfrecords")
    for argument in (folder, folder / "a.manifest.json"):
        _, lines, _ = verify(capsys, argument)
        assert lines == [f"{folder}/a_1.tfrecords: missing, but {folder}/a.manifest.json lists it",
                         f"{folder}/a_77.tfrecords: stands in no manifest of its folder"]


def test_a_file_replaced_by_another_good_one_is_not_what_the_manifest_says(folder, capsys):
    shutil.copy(folder / "a-eval_0.tfrecords", folder / "a_0.tfrecords")
    _, lines, _ = verify(capsys, folder)
    assert len(lines) == 1 and "a_0.tfrecords: not what" in lines[0] and "tokens 340, not 389" in lines[0]


def test_a_damaged_manifest_is_one_problem_and_the_rest_is_verified(folder, capsys):
    (folder / "other.manifest.json").write_text("{")
    flip(folder / "a_0.tfrecords", 30)
    _, lines, _ = verify(capsys, folder)
    assert "other.manifest.json" in lines[0]
    assert any("a_0.tfrecords: record 0 at byte 0" in line for line in lines)


def test_ids_and_fingerprint_are_held_against_the_vocabulary(folder, tmp_path, capsys):
    train.main(["--input", os.path.join(ROOT, "configs", "errors.py"), "--size", "270", "--no_ftfy", "--output_dir",
                str(tmp_path / "encoder")])
    capsys.readouterr()
    _, lines, _ = verify(capsys, folder, "--encoder_path", tmp_path / "encoder")
    where = offsets(folder / "a_0.tfrecords")[1]
    assert "a.manifest.json: encoded with the vocabulary" in lines[0]
    assert f"{folder}/a_0.tfrecords: record 1 at byte {where} holds token id 298, beyond the 270 of the vocabulary" \
        in lines
    path = folder / "a.manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocabulary_size": 298}))
    _, lines, _ = verify(capsys, folder / "a_0.tfrecords")
    assert "holds token id 298, beyond the 298" in lines[0]


def test_shards_without_manifest_are_read_for_format_and_ids(tmp_path, capsys):
    path = tmp_path / "old_3.tfrecords"
    tfrecords.write(str(path), [(b"k", np.arange(9), 1)] * 3)
    assert verify(capsys, tmp_path)[0] == 0
    end = path.stat().st_size
    with open(path, "ab") as f:
        f.write(tfrecords.frame(b"junk"))
    _, lines, _ = verify(capsys, path)
    assert len(lines) == 1 and f"{path}: record 3 at byte {end} is not a tf.train.Example" in lines[0]


@pytest.mark.parametrize("arguments, words", [
    (["/nowhere/x.tfrecords"], "no file, folder or match of /nowhere/x.tfrecords"),
    (["{empty}"], "no .tfrecords file in"),
    (["{empty}", "--processes", "0"], "--processes: 0 is out of range")])
def test_mistakes_are_named(tmp_path, arguments, words):
    with pytest.raises(UserError, match=re.escape(words)):
        verify_tfrecords.main([argument.format(empty=tmp_path) for argument in arguments])


def test_several_processes_find_the_same_without_tensorflow(folder, capsys, monkeypatch):
    flip(folder / "a_0.tfrecords", 30)
    _, lines, _ = verify(capsys, folder)
    code = ("import sys\nfrom datasets import integrity, verify_tfrecords\nif __name__ == '__main__':\n"
            "    integrity.WORKER_BYTES = 1\n    status = verify_tfrecords.main([sys.argv[1], '--processes', '2'])\n"
            "    assert 'tensorflow' not in sys.modules\n    sys.exit(status)\n")
    script = folder / "check.py"
    script.write_text(code)
    process = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=120,
                             env={**os.environ, "PYTHONPATH": ROOT})
    assert process.returncode == 2, process.stderr
    assert sorted(process.stdout.split("files   ")[0].splitlines()) == sorted(lines)


def test_the_command_exits_with_2_where_something_is_wrong(folder):
    flip(folder / "a_0.tfrecords", 30)
    process = subprocess.run([sys.executable, os.path.join(ROOT, "datasets", "verify_tfrecords.py"),
                              str(folder / "a_0.tfrecords")], capture_output=True, text=True, timeout=120)
    assert process.returncode == 2 and "record 0 at byte 0 is damaged" in process.stdout
    assert "damaged: payload" in process.stdout
