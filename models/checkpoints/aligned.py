"""Arrays that TensorFlow takes as tensors without a copy (no TensorFlow here)."""
import numpy as np

ALIGNMENT = 64  # bytes; TensorFlow copies an array that does not begin at a multiple of them


def empty(size):
    """uint8 array [size] that begins at a multiple of ALIGNMENT; its content is arbitrary."""
    place = np.empty(size + ALIGNMENT, np.uint8)
    first = -place.ctypes.data % ALIGNMENT
    return place[first:first + size]


def is_kept(array):
    """Whether TensorFlow keeps the array, of the right dtype, as a variable's own memory."""
    return array.flags.writeable and array.ctypes.data % ALIGNMENT == 0
