"""The few functions whose numerics or speed decide the quality of the model: norm, GELU, attention, dropout.

B batch, T new positions, S positions attended to, H heads, D head size, N rows.  models/lm_head.py has the loss.
Statistics and softmax are computed in float32 whatever the dtype of the activations.
"""
import functools
import math

import tensorflow.compat.v1 as tf

from models import kept
from models.fused import Late, fused, one_pass, pays

NORM_EPSILON = 1e-5
GELU_SCALE, GELU_CUBE = math.sqrt(2 / math.pi), 0.044715
HIDDEN = -1e9  # the score of what attention may not see
BLOCK = 256  # queries that attention takes at a time
RANDOM = "philox"  # the same everywhere; yet a graph compiled by XLA draws other bits from the same seed (TF 2.15)
PHILOX = 1  # its number for raw operations
NUMBERS_A_COUNT = 4  # that Philox makes from one value of its counter


def unfolded_zero():
    """An int32 0 that TensorFlow does not know before it runs the graph.

    What a variable starts with would else be computed when the graph is built, and be kept as a constant beside the
    variable for as long as the session lasts (2.15.1): 0.8 GB for 124M weights and AdamW's means.
    """
    return tf.random.uniform([], maxval=1, dtype=tf.int32)


def sizes(x):
    """The list of x's dimensions: a number where it is known, else a tensor (a saved model takes any batch)."""
    known = x.shape.as_list()
    return known if None not in known else [tf.shape(x)[i] if n is None else n for i, n in enumerate(known)]


def column_sums(x):
    """Sums of x [..., C] over all but the last axis, float32 [C]: the gradient of a bias."""
    rows = tf.reshape(x, [-1, x.shape[-1]])
    # As a product: on CPUs a fifth of the time of `tf.reduce_sum`.
    return tf.cast(tf.matmul(tf.ones([1, rows.shape[0]], x.dtype), rows)[0], tf.float32)


def _standardise(x):
    """(x less its mean, over its deviation, along the last axis; one over that deviation), float32."""
    wide = tf.cast(x, tf.float32)
    centred = wide - tf.reduce_mean(wide, -1, keepdims=True)
    scale = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), -1, keepdims=True) + NORM_EPSILON)
    return centred * scale, scale


def _norm_pieces(x, g, dy):
    """(dx, what dg is the sum of) for the gradient dy of `norm`."""
    standard, scale = _standardise(x)
    dy = tf.cast(dy, tf.float32)
    inner = dy * g
    parallel = standard * tf.reduce_mean(inner * standard, -1, keepdims=True)
    dx = scale * (inner - tf.reduce_mean(inner, -1, keepdims=True) - parallel)
    return tf.cast(dx, x.dtype), dy * standard


def _norm_gradient(x, g, b, dy):
    dx, summed = one_pass(_norm_pieces, x, g, dy)
    return dx, column_sums(summed), column_sums(dy)


@fused(_norm_gradient)
def norm(x, g, b):
    """Layer normalisation over the last axis; x [..., C] of any float dtype, g and b [C] float32 -> as x."""
    return tf.cast(_standardise(x)[0] * g + b, x.dtype)


def biased(x, b):
    """x [N, C] + b [C], in x's dtype."""
    return tf.nn.bias_add(x, tf.cast(b, x.dtype))


def _gelu_piece(x, b, dy):
    x = tf.cast(biased(x, b), tf.float32)
    tanh = tf.tanh(GELU_SCALE * (x + GELU_CUBE * x * x * x))
    slope = GELU_SCALE * (1.0 + 3.0 * GELU_CUBE * x * x)
    return tf.cast(tf.cast(dy, tf.float32) * 0.5 * (1.0 + tanh + x * (1.0 - tanh * tanh) * slope), dy.dtype)


def _gelu_gradient(x, b, dy):
    dx = one_pass(_gelu_piece, x, b, dy)
    return dx, column_sums(dx)


@fused(_gelu_gradient)
def gelu(x, b):
    """GELU of x [N, C] plus b [C] float32, with the tanh approximation, which GPT-2 was trained with
    (https://arxiv.org/abs/1606.08415)."""
    wide = tf.cast(biased(x, b), tf.float32)
    tanh = tf.tanh(GELU_SCALE * (wide + GELU_CUBE * wide * wide * wide))
    return tf.cast(0.5 * wide * (1.0 + tanh), x.dtype)


def _add_gradient(h, x, b, dy):
    return dy, tf.reshape(dy, x.shape), column_sums(dy)


@fused(_add_gradient)
def add(h, x, b):
    """h + x + b: h [..., C], x [N, C], b [C] float32 -> as h."""
    return h + tf.reshape(biased(x, b), sizes(h))


def product(x, w):
    """x [..., I], or a Late of it, times w [1, I, O] -> [N, O] in x's dtype.

    The leading 1 is OpenAI's checkpoint format; a w without it stands transposed, [O, I], and is in x's dtype already
    (gpt2.keep_weights).
    """
    if isinstance(x, Late) and w.shape.rank == 3:
        return _late_product(x, w)
    rows = _rows(_value(x))
    return tf.matmul(rows, w, transpose_b=True) if w.shape.rank == 2 else tf.matmul(rows, _matrix(w, rows.dtype))


