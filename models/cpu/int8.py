"""Products with matrices in eight bits, for one new token of each sample on CPUs: half of bfloat16's bytes to read.

Each column of a matrix has a scale of its own, each row of what it is multiplied by has one that is found anew in every
product (LLM.int8() without its outliers, https://arxiv.org/abs/2208.07339).  oneDNN's product takes numbers without
sign on the left: 128 is added to them, and 128 times the sums of the columns is taken off again as the product's bias.

N rows, I inputs, O outputs.
"""
import functools
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from models.cpu import onednn
from models.cpu.mlp import GELU_CUBE, GELU_SCALE

OP, KERNEL = "_MklQuantizedMatMulWithBias", b"QuantizedMklOp"
LARGEST, SHIFT = 127, 128


class Int8Matrix(NamedTuple):
    """A matrix that stays what it is as long as the session."""
    numbers: tf.Tensor  # int8 [I, O], from -127 to 127
    bias: tf.Tensor  # int32 [O]: -128 times the sums of the columns
    scales: tf.Tensor  # float32 [O]: of a product, for a row whose largest number is 1


def quantise(matrix):
    """The Int8Matrix of a float32 `matrix` [I, O]."""
    largest = tf.reduce_max(tf.abs(matrix), 0)  # [O]
    numbers = tf.cast(tf.round(matrix * tf.math.divide_no_nan(float(LARGEST), largest)), tf.int8)
    bias = -SHIFT * tf.reduce_sum(tf.cast(numbers, tf.int32), 0)
    return Int8Matrix(numbers, bias, largest / LARGEST ** 2)


def linear(x, matrix, b=None, *, gelu=False, plus=None):
    """Computes packed.linear with an Int8Matrix; what lies between the products is float32.

    Each call keeps a copy of the matrix of its own, in oneDNN's layout.
    """
    rows = tf.cast(tf.reshape(x, [-1, x.shape[-1]]), tf.float32)  # [N, I]
    largest = tf.reduce_max(tf.abs(rows), 1, keepdims=True)  # [N, 1]
    # To shift and cut off is to round, as all numbers are positive then.
    shifted = tf.cast(rows * tf.math.divide_no_nan(float(LARGEST), largest) + (SHIFT + 0.5), tf.uint8)
    result = tf.cast(_product(shifted, matrix), tf.float32) * largest * matrix.scales
    if b is not None:
        result += tf.cast(b, tf.float32)
    if gelu:
        result = _gelu(result)
    result = tf.cast(result, x.dtype)
    return result if plus is None else tf.reshape(result, tf.shape(plus)) + plus


def _product(shifted, matrix):
    """`shifted` uint8 [N, I], 128 too large, times the Int8Matrix -> int32 [N, O], exact."""
    # Types of their own only here: a tf.while_loop has no operations for them.
    kinds = {"a": (shifted, tf.quint8), "b": (matrix.numbers, tf.qint8), "bias": (matrix.bias, tf.qint32)}
    inputs = {name: tf.bitcast(value, kind) for name, (value, kind) in kinds.items()}
    zero, one = tf.constant(0.0), tf.constant(1.0)  # ranges, which only the ranges of the result are computed from
    result, _, _ = onednn.run(OP, KERNEL, **inputs, min_a=zero, max_a=one, min_b=zero, max_b=one, Toutput=tf.qint32,
                              transpose_a=False, transpose_b=False, input_quant_mode="SCALED", is_weight_const=True,
                              is_bias_const=True)
    return tf.bitcast(result, tf.int32)


def _gelu(x):
    """gpt2.gelu as x times a logistic function, which is the same number by fewer operations."""
    return x * tf.sigmoid(x * (2 * GELU_SCALE + 2 * GELU_SCALE * GELU_CUBE * (x * x)))


@functools.lru_cache(maxsize=None)
def supported():
    """Whether this machine's TensorFlow and processor compute `linear` exactly, and no GPU does the work.

    oneDNN adds pairs in 16 bits, which the largest numbers do not fit in, where a processor lacks VNNI.
    """
    if not onednn.in_use():
        return False
    with tf.Graph().as_default(), tf.Session() as session:
        matrix = Int8Matrix(tf.placeholder(tf.int8, [64, 64]), tf.zeros([64], tf.int32), None)
        x = tf.placeholder(tf.uint8, [2, 64])
        try:
            found = session.run(_product(x, matrix), {x: np.full([2, 64], 255),
                                                      matrix.numbers: np.full([64, 64], LARGEST)})
        except (tf.errors.OpError, RuntimeError, TypeError, ValueError):  # no kernel, no such operation, or another
            return False
    return bool((found == 255 * LARGEST * 64).all())
