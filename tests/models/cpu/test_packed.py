"""Products with packed matrices against NumPy, and the logits that they give."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from models import gpt2
from models.cpu import packed
from tests.helpers import graphs, reference

ROUNDING = {tf.float32: 1e-5, tf.bfloat16: 3e-2}


@pytest.fixture(params=ROUNDING, ids=lambda dtype: dtype.name)
def dtype(request):
    if not packed.supported(request.param):
        pytest.skip("this machine's TensorFlow has no such products")
    return request.param


@pytest.mark.parametrize("gelu, plus", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("transposed", [False, True])
def test_products_are_those_of_numpy(transposed, rows, gelu, plus, dtype):
    random = np.random.RandomState(0)
    x, w, b, h = (random.randn(*shape) for shape in ((rows, 1, 24), (40, 24), (40,), (rows, 1, 40)))
    with graphs.session() as s:
        w = w if transposed else w.T
        inputs = [tf.placeholder(dtype, shape) for shape in (x.shape, w.shape, h.shape)]
        result = packed.linear(inputs[0], packed.PackedMatrix(inputs[1], transposed), tf.constant(b, tf.float32),
                               gelu=gelu, plus=inputs[2] if plus else None)
        result = tf.cast(result, tf.float32)
        for sign in (1, -1):  # of the input: the matrix stays
            found = s.run(result, dict(zip(inputs, (sign * x, w, h))))
            expected = sign * x[:, 0] @ (w.T if transposed else w) + b
            expected = reference.gelu(expected) if gelu else h + expected[:, None] if plus else expected
            np.testing.assert_allclose(found, expected, rtol=ROUNDING[dtype], atol=10 * ROUNDING[dtype])


def test_a_machine_without_them_is_noticed(monkeypatch):
    monkeypatch.setattr(packed, "OP", "_NoSuchOperation")
    assert not packed.supported.__wrapped__(tf.float32)
    monkeypatch.undo()
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert not packed.supported.__wrapped__(tf.float32)


def test_a_processor_without_avx_512_gets_no_products_in_bfloat16(monkeypatch):
    """There oneDNN ends the process: nothing may ask it."""
    monkeypatch.setattr(packed.hardware, "features", lambda: frozenset(["avx", "avx2"]))
    monkeypatch.setattr(packed, "linear", None)
    assert not packed.supported.__wrapped__(tf.bfloat16)


def test_logits_of_the_packed_table_are_a_hundred_times_nearer_to_float32_than_products_in_bfloat16(monkeypatch):
    """Likely tokens as in float32; Kullback-Leibler divergence, and the mean logit, which a penalty depends on."""
    monkeypatch.setattr(packed, "AT_ONCE", 10**6)  # three parts
    if not packed.supported(tf.bfloat16):
        pytest.skip("this machine's TensorFlow has no such products")
    random = np.random.RandomState(0)
    common = random.randn(256)
    hidden = random.randn(7, 256) + common
    wte = random.randn(5000, 256) / 8 - 80 * common / (common @ common)  # logits about -80, as GPT-2 has
    with graphs.session() as s:
        rows, table = tf.cast(tf.constant(hidden), tf.bfloat16), tf.constant(wte, tf.float32)
        output = [packed.PackedMatrix(part, transposed=True)
                  for part in packed.in_parts(tf.cast(table - tf.reduce_mean(table, 0), tf.bfloat16))]
        rounded = tf.cast(tf.matmul(rows, tf.cast(table, tf.bfloat16), transpose_b=True), tf.float32)
        exact, quick, rounded = s.run([gpt2.logits(rows, table), packed.logits(rows, table, output),
                                       rounded])
    assert -85 < exact.mean() < -75
    likeliest = np.argsort(exact, 1)[:, -packed.LIKELIEST // 2:]
    np.testing.assert_allclose(*(np.take_along_axis(each, likeliest, 1) for each in (exact, quick)), atol=1e-3)
    np.testing.assert_allclose(quick, exact, atol=0.1)
    np.testing.assert_allclose(quick.mean(1), exact.mean(1), atol=0.01)
    assert divergence(exact, quick) < divergence(exact, rounded) / 100


def divergence(one, other):
    """Mean Kullback-Leibler divergence of the softmaxes of two arrays of logits [N, V]."""
    one, other = (reference.softmax(logits.astype(np.float64)) for logits in (one, other))
    return np.mean(np.sum(one * np.log(one / other), 1))
