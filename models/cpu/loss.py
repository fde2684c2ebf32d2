"""The output layer, which is the embedding's table: logits, their cross-entropy, and the fast ways to both on CPUs.

B batch, T positions, C width, V vocabulary, N rows.
Softmax and loss are computed in float32 whatever the dtype of the activations.
"""
import tensorflow.compat.v1 as tf

from models.cpu import attention
from models.cpu import block as layers
from models.cpu import packed as kept
from models.cpu.compiled import one_pass, pays

COLUMNS = 64  # of a matrix that oneDNN takes at a time
ROWS = 256  # of logits in memory at a time, as few as oneDNN multiplies at nearly full speed
LIKELIEST = 128  # logits of a row that generation in bfloat16 computes in float32
IGNORED = -1  # a label that does not count: padding of the evaluation's last window and batch


def logits_of(hidden, wte):
    """hidden [..., C], wte float32 [V, C] -> float32 [N, V]: the input embedding is the output layer too."""
    # In float32 for bfloat16 activations too: eight bits of a logit are too few to tell the likeliest tokens apart.
    # A training on CPUs, which needs only their gradients, does with less (`tied`).
    rows = tf.cast(layers.rows_of(hidden), tf.float32)
    return tf.matmul(rows, wte, transpose_b=True)


def quick_logits(hidden, wte, output):
    """`logits_of` hidden [B, C] where texts are generated, by `output`, a kept.Kept: wte itself, or wte less its mean
    row in bfloat16, which is half as much to read.

    Of the latter, each row's LIKELIEST logits are computed anew in float32: a bfloat16 logit of -80 is one of -80.5 as
    well.  The others are off by 1/512 of their distance from the row's mean and the rounding of the table, which is
    about what the rounding of `hidden` has done before (benchmarks/RESULTS.md).
    """
    if output.matrix.dtype == tf.float32:
        return kept.dense(tf.cast(hidden, tf.float32), output)
    found = tf.cast(kept.dense(hidden, output), tf.float32)  # [B, V], each row less a number of its own
    rough, ids = tf.math.top_k(found, min(LIKELIEST, wte.shape[0]), sorted=False)  # [B, K]
    exact = tf.matmul(tf.gather(wte, ids), tf.cast(hidden, tf.float32)[:, :, None])[:, :, 0]  # [B, K]
    found += tf.reduce_mean(exact - rough, 1, keepdims=True)
    places = tf.stack([tf.range(layers.sizes(ids)[0])[:, None] + tf.zeros_like(ids), ids], 2)
    return tf.tensor_scatter_nd_update(found, places, exact)


def cross_entropy(logits, labels):
    """Negative log-likelihood of each label: logits float32 [N, V], labels int32 [N] -> float32 [N].

    Rows whose label is IGNORED give 0 and no gradient.  Softmax, gather and a hand-written gradient cost a third
    of `tf.nn.sparse_softmax_cross_entropy_with_logits` on CPUs and keep one [N, V] tensor for the backward pass.
    """
    counted, labels = _counted(labels)

    @tf.custom_gradient
    def losses(logits):
        probabilities = tf.nn.softmax(logits)

        def gradient(upstream):
            at_labels = tf.stack([tf.range(labels.shape[0], dtype=tf.int32), labels], 1)
            return tf.tensor_scatter_nd_sub(probabilities * upstream[:, None], at_labels, upstream)
        # log(sum(exp(logits))) by way of the largest probability, which is at least 1/V: the label's own may be 0.
        log_sum = tf.reduce_max(logits, -1) - tf.math.log(tf.reduce_max(probabilities, -1))
        return log_sum - tf.gather(logits, labels, batch_dims=1), gradient
    return tf.where_v2(counted, losses(logits), 0.0)


def _counted(labels):
    """(which of the labels count, the labels with an id in place of those that do not)."""
    counted = tf.not_equal(labels, IGNORED)
    return counted, tf.where_v2(counted, labels, tf.zeros_like(labels))


