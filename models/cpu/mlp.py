"""The norm and the MLP of a layer, and the product that both they and attention are made of.

B batch, T positions, N = B T rows, C width.  Statistics and GELU are computed in float32 whatever the dtype.
"""
import math

import tensorflow.compat.v1 as tf

from configs.constants import NORM_EPSILON
from models.cpu.compiled import again, compiled, run_compiled
from models.cpu.philox import keep_mask
from models.dropout import dropped

GELU_SCALE, GELU_CUBE = math.sqrt(2 / math.pi), 0.044715


def mlp(h, w, drop):
    """Computes gpt2.mlp, faster on CPUs."""
    x = norm.recomputed(h, w["ln_2/g"], w["ln_2/b"])
    x = gelu.recomputed(product(x, w["mlp/c_fc/w"]), w["mlp/c_fc/b"])  # [N, 4C]
    return add_to_residual(h, product(x, w["mlp/c_proj/w"]), w["mlp/c_proj/b"], drop.mlp)


def add_to_residual(h, x, b, drop):
    """h [B, T, C] + drop(x + b): x [N, C], b [C] float32 -> [B, T, C]."""
    if not drop.rate:
        return add(h, x, b)
    return add_dropped(h, x, b, keep_mask(drop, h.shape.as_list(), x), rate=drop.rate)


def rows_of(x):
    """x [..., C] as [N, C]."""
    return tf.reshape(x, [-1, x.shape[-1]])


def biased(x, b):
    """x [N, C] + b [C], in the dtype of x."""
    return tf.nn.bias_add(x, tf.cast(b, x.dtype))


def column_sums(x):
    """Sums of x [..., C] over all but the last axis, float32 [C]: the gradient of a bias."""
    rows = rows_of(x)
    # As a product: on CPUs a fifth of the time of `tf.reduce_sum`.
    return tf.cast(tf.matmul(tf.ones([1, rows.shape[0]], x.dtype), rows)[0], tf.float32)


def product(x, w):
    """x, a Recomputed [..., I], times w [1, I, O] -> [N, O] in the dtype of x."""
    @tf.custom_gradient
    def run(w, *tensors):
        value = x.compute(*tensors)
        matrix = _matrix(w, value.dtype)

        def backward(upstream):
            with tf.control_dependencies([upstream]):  # or they are merged with those of the forward pass, and kept
                factor = again(value, lambda: x.compute(*tensors))
                weights = again(matrix, lambda: _matrix(w, upstream.dtype))
            to_x = tf.reshape(tf.matmul(upstream, weights, transpose_b=True), value.shape)
            to_w = tf.matmul(rows_of(factor), upstream, transpose_a=True)
            return tf.reshape(to_w, w.shape), *x.gradient(*tensors, to_x)
        return tf.matmul(rows_of(value), matrix), backward
    return run(w, *x.tensors)


def _matrix(w, dtype):
    return tf.reshape(tf.cast(w, dtype), w.shape[1:])


def standardise(x):
    """(x less its mean, over its deviation, along the last axis; one over that deviation), float32."""
    wide = tf.cast(x, tf.float32)
    centred = wide - tf.reduce_mean(wide, -1, keepdims=True)
    scale = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + NORM_EPSILON)
    return centred * scale, scale


def _norm_pieces(x, g, dy):
    """(dx, what dg is the sum of) for the gradient dy of `norm`."""
    standard, scale = standardise(x)
    dy = tf.cast(dy, tf.float32)
    inner = dy * g
    parallel = standard * tf.reduce_mean(inner * standard, -1, keepdims=True)
    dx = scale * (inner - tf.reduce_mean(inner, -1, keepdims=True) - parallel)
    return tf.cast(dx, x.dtype), dy * standard


def _norm_gradient(x, g, b, dy):
    dx, summed = run_compiled(_norm_pieces, x, g, dy)
    return dx, column_sums(summed), column_sums(dy)


@compiled(_norm_gradient)
def norm(x, g, b):
    """Computes gpt2.norm, faster on CPUs."""
    return tf.cast(standardise(x)[0] * g + b, x.dtype)


def _gelu_piece(x, b, dy):
    x = tf.cast(biased(x, b), tf.float32)
    tanh = tf.tanh(GELU_SCALE * (x + GELU_CUBE * x * x * x))
    slope = GELU_SCALE * (1.0 + 3.0 * GELU_CUBE * x * x)
    return tf.cast(tf.cast(dy, tf.float32) * 0.5 * (1.0 + tanh + x * (1.0 - tanh * tanh) * slope), dy.dtype)


def _gelu_gradient(x, b, dy):
    dx = run_compiled(_gelu_piece, x, b, dy)
    return dx, column_sums(dx)


@compiled(_gelu_gradient)
def gelu(x, b):
    """gpt2.gelu of x [N, C] plus b [C] float32."""
    wide = tf.cast(biased(x, b), tf.float32)
    tanh = tf.tanh(GELU_SCALE * (wide + GELU_CUBE * wide * wide * wide))
    return tf.cast(0.5 * wide * (1.0 + tanh), x.dtype)


def _add_gradient(h, x, b, dy):
    return dy, tf.reshape(dy, x.shape), column_sums(dy)


@compiled(_add_gradient)
def add(h, x, b):
    """h [..., C] + x [N, C] + b [C] float32, as h."""
    return h + tf.reshape(biased(x, b), h.shape)


def _add_dropped_gradient(h, x, b, mask, dy, *, rate):
    dx = run_compiled(dropped, dy, mask, rate=rate)
    return dy, tf.reshape(dx, x.shape), column_sums(dx), None


@compiled(_add_dropped_gradient)
def add_dropped(h, x, b, mask, *, rate):
    """h [..., C] + dropped(x [N, C] + b [C] float32) by `mask`, bool [..., C], as h."""
    return h + dropped(tf.reshape(biased(x, b), h.shape), mask, rate=rate)
