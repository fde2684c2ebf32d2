"""Which elements the dropout of a layer keeps, in one compiled pass: by TensorFlow's numbers, but faster.

Philox 4x32 with 10 rounds, from J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).  Each word of
32 bits is held in a uint64, so that XLA multiplies by vector instructions.
"""
import math

import numpy as np
import tensorflow.compat.v1 as tf

from models import dropout
from models.cpu.compiled import run_compiled

MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10
FRACTION_BITS = 23  # TensorFlow makes a float32 in [0, 1) from the lowest 23 bits of a word


def keep_mask(drop, shape, after):
    """Computes drop.keep_mask(shape, after) of a dropout.Site, faster on CPUs."""
    # A number is m / 2^23, and TensorFlow compares in float32: m / 2^23 >= rate where m >= ceil(rate 2^23), exactly.
    least = math.ceil(np.float32(drop.rate) * 2.0 ** FRACTION_BITS)
    with tf.control_dependencies([after]):
        key, counter, counts = dropout.philox_start(drop.seed, drop.first_row, shape)
        return run_compiled(_keep_mask, key, counter, shape=tuple(shape), counts=counts, least=least)


def _keep_mask(key, counter, *, shape, counts, least):
    """The mask, bool of `shape`.  A value of the counter gives four numbers; four bytes tell which of them are kept."""
    position = counter[0] + tf.cast(tf.range(shape[0] * counts, dtype=tf.int64), tf.uint64)
    four_bytes = tf.constant(0, tf.uint32)
    for number, word in enumerate(_philox(_halves(position), _halves(counter[1]), _halves(key[0]))):
        one = tf.cast(_and(word, 2 ** FRACTION_BITS - 1) >= tf.constant(least, tf.uint64), tf.uint32)
        four_bytes += one * tf.constant(256 ** number, tf.uint32)  # the first word in the lowest byte
    flags = tf.reshape(tf.bitcast(four_bytes, tf.uint8), [shape[0], -1])
    return tf.reshape(flags[:, :math.prod(shape[1:])] > 0, shape)


def _philox(low, high, key):
    """The four words of each value of the counter; all are pairs of words, the lower one first."""
    words, keys = [*low, *high], list(key)
    for _ in range(ROUNDS):
        products = [words[2 * i] * tf.constant(MULTIPLIERS[i], tf.uint64) for i in range(2)]
        (low_0, high_0), (low_1, high_1) = map(_halves, products)
        words = [_xor(high_1, words[1], keys[0]), low_1, _xor(high_0, words[3], keys[1]), low_0]
        keys = [_and(keys[i] + tf.constant(KEY_STEPS[i], tf.uint64), 2 ** 32 - 1) for i in range(2)]
    return words


def _halves(x):
    """(lower, upper) 32 bits of x uint64, each in 64."""
    return _and(x, 2 ** 32 - 1), tf.bitwise.right_shift(x, tf.constant(32, tf.uint64))


def _and(x, mask):
    return tf.bitwise.bitwise_and(x, tf.constant(mask, tf.uint64))


def _xor(x, *others):
    for other in others:
        x = tf.bitwise.bitwise_xor(x, other)
    return x
