"""Which elements dropout keeps, computed by models/cpu/philox.py, against TensorFlow's own generator: the same bits."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from models import dropout
from models.cpu import philox
from tests.helpers import graphs


@pytest.mark.parametrize("rate", [0.1, 1 / 3, 0.5, 0.999, 1e-7, 1e-12, 1 - 1e-9])
# 286,331,153 rows of 15 values of the counter come to 2**32 - 1.
@pytest.mark.parametrize("first_row, shape", [(0, [3, 5, 8]), (2, [3, 7]), (286_331_153, [2, 3, 4, 5]), (1, [1, 1])])
def test_the_same_is_kept_as_by_tensorflow_s_generator(rate, first_row, shape):
    with graphs.session() as s:
        for seed in ([0, 0], [7, 3], [2**31 - 1, -5]):
            site, after = dropout.Site(rate, tf.constant(seed), tf.constant(first_row)), tf.constant(0)
            expected, found = s.run([site.keep_mask(shape, after), philox.keep_mask(site, shape, after)])
            np.testing.assert_array_equal(found, expected)


def test_a_number_that_equals_the_rate_is_kept():
    """Each number is a multiple of 2**-23, and a rate can be one of them."""
    with graphs.session() as s:
        seed, row = tf.constant([7, 3]), tf.constant(0)
        numbers = s.run(dropout.noise(seed, row, [1, 40]))
        for number in numbers[0, :4]:
            site = dropout.Site(float(number), seed, row)
            np.testing.assert_array_equal(s.run(philox.keep_mask(site, [1, 40], tf.constant(0))), numbers >= number)
