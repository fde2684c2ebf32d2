"""Muon's orthogonal matrix by fewer operations."""
import tensorflow.compat.v1 as tf

from configs.constants import MUON_POLYNOMIAL, MUON_STEPS
from models.cpu.compiled import on_cpu

LONGER = 1.5  # a side than the other, from where on it pays


def pays(x, dtype):
    """Whether `orthogonal` may replace its formula.

    A square matrix gains nothing by it.  In bfloat16 its errors would grow from step to step.  GPUs and TPUs may round
    float32 products, so it is for CPUs alone.
    """
    short, long = sorted(x.shape.as_list())
    return on_cpu() and dtype == "float32" and long >= LONGER * short


def orthogonal(x, dtype):
    """Computes optimizers.orthogonal by products of the smaller Gram matrix, and two with x itself.

    All polynomials of a Gram matrix commute: it is q^2 g behind a step that multiplies x by q.  For sides 1 to 4 these
    are 25 products of the smaller side's square instead of 45.
    """
    a, b, c = MUON_POLYNOMIAL
    tall = x.shape[0] > x.shape[1]
    gram = tf.matmul(x, x, transpose_a=tall, transpose_b=not tall)
    same, whole = a * tf.eye(*gram.shape.as_list()), None
    for left in reversed(range(MUON_STEPS)):
        factor = same + b * gram + c * tf.matmul(gram, gram)
        whole = factor if whole is None else tf.matmul(factor, whole)
        if left:
            gram = tf.matmul(factor, tf.matmul(factor, gram))
    return tf.matmul(x, whole) if tall else tf.matmul(whole, x)
