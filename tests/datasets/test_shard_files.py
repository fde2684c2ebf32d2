"""Which files a config reads: by the one manifest, by globs, by the original's names; what is missing or left out."""
import os
import shutil

import numpy as np
import pytest

from configs import schema
from configs.errors import UserError
from datasets import integrity, shard_sets, tfrecords
from datasets.shard_sets import EVAL, TRAIN
from tests.helpers.records import write_data_set


def config_for(folder, **values):
    return schema.from_dict({"data_path": str(folder), "model_dir": "unused", **values}, "test")


def names(config, split=TRAIN):
    return [shard.path.rpartition("/")[2] for part in shard_sets.find(config, split, cache=False).parts
            for shard in part.shards]


def mistake(config, split=TRAIN):
    with pytest.raises(UserError) as caught:
        shard_sets.find(config, split, cache=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_config_needs_the_folder_and_nothing_else_about_the_data(tmp_path, capsys):
    config = config_for(write_data_set(tmp_path / "mine", "mine", train=11, held_out=2))
    assert names(config) == [f"mine_{number}.tfrecords" for number in range(11)]  # 2 before 10
    assert names(config, EVAL) == ["mine-eval_0.tfrecords", "mine-eval_1.tfrecords"]
    assert capsys.readouterr().err == ""


def test_the_order_is_that_of_the_glob_that_was_needed_before(tmp_path):
    folder = write_data_set(tmp_path, "mine", train=12, held_out=1)
    short, globbed = config_for(folder), config_for(folder, train_files="mine_*.tfrecords",
                                                    eval_files="mine-eval_*.tfrecords")
    for split in (TRAIN, EVAL):
        assert shard_sets.find(short, split).fingerprint == shard_sets.find(globbed, split).fingerprint


def test_only_the_digits_of_numbers_count_in_the_order_of_names(tmp_path):
    folder = write_data_set(tmp_path, "m²", train=11, held_out=0)  # which --name takes
    os.rename(f"{folder}/m².manifest.json", tmp_path / "aside")
    for number, other in ((6, "0003"), (7, "03"), (8, "003"), (9, "٣")):  # which are all 3
        os.rename(f"{folder}/m²_{number}.tfrecords", f"{folder}/m²_{other}.tfrecords")
    numbers = [name[3:-10] for name in names(config_for(folder, train_files="*.tfrecords"))]
    assert numbers == ["0", "1", "2", "0003", "003", "03", "3", "٣", "4", "5", "10"]


def test_one_of_the_keys_may_be_given(tmp_path):
    write_data_set(tmp_path, "mine", train=3, held_out=2)
    config = config_for(tmp_path, train_files="mine_1.tfrecords")
    assert names(config) == ["mine_1.tfrecords"] and len(names(config, EVAL)) == 2
    config = config_for(tmp_path, eval_files="mine-eval_1.tfrecords")
    assert len(names(config)) == 3 and names(config, EVAL) == ["mine-eval_1.tfrecords"]


def test_several_manifests_are_an_error_that_names_them(tmp_path):
    for name in ("mine", "yours"):
        write_data_set(tmp_path, name)
    assert 'holds 2 data sets (mine, yours); set "train_files" to the shards of one, for instance "mine_*.tfr' in (
        mistake(config_for(tmp_path)))
    assert 'set "eval_files" to the shards of one, for instance "mine-eval_*' in mistake(config_for(tmp_path), EVAL)


@pytest.mark.parametrize("make, words", [
    (lambda folder: None, "is no folder; set it to that of a data set, as datasets/create_tfrecords.py makes it"),
    (os.makedirs, 'holds no manifest (*.manifest.json); make a data set with datasets/create_tfrecords.py, or set'
     ' "train_files" to a glob of .tfrecords files, or "input" to "openwebtext" for the original\'s')])
def test_a_folder_without_manifest_says_what_to_do_and_a_relative_one_from_where(tmp_path, monkeypatch, make, words):
    make(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    message = mistake(config_for("data"))
    assert f'"data_path" data in {tmp_path} ' in message and words in message
    assert f'"data_path" {tmp_path}/data {words.split()[0]}' in mistake(config_for(tmp_path / "data"))
    assert f'"data_path" is left out, and the current folder {tmp_path} holds no' in mistake(config_for(""))


def test_no_evaluation_shards_are_an_error_with_both_ways_out(tmp_path):
    write_data_set(tmp_path, "mine", held_out=0)
    assert 'mine.manifest.json lists no evaluation shards; set "eval_steps" to 0 to train without, or "eval_files"' in (
        mistake(config_for(tmp_path), EVAL))


def test_evaluation_shards_that_a_glob_takes_in_are_never_trained_on(tmp_path, capsys):
    write_data_set(tmp_path, "mine", train=2, held_out=1)
    config = config_for(tmp_path, train_files="mine*.tfrecords", eval_files="mine*.tfrecords")
    assert names(config) == ["mine_0.tfrecords", "mine_1.tfrecords"]
    assert capsys.readouterr().err == (
        "note: 1 evaluation shard left out of train_files: mine-eval_0.tfrecords\n")
    assert shard_sets.find(config, TRAIN).left_out == ("mine-eval_0.tfrecords",)
    assert len(names(config, EVAL)) == 3  # whoever wants to evaluate on more may
    assert "takes in evaluation shards alone, which are never trained on (mine-eval_0.tfrecords)" in mistake(
        config_for(tmp_path, train_files="mine-eval*"))


@pytest.mark.parametrize("link, target", [("data/mine_7", "data/mine-eval_0"), ("data/new", "other/yours-eval_1")])
def test_a_link_to_an_evaluation_shard_is_never_trained_on(tmp_path, capsys, link, target):
    write_data_set(tmp_path / "other", "yours", train=1, held_out=2)
    config = config_for(write_data_set(tmp_path / "data", "mine", train=2, held_out=1), train_files="[mn]*s")
    os.symlink(tmp_path / f"{target}.tfrecords", tmp_path / f"{link}.tfrecords")
    assert names(config) == ["mine_0.tfrecords", "mine_1.tfrecords"]
    assert f"{os.path.basename(link)}.tfrecords" in capsys.readouterr().err
    os.unlink(tmp_path / f"{link}.tfrecords")
    os.symlink(tmp_path / "other" / "yours_0.tfrecords", tmp_path / f"{link}.tfrecords")  # which is for training
    assert len(names(config)) == 3


@pytest.mark.parametrize("duplicate", [shutil.copy, os.link])
def test_an_evaluation_shard_under_another_name_is_told_by_its_contents_whether_or_not_a_manifest_lists_it(
        tmp_path, duplicate):
    folder = write_data_set(tmp_path, "mine", train=2, held_out=2)
    config = config_for(folder, train_files="*_0.tfrecords")

    def warnings():
        return shard_sets.overlap_warnings(*(shard_sets.find(config, split, cache=False) for split in (TRAIN, EVAL)))
    assert warnings() == []
    duplicate(f"{folder}/mine-eval_1.tfrecords", f"{folder}/extra_0.tfrecords")
    # write_data_set makes the evaluation shards equal
    expected = [f"{folder}/mine-eval_0.tfrecords, {folder}/mine-eval_1.tfrecords are trained on and evaluated on; the"
                " evaluation will look too good"]
    assert warnings() == expected
    os.unlink(f"{folder}/mine.manifest.json")
    config = config_for(folder, train_files="*[a-z]_0.tfrecords", eval_files="mine-eval_1.tfrecords")
    os.rename(f"{folder}/mine-eval_0.tfrecords", tmp_path / "aside")
    assert warnings() == [f"{folder}/mine-eval_1.tfrecords is{expected[0].partition(' are')[2]}"]
    tfrecords.write(f"{folder}/extra_0.tfrecords",  # as many bytes, other ids
                    [(b"%d" % i, (np.arange(40) + 2) % 200, 160) for i in range(3)])
    assert os.path.getsize(f"{folder}/extra_0.tfrecords") == os.path.getsize(f"{folder}/mine-eval_1.tfrecords")
    assert warnings() == []


def test_what_is_trained_on_and_evaluated_on_through_a_link_is_told_without_reading_it(tmp_path, monkeypatch):
    folder = write_data_set(tmp_path, "mine", train=2, held_out=1)
    os.symlink(f"{folder}/mine_1.tfrecords", f"{folder}/held.tfrecords")
    config = config_for(folder, eval_files="held.tfrecords")
    both = [shard_sets.find(config, split) for split in (TRAIN, EVAL)]
    monkeypatch.setattr(integrity, "survey", None)
    assert "held.tfrecords is trained on and evaluated on" in shard_sets.overlap_warnings(*both)[0]


def test_two_manifests_that_say_different_things_of_a_shard_are_named(tmp_path):
    write_data_set(tmp_path, "mine", train=2, held_out=1)
    content = (tmp_path / "mine.manifest.json").read_text()
    (tmp_path / "copy.manifest.json").write_text(content)
    config = config_for(tmp_path, train_files="mine*")
    (tmp_path / "mine_0.scan.json").write_text("{}")
    assert names(config) == ["mine_0.tfrecords", "mine_1.tfrecords"]  # the two agree, and are no shards
    (tmp_path / "copy.manifest.json").write_text(content.replace('"split": "eval"', '"split": "train"'))
    assert (f"{tmp_path}/copy.manifest.json and {tmp_path}/mine.manifest.json both list mine-eval_0.tfrecords, and say"
            " different things of it: move") in mistake(config)


def test_a_glob_that_takes_in_several_data_sets_says_which(tmp_path, capsys):
    write_data_set(tmp_path, "mine", train=3, held_out=0)
    write_data_set(tmp_path, "yours", train=1, held_out=0)
    (tmp_path / "old_4.tfrecords").write_bytes((tmp_path / "mine_0.tfrecords").read_bytes())
    assert len(names(config_for(tmp_path, train_files=["mine_*", "yours_*"]))) == 4
    assert capsys.readouterr().err == ""  # each glob takes in one
    assert len(names(config_for(tmp_path, train_files="*.tfrecords"))) == 5
    assert capsys.readouterr().err.startswith(
        f"note: train_files *.tfrecords takes in 3 data sets: {tmp_path}/mine (3 shards), {tmp_path}/old without a"
        f" manifest (1 shard), {tmp_path}/yours (1 shard)\n")


@pytest.mark.parametrize("values", [{}, {"train_files": "mine_*.tfrecords"}, {"train_files": "*/mine_*.tfrecords"},
                                    {"train_files": [["mine_*", 2], ["mine_0.tfrecords", 1]]}])
def test_a_shard_that_a_manifest_lists_and_that_is_not_there_is_named(tmp_path, values):
    folder = write_data_set(tmp_path / "data", "mine", train=3, held_out=1)
    os.unlink(f"{folder}/mine_1.tfrecords")
    config = config_for(tmp_path if "*/" in str(values) else folder, **values)
    assert f"{folder}/mine_1.tfrecords is not there, and {folder}/mine.manifest.json lists it; fetch" in mistake(config)
    assert names(config_for(folder, train_files="mine_2.tfrecords")) == ["mine_2.tfrecords"]  # it is not meant
    assert names(config_for(folder), EVAL) == ["mine-eval_0.tfrecords"]
    os.unlink(f"{folder}/mine-eval_0.tfrecords")  # which the glob for training would not train on
    assert "mine_1.tfrecords is not there" in mistake(config_for(folder, train_files="mine*"))
    assert "mine-eval_0.tfrecords is not there" in mistake(config_for(folder), EVAL)


OPENWEBTEXT = "openwebtext-newspaper"


def test_the_original_s_inputs_take_exactly_their_own_names(tmp_path):
    write_data_set(tmp_path, OPENWEBTEXT, train=11, held_out=2)
    for name in (f"{OPENWEBTEXT}-long", f"{OPENWEBTEXT}_old", f"{OPENWEBTEXT}-eval_old"):
        write_data_set(tmp_path, name, train=2, held_out=0)
    config = config_for(tmp_path, input="openwebtext")
    assert names(config) == [f"{OPENWEBTEXT}_{number}.tfrecords" for number in range(11)]
    assert names(config, EVAL) == [f"{OPENWEBTEXT}-eval_{number}.tfrecords" for number in range(2)]
    # Without evaluation shards of its own, the original's split by numbers: 1 is held out.
    assert names(config_for(tmp_path, input="openwebtext_long")) == [f"{OPENWEBTEXT}-long_0.tfrecords"]
    # What was read before, because a number stands at its end, too.
    assert shard_sets.find(config, TRAIN).left_out == tuple(f"{OPENWEBTEXT}_old_{number}.tfrecords"
                                                            for number in range(2))


@pytest.mark.parametrize("gone, split", [(f"{OPENWEBTEXT}_2", TRAIN), (f"{OPENWEBTEXT}-eval_0", EVAL)])
def test_a_listed_shard_of_the_original_s_inputs_that_is_not_there_is_named(tmp_path, gone, split):
    write_data_set(tmp_path, OPENWEBTEXT, train=3, held_out=1)
    os.unlink(tmp_path / f"{gone}.tfrecords")
    config = config_for(tmp_path, input="openwebtext")
    assert f"{gone}.tfrecords is not there" in mistake(config, split)
    other = {TRAIN: EVAL, EVAL: TRAIN}[split]
    assert len(names(config, other)) == {TRAIN: 3, EVAL: 1}[other]  # not the original's split by numbers


def test_the_original_s_input_without_shards_says_which_name_is_missing(tmp_path):
    message = mistake(config_for(tmp_path, input="openwebtext"))
    assert f'"data_path": no file {tmp_path}/{OPENWEBTEXT}_*.tfrecords; make shards' in message
