"""What the commands leave behind has the rights that the user gives to new files: none for others, or the group's."""
import os
import stat

import pytest

import main
from datasets import create_tfrecords, dedup
from encoder import train
from models.checkpoints import convert
from tests.datasets.test_extract_text import one, write_archive
from tests.helpers.pages import article
from tests.helpers.weight_files import write_hf


@pytest.fixture(params=[0o077, 0o002])
def forbidden(request):
    """The rights that nobody may have got, under a umask that forbids these."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def check(folder, forbidden):
    """Every file has just the rights that a new one gets, and every folder no more: TensorFlow's keep 0o755 at most."""
    wrong, count = [], 0
    for path in folder.rglob("*"):
        count += 1
        rights = stat.S_IMODE(path.lstat().st_mode)
        if rights & forbidden if path.is_dir() else rights != 0o666 & ~forbidden:
            wrong.append((str(path), oct(path.lstat().st_mode)))
    assert count and not wrong


def test_archives_texts_vocabulary_shards_and_lists(tmp_path, forbidden):
    made, texts = tmp_path / "made", tmp_path / "made" / "texts"
    made.mkdir()
    archive = write_archive(made / "in", {line: article(line).encode() for line in range(1, 5)}, compression="gz")
    assert one(archive, texts) == 0
    assert train.main(["--input", str(texts), "--size", "300", "--output_dir", str(made / "encoder")]) == 0
    data = ["--name", "a", "--encoder_path", str(made / "encoder"), "--output_dir", str(made / "data")]
    assert create_tfrecords.main(["--input", str(texts), "--eval_fraction", "0.3", "--processes", "1", *data]) == 0
    assert dedup.main(["--input", str(texts), "--output", str(made / "drop.txt"), "--processes", "1"]) == 0
    check(made, forbidden)


def test_weights_that_are_imported_and_exported(tmp_path, forbidden):
    source = write_hf(tmp_path / "src")
    made = tmp_path / "made"
    assert convert.main(["import-hf", str(source), str(made / "in")]) == 0
    check(made, forbidden)


@pytest.mark.slow
def test_a_run_with_all_that_it_writes(run_config, tmp_path, forbidden):
    config = run_config(max_steps=12, train_steps=12, sample_prompts=["a"], sample_length=2)
    assert main.main(["--model", config]) == 0
    assert main.main(["--model", config, "--predict_text", "a", "--length", "2"]) == 0
    assert main.main(["--model", config, "--export_dir", str(tmp_path / "run" / "saved")]) == 0
    check(tmp_path / "run", forbidden)
    check(tmp_path / "samples", forbidden)
