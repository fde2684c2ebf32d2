"""Causal attention: queries, keys and values, the softmax between them, and its fast ways on CPUs.

B batch, T new positions, S positions attended to, H heads, D head size.
Softmax is computed in float32 whatever the dtype of the activations.
"""
import functools

import tensorflow.compat.v1 as tf

from models.cpu import block as layers
from models.cpu import packed as kept
from models.cpu.compiled import Late, fused, one_pass, pays

HIDDEN = -1e9  # the score of what attention may not see
BLOCK = 256  # queries that attention takes at a time


def _heads_gradient(x, b, dq, dk, dv, *, n_head, time):
    dx = tf.stack([dq * tf.cast(dq.shape[-1] ** -0.5, dq.dtype), dk, dv])  # [3, B, H, T, D]
    dx = tf.reshape(tf.transpose(dx, [1, 3, 0, 2, 4]), x.shape)
    return dx, layers.column_sums(dx)


@fused(_heads_gradient)
def heads(x, b, *, n_head, time):
    """x [B * T, 3C] plus b [3C] float32 -> q / sqrt(D), k, v [B, H, T, D] each; T is `time`.

    The factor of attention goes onto q: behind the product it would be fused into an operation 4 times slower on CPUs.
    """
    return _split(layers.biased(x, b), n_head=n_head, time=time)


def _split(x, *, n_head, time):
    rows, width = layers.sizes(x)
    size = width // 3 // n_head
    if isinstance(time, int) and time == 1:  # nothing to transpose
        q, k, v = tf.unstack(tf.reshape(x, [rows, 3, n_head, 1, size]), axis=1)  # [B, H, 1, D] each
    else:
        x = tf.reshape(x, [rows // time, time, 3, n_head, size])  # [B, T, 3, H, D]
        q, k, v = tf.unstack(tf.transpose(x, [2, 0, 3, 1, 4]))  # [B, H, T, D] each
    return q * tf.cast(size ** -0.5, x.dtype), k, v


def _beside(x):
    _, n_head, time, size = x.shape
    return tf.reshape(x if time == 1 else tf.transpose(x, [0, 2, 1, 3]), [-1, n_head * size])


def _beside_gradient(x, dy):
    batch, n_head, time, size = x.shape
    return [tf.transpose(tf.reshape(dy, [batch, time, n_head, size]), [0, 2, 1, 3])]


def beside(x):
    """The heads of x [B, H, T, D] beside one another: [BT, HD], or a Late of it."""
    # As it is written, for it is one operation already.
    return Late(_beside, _beside_gradient, (x,)) if pays(x) else _beside(x)


def dense_heads(x, w, b, *, n_head, time):
    """`heads` of x [B, T, C] times w, both as in layers.product; T is `time`, which a Late does not tell.

    w may be a kept.Kept.
    """
    if isinstance(w, kept.Kept):
        return _split(kept.dense(layers.value_of(x), w, b), n_head=n_head, time=time)
    return heads(layers.product(x, w), b, n_head=n_head, time=time)


def _softmax_piece(weights, upstream):
    wide, upstream = tf.cast(weights, tf.float32), tf.cast(upstream, tf.float32)
    inner = tf.reduce_sum(wide * upstream, -1, keepdims=True)
    return tf.cast(wide * (upstream - inner), weights.dtype)


def _masked(scores, visible):
    # Selected in the mask, which is smaller and the same for all layers, and added; scores are finite.
    return tf.cast(scores, tf.float32) + tf.where_v2(visible, 0.0, HIDDEN)


def _weights_of(scores, visible):
    masked = one_pass(_masked, scores, visible) if pays(scores, visible) else _masked(scores, visible)
    return tf.cast(tf.nn.softmax(masked), scores.dtype)


def masked_softmax(scores, visible):
    """Softmax over the last axis of scores [B, H, T, S] where `visible` bool [T, S] or [B, 1, T, S] -> as scores."""
    @tf.custom_gradient
    def run(scores):
        weights = _weights_of(scores, visible)
        return weights, lambda upstream: one_pass(_softmax_piece, weights, upstream)
    return run(scores) if pays(scores, visible) else _weights_of(scores, visible)


def attention(q, k, v, *, visible, drop=None):
    """Masked attention: q [B, H, T, D], over sqrt(D); k, v [B, H, S, D]; visible as in masked_softmax -> [B, H, T, D].

    `drop` is a function of the attention weights [B, H, T, S].
    """
    weights = masked_softmax(tf.matmul(q, k, transpose_b=True), visible)  # [B, H, T, S]
    return tf.matmul(drop(weights) if drop else weights, v)


def causal_attention(q, k, v, *, drop=None):
    """attention in which each of the T = S positions sees itself and what stands before it."""
    time = layers.sizes(q)[2]
    if drop or not pays(q, k, v):
        return attention(q, k, v, visible=tf.linalg.band_part(tf.ones([time, time], tf.bool), -1, 0), drop=drop)
    return _attention_by_blocks(q, k, v)


@tf.custom_gradient
def _attention_by_blocks(q, k, v):
    """A block of queries at a time, each with the keys up to its own end: a third less to multiply at four blocks.

    No weights are kept for the gradient, which takes them anew from the logarithms of the softmax' sums, as
    FlashAttention does (https://arxiv.org/abs/2205.14135).
    """
    time = q.shape[2]
    blocks = [(first, min(first + BLOCK, time)) for first in range(0, time, BLOCK)]
    found, log_sums = [], []
    for first, end in blocks:
        scores = tf.matmul(q[:, :, first:end], k[:, :, :end], transpose_b=True)
        weights, log_sum = one_pass(_causal_softmax, scores, first=first)
        found.append(tf.matmul(weights, v[:, :, :end]))
        log_sums.append(log_sum)

    def gradient(upstream):
        to_q, to_k, to_v = [], [], []
        with tf.control_dependencies([upstream]):  # else they are those of the forward pass, and kept
            late_q, late_k, late_v = (tf.identity(x) for x in (q, k, v))
        for (first, end), log_sum in zip(blocks, log_sums):
            queries, keys, above = late_q[:, :, first:end], late_k[:, :, :end], upstream[:, :, first:end]
            scores = tf.matmul(queries, keys, transpose_b=True)
            weights = one_pass(_causal_softmax_again, scores, log_sum, first=first)
            to_scores = one_pass(_softmax_piece, weights, tf.matmul(above, late_v[:, :, :end], transpose_b=True))
            to_q.append(tf.matmul(to_scores, keys))
            to_k.append(tf.matmul(to_scores, queries, transpose_a=True))
            to_v.append(tf.matmul(weights, above, transpose_a=True))

        def summed(pieces):
            return tf.concat([tf.add_n([piece[:, :, first:end] for piece in pieces[number:]])
                              for number, (first, end) in enumerate(blocks)], 2)
        return tf.concat(to_q, 2), summed(to_k), summed(to_v)
    return tf.concat(found, 2), gradient


def softmax_pieces(x):
    """(exp(x - largest), the sum of that, log(sum(exp(x)))) along the last axis of x [..., N] float32, sums [..., 1].

    For one_pass.  The largest is found by comparing quarters, because XLA takes one number after the
    other (2.15.1): 10 to 20 % less time for all of it.
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


def _causal_softmax(scores, *, first):
    """(softmax as scores, logarithm of its sum of powers [..., T, 1] float32)."""
    powers, total, log_sum = softmax_pieces(_causal(scores, first))
    return tf.cast(powers / total, scores.dtype), log_sum


def _causal_softmax_again(scores, log_sum, *, first):
    return tf.cast(tf.exp(_causal(scores, first) - log_sum), scores.dtype)
