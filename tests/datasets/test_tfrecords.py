"""datasets/tfrecords.py against TensorFlow's own writer, reader and protobuf; damage of every kind."""
import contextlib
import hashlib
import os

import numpy as np
import pytest
import tensorflow as tf

from configs.errors import UserError
from datasets import integrity, tfrecords
from tests.helpers import records

IDS = [[0], [127, 128], [16383, 16384, 50256], [], list(range(300)), [2 ** 21, 2 ** 31 - 1, 2 ** 62]]


def encode(key, ids):
    """The bytes of one record."""
    return next(tfrecords.encode([key], [ids]))


def documents(ids=IDS):
    return [(b"key%d" % i, np.array(values, np.int64), 3 * len(values)) for i, values in enumerate(ids)]


def example(ids, key=b"k", extra=False):
    feature = {"text": tf.train.Feature(int64_list=tf.train.Int64List(value=ids)),
               "hash": tf.train.Feature(bytes_list=tf.train.BytesList(value=[key]))}
    if extra:
        feature.update({"a": tf.train.Feature(float_list=tf.train.FloatList(value=[1.5, 2.5])),
                        "z": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x" * 200, b""])),
                        "none": tf.train.Feature()})
    return tf.train.Example(features=tf.train.Features(feature=feature))


def field(number, data):
    """A field of a protobuf message, of fewer than 128 bytes."""
    return bytes([number << 3 | 2, len(data)]) + data


@pytest.fixture
def shard(tmp_path):
    path = str(tmp_path / "x_0.tfrecords")
    return path, tfrecords.write(path, documents())


@pytest.mark.parametrize("ids", IDS)
def test_an_encoded_record_is_the_example_tensorflow_makes(ids):
    data = encode(b"\xffkey", np.array(ids, np.int64))
    assert tf.train.Example.FromString(data) == example(ids, b"\xffkey")
    assert len(data) == example(ids, b"\xffkey").ByteSize()


def test_tensorflow_reads_what_is_written(shard):
    path, _ = shard
    spec = {"hash": tf.io.VarLenFeature(tf.string), "text": tf.io.VarLenFeature(tf.int64)}
    found = []
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # whether or not other tests left eager mode
        dataset = tf.data.TFRecordDataset(path).map(lambda data: tf.io.parse_single_example(data, spec))
        following = tf.compat.v1.data.make_one_shot_iterator(dataset).get_next()
        with contextlib.suppress(tf.errors.OutOfRangeError):
            while True:
                found.append(session.run(following))
    assert [one["text"].values.tolist() for one in found] == IDS
    assert [one["hash"].values[0] for one in found] == [key for key, _, _ in documents()]


@pytest.mark.parametrize("extra", [False, True])
def test_what_tensorflow_writes_is_read(tmp_path, extra):
    path = str(tmp_path / "tf.tfrecords")
    with tf.io.TFRecordWriter(path) as writer:
        for i, ids in enumerate(IDS):
            writer.write(example(ids, b"%d" % i, extra).SerializeToString())
    assert [(key, ids.tolist()) for key, ids in records.read(path)] == [(b"%d" % i, ids) for i, ids in enumerate(IDS)]
    facts = integrity.scan(path)
    assert (facts.records, facts.tokens, facts.shortest, facts.largest_id) == (6, 309, 0, 2 ** 62)
    assert facts.size == os.path.getsize(path)


def test_unpacked_lists_negative_numbers_and_any_order_are_read():
    varints = b"\x08\x05" + b"\x08\x80\x01" + b"\x0a\x02\x07\x08" + b"\x08" + b"\xff" * 9 + b"\x01"
    text = field(1, field(2, field(3, varints)) + field(1, b"text"))
    key = field(1, field(1, b"hash") + field(2, field(1, field(1, b"k"))))
    for entries in (text + key, key + text):
        data = b"\x18\x01" + field(1, entries)  # with an unknown field before
        reference = tf.train.Example.FromString(data).features.feature["text"].int64_list.value
        assert list(reference) == [5, 128, 7, 8, -1]
        found = tfrecords.features(data)
        assert found["hash"].bytes_list.value == [b"k"] and found["text"].int64_list.value == list(reference)
        with pytest.raises(tfrecords.IdError, match="token id -1"):
            tfrecords.token_ids(data)


def test_random_numbers_survive_both_ways():
    rng = np.random.RandomState(3)
    values = (rng.randint(0, 2 ** 62, 5000, np.int64) >> rng.randint(0, 62, 5000)).astype(np.int64)
    data = encode(b"k", values)
    assert data == example(values.tolist()).SerializeToString(deterministic=True)
    ids = tfrecords.token_ids(data)
    assert ids.dtype == np.int64 and np.array_equal(ids, values)


@pytest.mark.parametrize("key", [b"", "Zürich/世界.txt".encode(), b"\xff\0", b"k" * 127, b"k" * 128, b"k" * 20000])
@pytest.mark.parametrize("ids", [[], [5], [128] * 63, [128] * 64, [16384] * 5461, [16384] * 5462, [50256] * 70000])
def test_lengths_of_any_number_of_bytes_are_written_as_tensorflow_writes_them(key, ids):
    assert encode(key, ids) == example(ids, key).SerializeToString(deterministic=True)


