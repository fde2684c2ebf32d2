"""The sizes of a tensor, known or not."""
import tensorflow.compat.v1 as tf


def shape_of(x):
    """The list of x's dimensions: an int where it is known, else a tensor (a saved model takes any batch)."""
    known = x.shape.as_list()
    return known if None not in known else [tf.shape(x)[i] if n is None else n for i, n in enumerate(known)]