def tied(wte, labels, dtype):
    """{"wte": wte float32 [V, C] to embed by, "output": the output layer as `token_losses` takes it, in `dtype`}.

    Without the latter where that does not pay (models/fused.py) for `labels`.  The gradient of both together is
    summed in place, for which nothing but one tf.gather may use the former, and nothing but token_losses the latter:
    its gradient is overwritten.
    """
    if not pays(wte, labels):
        return {"wte": wte}
    vocabulary = wte.shape[0]

    @tf.custom_gradient
    def run(wte):
        def gradient(embedded, output):
            if dtype != tf.float32:
                with tf.control_dependencies([embedded.values]):  # not before it is wanted
                    output = one_pass(_first_rows, output, count=vocabulary)
            return tf.raw_ops.InplaceAdd(x=output, i=embedded.indices, v=embedded.values)
        if dtype == tf.float32:
            return (tf.identity(wte), tf.identity(wte)), gradient
        rows = -(-vocabulary // COLUMNS) * COLUMNS  # products of 50,257 take half as long again in bfloat16
        mean = layers.column_sums(wte) / vocabulary
        return (tf.identity(wte), one_pass(_output_layer, wte, mean, dtype=dtype, rows=rows)), gradient
    return dict(zip(("wte", "output"), run(wte)))


def _output_layer(wte, mean, *, dtype, rows):
    return tf.pad(tf.cast(wte - mean, dtype), [[0, rows - wte.shape[0]], [0, 0]])


def _first_rows(x, *, count):
    return tf.cast(x[:count], tf.float32)


def token_losses(hidden, wte, labels, output=None):
    """hidden [B, T, C], wte float32 [V, C], labels int32 [B, T] -> cross_entropy of the logits, float32 [N].

    With the `output` layer of `tied`, logits and their gradients are rounded to the dtype of `hidden`, as all other
    products are: logits less their mean over the vocabulary, because that is what the rounding is relative to, and
    GPT-2's is around -80.
    """
    labels = tf.reshape(labels, [-1])
    if output is None:
        return cross_entropy(logits_of(hidden, wte), labels)
    counted, labels = _counted(labels)

    @tf.custom_gradient
    def losses(hidden, output):
        rows = layers.rows_of(hidden)
        found, to_logits = _losses_by_rows(rows, output, labels, wte.shape[0])

        def gradient(upstream):
            def scaled(x):  # in float32: most numbers of rows are not powers of two
                return tf.cast(tf.cast(x, tf.float32) * upstream[:, None], x.dtype)
            # A row's gradients sum to zero: their product with the table less its mean is that with the table.
            return (tf.reshape(scaled(tf.matmul(to_logits, output)), hidden.shape),
                    tf.matmul(to_logits, scaled(rows), transpose_a=True))
        return found, gradient
    return tf.where_v2(counted, losses(hidden, output), 0.0)


def _losses_by_rows(hidden, output, labels, vocabulary):
    """(losses float32 [N], their gradients with respect to the logits [N, columns] in the dtype of hidden [N, C]).

    `output` [columns, C] is no token behind the vocabulary.  Some rows at a time, so that the logits of all are never
    in memory: an idea of Liger Kernel (https://arxiv.org/abs/2410.10989).
    """
    count = hidden.shape[0]
    found, done = [], [hidden]
    with tf.control_dependencies(done):
        to_logits = tf.raw_ops.Empty(shape=[count, output.shape[0]], dtype=hidden.dtype)
    for first in range(0, count, ROWS):
        rows = slice(first, min(first + ROWS, count))
        with tf.control_dependencies(done):
            logits = tf.matmul(hidden[rows], output, transpose_b=True)
        losses, piece = one_pass(_losses_and_gradients, logits, labels[rows], vocabulary=vocabulary)
        found.append(losses)
        to_logits = tf.raw_ops.InplaceUpdate(x=to_logits, i=tf.range(rows.start, rows.stop), v=piece)
        done = [losses, to_logits]
    return tf.concat(found, 0), to_logits


def _losses_and_gradients(logits, labels, *, vocabulary):
    """As _losses_by_rows, of the logits [N, columns]."""
    wide, columns = tf.cast(logits, tf.float32), tf.range(logits.shape[1])
    if logits.shape[1] > vocabulary:
        wide = tf.where_v2(columns < vocabulary, wide, attention.HIDDEN)
    powers, total, log_sum = attention.softmax_pieces(wide)
    losses = log_sum[:, 0] - tf.gather(wide, labels, batch_dims=1)
    return losses, tf.cast(powers / total - tf.cast(tf.equal(columns, labels[:, None]), tf.float32), logits.dtype)
