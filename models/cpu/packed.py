"""A layer for one new token of each sample, with matrices in oneDNN's own layout, for models/decoding.py on CPUs.

oneDNN multiplies a few rows up to three times as fast by a matrix in a layout of its own.  TensorFlow's operation
arranges a matrix that is marked as constant in its first run and keeps the result: a second copy of it in memory.

B batch, S positions attended to, C width, H heads, D head size, V vocabulary.
"""
import functools
from typing import NamedTuple

import tensorflow.compat.v1 as tf

from configs import hardware
from models.cpu import int8, onednn
from models.cpu.mlp import standardise

# Grappler turns products into this operation, too.  But it marks only constants as constant, and weights read in a loop
# are not constants to it.
OP, KERNEL = "_MklNativeFusedMatMul", b"MklNameChangeOp"
FOR_BFLOAT16 = "avx512bw"  # the instruction set that oneDNN wants for it
AT_ONCE = 2**25  # bytes of the output layer that are arranged at a time; for a moment oneDNN keeps them twice
EVEN = 64  # rows; a slice from a multiple of them on is no copy
LIKELIEST = 128  # logits of a row that generation in bfloat16 computes in float32


class PackedMatrix(NamedTuple):
    """A matrix that stays what it is as long as the session."""
    matrix: tf.Tensor  # [I, O]; [O, I] where it is `transposed`
    transposed: bool = False


def attn(h, w, n_head, drop, cache=None):
    """Computes gpt2.attn for h [B, 1, C] with a cache and without dropout; `linear` takes the matrices of w."""
    batch, _, width = h.shape
    qkv = linear(_norm(h, w["ln_1/g"], w["ln_1/b"]), w["attn/c_attn/w"], w["attn/c_attn/b"])  # [B, 3C]
    q, k, v = tf.unstack(tf.reshape(qkv, [-1, 3, n_head, 1, width // n_head]), axis=1)  # [B, H, 1, D] each
    k, v, mask = cache.append(k, v)
    scores = tf.matmul(q * tf.cast(q.shape[-1] ** -0.5, q.dtype), k, transpose_b=True)  # [B, H, 1, S]
    weights = tf.cast(tf.nn.softmax(tf.cast(scores, tf.float32) + mask), h.dtype)
    x = tf.reshape(tf.matmul(weights, v), [-1, width])
    return linear(x, w["attn/c_proj/w"], w["attn/c_proj/b"], plus=h)


def mlp(h, w, drop):
    """Computes gpt2.mlp for h [B, 1, C] without dropout; `linear` takes the matrices of w."""
    x = linear(_norm(h, w["ln_2/g"], w["ln_2/b"]), w["mlp/c_fc/w"], w["mlp/c_fc/b"], gelu=True)  # [B, 4C]
    return linear(x, w["mlp/c_proj/w"], w["mlp/c_proj/b"], plus=h)


def _norm(x, g, b):
    return tf.cast(standardise(x)[0] * g + b, x.dtype)


def linear(x, packed, b=None, *, gelu=False, plus=None):
    """x [..., I] times the PackedMatrix (or Int8Matrix), plus b [O], in the dtype of x -> [N, O].

    With `gelu`, its GELU (the tanh approximation); with `plus` [..., O], the sum with it, in its shape.  Each call
    keeps a copy of its own.
    """
    if isinstance(packed, int8.Int8Matrix):
        return int8.linear(x, packed, b, gelu=gelu, plus=plus)
    rows, width = tf.reshape(x, [-1, x.shape[-1]]), packed.matrix.shape[0 if packed.transposed else 1]
    added = [tf.zeros([width], x.dtype) if b is None else tf.cast(b, x.dtype)]
    steps = ["BiasAdd"] + ["GeluApproximate"] * gelu
    if plus is not None:
        steps.append("Add")
        added.append(tf.reshape(plus, [-1, width]))
    result = onednn.run(OP, KERNEL, a=rows, b=packed.matrix, args=added, fused_ops=steps, is_filter_const=True,
                        transpose_a=False, transpose_b=packed.transposed, epsilon=0.0, leakyrelu_alpha=0.0)
    return result if plus is None else tf.reshape(result, tf.shape(plus))


def in_parts(table):
    """`table` [V, C] as slices of some rows each, in order: of AT_ONCE bytes, or of EVEN rows where these are more."""
    rows = max(EVEN, AT_ONCE // (table.dtype.size * table.shape[1]) // EVEN * EVEN)
    return [table[first:first + rows] for first in range(0, table.shape[0], rows)]


def logits(hidden, wte, output):
    """Computes gpt2.logits of hidden [B, C] by `output`, the packed matrices of in_parts(table).

    That table is wte, or wte less its mean row in fewer bits, which is half as much to read, or a quarter.  Of the
    latter, each row's LIKELIEST logits are computed again in float32: in bfloat16, a logit of -80 is also one of -80.5.
    The others are off by 1/512 of their distance from the row's mean and by the rounding of the table, which is about
    what the rounding of `hidden` has done before (benchmarks/RESULTS.md); in eight bits by more.
    """
    if isinstance(output[0], PackedMatrix) and output[0].matrix.dtype == tf.float32:
        return _side_by_side(tf.cast(hidden, tf.float32), output)
    rough = tf.cast(_side_by_side(hidden, output), tf.float32)  # [B, V], each row less a number of its own
    largest, ids = tf.math.top_k(rough, min(LIKELIEST, wte.shape[0]), sorted=False)  # [B, K]
    exact = tf.matmul(tf.gather(wte, ids), tf.cast(hidden, tf.float32)[:, :, None])[:, :, 0]  # [B, K]
    rough += tf.reduce_mean(exact - largest, 1, keepdims=True)
    places = tf.range(tf.shape(ids)[0])[:, None] * wte.shape[0] + ids  # in all rows behind each other
    # In place, unlike tf.tensor_scatter_nd_update: nothing else reads this sum.
    rough = tf.raw_ops.InplaceUpdate(x=tf.reshape(rough, [-1]), i=tf.reshape(places, [-1]), v=tf.reshape(exact, [-1]))
    return tf.reshape(rough, [-1, wte.shape[0]])


def _side_by_side(x, matrices):
    """x [N, I] times each of the packed matrices, one after the other -> [N, all their columns]."""
    products = []
    for matrix in matrices:
        with tf.control_dependencies(products[-1:]):
            products.append(linear(x, matrix))
    return tf.concat(products, 1)


@functools.lru_cache(maxsize=None)
def supported(dtype):
    """Whether TensorFlow has `linear` for `dtype` on this machine's processor, and no GPU does the work."""
    if not onednn.in_use():
        return False
    if dtype == tf.bfloat16 and FOR_BFLOAT16 not in hardware.features():
        return False  # oneDNN has no such product there, and ends the process where it is asked for one
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(dtype, [1, 1])
        packed = PackedMatrix(x)
        try:
            session.run([linear(x, packed, x[0], gelu=True), linear(x, packed, x[0], plus=x)], {x: [[1.0]]})
        except (tf.errors.OpError, RuntimeError, TypeError, ValueError):  # no kernel, no such operation, or another
            return False
    return True
