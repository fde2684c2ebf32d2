"""oneDNN's operations that TensorFlow otherwise only calls by itself: Grappler puts them in the place of others."""
import os

import tensorflow.compat.v1 as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.framework import op_def_library

SWITCH = "TF_ENABLE_ONEDNN_OPTS"  # TensorFlow's own


def run(op, kernel, **arguments):
    """What the operation named `op` gives for `arguments`, its inputs and attributes, by the kernel with that label."""
    # tf.raw_ops lacks operations whose names begin with _.  Only Grappler sets _kernel (TensorFlow 2.15.1).
    result = op_def_library.apply_op(op, **arguments, name="product")
    tf.nest.flatten(result)[0].op._set_attr("_kernel", attr_value_pb2.AttrValue(s=kernel))
    return result


def in_use():
    """Whether no GPU does the work, and nobody has switched oneDNN off."""
    return not tf.config.list_physical_devices("GPU") and os.environ.get(SWITCH, "").lower() not in ("0", "false")
