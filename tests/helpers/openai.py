"""OpenAI's own network, https://github.com/openai/gpt-2, src/model.py, as gpt-2-simple carries it for TensorFlow 2."""
import importlib.util
import os

import pytest
import tensorflow.compat.v1 as tf

from models.weights import SCOPE
from tests.helpers import graphs


def logits(config, weights, tokens):
    """(NumPy [B, T, V] float32 of tokens [B, T], {name: shape} of its variables), with the NumPy `weights`.

    Skips the test where the package is missing.
    """
    package = importlib.util.find_spec("gpt_2_simple")
    if package is None:
        pytest.skip("gpt-2-simple is not installed")
    # The one file: the package itself switches eager execution off.
    path = os.path.join(os.path.dirname(package.origin), "src", "model.py")
    spec = importlib.util.spec_from_file_location("openai_model", path)
    model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(model)
    sizes = model.HParams(config.n_vocab, config.n_ctx, config.n_embd, config.n_head, config.n_layer)
    with graphs.session() as s:
        found = model.model(sizes, tf.constant(tokens, tf.int32))["logits"]
        variables = {variable.op.name: variable for variable in tf.global_variables()}
        for name, variable in variables.items():
            variable.load(weights[name[len(SCOPE) + 1:]], s)
        return s.run(found), {name: tuple(variable.shape) for name, variable in variables.items()}
