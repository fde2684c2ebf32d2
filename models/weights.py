"""The checkpoint format: names and shapes of GPT-2's weights and of what optimizers keep for them (no TensorFlow here).

The weights' names and shapes are those of OpenAI's checkpoints, https://github.com/openai/gpt-2, src/model.py.
"""
import math
import re
from typing import Callable, NamedTuple

from configs import grouping

SCOPE = "model"
POSITION_DEVIATION = 0.01  # of wpe, as in OpenAI's code
MATRIX_RANK = 3  # of the layers' matrices, [1, I, O]; nothing else has it
SHOWN = 3  # names per kind of misfit in a message


class Weight(NamedTuple):
    """One variable: its name below SCOPE, its shape, the mean and deviation of its starting values."""
    name: str
    shape: tuple
    mean: float = 0.0
    deviation: float = 0.0


class StoredWeights(NamedTuple):
    """Weights on disk, whatever their format, under the names (below SCOPE) and with the shapes of `weight_list`."""
    path: str  # of the files themselves, for messages
    kind: str  # of the format, for messages
    shapes: dict  # {name: shape}
    dtypes: dict  # {name: dtype as stored}, of optimizers' slots, too
    read: Callable  # name -> float32 array of its shape, read from the disk
    config_values: dict  # {config key: value} that the files tell: sizes, and n_head and dropout where they do
    not_weights: dict  # {name as stored: shape} of the rest: optimizers' slots, masks, the step


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


def groups(shapes, limit):
    """The names of {name: shape} in lists, in order, each of one name or of up to `limit` bytes of float32 numbers."""
    return list(grouping.groups(shapes, lambda name: 4 * math.prod(shapes[name]), limit))


def _adafactor_slots(shape, beta1):
    second = {"adafactor_vr": shape[:-1], "adafactor_vc": shape[:-2] + shape[-1:]}  # of rows, of columns
    return {**({"adafactor_m": shape} if beta1 else {}), **(second if len(shape) >= 2 else {"adafactor_v": shape})}


def _adam_slots(shape, beta1):
    return {"adam_m": shape, "adam_v": shape}


def _muon_slots(shape, beta1):
    return {"muon_m": shape} if len(shape) == MATRIX_RANK else _adam_slots(shape, beta1)


# "opt_name" -> the function of a weight's shape and "beta1" that gives {slot: shape}, what it keeps for that weight.
OPTIMIZERS = {"adam": _adam_slots, "adafactor": _adafactor_slots, "muon": _muon_slots}


def slot_shapes(config):
    """{name: shape} of all that the config's optimizer keeps; a slot's name stands below its weight's, wte/adam_m."""
    slots = OPTIMIZERS[config.opt_name]
    return {f"{weight.name}/{slot}": shape for weight in weight_list(config)
            for slot, shape in slots(weight.shape, config.beta1).items()}


def count(shapes):
    """How many numbers the tensors {name: shape} hold."""
    return sum(map(math.prod, shapes.values()))


def is_slot(name, names):
    """Whether tensor `name` is an optimizer's: what is kept for one of the weights `names`."""
    return name.rpartition("/")[0] in names


def network_sizes(shapes):
    """{config key: size} of the network that {name: shape} stores, without n_head.  None where it is not GPT-2."""
    if any(len(shapes.get(name, ())) != 2 for name in ("wte", "wpe")):
        return None
    layers = {match.group() for match in (re.match(r"h\d+/", name) for name in shapes) if match}
    return {"n_ctx": shapes["wpe"][0], "n_vocab": shapes["wte"][0], "n_embd": shapes["wte"][1],
            "n_layer": len(layers)}


def heads_fit(n_head, n_embd):
    """Whether `n_head`, which a file tells, is a number of attention heads that can share the width."""
    return type(n_head) is int and n_head > 0 and n_embd % n_head == 0


def misfits(shapes, config):
    """How {name: shape} differs from the config's network, in words; None where it does not."""
    wanted = {weight.name: tuple(weight.shape) for weight in weight_list(config)}
    misshapen = [f"{SCOPE}/{name} is {list(shapes[name])}, not {list(shape)}" for name, shape in wanted.items()
                 if name in shapes and tuple(shapes[name]) != shape]
    kinds = [("missing", [f"{SCOPE}/{name}" for name in wanted if name not in shapes]),
             ("extra", [f"{SCOPE}/{name}" for name in shapes if name not in wanted]),
             ("of another shape", misshapen)]
    return "; ".join(f"{len(names)} {what} ({_shorten(names)})" for what, names in kinds if names) or None


def _shorten(names):
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f", and {rest} more" if rest > 0 else "")


def layer_weights(weights, layer):
    """Of {name: tensor} those of one layer, by their names below `h{layer}/`."""
    prefix = f"h{layer}/"
    return {name[len(prefix):]: value for name, value in weights.items() if name.startswith(prefix)}
