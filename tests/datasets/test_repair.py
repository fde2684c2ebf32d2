"""datasets/repair.py and skip_corrupt_records: training goes on without what is damaged, and repeats to the bit."""
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import main
from configs import schema
from configs.errors import UserError
from datasets import framing, integrity, repair, shard_sets, tfrecords
from tests.helpers import records


@pytest.fixture
def data(text_corpus, tmp_path):
    """A copy of a small data set in which record 1 of text_0 is damaged."""
    folder = tmp_path / "data"
    folder.mkdir()
    for path in text_corpus.iterdir():
        if path.is_file() and not path.name.endswith(".scan.json"):
            shutil.copy(path, folder)
    damage(folder / "text_0.tfrecords")
    return folder


def encode(key, ids):
    """The bytes of one record."""
    return next(tfrecords.encode([key], [ids]))


def second(path):
    return [piece.offset for piece in framing.walk(str(path))][1]


def damage(path):
    where = second(path)
    damaged = bytearray(path.read_bytes())
    damaged[where + 40] ^= 1
    path.write_bytes(damaged)


def weights_of(model_dir, step):
    reader = tf.train.load_checkpoint(os.path.join(str(model_dir), "model.ckpt-%d" % step))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def content(path):
    with open(path, "rb") as f:
        return f.read()


