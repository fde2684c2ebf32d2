"""Attention of a layer: without a cache in blocks of queries that keep no weights for the gradient.

B batch, T new positions, S positions attended to, C width, H heads, D head size, N = B T rows.  The softmax is computed
in float32 whatever the dtype of the activations.
"""
import functools

import tensorflow.compat.v1 as tf

from configs.constants import HIDDEN
from models.cpu.compiled import Recomputed, again, compiled, run_compiled
from models.cpu.mlp import add_to_residual, biased, column_sums, norm, product
from models.cpu.philox import keep_mask
from models.dropout import dropped

BLOCK = 256  # queries that attention takes at a time


def attn(h, w, n_head, drop, cache=None):
    """Computes gpt2.attn, faster on CPUs."""
    x = norm.recomputed(h, w["ln_1/g"], w["ln_1/b"])
    q, k, v = heads(product(x, w["attn/c_attn/w"]), w["attn/c_attn/b"], n_head=n_head, time=h.shape[1])
    if cache:
        x = masked_attention(q, *cache.append(k, v))
    else:
        x = causal_attention(q, k, v, drop.attention)
    x = Recomputed(_merge_heads, _merge_heads_gradient, (x,))  # [N, C]
    return add_to_residual(h, product(x, w["attn/c_proj/w"]), w["attn/c_proj/b"], drop.attn)


def _heads_gradient(x, b, dq, dk, dv, *, n_head, time):
    dx = tf.stack([dq * tf.cast(dq.shape[-1] ** -0.5, dq.dtype), dk, dv])  # [3, B, H, T, D]
    dx = tf.reshape(tf.transpose(dx, [1, 3, 0, 2, 4]), x.shape)
    return dx, column_sums(dx)


@compiled(_heads_gradient)
def heads(x, b, *, n_head, time):
    """x [B * T, 3C] plus b [3C] float32 -> q / sqrt(D), k, v [B, H, T, D] each; T is `time`.

    The factor stands at q: behind the product, TensorFlow would fuse it into an operation 4 times slower on CPUs.
    """
    rows, width = x.shape
    size = width // 3 // n_head
    x = tf.reshape(biased(x, b), [rows // time, time, 3, n_head, size])  # [B, T, 3, H, D]
    q, k, v = tf.unstack(tf.transpose(x, [2, 0, 3, 1, 4]))  # [B, H, T, D] each
    return q * tf.cast(size ** -0.5, x.dtype), k, v


def _merge_heads(x):
    """[B, H, T, D] -> [N, C]; one operation already, so that nothing is gained by compiling it."""
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, x.shape[1] * x.shape[3]])


def _merge_heads_gradient(x, dy):
    batch, n_head, time, size = x.shape
    return [tf.transpose(tf.reshape(dy, [batch, time, n_head, size]), [0, 2, 1, 3])]


def masked_attention(q, k, v, mask):
    """Like gpt2.attention without dropout, but q is already divided by sqrt(D)."""
    weights = tf.nn.softmax(run_compiled(_masked, tf.matmul(q, k, transpose_b=True), mask))  # [B, H, T, S]
    return tf.matmul(tf.cast(weights, v.dtype), v)  # [B, H, T, D]


def _masked(scores, mask):
    return tf.cast(scores, tf.float32) + mask


