"""The weights as variables of a graph, and the values that they start with."""
import tensorflow.compat.v1 as tf

from configs.constants import PHILOX
from models.weights import SCOPE, weight_list


def create_variables(config):
    """{name: float32 variable} for every weight.  The starting values depend on the config's seed alone."""
    with tf.init_scope():  # outside of a TPU's program, as starting values are
        zero = unfolded_zero()

    def initialiser(weight, number):
        def values(shape, dtype=None, partition_info=None):
            if not weight.deviation:
                return tf.fill(shape, weight.mean)
            # tf.random.stateless_normal gives the same by many more operations: half a second for 124M.
            key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=zero + [config.seed, number])
            return weight.deviation * tf.raw_ops.StatelessRandomNormalV2(
                shape=shape, key=key, counter=counter, alg=PHILOX, dtype=tf.float32)
        return values

    with tf.variable_scope(SCOPE, reuse=tf.AUTO_REUSE, use_resource=True):
        return {weight.name: tf.get_variable(weight.name, weight.shape, initializer=initialiser(weight, number))
                for number, weight in enumerate(weight_list(config))}


def empty_variables(kinds):
    """{name: variable} of {name: (shape, dtype)}, without starting values: their initialisers must be fed."""
    with tf.variable_scope(SCOPE, reuse=tf.AUTO_REUSE, use_resource=True):
        return {name: tf.get_variable(name, dtype=dtype, initializer=tf.placeholder(dtype, shape))
                for name, (shape, dtype) in kinds.items()}


def starting_value(config, name):
    """The values that the variable `name` of create_variables starts with, float32."""
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(create_variables(config)[name].initial_value)


def unfolded_zero():
    """An int32 0 that TensorFlow does not know before it runs the graph.

    Values that it knows are computed when the graph is built, and kept as a constant beside the variable for as long as
    the session lasts (TensorFlow 2.15.1): 0.8 GB for 124M weights and AdamW's means.
    """
    return tf.random.uniform([], maxval=1, dtype=tf.int32)
