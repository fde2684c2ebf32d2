"""The few functions whose numerics or speed decide the quality of the model: norm, GELU, products, dropout.

B batch, N rows.  models/attention.py has attention, models/lm_head.py the loss.
Statistics are computed in float32 whatever the dtype of the activations.
"""
import math

import tensorflow.compat.v1 as tf

from models.cpu import packed as kept
from models.cpu.compiled import Late, fused, one_pass

NORM_EPSILON = 1e-5
GELU_SCALE, GELU_CUBE = math.sqrt(2 / math.pi), 0.044715
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


def rows_of(x):
    """x [..., C] as [N, C]."""
    return tf.reshape(x, [-1, x.shape[-1]])


def column_sums(x):
    """Sums of x [..., C] over all but the last axis, float32 [C]: the gradient of a bias."""
    rows = rows_of(x)
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
    rows = rows_of(value_of(x))
    return tf.matmul(rows, w, transpose_b=True) if w.shape.rank == 2 else tf.matmul(rows, _matrix(w, rows.dtype))


def _late_product(x, w):
    @tf.custom_gradient
    def run(w, *tensors):
        value = x.compute(*tensors)

        def backward(upstream):
            with tf.control_dependencies([upstream]):  # else they are those of the forward pass, and kept
                late, matrix = x.compute(*tensors), _matrix(w, upstream.dtype)
            to_x = tf.reshape(tf.matmul(upstream, matrix, transpose_b=True), value.shape)
            to_w = tf.matmul(rows_of(late), upstream, transpose_a=True)
            return tf.reshape(to_w, w.shape), *x.gradient(*tensors, to_x)
        return tf.matmul(rows_of(value), _matrix(w, value.dtype)), backward
    return run(w, *x.tensors)


def value_of(x):
    """x, computed if it is a Late."""
    return x.compute(*x.tensors) if isinstance(x, Late) else x


def _matrix(w, dtype):
    # Reshaped, not indexed: the gradient of w[0] would be written into an array of zeros.  Cast before that: grappler
    # would turn it round, and then the cast waits for nothing (_late_product).
    return tf.reshape(tf.cast(w, dtype), w.shape[1:])


def dense_gelu(x, w, b):
    """`gelu` of x [..., I] times w, both as in `product`, or a Late of it; w may be a kept.Kept, as for dense_add."""
    return kept.dense(value_of(x), w, b, gelu=True) if isinstance(w, kept.Kept) else gelu.late(product(x, w), b)


def dense_add(h, x, w, b):
    """`add` of h [..., C] and x [..., I] times w."""
    return kept.dense(value_of(x), w, b, plus=h) if isinstance(w, kept.Kept) else add(h, product(x, w), b)


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
