"""The training scalars on their way out of the graph: by a collection on CPUs and GPUs, by host_call on TPUs."""
import tensorflow as tf2
import tensorflow.compat.v1 as tf

COLLECTION = "training_scalars/"  # graph collections of this name and the scalar's, one tensor each
NAMES = ("loss", "learning_rate", "gradient_norm")


def collect(scalars):
    """Leaves {name: scalar tensor} where a session hook finds them (`collected`)."""
    for name in NAMES:
        tf.add_to_collection(COLLECTION + name, scalars[name])


def collected():
    """{name: scalar tensor} of the default graph; empty on a TPU."""
    return {name: tensor for name in NAMES for tensor in tf.get_collection(COLLECTION + name)}


def host_call(step, scalars, model_dir):
    """A host_call that writes {name: scalar} to TensorBoard; inside a TPU's program there are no summaries.

    `step` int64 [] must have been read before the update, else the two race for the number.
    """
    def write(step, *values):
        writer = tf2.summary.create_file_writer(model_dir, max_queue=1000)
        with writer.as_default(), tf2.summary.record_if(True):
            for name, value in zip(NAMES, values):
                tf2.summary.scalar(name, tf.reduce_mean(value), step=step[0])
            return tf.summary.all_v2_summary_ops()
    return write, [tf.reshape(x, [1]) for x in [step] + [scalars[name] for name in NAMES]]  # [1]: a batch axis
