"""The vocabulary of a config that names none: that of its run, that beside its shards, GPT-2's own."""
import json
import os
import shutil

import pytest

from configs import resume, schema
from configs.errors import UserError
from datasets import shard_sets, vocabularies
from encoder import bpe
from tests.helpers.records import write_data_set


def write_vocabulary(folder, merges=()):
    """A vocabulary of 257 ids and the merges; returns its fingerprint."""
    bpe.write(str(folder), list(merges))
    return bpe.fingerprint(str(folder))


@pytest.fixture
def data(tmp_path):
    """A data set with its own vocabulary beside it, the fingerprint in its manifest."""
    fingerprint = write_vocabulary(tmp_path / "data" / "encoder", [("a", "b")])
    write_data_set(tmp_path / "data", "mine", vocabulary=fingerprint)
    return tmp_path / "data"


def complete(tmp_path, data, **values):
    return vocabularies.complete(schema.from_dict({"data_path": str(data), "model_dir": str(tmp_path / "run"),
                                                   **values}, "test"))


def note_run(tmp_path, fingerprint, folder):
    os.makedirs(tmp_path / "run", exist_ok=True)
    (tmp_path / "run" / resume.DATA_FILE).write_text(json.dumps({"vocabulary": fingerprint}))
    (tmp_path / "run" / resume.CONFIG_FILE).write_text(json.dumps({"encoder_path": folder and str(folder)}))


def test_the_vocabulary_beside_the_shards_is_taken_and_its_size(tmp_path, data):
    config, encoder = complete(tmp_path, data)
    assert (config.encoder_path, config.n_vocab, encoder.size) == (str(data / "encoder"), 258, 258)
    shard_sets.read(config, encoder, shard_sets.TRAIN)


def test_the_vocabulary_beside_the_shards_may_have_hugging_face_s_names(tmp_path, data):
    for name, theirs in zip(("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")):
        os.rename(data / "encoder" / name, data / "encoder" / theirs)
    config, encoder = complete(tmp_path, data)
    assert (config.encoder_path, config.n_vocab) == (str(data / "encoder"), 258)
    shard_sets.read(config, encoder, shard_sets.TRAIN)


def test_without_one_it_is_gpt2_s(tmp_path):
    config, encoder = complete(tmp_path, write_data_set(tmp_path / "data", "mine"))
    assert (config.encoder_path, config.n_vocab, encoder.eot) == (None, 50257, 50256)
    assert complete(tmp_path, tmp_path / "nowhere")[0].n_vocab == 50257


def test_what_the_config_says_stands(tmp_path, data):
    write_vocabulary(tmp_path / "other")
    config, encoder = complete(tmp_path, data, encoder_path=str(tmp_path / "other"), n_vocab=300)
    assert (config.encoder_path, config.n_vocab, encoder.size) == (str(tmp_path / "other"), 300, 257)


def test_the_manifest_decides_where_a_stray_folder_lies_beside_it(tmp_path):
    write_vocabulary(tmp_path / "data" / "encoder")
    write_data_set(tmp_path / "data", "mine", vocabulary=bpe.fingerprint())
    config, _ = complete(tmp_path, tmp_path / "data")
    assert (config.encoder_path, config.n_vocab) == (None, 50257)


def test_a_run_s_own_vocabulary_comes_first_and_may_have_moved(tmp_path, data):
    fingerprint = write_vocabulary(tmp_path / "other", [("c", "d")])
    note_run(tmp_path, fingerprint, tmp_path / "other")
    assert complete(tmp_path, data)[0].encoder_path == str(tmp_path / "other")
    assert complete(tmp_path, tmp_path / "nowhere")[0].encoder_path == str(tmp_path / "other")
    shutil.move(tmp_path / "other", tmp_path / "moved")
    with pytest.raises(UserError) as caught:
        complete(tmp_path, data)
    assert str(caught.value) == (f"{tmp_path}/run was trained with the vocabulary in {tmp_path}/other, which is not"
                                 ' there; set "encoder_path" to where it is now')
    assert complete(tmp_path, data, encoder_path=str(tmp_path / "moved"))[1].fingerprint == fingerprint
    shutil.rmtree(data / "encoder")
    shutil.move(tmp_path / "moved", data / "encoder")
    assert complete(tmp_path, data)[0].encoder_path == str(data / "encoder")


def test_a_run_with_gpt2_s_vocabulary_keeps_it_beside_other_data(tmp_path, data):
    note_run(tmp_path, bpe.fingerprint(), None)
    assert complete(tmp_path, data)[0].encoder_path is None


def checked(tmp_path, data, **values):
    config, encoder = complete(tmp_path, data, **values)
    with pytest.raises(UserError) as caught:
        shard_sets.read(config, encoder, shard_sets.TRAIN)
    return str(caught.value)


def test_a_wrong_vocabulary_is_told_before_its_size_with_the_one_to_take(tmp_path, data):
    """A forgotten vocabulary: to raise "n_vocab" would lead nowhere."""
    write_vocabulary(tmp_path / "other")
    message = checked(tmp_path, data, encoder_path=str(tmp_path / "other"), n_vocab=100)
    assert "was encoded with another vocabulary" in message and f"than the vocabulary in {tmp_path}/other" in message
    assert message.endswith(f'encode the text anew with this one, or set "encoder_path" to {data}/encoder')
    gpt2 = write_data_set(tmp_path / "gpt2", "mine", vocabulary=bpe.fingerprint())
    assert checked(tmp_path, gpt2, encoder_path=str(tmp_path / "other")).endswith(
        'or leave "encoder_path" out, in a new "model_dir": the shard\'s is GPT-2\'s own')
    elsewhere = write_data_set(tmp_path / "elsewhere", "mine", vocabulary="5" * 64)
    assert checked(tmp_path, elsewhere).endswith('or set "encoder_path" to that one')


def test_a_network_smaller_than_the_vocabulary_says_to_leave_n_vocab_out(tmp_path, data):
    assert checked(tmp_path, data, n_vocab=200) == (f'"n_vocab" is 200, but the vocabulary in {data}/encoder has 258'
                                                    ' ids; leave "n_vocab" out, or set it to 258')
