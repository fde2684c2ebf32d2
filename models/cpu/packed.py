"""Products with matrices that stay what they are as long as a session: generation's, token after token.

oneDNN multiplies a few rows up to three times as fast by a matrix in a layout of its own.  TensorFlow's operation
arranges a matrix that is marked as constant in its first run and keeps the result: a second copy of it in memory.
"""
import functools
import os
from typing import NamedTuple

import tensorflow.compat.v1 as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.framework import op_def_library

# What grappler makes of a product with a bias.  It would mark constants alone, and what a loop reads is none.
OP, KERNEL = "_MklNativeFusedMatMul", attr_value_pb2.AttrValue(s=b"MklNameChangeOp")
SWITCH = "TF_ENABLE_ONEDNN_OPTS"  # TensorFlow's own


class Kept(NamedTuple):
    """A matrix that `dense` may keep."""
    matrix: tf.Tensor  # [O, I]


def dense(x, kept, b=None, *, gelu=False, plus=None):
    """x [..., I] times the matrix of `kept`, plus b [O], in x's dtype -> [N, O].

    With `gelu`, its GELU (the tanh approximation); with `plus` [..., O], the sum with it, in its shape.  Each call
    keeps a copy of its own.
    """
    rows, matrix = tf.reshape(x, [-1, x.shape[-1]]), kept.matrix
    added = [tf.zeros(matrix.shape[:1], x.dtype) if b is None else tf.cast(b, x.dtype)]
    steps = ["BiasAdd"] + ["GeluApproximate"] * gelu
    if plus is not None:
        steps.append("Add")
        added.append(tf.reshape(plus, [-1, matrix.shape[0]]))
    found = op_def_library.apply_op(OP, a=rows, b=matrix, args=added, fused_ops=steps, is_filter_const=True,
                                    transpose_a=False, transpose_b=True, epsilon=0.0, leakyrelu_alpha=0.0,
                                    name="product")
    found.op._set_attr("_kernel", KERNEL)
    return found if plus is None else tf.reshape(found, tf.shape(plus))


def matrices(weights):
    """The weights {name: tensor or Kept} as tensors, for products of many rows, which gain nothing."""
    return {name: value.matrix if isinstance(value, Kept) else value for name, value in weights.items()}


@functools.lru_cache(maxsize=None)
def usable(dtype):
    """Whether TensorFlow has `dense` for `dtype` on this machine's processor, and no GPU does the work."""
    if tf.config.list_physical_devices("GPU") or os.environ.get(SWITCH, "").lower() in ("0", "false"):
        return False
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(dtype, [1, 1])
        try:
            session.run([dense(x, Kept(x), x[0], gelu=True), dense(x, Kept(x), x[0], plus=x)], {x: [[1.0]]})
        except (tf.errors.OpError, RuntimeError, TypeError, ValueError):  # no kernel, no such operation, or another
            return False
    return True
