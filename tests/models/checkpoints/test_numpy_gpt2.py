"""The NumPy GPT-2, which is what other tests and the proof trust: against Hugging Face's in float64."""
import numpy as np
import pytest

from models.checkpoints import numpy_gpt2
from tests.helpers import graphs, hugging_face

CONFIG = graphs.small_config()
WEIGHTS = graphs.random_weights(CONFIG)
TOKENS = np.random.RandomState(1).randint(0, CONFIG.n_vocab, [5, 7])


def logits(tokens, dtype):
    return numpy_gpt2.logits(lambda name: WEIGHTS[name].astype(dtype), tokens, n_layer=CONFIG.n_layer,
                             n_head=CONFIG.n_head)


def test_logits_equal_those_of_hugging_face_in_float64():
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        expected = hugging_face.network(CONFIG, WEIGHTS).double().eval()(torch.tensor(TOKENS)).logits.numpy()
    assert expected.dtype == np.float64
    np.testing.assert_allclose(logits(TOKENS, np.float64), expected, rtol=0, atol=1e-12)


def test_dtype_is_that_of_the_weights_and_a_row_needs_no_batch():
    exact, rounded = logits(TOKENS, np.float64), logits(TOKENS, np.float32)
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, exact, atol=1e-5)
    np.testing.assert_allclose(logits(TOKENS[3], np.float64), exact[3], atol=1e-12)
    np.testing.assert_allclose(logits(TOKENS[:, :4], np.float64), exact[:, :4], atol=1e-12)  # nothing looks ahead
