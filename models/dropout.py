"""Dropout with noise that a resumed run draws again, and activation checkpointing.

B sequences.  The noise is a function of (seed, step, site, place of the sequence in the global batch), where a site is
a place in the network, numbered from the embeddings up.  So it does not depend on restarts, on micro-batches or on the
number of devices.  Op-level seeds would start over in a resumed run.
"""
import math
from typing import Callable, NamedTuple, Optional, Union

import tensorflow.compat.v1 as tf

from configs.constants import PHILOX, RANDOM

NUMBERS_PER_COUNT = 4  # that Philox makes from one value of its counter


class Site(NamedTuple):
    """Dropout at one site, in one step: a function of a tensor [B, ...]."""
    rate: float = 0.0
    seed: Optional[tf.Tensor] = None  # int32 [2]
    first_row: Union[tf.Tensor, int] = 0  # place of the first sequence in the global batch, int []

    def keep_mask(self, shape, after):
        """Which elements of `shape` [B, ...] are kept, bool.

        Waits for the tensor `after`: else TensorFlow would draw the noise of all layers at the start of a step.
        """
        with tf.control_dependencies([after]):
            return noise(self.seed, self.first_row, shape) >= self.rate

    def __call__(self, x):
        return dropped(x, self.keep_mask(x.shape.as_list(), x), rate=self.rate) if self.rate else x


class LayerDropout(NamedTuple):
    """The dropout of one layer."""
    attention: Site = Site()  # of the attention weights
    attn: Site = Site()  # of what attention adds to the residual stream
    mlp: Site = Site()  # of what the MLP adds to it


class Dropout(NamedTuple):
    """The dropout of one training step."""
    embedding: Site  # of the sum of the embeddings
    layer: Callable  # number of the layer -> LayerDropout


NONE = Dropout(Site(), lambda layer: LayerDropout())  # of evaluation and generation


def of_step(config, step, first_row):
    """The Dropout of a global step, int [], for sequences that stand in the global batch from `first_row`, int [], on.
    """
    def at(number, rate):
        if not rate:
            return Site()
        base = tf.stack([tf.constant(config.seed, tf.int32), tf.cast(step, tf.int32)])
        return Site(rate, tf.random.experimental.stateless_fold_in(base, number, alg=RANDOM), first_row)

    def layer(i):
        return LayerDropout(at(3 * i + 1, config.attn_dropout), at(3 * i + 2, config.res_dropout),
                            at(3 * i + 3, config.res_dropout))
    return Dropout(at(0, config.embed_dropout), layer)


def dropped(x, mask, *, rate):
    """Inverted dropout: x / (1 - rate) where `mask`, bool of the shape of x, is true, else 0."""
    scaled = tf.cast(tf.cast(x, tf.float32) / (1.0 - rate), x.dtype)  # bfloat16 would round the divisor, too
    return tf.where_v2(mask, scaled, tf.zeros_like(x))


def noise(seed, first_row, shape):
    """Uniform float32 in [0, 1) of `shape` [B, ...]: rows `first_row`... of an endless sequence that `seed` names.

    seed int32 [2]; first_row int32 [].
    """
    key, counter, counts = philox_start(seed, first_row, shape)
    numbers = tf.raw_ops.StatelessRandomUniformV2(
        shape=[shape[0], counts * NUMBERS_PER_COUNT], key=key, counter=counter, alg=PHILOX, dtype=tf.float32)
    return tf.reshape(numbers[:, :math.prod(shape[1:])], shape)


def philox_start(seed, first_row, shape):
    """(key uint64 [1], counter uint64 [2], int): the state of Philox where the noise of `shape` begins.

    The counter has its low half first.  The last is how many values of the counter a row takes.

    Each row has its own stretch, so that the noise of a sequence does not depend on the micro-batch it is in.
    """
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=seed)
    counts = -(-math.prod(shape[1:]) // NUMBERS_PER_COUNT)
    skipped = tf.cast(first_row, tf.uint64) * tf.constant(counts, tf.uint64)
    return key, counter + tf.stack([skipped, tf.zeros_like(skipped)]), counts


def recompute(block):
    """`block(h, w, ...)` with the same gradients, of which only h is kept: the backward pass computes the rest again.

    Activation checkpointing (https://arxiv.org/abs/1604.06174).  `tf.recompute_grad` does the same, but copies every
    weight of the dict w to order the two passes; here only h carries that dependency.
    """
    def run(h, w, *rest):
        names = list(w)

        @tf.custom_gradient
        def forward(h, *values):
            def function(h, *values):
                return block(h, dict(zip(names, values)), *rest)

            def backward(upstream):
                # A dependency on data, not only on control, so that neither grappler nor XLA merges the two passes.
                first = tf.reshape(upstream, [-1])[0]
                zero = tf.where_v2(tf.equal(first, first), tf.zeros_like(first), first)
                inputs = [h + zero, *values]
                return tf.gradients(function(*inputs), inputs, upstream, stop_gradients=inputs)
            return function(h, *values), backward
        return forward(h, *w.values())
    return run
