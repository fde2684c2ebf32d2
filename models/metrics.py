"""Scalars on their way out of the graph: those of a training step, and the mean loss of an evaluation.

On CPUs and GPUs, hooks read them from a collection of the graph.  A TPU's program writes them by a host_call; of the
steps that it makes in one run, the host sees the loss of the last.
"""
import tensorflow as tf2
import tensorflow.compat.v1 as tf

COLLECTION = "training_scalars/"  # graph collections of this name and the scalar's, one tensor each
# What they are called in TensorBoard, whose page is in the order of the alphabet: the loss comes first.
TAGS = {"loss": "loss", "learning_rate": "progress/learning_rate", "gradient_norm": "progress/gradient_norm"}


def show(scalars, step, model_dir, use_tpu):
    """Leaves {name: scalar tensor} of a training step where hooks find them (`collected`); on a TPU, whose program can
    write no summaries, returns the host_call that writes them to TensorBoard, at the step that the update makes.

    `step` int64 [] is the global step before the update: it must have been read before, or the two race.
    """
    if not use_tpu:
        for name in TAGS:
            tf.add_to_collection(COLLECTION + name, scalars[name])
        return None

    def write(step, *values):
        writer = tf2.summary.create_file_writer(model_dir, max_queue=1000)
        with writer.as_default(), tf2.summary.record_if(True):
            for tag, value in zip(TAGS.values(), values):
                tf2.summary.scalar(tag, tf.reduce_mean(value), step=step[0] + 1)
            return tf.summary.all_v2_summary_ops()
    return write, [tf.reshape(x, [1]) for x in [step] + [scalars[name] for name in TAGS]]  # [1]: a batch axis


def collected():
    """{name: scalar tensor} of the default graph; on a TPU only "loss", that of the last step of a run."""
    found = {name: tensor for name in TAGS for tensor in tf.get_collection(COLLECTION + name)}
    return found or dict(zip(["loss"], tf.get_collection(tf.GraphKeys.LOSSES)))  # where TPUEstimator puts it


def of_each_step(scalars):
    """Whether what is `collected` (names) tells of each step, as on CPUs and GPUs."""
    return len(scalars) == len(TAGS)


def loss_and_perplexity(losses, counts):
    """The eval_metrics of token losses and counts, float32 [B, T]: the mean of all tokens (not of each batch), its exp.

    Not by tf.metrics.mean, which adds up in float32, where a set of a billion tokens loses its fourth digit.
    """
    sums = [tf.Variable(lambda: tf.zeros([], tf.float64), trainable=False, name=name,
                        collections=[tf.GraphKeys.LOCAL_VARIABLES, tf.GraphKeys.METRIC_VARIABLES],
                        synchronization=tf.VariableSynchronization.ON_READ, aggregation=tf.VariableAggregation.SUM)
            for name in ("sum_of_losses", "number_of_tokens")]
    update = tf.group(*[total.assign_add(tf.reduce_sum(tf.cast(batch, tf.float64)))
                        for total, batch in zip(sums, (losses, counts))])
    mean = tf.math.divide_no_nan(*sums)
    return {"token_loss": (mean, update), "perplexity": (tf.exp(mean), update)}