def _late_product(x, w):
    @tf.custom_gradient
    def run(w, *tensors):
        value = x.compute(*tensors)

        def backward(upstream):
            with tf.control_dependencies([upstream]):  # else they are those of the forward pass, and kept
                late, matrix = x.compute(*tensors), _matrix(w, upstream.dtype)
            to_x = tf.reshape(tf.matmul(upstream, matrix, transpose_b=True), value.shape)
            to_w = tf.matmul(_rows(late), upstream, transpose_a=True)
            return tf.reshape(to_w, w.shape), *x.gradient(*tensors, to_x)
        return tf.matmul(_rows(value), _matrix(w, value.dtype)), backward
    return run(w, *x.tensors)


def _value(x):
    return x.compute(*x.tensors) if isinstance(x, Late) else x


def _rows(x):
    return tf.reshape(x, [-1, x.shape[-1]])


def _matrix(w, dtype):
    # Reshaped, not indexed: the gradient of w[0] would be written into an array of zeros.  Cast before that: grappler
    # would turn it round, and then the cast waits for nothing (_late_product).
    return tf.reshape(tf.cast(w, dtype), w.shape[1:])


def _heads_gradient(x, b, dq, dk, dv, *, n_head, time):
    dx = tf.stack([dq * tf.cast(dq.shape[-1] ** -0.5, dq.dtype), dk, dv])  # [3, B, H, T, D]
    dx = tf.reshape(tf.transpose(dx, [1, 3, 0, 2, 4]), x.shape)
    return dx, column_sums(dx)


@fused(_heads_gradient)
def heads(x, b, *, n_head, time):
    """x [B * T, 3C] plus b [3C] float32 -> q / sqrt(D), k, v [B, H, T, D] each; T is `time`.

    The factor of attention goes onto q: behind the product it would be fused into an operation 4 times slower on CPUs.
    """
    return _split(biased(x, b), n_head=n_head, time=time)


def _split(x, *, n_head, time):
    rows, width = sizes(x)
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
    """`heads` of x [B, T, C] times w, both as in `product`; T is `time`, which a Late does not tell.

    w may be a kept.Kept, as for the functions below.
    """
    if isinstance(w, kept.Kept):
        return _split(kept.dense(_value(x), w, b), n_head=n_head, time=time)
    return heads(product(x, w), b, n_head=n_head, time=time)


def dense_gelu(x, w, b):
    """`gelu` of x [..., I] times w, or a Late of it."""
    return kept.dense(_value(x), w, b, gelu=True) if isinstance(w, kept.Kept) else gelu.late(product(x, w), b)


def dense_add(h, x, w, b):
    """`add` of h [..., C] and x [..., I] times w."""
    return kept.dense(_value(x), w, b, plus=h) if isinstance(w, kept.Kept) else add(h, product(x, w), b)


def dropout(x, rate, noise, site):
    """Inverted dropout of x [B, ...]; no op where `rate` is 0 or `noise` is None (evaluation, generation).

    noise(site, shape) -> uniform float32 in [0, 1) of that shape: `row_noise`, of another seed for each site.
    """
    if not rate or noise is None:
        return x
    scaled = tf.cast(tf.cast(x, tf.float32) / (1.0 - rate), x.dtype)  # bfloat16 would round the divisor, too
    return tf.where_v2(noise(site, x.shape.as_list()) >= rate, scaled, tf.zeros_like(x))


def row_noise(seed, first_row, shape):
    """Uniform float32 in [0, 1) of `shape` [B, ...]: rows first_row.. of an endless sequence that `seed` names.

    seed int32 [2]; first_row int32 [].  Stateless, because op-level seeds start over on resuming.  A row has its own
    stretch of the generator's counter, so that the noise of a sequence does not depend on the micro-batch it is in.
    """
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    blocks = -(-math.prod(shape[1:]) // NUMBERS_A_COUNT)  # of the generator, for one row
    skipped = tf.cast(first_row, tf.uint64) * tf.constant(blocks, tf.uint64)
    counter += tf.stack([skipped, tf.zeros_like(skipped)])  # its low and high half
    numbers = tf.raw_ops.StatelessRandomUniformV2(
        shape=[shape[0], blocks * NUMBERS_A_COUNT], key=key, counter=counter, alg=PHILOX, dtype=tf.float32)
    return tf.reshape(numbers[:, :math.prod(shape[1:])], shape)


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
    time = sizes(q)[2]
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


def recompute(function):
    """`function(x, *weights)` with the same gradients, keeping only its inputs until the backward pass.

    Activation checkpointing (https://arxiv.org/abs/1604.06174).  `tf.recompute_grad` does the same, but copies
    every weight to order the two passes; here only x carries that dependency.
    """
    @tf.custom_gradient
    def forward(x, *weights):
        def backward(upstream):
            # A dependency on data, not only on control, so that neither grappler nor XLA merges the two passes.
            first = tf.reshape(upstream, [-1])[0]
            zero = tf.where_v2(tf.equal(first, first), tf.zeros_like(first), first)
            again = x + zero
            inputs = [again, *weights]
            return tf.gradients(function(*inputs), inputs, upstream, stop_gradients=inputs)
        return function(x, *weights), backward
    return forward
