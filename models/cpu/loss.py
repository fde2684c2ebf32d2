"""The loss: logits some rows at a time, their gradients computed with them, and the sum of the table's two gradients.

B batch, T positions, N = B T rows, C width, V vocabulary.  Softmax and loss are computed in float32 whatever the dtype
of the activations.
"""
import tensorflow.compat.v1 as tf

from configs.constants import HIDDEN, IGNORED
from models.cpu.attention import softmax_pieces
from models.cpu.compiled import on_cpu, run_compiled
from models.cpu.mlp import column_sums, rows_of

COLUMNS = 64  # of a matrix that oneDNN takes at a time
ROWS = 256  # of logits in memory at a time, as few as oneDNN multiplies at nearly full speed


def token_losses(hidden, wte, labels):
    """Computes gpt2.token_losses, faster on CPUs.

    Softmax, gather and a gradient by hand cost a third of `tf.nn.sparse_softmax_cross_entropy_with_logits` on CPUs and
    keep one [N, V] tensor for the backward pass.
    """
    counted, ids = _counted(labels)
    rows = tf.cast(rows_of(hidden), tf.float32)

    @tf.custom_gradient
    def losses(logits):
        probabilities = tf.nn.softmax(logits)

        def gradient(upstream):
            at_labels = tf.stack([tf.range(ids.shape[0], dtype=tf.int32), ids], 1)
            return tf.tensor_scatter_nd_sub(probabilities * upstream[:, None], at_labels, upstream)
        # log(sum(exp(logits))) by way of the largest probability, which is at least 1/V: the label's own may be 0.
        log_sum = tf.reduce_max(logits, -1) - tf.math.log(tf.reduce_max(probabilities, -1))
        return log_sum - tf.gather(logits, ids, batch_dims=1), gradient
    every = losses(tf.matmul(rows, wte, transpose_b=True))
    return tf.reshape(tf.where_v2(counted, every, 0.0), labels.shape)


def _counted(labels):
    """(which of the labels count, bool [N]; the labels with an id in place of those that do not, int32 [N])."""
    labels = tf.reshape(labels, [-1])
    counted = tf.not_equal(labels, IGNORED)
    return counted, tf.where_v2(counted, labels, tf.zeros_like(labels))


def mean_loss(hidden, wte, labels):
    """Computes gpt2.mean_loss, faster on CPUs; under bfloat16, logits and gradients are rounded to bfloat16.

    All other products round so, too.  The logits are rounded less their mean over the vocabulary, because the rounding
    is relative to their size, and GPT-2's are around -80.  The gradient of wte comes in the dtype of `hidden`.
    """
    counted, ids = _counted(labels)
    vocabulary = wte.shape[0]

    @tf.custom_gradient
    def losses(hidden, wte):
        rows, table = rows_of(hidden), _output_layer(wte, hidden.dtype)
        every, to_logits = _losses_by_rows(rows, table, ids, vocabulary)

        def gradient(upstream):
            def scaled(x):  # in float32: most numbers of rows are not powers of two
                return tf.cast(tf.cast(x, tf.float32) * upstream[:, None], x.dtype)
            # A row's gradients sum to zero: their product with the table less its mean is that with the table.
            return (tf.reshape(scaled(tf.matmul(to_logits, table)), hidden.shape),
                    tf.matmul(to_logits, scaled(rows), transpose_a=True)[:vocabulary])
        return every, gradient
    return tf.reduce_mean(tf.where_v2(counted, losses(hidden, wte), 0.0))


def _output_layer(wte, dtype):
    """wte float32 [V, C] itself; or for bfloat16, wte less its mean row, with rows of zeros: [a multiple of 64, C]."""
    if dtype == tf.float32:
        return wte
    rows = -(-wte.shape[0] // COLUMNS) * COLUMNS  # products of 50,257 take half as long again in bfloat16
    return run_compiled(_centred, wte, column_sums(wte) / wte.shape[0], dtype=dtype, rows=rows)


def _centred(wte, mean, *, dtype, rows):
    return tf.pad(tf.cast(wte - mean, dtype), [[0, rows - wte.shape[0]], [0, 0]])


def _losses_by_rows(hidden, table, labels, vocabulary):
    """(losses float32 [N], their gradients with respect to the logits [N, columns] in the dtype of hidden [N, C]).

    What `table` [columns, C] holds behind the vocabulary is no token.  Some rows at a time, so that the logits of all
    are never in memory: an idea of Liger Kernel (https://arxiv.org/abs/2410.10989).
    """
    count = hidden.shape[0]
    losses, done = [], [hidden]
    with tf.control_dependencies(done):
        to_logits = tf.raw_ops.Empty(shape=[count, table.shape[0]], dtype=hidden.dtype)
    for first in range(0, count, ROWS):
        rows = slice(first, min(first + ROWS, count))
        with tf.control_dependencies(done):
            logits = tf.matmul(hidden[rows], table, transpose_b=True)
        loss, piece = run_compiled(_losses_and_gradients, logits, labels[rows], vocabulary=vocabulary)
        losses.append(loss)
        to_logits = tf.raw_ops.InplaceUpdate(x=to_logits, i=tf.range(rows.start, rows.stop), v=piece)
        done = [loss, to_logits]
    return tf.concat(losses, 0), to_logits


def _losses_and_gradients(logits, labels, *, vocabulary):
    """Computes what _losses_by_rows returns from all logits [N, columns] at once."""
    wide, columns = tf.cast(logits, tf.float32), tf.range(logits.shape[1])
    if logits.shape[1] > vocabulary:
        wide = tf.where_v2(columns < vocabulary, wide, HIDDEN)
    powers, total, log_sum = softmax_pieces(wide)
    losses = log_sum[:, 0] - tf.gather(wide, labels, batch_dims=1)
    return losses, tf.cast(powers / total - tf.cast(tf.equal(columns, labels[:, None]), tf.float32), logits.dtype)


def two_uses(wte):
    """(wte to embed by, wte as the output layer): in a training on CPUs, their two gradients are summed in place.

    TensorFlow would write the gradient of the first, some rows, into an array of zeros as large as the table, and the
    sum into another.  Only one tf.gather may use the first, and only mean_loss the second: its gradient is overwritten.
    """
    if not on_cpu():
        return wte, wte

    @tf.custom_gradient
    def run(wte):
        def gradient(embedded, output):
            with tf.control_dependencies([embedded.values]):  # a copy in float32 not before it is wanted
                total = tf.cast(output, tf.float32)
            return tf.raw_ops.InplaceAdd(x=total, i=embedded.indices, v=embedded.values)
        return (tf.identity(wte), tf.identity(wte)), gradient
    return run(wte)