def causal_attention(q, k, v, drop):
    """Attention in which each of the T = S positions sees itself and those before it.

    A block of queries at a time, each with the keys up to its own end: a third less to multiply at four blocks.  The
    gradient computes the weights again from the logarithms of the softmax' sums, as FlashAttention does
    (https://arxiv.org/abs/2205.14135), unless they are few.  Of dropout, the mask is kept: a byte for each weight.
    """
    batch, n_head, time, _ = q.shape
    blocks = [(first, min(first + BLOCK, time)) for first in range(0, time, BLOCK)]
    whole = [keep_mask(drop, [batch, n_head, time, time], q)] if drop.rate else []
    masks = [[mask[:, :, first:end, :end] for mask in whole] for first, end in blocks]

    @tf.custom_gradient
    def run(q, k, v):
        outputs, softmaxes = [], []
        for (first, end), mask in zip(blocks, masks):
            scores = tf.matmul(q[:, :, first:end], k[:, :, :end], transpose_b=True)
            weights, log_sum = run_compiled(_causal_softmax, scores, *mask, first=first, rate=drop.rate)
            outputs.append(tf.matmul(weights, v[:, :, :end]))
            softmaxes.append((weights, log_sum))

        def gradient(upstream):
            to_q, to_k, to_v = [], [], []
            with tf.control_dependencies([upstream]):  # or slices are merged with those of the forward pass, and kept
                again_q, again_k, again_v = (tf.identity(x) for x in (q, k, v))
            for (first, end), mask, (weights, log_sum) in zip(blocks, masks, softmaxes):
                queries, keys, above = again_q[:, :, first:end], again_k[:, :, :end], upstream[:, :, first:end]
                without_dropout = functools.partial(_weights_again, queries, keys, log_sum, first)
                weights = without_dropout() if mask else again(weights, without_dropout)
                to_scores = run_compiled(_softmax_gradient, weights,
                                         tf.matmul(above, again_v[:, :, :end], transpose_b=True), *mask, rate=drop.rate)
                dropped_weights = run_compiled(dropped, weights, *mask, rate=drop.rate) if mask else weights
                to_q.append(tf.matmul(to_scores, keys))
                to_k.append(tf.matmul(to_scores, queries, transpose_a=True))
                to_v.append(tf.matmul(dropped_weights, above, transpose_a=True))

            def summed(pieces):
                return tf.concat([tf.add_n([piece[:, :, first:end] for piece in pieces[number:]])
                                  for number, (first, end) in enumerate(blocks)], 2)
            return tf.concat(to_q, 2), summed(to_k), summed(to_v)
        return tf.concat(outputs, 2), gradient
    return run(q, k, v)


def softmax_pieces(x):
    """(exp(x - largest), the sum of that, log(sum(exp(x)))) along the last axis of x [..., N] float32, sums [..., 1].

    For run_compiled.  The largest is found by comparing quarters, because XLA compares one number after the other
    (TensorFlow 2.15.1): 10 to 20 % less time for all of it.
    """
    width = -(-x.shape[-1] // 4)
    quarters = [x[..., first:first + width] for first in (min(i * width, x.shape[-1] - width) for i in range(4))]
    largest = tf.reduce_max(functools.reduce(tf.maximum, quarters), -1, keepdims=True)
    powers = tf.exp(x - largest)
    total = tf.reduce_sum(powers, -1, keepdims=True)
    return powers, total, largest + tf.math.log(total)


def _causal(scores, first):
    """scores [..., T, S] of queries `first`... and keys 0..., float32: HIDDEN where a key stands behind its query."""
    queries, keys = (tf.range(size) for size in scores.shape[-2:])
    return tf.where_v2(keys <= first + queries[:, None], tf.cast(scores, tf.float32), HIDDEN)


def _dropped(x, *mask, rate):
    """Dropout of x by the mask, if there is one."""
    return dropped(x, *mask, rate=rate) if mask else x


def _causal_softmax(scores, *mask, first, rate):
    """(softmax as scores, with dropout; logarithm of its sum of powers [..., T, 1] float32)."""
    powers, total, log_sum = softmax_pieces(_causal(scores, first))
    return _dropped(tf.cast(powers / total, scores.dtype), *mask, rate=rate), log_sum


def _weights_again(queries, keys, log_sum, first):
    scores = tf.matmul(queries, keys, transpose_b=True)
    return run_compiled(_causal_softmax_again, scores, log_sum, first=first)


def _causal_softmax_again(scores, log_sum, *, first):
    return tf.cast(tf.exp(_causal(scores, first) - log_sum), scores.dtype)


def _softmax_gradient(weights, upstream, *mask, rate):
    """Gradient of the scores, for `upstream`, that of the weights behind dropout."""
    wide, upstream = tf.cast(weights, tf.float32), tf.cast(_dropped(upstream, *mask, rate=rate), tf.float32)
    inner = tf.reduce_sum(wide * upstream, -1, keepdims=True)
    return tf.cast(wide * (upstream - inner), weights.dtype)