@pytest.mark.parametrize("payload, message", [
    (b"", "no feature `text` (it has: none)"),
    (tf.train.Example(features=tf.train.Features(feature={"label": tf.train.Feature()})).SerializeToString(),
     "no feature `text` (it has: label)"),
    (b"\xff\xff", "is not a tf.train.Example"),
    (b"plain text", "is not a tf.train.Example"),
])
def test_a_record_without_text_is_named(tmp_path, payload, message):
    path = str(tmp_path / "x.tfrecords")
    with open(path, "wb") as f:
        f.write(tfrecords.frame(example([1]).SerializeToString()) + tfrecords.frame(payload))
    with pytest.raises(UserError) as caught:
        integrity.scan(path)
    assert message in str(caught.value) and path in str(caught.value) and "record 1 at byte" in str(caught.value)


def test_text_of_another_type_and_negative_ids_are_named():
    wrong = tf.train.Example(features=tf.train.Features(feature={
        "text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"words"]))}))
    with pytest.raises(ValueError, match="not an int64 list"):
        tfrecords.token_ids(wrong.SerializeToString())
    with pytest.raises(ValueError, match="-4"):
        encode(b"k", np.array([3, -4]))


def test_a_file_cut_anywhere_ends_at_a_record_or_says_where(tmp_path):
    frames = [tfrecords.frame(encode(key, ids)) for key, ids, _ in documents([[1, 300], [], [50256] * 5])]
    whole, path = b"".join(frames), str(tmp_path / "cut.tfrecords")
    starts = [sum(map(len, frames[:i])) for i in range(len(frames) + 1)]
    for cut in range(len(whole) + 1):
        with open(path, "wb") as f:
            f.write(whole[:cut])
        if cut in starts:
            assert integrity.scan(path).records == starts.index(cut)
            continue
        with pytest.raises(UserError) as caught:
            integrity.scan(path)
        last = max(i for i in range(len(frames)) if starts[i] <= cut)
        assert f"{path}: record {last} at byte {starts[last]} is cut off" in str(caught.value)


def test_every_flipped_bit_is_found(tmp_path):
    frames = [tfrecords.frame(encode(key, ids)) for key, ids, _ in documents([[1, 300], [7]])]
    whole, path = b"".join(frames), str(tmp_path / "flipped.tfrecords")
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        with open(path, "wb") as f:
            f.write(data)
        with pytest.raises(UserError) as caught:
            integrity.scan(path)
        number = int(bit // 8 >= len(frames[0]))
        kind = "has a damaged length" if bit // 8 - number * len(frames[0]) < 12 else "is damaged"
        assert f"record {number} at byte {number * len(frames[0])} {kind} (CRC mismatch)" in str(caught.value)
        assert '"skip_corrupt_records" to true' in str(caught.value)


@pytest.mark.parametrize("content", [b"just some words of text", b"\x1f\x8b" + b"z" * 40])
def test_another_kind_of_file_is_named(tmp_path, content):
    path = tmp_path / "x.tfrecords"
    path.write_bytes(content)
    with pytest.raises(UserError, match="x.tfrecords: record 0 at byte 0 begins no uncompressed TFRecord file"):
        integrity.scan(str(path))


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match="no file /nowhere"):
        integrity.scan("/nowhere/x.tfrecords")


def test_the_writer_returns_what_a_scan_and_the_disk_say(shard):
    path, facts = shard
    with open(path, "rb") as f:
        data = f.read()
    assert facts.size == len(data) and facts.sha256 == hashlib.sha256(data).hexdigest()
    assert facts.text_bytes == 3 * facts.tokens
    assert integrity.scan(path) == facts._replace(text_bytes=None, sha256=None)


@pytest.mark.parametrize("tokens", [1, 7, tfrecords.GROUP_TOKENS])
def test_records_are_the_same_however_many_are_packed_at_once(tmp_path, monkeypatch, tokens):
    rng = np.random.RandomState(tokens)
    given = documents([rng.randint(0, 1 << rng.randint(1, 40), rng.randint(12), np.int64).tolist() for _ in range(200)])
    monkeypatch.setattr(tfrecords, "GROUP_TOKENS", tokens)
    facts = tfrecords.write(str(tmp_path / "x.tfrecords"), iter(given))
    with open(tmp_path / "x.tfrecords", "rb") as f:
        assert f.read() == b"".join(tfrecords.frame(example(ids, key).SerializeToString(deterministic=True))
                                    for key, ids, _ in given)
    assert integrity.scan(facts.path) == facts._replace(text_bytes=None, sha256=None)


def test_an_empty_shard_is_legal(tmp_path):
    path = str(tmp_path / "empty.tfrecords")
    facts = tfrecords.write(path, [])
    assert (facts.records, facts.tokens, facts.size, facts.shortest, facts.largest_id) == (0, 0, 0, 0, -1)
    assert integrity.scan(path) == facts._replace(text_bytes=None, sha256=None)


def test_nothing_is_left_of_a_shard_that_failed(tmp_path):
    def broken():
        yield from documents()
        raise RuntimeError("stop")
    with pytest.raises(RuntimeError):
        tfrecords.write(str(tmp_path / "x.tfrecords"), broken())
    assert os.listdir(tmp_path) == []
