"""datasets/manifest.py: what it writes it reads; shards with and without a manifest; what does not fit is named."""
import json
import os

import numpy as np
import pytest

from configs.errors import UserError
from datasets import integrity, manifest, tfrecords
from tests.helpers.records import shards_of

PLAN = {"name": "a", "vocabulary": "f" * 64, "vocabulary_size": 300, "seed": 5}


def make_shard(folder, name, lengths):
    return tfrecords.write(str(folder / name), [(b"k", np.arange(n), 4 * n) for n in lengths])


@pytest.fixture
def data(tmp_path):
    """A manifest of two shards for training, one for evaluation; returns the shards."""
    counts = {"read": 4, "kept": 2, "short": 2}
    entries = [manifest.Entry("train", make_shard(tmp_path, "a_0.tfrecords", [5, 3]), counts),
               manifest.Entry("train", make_shard(tmp_path, "a_1.tfrecords", []), {"read": 1, "empty": 1}),
               manifest.Entry("eval", make_shard(tmp_path, "a-eval_0.tfrecords", [7]), {"read": 1, "kept": 1})]
    manifest.write(manifest.path_of(str(tmp_path), "a"), PLAN, entries)
    return [entry.shard for entry in entries]


def test_totals_are_the_sums_and_loading_gives_back_what_was_written(tmp_path, data):
    path = str(tmp_path / "a.manifest.json")
    with open(path) as f:
        content = json.load(f)
    assert content["format_version"] == 1
    assert content["totals"] == {
        "train": {"records": 2, "tokens": 8, "text_bytes": 32, "size": data[0].size},
        "eval": {"records": 1, "tokens": 7, "text_bytes": 28, "size": data[2].size}}
    assert content["outcomes"] == {"read": 6, "kept": 3, "short": 2, "empty": 1}
    loaded = manifest.load(path)
    assert loaded.plan == PLAN
    assert [entry.shard for entry in loaded.entries] == data
    assert [entry.split for entry in loaded.entries] == ["train", "train", "eval"]


def test_the_facts_are_taken_from_the_manifest_in_the_order_asked(tmp_path, data):
    paths = [data[2].path, data[0].path, data[1].path]
    assert shards_of(*paths) == [data[2], data[0], data[1]] and manifest.look_up(paths)[1] == "f" * 64
    assert not list(tmp_path.glob("*.scan.json"))


def test_manifests_are_found_for_relative_paths(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shards_of("a_0.tfrecords") == [data[0]._replace(path="a_0.tfrecords")]
    assert shards_of("./a_0.tfrecords")[0].sha256 == data[0].sha256


def test_what_has_no_manifest_is_scanned_once(tmp_path, monkeypatch):
    shard = make_shard(tmp_path, "old_3.tfrecords", [4, 9])
    expected = shard._replace(text_bytes=None, sha256=None)
    assert shards_of(shard.path) == [expected] and manifest.look_up([shard.path])[1] is None
    monkeypatch.setattr(integrity, "scan", None)
    assert shards_of(shard.path) == [expected]


def test_a_changed_file_is_scanned_again(tmp_path):
    shard = make_shard(tmp_path, "old_3.tfrecords", [4, 9])
    shards_of(shard.path)
    make_shard(tmp_path, "old_3.tfrecords", [9, 4, 2])
    assert shards_of(shard.path)[0].records == 3


def test_a_cache_that_cannot_be_used_or_written_is_no_error(tmp_path):
    shard = make_shard(tmp_path, "old_3.tfrecords", [4, 9])
    (tmp_path / "old_3.scan.json").mkdir()
    assert shards_of(shard.path)[0].tokens == 13


def test_a_file_of_another_size_than_its_manifest_says_is_an_error(data):
    with open(data[0].path, "rb") as f:
        content = f.read()
    with open(data[0].path, "ab") as f:
        f.write(content)
    with pytest.raises(UserError, match=f"has {2 * data[0].size} bytes, {2 * data[0].records} records without damage"
                                        f", .*a.manifest.json says {data[0].size} bytes, {data[0].records} records: f"):
        shards_of(data[0].path)
    with open(data[0].path, "wb") as f:
        f.write(content[:-1])
    with pytest.raises(UserError, match=r"a_0.tfrecords.*byte \d+"):
        shards_of(data[0].path)
    assert shards_of(data[2].path) == [data[2]]


def test_a_file_that_is_missing_is_an_error(tmp_path, data):
    os.unlink(data[0].path)
    with pytest.raises(UserError, match="a_0.tfrecords is not there, and .*a.manifest.json lists it"):
        shards_of(data[0].path)
    with pytest.raises(UserError, match="no file .*b_0.tfrecords"):
        shards_of(str(tmp_path / "b_0.tfrecords"))


def test_two_vocabularies_are_an_error_only_where_both_are_used(tmp_path, data):
    other = make_shard(tmp_path, "b_0.tfrecords", [2])
    manifest.write(manifest.path_of(str(tmp_path), "b"), {**PLAN, "vocabulary": "0" * 64},
                   [manifest.Entry("train", other, {})])
    with pytest.raises(UserError, match="a.manifest.json and .*b.manifest.json have different vocabularies"):
        shards_of(data[0].path, other.path)
    assert manifest.look_up([other.path])[1] == "0" * 64


@pytest.mark.parametrize("content, message", [
    ('{"format_version": 2, "shards": []}', "has format version 2, this code knows 1"),
    ('{"format_version": 1}', "is damaged"),
    ('{"format_version": 1, "shards": [{"file": "x"}]}', "is damaged"),
    ('{"format_version": 1, "shards": [{"file": "x", "split": "train", "outcomes": {}, "records": 1, "size": 9}]}',
     "is damaged .*'tokens'"),
    ("{", "is not a manifest"),
    ("[]", "is not a manifest"),
])
def test_a_manifest_that_cannot_be_understood_is_an_error(tmp_path, data, content, message):
    (tmp_path / "a.manifest.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        shards_of(data[0].path)
    assert "delete" not in str(caught.value)
