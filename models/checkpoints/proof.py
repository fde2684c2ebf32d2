"""Shows that converted weights are the same and compute the same: a sha256 of every tensor, and a prompt's logits.

One side runs in NumPy, the other in this project's network, layer by layer: no more than one layer, or the embedding,
is in memory.  Where transformers is installed and the model is small, it runs its own files, too.

T tokens, C width, V vocabulary.
"""
import dataclasses
import hashlib
import importlib.util
import tempfile

import numpy as np
import tensorflow.compat.v1 as tf

from configs import storage
from configs.errors import UserError
from models import dropout, gpt2
from models.checkpoints import hugging_face, numpy_gpt2
from models.weights import count, layer_weights, weight_list

PROMPT_TOKENS = 16
TOLERANCE = 1e-3  # of the largest logit: far above rounding, far below any mistake
TRANSFORMERS_BYTES = 10**9  # it holds all weights in memory: larger models are left to whoever has it


def prompt(config):
    """The fixed prompt: int32 [T], ids spread over the vocabulary."""
    return (np.arange(min(PROMPT_TOKENS, config.n_ctx)) * 7919 + 13).astype(np.int32) % config.n_vocab


def prove(source, result, config):
    """{"tensors": {name: sha256}, "logits": {who ran what: difference or why not}}, and lines that say it.

    `source`, `result`: weights.StoredWeights of the two sides.  Raises UserError where they differ.
    """
    digests = {name: digest(source, name) for name in source.shapes}
    changed = [name for name, sha256 in digests.items() if sha256 != digest(result, name)]
    if changed:
        raise UserError(f"{len(changed)} tensors that were written are not those of {source.path} ({changed[0]}): the"
                        " disk or the memory is at fault; convert again")
    tokens = prompt(config)
    expected = numpy_gpt2.logits(source.read, tokens, n_layer=config.n_layer, n_head=config.n_head)
    logits = {"NumPy and this network": _difference(expected, network_logits(result, config, tokens), source)}
    for side in (source, result):
        if side.kind == hugging_face.KIND:
            other = _transformers_logits(side, tokens)
            logits["NumPy and transformers"] = other if isinstance(other, str) else _difference(expected, other, source)
    lines = [f"{len(digests)} tensors, {count(source.shapes):,} parameters: equal to the bit"]
    for who, value in logits.items():
        how = f"not compared: {value}" if isinstance(value, str) else f"largest difference {value:.1e}"
        lines.append(f"logits of {len(tokens)} tokens, up to {np.abs(expected).max():.1f}, by {who}: {how}")
    return {"tensors": digests, "logits": logits}, lines


def digest(source, name):
    """Hex sha256 of a tensor's float32 numbers, little-endian, in C order."""
    return hashlib.sha256(np.ascontiguousarray(source.read(name), "<f4").reshape(-1).view(np.uint8)).hexdigest()


def network_logits(source, config, tokens):
    """float32 [T, V] for int32 [T] by models/gpt2.py, its functions called one after another."""
    config = dataclasses.replace(config, precision="float32", recompute=False)
    shapes = {weight.name: weight.shape for weight in weight_list(config)}

    def run(names, function, x, prefix=""):
        """function({name: tensor}, x) in a session of its own, with the weights prefix + name."""
        with tf.Graph().as_default(), tf.Session() as session:
            weights = {name: tf.placeholder(tf.float32, shapes[prefix + name]) for name in names}
            return session.run(function(weights, tf.constant(x)),
                               {tensor: source.read(prefix + name) for name, tensor in weights.items()})

    def layer(weights, h):
        return gpt2.block(h, weights, config.n_head, dropout.NONE.layer(0))
    h = run(["wte", "wpe"], lambda weights, tokens: gpt2.embed(weights, tokens, config), tokens[None])  # [1, T, C]
    for i in range(config.n_layer):
        h = run(layer_weights(shapes, i), layer, h, f"h{i}/")
    h = run(["ln_f/g", "ln_f/b"], lambda weights, h: gpt2.norm(h, weights["ln_f/g"], weights["ln_f/b"]), h)
    return run(["wte"], lambda weights, h: gpt2.logits(h, weights["wte"]), h)[0]


def _difference(expected, logits, source):
    """The largest difference of logits.  Raises UserError where it is no rounding."""
    difference = float(np.abs(expected - logits).max())
    if not difference <= TOLERANCE * np.abs(expected).max():
        raise UserError(f"what was made of {source.path} does not compute what its source does: logits differ by"
                        f" {difference:.3g}; report this with the config of the model")
    return difference


def _transformers_logits(side, tokens):
    """float32 [T, V] by transformers from the files of `side`; a str that says why not where it cannot."""
    absent = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if absent:
        return f"{absent[0]} is not installed"
    folder = side.path.rpartition("/")[0] or "."
    if storage.is_remote(folder) or not storage.exists(storage.join(folder, hugging_face.CONFIG_FILE)):
        return f"{folder} is no local folder with {hugging_face.CONFIG_FILE}"
    size = 4 * count(side.shapes)
    if size > TRANSFORMERS_BYTES:
        return f"it would hold {size / 1e9:.1f} GB in memory"
    import torch
    import transformers
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as checked:  # never the folder itself: a pickle may lie there, and more
        hugging_face.link_weights(side, checked)
        try:
            model = transformers.GPT2LMHeadModel.from_pretrained(checked, local_files_only=True, use_safetensors=True)
        except Exception as error:  # whatever it dislikes about files that we can read
            return f"it cannot load {folder} ({' '.join(str(error).split()):.100})"
        model = model.float().eval()
    with torch.no_grad():
        return model(torch.tensor(tokens[None], dtype=torch.long)).logits[0].numpy()
