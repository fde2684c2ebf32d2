"""The weights of GPT-2: names, shapes and starting values, which are the checkpoint format (no TensorFlow here).

Names and shapes are those of OpenAI's checkpoints, https://github.com/openai/gpt-2, src/model.py.
"""
import math
from typing import NamedTuple

SCOPE = "model"
POSITION_DEVIATION = 0.01  # of wpe, as in OpenAI's code


class Weight(NamedTuple):
    """One variable: its name below SCOPE, its shape, the mean and deviation of its starting values."""
    name: str
    shape: tuple
    mean: float = 0.0
    deviation: float = 0.0


def weight_list(config):
    """All weights in a fixed order.  A changed name or shape breaks every checkpoint ever written."""
    weights = [Weight("wpe", (config.n_ctx, config.n_embd), deviation=POSITION_DEVIATION),
               Weight("wte", (config.n_vocab, config.n_embd), deviation=config.initializer_range)]
    for layer in range(config.n_layer):
        weights += [weight._replace(name=f"h{layer}/{weight.name}") for weight in _layer(config)]
    return weights + _normalisation("ln_f", config.n_embd)


def _layer(config):
    width = config.n_embd
    # Differs from the original: attention's projection is scaled like the MLP's, by the two additions of each layer.
    plain = config.initializer_range
    residual = plain / math.sqrt(2 * config.n_layer) if config.scale_by_depth else plain

    def projection(name, inputs, outputs, deviation):
        deviation = deviation / math.sqrt(inputs) if config.scale_by_in else deviation
        return [Weight(name + "/w", (1, inputs, outputs), deviation=deviation), Weight(name + "/b", (outputs,))]
    return [*_normalisation("ln_1", width),
            *projection("attn/c_attn", width, 3 * width, plain),
            *projection("attn/c_proj", width, width, residual),
            *_normalisation("ln_2", width),
            *projection("mlp/c_fc", width, 4 * width, plain),
            *projection("mlp/c_proj", 4 * width, width, residual)]


def _normalisation(name, width):
    return [Weight(name + "/g", (width,), mean=1.0), Weight(name + "/b", (width,))]
