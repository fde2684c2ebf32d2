"""What the replicas of one training step share: the cores of a TPU, or the devices of a tf.distribute strategy."""
import tensorflow.compat.v1 as tf
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.python.tpu import tpu_function

WISHES, AGREED = "training_stop/wish", "training_stop/agreed"  # collections of the graph


def number(use_tpu):
    """The place of this replica among all, int32 [] or int.  There is no public name for it inside a TPU's program."""
    return xla.replica_id() if use_tpu else tf.distribute.get_replica_context().replica_id_in_sync_group


def mean(tensors, use_tpu):
    """The tensors' means over all replicas, in float32; a single device gets the tensors as they are.

    The devices of a strategy also agree here on whether to stop (`stop_tensors`).
    """
    if use_tpu:
        # The number of cores stands in no public place while a TPU's program is built (TensorFlow 2.15.1).
        cores = tpu_function.get_tpu_context().number_of_shards or 1
        return [tf.tpu.cross_replica_sum(tf.cast(tensor, tf.float32)) / cores for tensor in tensors]
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return tensors

    def reduce(strategy, tensors):
        return strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.MEAN, [(tensor, tensor) for tensor in tensors])
    wish = tf.placeholder_with_default(0.0, [])
    tf.add_to_collection(WISHES, wish)
    tensors = [*(tf.cast(tensor, tf.float32) for tensor in tensors), wish]
    # Not ReplicaContext.all_reduce, which an Estimator's graph does not know (TensorFlow 2.15.1).
    *means, agreed = tf.distribute.get_replica_context().merge_call(reduce, args=(tensors,))
    tf.add_to_collection(AGREED, agreed)
    return means


def stop_tensors():
    """(the replicas' wishes to stop, float32 [], 0 unless a hook feeds them; their mean: above 0, all are to stop)."""
    return tf.get_collection(WISHES), tf.get_collection(AGREED)[-1]
