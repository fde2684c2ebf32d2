"""The few functions whose numerics or speed decide the quality of the model: norm, GELU, attention, dropout, loss.

B batch, T new positions, S positions attended to, H heads, D head size, V vocabulary, N rows.
Statistics, softmax and loss are computed in float32 whatever the dtype of the activations.
"""
import math

import tensorflow.compat.v1 as tf

NORM_EPSILON = 1e-5
IGNORED = -1  # a label that does not count: padding of the evaluation's last window and batch
RANDOM = "philox"  # the same everywhere; yet a graph compiled by XLA draws other bits from the same seed (TF 2.15)
PHILOX = 1  # its number for raw operations
NUMBERS_A_COUNT = 4  # that Philox makes from one value of its counter


def sizes(x):
    """The list of x's dimensions: a number where it is known, else a tensor (a saved model takes any batch)."""
    known = x.shape.as_list()
    return known if None not in known else [tf.shape(x)[i] if n is None else n for i, n in enumerate(known)]


def norm(x, g, b):
    """Layer normalisation over the last axis; x [..., C] of any float dtype, g and b [C] float32 -> as x."""
    wide = tf.cast(x, tf.float32)
    centred = wide - tf.reduce_mean(wide, -1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
    return tf.cast(centred * tf.math.rsqrt(variance + NORM_EPSILON) * g + b, x.dtype)


def gelu(x):
    """GELU with the tanh approximation, which GPT-2 was trained with (https://arxiv.org/abs/1606.08415)."""
    return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def linear(x, w, b):
    """x [..., I] times w [1, I, O] plus b [O] -> [..., O].  The leading 1 is OpenAI's checkpoint format.

    A w without it is one that stands transposed, [O, I].
    """
    rows = tf.reshape(x, [-1, w.shape[1]])
    product = tf.matmul(rows, w, transpose_b=True) if w.shape.rank == 2 else tf.matmul(rows, w[0])
    return tf.reshape(product + b, sizes(x)[:-1] + [b.shape[0]])


def dropout(x, rate, noise, site):
    """Inverted dropout of x [B, ...]; no op where `rate` is 0 or `noise` is None (evaluation, generation).

    noise(site, shape) -> uniform float32 in [0, 1) of that shape: `row_noise`, of another seed for each site.
    """
    if not rate or noise is None:
        return x
    return tf.where_v2(noise(site, x.shape.as_list()) >= rate, x / (1.0 - rate), tf.zeros_like(x))


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


def attention(q, k, v, *, visible, drop=None):
    """Masked attention: q [B, H, T, D]; k, v [B, H, S, D]; visible bool [T, S] or [B, 1, T, S] -> [B, H, T, D].

    `drop` is a function of the attention weights, float32 [B, H, T, S].
    """
    # The factor goes onto q: behind the product it would be fused into an operation 4 times slower on CPUs.
    scores = tf.matmul(q * tf.cast(q.shape[-1] ** -0.5, q.dtype), k, transpose_b=True)  # [B, H, T, S]
    scores = tf.where_v2(visible, tf.cast(scores, tf.float32), -1e9)
    weights = tf.nn.softmax(scores)
    weights = drop(weights) if drop else weights
    return tf.matmul(tf.cast(weights, v.dtype), v)


def cross_entropy(logits, labels):
    """Negative log-likelihood of each label: logits float32 [N, V], labels int32 [N] -> float32 [N].

    Rows whose label is IGNORED give 0 and no gradient.  Softmax, gather and a hand-written gradient cost a third
    of `tf.nn.sparse_softmax_cross_entropy_with_logits` on CPUs and keep one [N, V] tensor for the backward pass.
    """
    counted = tf.not_equal(labels, IGNORED)
    labels = tf.where_v2(counted, labels, tf.zeros_like(labels))

    @tf.custom_gradient
    def losses(logits):
        probabilities = tf.nn.softmax(logits)
        # log(sum(exp(logits))) by way of the largest probability, which is at least 1/V: the label's own may be 0.
        log_sum = tf.reduce_max(logits, -1) - tf.math.log(tf.reduce_max(probabilities, -1))
        at_label = tf.gather(logits, labels, batch_dims=1)

        def gradient(upstream):
            rows = tf.range(labels.shape[0], dtype=tf.int32)
            indices = tf.stack([rows, labels], 1)
            scaled = probabilities * upstream[:, None]
            return tf.tensor_scatter_nd_sub(scaled, indices, upstream)
        return log_sum - at_label, gradient
    return tf.where_v2(counted, losses(logits), 0.0)


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