def listing(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_training_stops_at_a_damaged_record_or_goes_on_without_it_to_the_bit(run_config, text_corpus, data, tmp_path,
                                                                            capsys):
    where = second(text_corpus / "text_0.tfrecords")
    words = f"{data}/text_0.tfrecords: record 1 at byte {where} is damaged (CRC mismatch)"
    changes = {"data_path": str(data), "res_dropout": 0.1, "max_steps": 6, "train_steps": 6, "eval_steps": 0}
    with pytest.raises(UserError, match=re.escape(words) + '.*"skip_corrupt_records" to true'):
        main.main(["--model", run_config(**changes)])
    before = listing(data)
    assert main.main(["--model", run_config(skip_corrupt_records=True, **changes)]) == 0
    copy = next((tmp_path / "run" / "repaired").glob("*/text_0.tfrecords"))
    assert f"warning: {data}/text_0.tfrecords: skipped 1 damaged records, of which the first: record 1 at byte" \
        f" {where} is damaged (CRC mismatch); 1 of 2 records are good, read from {copy}\n" in capsys.readouterr().out
    assert listing(data) == before

    clean = tmp_path / "clean"  # the same shards, written without that record
    shutil.copytree(data, clean)
    documents = records.read(text_corpus / "text_0.tfrecords")
    (clean / "text.manifest.json").unlink()
    tfrecords.write(str(clean / "text_0.tfrecords"), [(key, ids, 1) for key, ids in documents[:1]])
    main.main(["--model", run_config(**{**changes, "data_path": str(clean), "model_dir": str(tmp_path / "clean_run")})])
    skipping, clean = weights_of(tmp_path / "run", 6), weights_of(tmp_path / "clean_run", 6)
    assert set(skipping) == set(clean)
    for name, value in skipping.items():
        np.testing.assert_array_equal(value, clean[name], err_msg=name)


@pytest.mark.slow
def test_restart_and_evaluation_use_the_copies_that_are_there(run_config, text_corpus, data, tmp_path, capsys,
                                                              monkeypatch):
    damage(data / "text-eval_0.tfrecords")
    changes = {"data_path": str(data), "skip_corrupt_records": True, "train_steps": 4}
    assert main.main(["--model", run_config(max_steps=4, **changes)]) == 0
    copies = sorted((tmp_path / "run" / "repaired").glob("*/*"))
    assert [copy.name for copy in copies].count("text_0.tfrecords") == 1 and len(copies) == 2
    times = [copy.stat().st_mtime_ns for copy in copies]
    monkeypatch.setattr(integrity, "survey", None)  # nothing is read again
    capsys.readouterr()
    assert main.main(["--model", run_config(max_steps=6, **changes)]) == 0
    out = capsys.readouterr().out
    assert "continuing" in out and "data order changes" not in out and out.count("skipped 1 damaged records") == 2
    assert main.main(["--model", run_config(max_steps=6, **changes), "--eval"]) == 0
    assert "targets" in capsys.readouterr().out
    assert [copy.stat().st_mtime_ns for copy in copies] == times


def shards_of(config, split=shard_sets.TRAIN, **options):
    return shard_sets.find(config, split, **options).parts[0].shards


def test_two_runs_read_the_same(run_config, data, tmp_path):
    found = [shard_sets.find(schema.load(run_config(data_path=str(data), skip_corrupt_records=True,
                                                model_dir=str(tmp_path / name))), shard_sets.TRAIN) for name in "ab"]
    assert found[0].fingerprint == found[1].fingerprint
    one, other = (content(part.shards[0].path) for part in (found[0].parts[0], found[1].parts[0]))
    assert one == other and found[0].parts[0].shards[0].path != found[1].parts[0].shards[0].path


def test_every_kind_of_damage_is_left_out_of_the_copy(run_config, tmp_path, capsys):
    folder = tmp_path / "odd"
    folder.mkdir()
    frames = [tfrecords.frame(encode(b"k%d" % i, np.arange(5 + i, 20 + 3 * i))) for i in range(7)]
    good = {number: frames[number] for number in (0, 3, 5)}
    lost = frames[1][:3] + b"\xff" + frames[1][4:]
    damaged = b"".join([good[0], lost, tfrecords.frame(b"junk"), good[3],
                        tfrecords.frame(encode(b"far", np.array([3, 300]))), good[5], frames[6][:-2]])
    (folder / "x_0.tfrecords").write_bytes(damaged)
    (folder / "x_1.tfrecords").write_bytes(frames[2])
    config = schema.load(run_config(data_path=str(folder), train_files="x_*.tfrecords", skip_corrupt_records=True))
    one, whole = shards_of(config)
    assert content(one.path) == b"".join(good.values())
    assert one._replace(path="", sha256=None) == integrity.scan(one.path)._replace(path="")
    assert whole.path == str(folder / "x_1.tfrecords")
    assert sorted(os.listdir(folder)) == ["x_0.tfrecords", "x_1.tfrecords"]
    assert "x_0.tfrecords: skipped 4 damaged records, of which the first: record 1 at byte" in capsys.readouterr().out


def test_a_file_shorter_than_its_manifest_says_is_read_as_far_as_it_goes(run_config, text_corpus, data, capsys):
    path = data / "text_0.tfrecords"
    shutil.copy(text_corpus / "text_0.tfrecords", path)
    whole, where = path.read_bytes(), second(path)
    config = schema.load(run_config(data_path=str(data), skip_corrupt_records=True))
    path.write_bytes(whole[:-5])
    assert shards_of(config)[0].records == 1
    assert f"record 1 at byte {where} is cut off; 1 of 2 records are good" in capsys.readouterr().out
    path.write_bytes(whole[:where])
    assert shards_of(config)[0]._replace(sha256=None) == integrity.scan(str(path))
    assert "holds 1 undamaged records" in capsys.readouterr().out
    path.write_bytes(whole)
    assert shards_of(config)[0] == records.shards_of(str(path))[0]
    assert capsys.readouterr().out == ""


def test_a_copy_that_was_lost_is_made_again_and_notes_that_cannot_be_read_do_no_harm(run_config, data, tmp_path):
    config = schema.load(run_config(data_path=str(data), skip_corrupt_records=True))
    first = shards_of(config)
    copied = content(first[0].path)
    os.unlink(first[0].path)
    assert shards_of(config) == first and content(first[0].path) == copied
    for text in ("", "[]", '{"a": 1}'):
        (tmp_path / "run" / "repaired" / "shards.json").write_text(text)
        assert shards_of(config) == first
    assert sorted(path.name for path in (tmp_path / "run" / "repaired").iterdir() if path.is_file()) == ["shards.json"]


def test_plan_writes_nothing_and_says_that_records_will_be_skipped(run_config, data, tmp_path, capsys):
    (data / "text_0.tfrecords").write_bytes((data / "text_0.tfrecords").read_bytes()[:-1])
    before = listing(data)
    assert main.main(["--model", run_config(data_path=str(data), skip_corrupt_records=True), "--plan"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"damaged records +skipped: the start of training reads every shard", out)
    assert "problems that stop" not in out and listing(data) == before and not (tmp_path / "run").exists()


def test_shards_of_another_vocabulary_are_not_taken_for_damage(run_config, text_corpus, tmp_path):
    config = schema.load(run_config(skip_corrupt_records=True, n_vocab=300))
    shards = {str(text_corpus / "text_0.tfrecords"): None}
    with pytest.raises(UserError, match='text_0.tfrecords: 2 of its 2 records hold ids outside the 40 of "n_vocab"'):
        repair.replace(shards, folder=str(tmp_path / "repaired"), limit=40)

    class Vocabulary:
        size, fingerprint = 40, None
    small = schema.load(run_config(skip_corrupt_records=True, n_vocab=40))
    with pytest.raises(UserError, match='holds token id [0-9]+, but "n_vocab" is 40'):
        shard_sets.check(shard_sets.find(small, shard_sets.TRAIN)._replace(vocabulary=None), small, Vocabulary())
    assert shard_sets.find(config, shard_sets.TRAIN).records


@pytest.mark.slow
def test_damage_after_the_shards_were_read_stops_the_run_and_is_skipped_in_the_next(run_config, text_corpus, data,
                                                                                   tmp_path, capsys):
    path = data / "text_0.tfrecords"
    shutil.copy(text_corpus / "text_0.tfrecords", path)
    config = run_config(data_path=str(data), skip_corrupt_records=True, eval_steps=0, max_steps=4)
    shards_of(schema.load(config))
    time = path.stat().st_mtime_ns
    damage(path)
    os.utime(path, ns=(time, time))  # a disk that rots tells nobody
    with pytest.raises(UserError, match="text_0.tfrecords: record 1 at byte .* run again"):
        main.main(["--model", config])
    assert main.main(["--model", config]) == 0
    assert "skipped 1 damaged records" in capsys.readouterr().out
