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


ENTRY = {"file": "a_0.tfrecords", "split": "train", "outcomes": {"kept": 2}, "records": 2, "tokens": 8,
         "text_bytes": 32, "size": 99, "sha256": "0" * 64, "shortest": 3, "largest_id": 4}


def test_the_entry_that_the_wrong_ones_are_made_of_is_right(tmp_path):
    expected = tfrecords.Shard("x/a_0.tfrecords", 2, 8, 32, 99, "0" * 64, 3, 4)
    assert manifest.entry_from_json(ENTRY, "x").shard == expected
    assert manifest.entry_from_json({**ENTRY, "text_bytes": None, "sha256": None, "largest_id": 0}, "x")
    for facts in ({"records": 1, "shortest": 8}, {"records": 5, "shortest": 0, "size": 88},
                  {"records": 0, "tokens": 0, "shortest": 0, "size": 0, "largest_id": -1},
                  {"tokens": 0, "shortest": 0, "largest_id": -1, "size": 32}):
        assert manifest.entry_from_json({**ENTRY, **facts}, "x")


@pytest.mark.parametrize("facts", [
    {"shortest": 10**9}, {"shortest": 5}, {"records": 3}, {"records": 1}, {"records": 0, "shortest": 0},
    {"records": 0, "shortest": 8}, {"largest_id": -1}, {"tokens": 0, "shortest": 0}, {"size": 39}, {"size": 0}])
def test_numbers_that_cannot_be_of_one_file_are_damage(facts):
    with pytest.raises(ValueError) as caught:
        manifest.entry_from_json({**ENTRY, **facts}, "x")
    names = ("records", "tokens", "size", "shortest", "largest_id")
    told = ", ".join(f'"{name}" {facts.get(name, ENTRY[name])}' for name in names)
    assert str(caught.value) == f"of a_0.tfrecords, {told} cannot be of one file"


@pytest.mark.parametrize("content, message", [
    ({"format_version": 2, "shards": []}, "has format version 2, this code knows 1"),
    ({"format_version": [1], "shards": []}, "has format version [1]"),
    ({"shards": []}, 'is not a manifest, for it has no "format_version"'),
    ("{", "not JSON at line 1"), ("[]", "holds [], but must be one JSON object"), (b"\xff", "is not UTF-8 text"),
    ('{"format_version": 1, "shards": [], "shards": []}', '"shards" is given twice ([], [])'),
    ({"format_version": 1}, 'is damaged ("shards" is missing)'),
    ({"format_version": 1, "shards": "ab"}, 'is damaged ("shards" is "ab")'),
    ({"format_version": 1, "shards": [], "vocabulary": ["f"]}, 'is damaged ("vocabulary" is ["f"])'),
    ({"format_version": 1, "shards": [], "vocabulary_size": "300"}, '("vocabulary_size" is "300")'),
    ({"format_version": 1, "shards": [None]}, "is damaged (null is no object)")])
def test_a_manifest_that_cannot_be_understood_is_an_error(tmp_path, data, content, message):
    data_of = content if isinstance(content, bytes) else (
        content if isinstance(content, str) else json.dumps(content)).encode()
    (tmp_path / "a.manifest.json").write_bytes(data_of)
    with pytest.raises(UserError) as caught:
        shards_of(data[0].path)
    assert str(caught.value).startswith(str(tmp_path / "a.manifest.json")) and message in str(caught.value)
    assert "delete" not in str(caught.value)


@pytest.mark.parametrize("name, values", [
    ("file", [None, 3, "", ".", "..", "../a_0.tfrecords", "/etc/passwd", "gs://b/a_0.tfrecords", "a\0b"]),
    ("file", ["a\nb", "\x1b[2J", "a\x7f"]),
    ("split", [None, "test", ["train"]]), ("outcomes", [None, [], {"kept": "2"}, {"kept": None}]),
    ("records", [None, "2", 2.0, True, -1]), ("tokens", ["8", -8]), ("text_bytes", ["32", 1.5, -1]),
    ("size", [None, -1, [99]]), ("sha256", [0, ["a"], ""]), ("shortest", [None, -1]), ("largest_id", [None, "4", -2]),
    ("more", [1])])
def test_an_entry_with_a_wrong_value_is_an_error_that_names_it(tmp_path, data, name, values):
    for value in values:
        content = {"format_version": 1, **PLAN, "shards": [{**ENTRY, name: value}]}
        (tmp_path / "a.manifest.json").write_text(json.dumps(content))
        with pytest.raises(UserError) as caught:
            shards_of(data[0].path)
        assert "a.manifest.json is damaged (" in str(caught.value)
        assert name in str(caught.value) or "of a_0.tfrecords, " in str(caught.value), value
    for lacking in set(ENTRY) - {"text_bytes", "sha256"}:
        entry = {key: value for key, value in ENTRY.items() if key != lacking}
        (tmp_path / "a.manifest.json").write_text(json.dumps({"format_version": 1, "shards": [entry]}))
        with pytest.raises(UserError, match=f'"{lacking}" is missing'):
            shards_of(data[0].path)


@pytest.mark.parametrize("change", [
    {"records": "2"}, {"records": 10**400}, {"tokens": None}, {"tokens": -5}, {"sha256": 3}, {"largest_id": 1.5},
    {"path": "elsewhere"}, {"shortest": [1]}, {"shortest": 7}, {"size": float("nan")}])
def test_a_scan_that_says_what_cannot_be_is_made_again(tmp_path, change):
    shard = make_shard(tmp_path, "old_3.tfrecords", [4, 9])
    expected = shards_of(shard.path)
    note = tmp_path / "old_3.scan.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), **change}))
    assert shards_of(shard.path) == expected
    note.write_text("[" * 100_000)
    assert shards_of(shard.path) == expected
    assert json.loads(note.read_text())["records"] == 2
