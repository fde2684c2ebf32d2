"""How long a training step takes on this machine: an estimate from a second or two of products of the network's sizes.

--plan, which has no TensorFlow, estimates it by NumPy's products (cost.py).  Legend: T context, C width, V vocabulary.
"""
import itertools
import time

import tensorflow.compat.v1 as tf

from models.run import cost, devices, workarounds

SECONDS = 0.5  # of each product
LARGEST = 2**26  # numbers in a matrix
# A step against its products alone: what is done element by element grows with C, the products with C times C.
BEYOND_PRODUCTS, BEYOND_OF_WIDTH = 1.2, 80


def seconds_a_step(config):
    """Estimated seconds of a training step of the config on the devices that TensorFlow sees here."""
    T, C, V = config.n_ctx, config.n_embd, config.n_vocab
    rows = (config.micro_batch_size or config.train_batch_size) * T
    output = 6 * C * V  # operations of a token in the output layer, where the matrices are the largest
    layers = (cost.token_operations(config) - output) / _operations_a_second(rows, C, 4 * C, config.precision)
    output /= _operations_a_second(rows, C, V, config.precision)
    tokens = config.train_batch_size * T / max(1, len(devices.devices()))
    return (layers + output) * tokens * (BEYOND_PRODUCTS + BEYOND_OF_WIDTH / C)


def _operations_a_second(m, k, n, precision):
    """How fast matrices [m, k] and [k, n] are multiplied; fewer rows where they would take too much memory."""
    m = max(1, min(m, LARGEST // max(k, n)))
    with tf.Graph().as_default(), tf.Session(config=workarounds.session_config()) as session:
        left, right = (tf.Variable(tf.cast(tf.random.stateless_uniform(size, [1, 2], -1.0), precision),
                                   use_resource=True) for size in ([m, k], [k, n]))
        product = tf.matmul(left, right).op  # not its value, which would be copied
        session.run(tf.global_variables_initializer())
        session.run(product)
        begun = time.monotonic()
        for count in itertools.count(1):
            session.run(product)
            elapsed = time.monotonic() - begun
            if elapsed >= SECONDS:
                return 2 * m * k * n * count / elapsed
