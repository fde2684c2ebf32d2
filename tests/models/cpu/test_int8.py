"""Products with matrices in eight bits against NumPy, and what they cost a trained network."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from configs.errors import UserError
from models import decoding, gpt2, initial_values
from models.cpu import compiled, int8, packed
from tests.helpers import graphs, reference


@pytest.fixture(autouse=True)
def _needed(request):
    if "without" not in request.node.name and not int8.supported():
        pytest.skip("this machine's TensorFlow or processor has no such products")


def rounded(x, axis):
    """x as the nearest of 255 numbers from the largest one along `axis` down to its negative."""
    scale = np.abs(x).max(axis, keepdims=True) / 127
    return np.round(x / scale) * scale


@pytest.mark.parametrize("gelu, plus", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("rows", [1, 6])
def test_products_are_those_of_numpy_with_rounded_rows_and_columns(rows, gelu, plus):
    random = np.random.RandomState(0)
    x, w, b, h = (random.randn(*shape) for shape in ((rows, 1, 24), (24, 40), (40,), (rows, 1, 40)))
    w *= np.exp(random.randn(40))  # columns of other sizes each
    x *= np.exp(random.randn(rows))[:, None, None]
    with graphs.session() as s:
        inputs = [tf.placeholder(tf.float32, value.shape) for value in (x, w, h)]
        matrix = int8.quantise(inputs[1])
        result = packed.linear(inputs[0], matrix, tf.constant(b, tf.float32), gelu=gelu,
                               plus=inputs[2] if plus else None)
        for sign in (1, -1):  # of the input: the matrix stays
            found = s.run(result, dict(zip(inputs, (sign * x, w, h))))
            expected = sign * rounded(x[:, 0], 1) @ rounded(w, 0) + b
            expected = reference.gelu(expected) if gelu else h + expected[:, None] if plus else expected
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_rows_and_columns_of_zeros_give_zeros():
    with graphs.session() as s:
        x, w = np.float32([[0, 0], [1, 2]]), np.float32([[0, 1, 0], [0, 4, 1]])
        found = s.run(int8.linear(tf.constant(x), int8.quantise(tf.constant(w))))
    np.testing.assert_allclose(found, x @ w, rtol=0.01)


def trained(config, text, steps=120):
    """NumPy weights {name: array} of a network that has learnt from `text`, ids int32 [N]."""
    random = np.random.RandomState(0)
    with tf.Graph().as_default(), tf.Session() as s:
        tf.set_random_seed(1)
        variables = initial_values.create_variables(config)
        window = tf.placeholder(tf.int32, [16, config.n_ctx + 1])
        loss = gpt2.mean_loss(gpt2.transformer(variables, window[:, :-1], config), variables["wte"], window[:, 1:])
        update = tf.train.AdamOptimizer(3e-3).minimize(loss)
        s.run(tf.global_variables_initializer())
        for _ in range(steps):
            first = random.randint(0, len(text) - config.n_ctx, 16)
            s.run(update, {window: text[first[:, None] + np.arange(config.n_ctx + 1)]})
        return s.run(variables)


def loss_of_decoding(config, weights, windows, **options):
    """The mean loss of windows int32 [B, T + 1], read one token after the other as generation does."""
    batch, size = windows.shape
    with tf.Graph().as_default(), tf.Session() as s:
        variables = {name: tf.Variable(value) for name, value in weights.items()}
        step, empty_cache = decoding.decoder(variables, config, **options)
        tokens = tf.constant(windows, tf.int32)

        def read_token(i, total, cache):
            logits, cache = step(tokens[:, i, None], tf.fill([batch], i), tf.fill([batch], 0), cache)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=tokens[:, i + 1])
            return i + 1, total + tf.reduce_sum(losses), cache
        _, total, _ = tf.while_loop(lambda i, *_: i < size - 1, read_token,
                                    [tf.constant(0), tf.constant(0.0), empty_cache(batch, size)])
        s.run(tf.global_variables_initializer())
        s.run(tf.local_variables_initializer())
        return s.run(total) / (batch * (size - 1))


def test_a_trained_network_loses_at_most_half_a_percent(monkeypatch):
    with open(gpt2.__file__, "rb") as f:
        text = np.frombuffer(f.read(), np.uint8).astype(np.int32) % 128
    config = graphs.small_config(n_ctx=32, n_vocab=128, n_embd=60, n_layer=2, n_head=3)
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "FORMULAS_ONLY", True)  # to compile takes longer than to train
        weights = trained(config, text)
    monkeypatch.setattr(packed, "LIKELIEST", 4)  # all others of 128 logits are those in eight bits
    windows = text[np.arange(0, len(text) - 33, 150)[:, None] + np.arange(33)]
    exact, quick = (loss_of_decoding(config, weights, windows, int8=wanted) for wanted in (False, True))
    assert exact < 3  # from 4.85
    assert quick != exact and abs(quick - exact) < 0.005 * exact


def test_without_such_products_one_line_says_so(monkeypatch):
    monkeypatch.setattr(int8, "OP", "_NoSuchOperation")
    assert not int8.supported.__wrapped__()
    monkeypatch.undo()
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert not int8.supported.__wrapped__()
    monkeypatch.setattr(int8, "supported", lambda: False)
    with pytest.raises(UserError, match="--int8 needs a processor with VNNI"):
        decoding.decoder({}, graphs.small_config(), int8=True)


def test_a_processor_without_sums_in_32_bits_gets_none(monkeypatch):
    def saturated(shifted, matrix):  # as pairs are added without VNNI
        pairs = tf.cast(shifted, tf.int32)[:, ::2, None] * tf.cast(matrix.numbers, tf.int32)[::2] * 2
        return tf.reduce_sum(tf.minimum(pairs, 2 ** 15 - 1), 1)
    monkeypatch.setattr(int8, "_product", saturated)
    assert not int8.supported.__wrapped__()
