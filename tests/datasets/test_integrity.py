"""datasets/framing.py and datasets/integrity.py: damage of every kind is found where it is, and only there."""
import hashlib

import numpy as np
import pytest
import tensorflow as tf

from configs.errors import UserError
from datasets import framing, integrity, tfrecords

FRAMES = [*map(tfrecords.frame, tfrecords.encode([b"key%d" % i for i in range(9)],
                                                 [np.arange(37 * i % 200) for i in range(9)]))]
WHOLE = b"".join(FRAMES)
STARTS = [sum(map(len, FRAMES[:i])) for i in range(len(FRAMES) + 1)]
FLOATS = tf.train.Example(features=tf.train.Features(feature={
    "text": tf.train.Feature(float_list=tf.train.FloatList(value=[1.5]))})).SerializeToString()
NEGATIVE = tf.train.Example(features=tf.train.Features(feature={
    "text": tf.train.Feature(int64_list=tf.train.Int64List(value=[3, -2]))})).SerializeToString()


def flipped(*places):
    data = bytearray(WHOLE)
    for place in places:
        data[place] ^= 4
    return bytes(data)


def with_record(number, payload):
    return b"".join([*FRAMES[:number], framing.frame(payload), *FRAMES[number + 1:]])


def survey_of(tmp_path, data, limit=None):
    path = str(tmp_path / "x_0.tfrecords")
    with open(path, "wb") as f:
        f.write(data)
    return integrity.survey(integrity.ShardToRead(path, limit))


@pytest.mark.parametrize("read_bytes", [7, 100, 1 << 22])
@pytest.mark.parametrize("data, good, expected", [
    (WHOLE, 9, []),
    (flipped(3), 8, [(0, 0, "length")]),
    (flipped(STARTS[3] + 1), 8, [(3, STARTS[3], "length")]),
    (flipped(STARTS[4] + 9), 8, [(4, STARTS[4], "length")]),
    (flipped(STARTS[5] + 40), 8, [(5, STARTS[5], "payload")]),
    (flipped(STARTS[6] - 1), 8, [(5, STARTS[5], "payload")]),
    (flipped(STARTS[8] + 1), 8, [(8, STARTS[8], "length")]),
    (flipped(STARTS[2] + 13, STARTS[5] + 40, STARTS[6] + 2), 6,
     [(2, STARTS[2], "payload"), (5, STARTS[5], "payload"), (6, STARTS[6], "length")]),
    (flipped(STARTS[2] + 2, STARTS[3] + 2), 7, [(2, STARTS[2], "length")]),  # a stretch counts as one record
    (WHOLE[:-3], 8, [(8, STARTS[8], "cut off")]),
    (WHOLE + FRAMES[0][:7], 9, [(9, STARTS[9], "cut off")]),
    (WHOLE[:STARTS[5] + 30] + WHOLE[STARTS[5] + 50:], 8, [(5, STARTS[5], "payload")]),  # bytes are missing
    (WHOLE[:STARTS[7] + 30] + WHOLE[STARTS[8] - 9:], 8, [(7, STARTS[7], "payload")]),
    (WHOLE[:STARTS[5]] + bytes(33) + WHOLE[STARTS[5]:], 9, [(5, STARTS[5], "length")]),  # zeros come in between
    (with_record(4, b"plain text"), 8, [(4, STARTS[4], "format")]),
    (with_record(4, FLOATS), 8, [(4, STARTS[4], "format")]),
    (with_record(6, NEGATIVE), 8, [(6, STARTS[6], "ids")]),
    (b"words and words and words", 0, [(0, 0, "no TFRecord file")]),
    (b"", 0, []),
])
def test_damage_is_found_where_it_is_and_what_follows_is_good(tmp_path, monkeypatch, read_bytes, data, good, expected):
    monkeypatch.setattr(framing, "READ_BYTES", read_bytes)
    found = survey_of(tmp_path, data)
    assert [problem[:3] for problem in found.problems] == expected
    assert (found.shard.records, found.shard.size) == (good, len(data))
    assert found.shard.sha256 == hashlib.sha256(data).hexdigest()


def test_counts_are_those_of_the_good_records(tmp_path):
    found = survey_of(tmp_path, flipped(STARTS[5] + 40))  # 9 records of 0, 37, 74, 111, 148, 185, 22, 59, 96 tokens
    assert (found.shard.tokens, found.shard.shortest, found.shard.largest_id) == (732 - 185, 0, 147)


def test_ids_beyond_the_vocabulary_are_damage_where_it_is_known(tmp_path):
    found = survey_of(tmp_path, WHOLE, limit=148)
    assert [str(problem) for problem in found.problems] == [
        f"record 5 at byte {STARTS[5]} holds token id 184, beyond the 148 of the vocabulary"]


def test_two_records_whose_bytes_between_are_random_are_told_apart_from_them(tmp_path):
    noise = np.random.RandomState(5).bytes(300000)
    found = survey_of(tmp_path, FRAMES[3] + noise + FRAMES[4])
    assert found.shard.records == 2 and [problem[:2] for problem in found.problems] == [(1, len(FRAMES[3]))]


def test_a_length_of_many_bytes_that_are_not_there_is_not_read(tmp_path):
    length = (1 << 60).to_bytes(8, "little")
    header = length + framing.masked_crc(length)
    found = survey_of(tmp_path, FRAMES[3] + header + FRAMES[4])
    assert found.shard.records == 2 and [problem[:3] for problem in found.problems] == [(1, len(FRAMES[3]), "cut off")]


def test_first_problem_and_the_strict_reader_agree(tmp_path):
    survey_of(tmp_path, flipped(STARTS[2] + 2, STARTS[5] + 30))
    path = str(tmp_path / "x_0.tfrecords")
    problem = integrity.first_problem(path)
    with pytest.raises(UserError) as caught:
        integrity.scan(path)
    assert f"{path}: {problem}: " in str(caught.value) and problem.offset == STARTS[2]
    with open(path, "wb") as f:
        f.write(WHOLE)
    assert integrity.first_problem(path) is None
