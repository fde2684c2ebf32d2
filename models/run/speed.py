"""How fast a GPU multiplies matrices, for the time that tools/new_config.py estimates; cost.py measures CPUs."""
import itertools
import time

import tensorflow.compat.v1 as tf

from models.run import workarounds

SECONDS = 0.5
LARGEST = 2**26  # numbers in a matrix


def gpu_rate(m, k, n, precision):
    """Operations a second of products [m, k] x [k, n]; fewer rows where they would take too much memory."""
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
