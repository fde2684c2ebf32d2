"""Arrays that become tensors as they are: TensorFlow copies those that begin elsewhere (no TensorFlow here)."""
import numpy as np

ALIGNMENT = 64  # bytes; such an array begins at a multiple of them


def empty(size):
    """uint8 array [size] at such a place, with any content."""
    place = np.empty(size + ALIGNMENT, np.uint8)
    first = -place.ctypes.data % ALIGNMENT
    return place[first:first + size]


def is_kept(array):
    """Whether TensorFlow keeps the array, of the right dtype, as a variable's own memory."""
    return array.flags.writeable and array.ctypes.data % ALIGNMENT == 0
