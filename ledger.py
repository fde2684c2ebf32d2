"""Which documents stand in the batch of a step, found by going through the same data in the same order once more."""
import numpy as np
import tensorflow as tf

import inputs
from datasets import window_order as order

PLACE_BITS = 31  # of a mark: the place of the record in its block; the bits above are the seed of the block's shuffles


def documents_of(config, found, step):
    """The `hash`es (str) of the documents in the global batch of update number `step` (from 1 on), sorted.

    `found` is the corpus.Corpus that is trained on.  Reads at most one block of files twice for each of its parts.
    """
    start, stop = (step - 1) * config.train_batch_size, step * config.train_batch_size
    ranges = order.part_ranges(config, found, start, stop)
    return sorted({name for part, (first, last) in zip(found.parts, ranges) if first < last
                   for name in _part_documents(part, config, len(ranges), first, last)})


def _part_documents(part, config, parts, first, last):
    """Yields the hashes of the documents in windows [first, last) of a part, one of `parts`."""
    blocks = order.cut_blocks(part.shards, config.n_ctx)
    with tf.Graph().as_default():
        inputs.seed_shuffles(config)
        windows = inputs.part_windows(part, config, _marks(part), parts=parts, start=first, stop=last)
        marks = np.unique(np.concatenate(_elements(windows.take(last - first))))
    for row in order.schedule(blocks, config.seed, first, last):
        places = marks[marks >> PLACE_BITS == row[1]] & (1 << PLACE_BITS) - 1
        with tf.Graph().as_default():
            inputs.seed_shuffles(config)
            records = inputs.block_records(part, blocks, tf.constant(row), parts).enumerate()
            chosen = records.filter(lambda place, _, places=places: tf.reduce_any(tf.equal(place, places)))
            for name in _elements(chosen.map(lambda _, record: _hash(record))):
                yield name.decode("utf-8", "replace")


def _marks(part):
    """For inputs.part_windows: instead of each token its document's mark, int64."""
    def read(records, row):
        def repeat(places, serialized):
            texts = tf.io.parse_example(serialized, {"text": tf.io.RaggedFeature(tf.int64)})["text"]
            return tf.repeat(tf.bitwise.left_shift(row[1], PLACE_BITS) + places, texts.row_lengths() + 1)
        return records.enumerate().batch(inputs.documents_at_once(part)).map(repeat)
    return read


def _hash(record):
    return tf.io.parse_single_example(record, {"hash": tf.io.FixedLenFeature([], tf.string, "")})["hash"]


def _elements(dataset):
    """All elements, as NumPy values."""
    following = tf.compat.v1.data.make_one_shot_iterator(dataset).get_next()
    found = []
    with tf.compat.v1.Session() as session:
        while True:
            try:
                found.append(session.run(following))
            except tf.errors.OutOfRangeError:
                return found
