"""Small random weights in the files of OpenAI, Hugging Face and the original, written by the formats' own libraries."""
import json
import os
import shutil

import numpy as np
import safetensors.numpy
import tensorflow.compat.v1 as tf

from models.weights import SCOPE
from tests.helpers import graphs

CONFIG = graphs.small_config(n_vocab=300)
WEIGHTS = graphs.random_weights(CONFIG)
HF_CONFIG = {"model_type": "gpt2", "vocab_size": 300, "n_positions": 13, "n_embd": 12, "n_layer": 2, "n_head": 3}
HPARAMS = {"n_vocab": 300, "n_ctx": 13, "n_embd": 12, "n_head": 3, "n_layer": 2}


def theirs(weights, prefix="transformer."):
    """The weights under Hugging Face's names, spelt out here once more."""
    parts = {"ln_1/g": "ln_1.weight", "ln_1/b": "ln_1.bias", "ln_2/g": "ln_2.weight", "ln_2/b": "ln_2.bias",
             "attn/c_attn/w": "attn.c_attn.weight", "attn/c_attn/b": "attn.c_attn.bias",
             "attn/c_proj/w": "attn.c_proj.weight", "attn/c_proj/b": "attn.c_proj.bias",
             "mlp/c_fc/w": "mlp.c_fc.weight", "mlp/c_fc/b": "mlp.c_fc.bias", "mlp/c_proj/w": "mlp.c_proj.weight",
             "mlp/c_proj/b": "mlp.c_proj.bias"}
    names = {"wte": "wte.weight", "wpe": "wpe.weight", "ln_f/g": "ln_f.weight", "ln_f/b": "ln_f.bias"}
    names.update({f"h{i}/{ours}": f"h.{i}.{other}" for i in range(CONFIG.n_layer) for ours, other in parts.items()})
    return {prefix + names[name]: value[0] if name.endswith("/w") else value for name, value in weights.items()}


def write_hf(folder, tensors=None, config=None, vocabulary=None):
    """A folder as Hugging Face has them, by its own library."""
    os.makedirs(folder)
    safetensors.numpy.save_file(theirs(WEIGHTS) if tensors is None else tensors, str(folder / "model.safetensors"),
                                metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**HF_CONFIG, **(config or {})}))
    if vocabulary:
        shutil.copy(vocabulary / "encoder.json", folder / "vocab.json")
        shutil.copy(vocabulary / "vocab.bpe", folder / "merges.txt")
    return str(folder)


def write_tf(prefix, values):
    """A checkpoint by TensorFlow's own Saver."""
    os.makedirs(os.path.dirname(prefix), exist_ok=True)
    with graphs.session() as s:
        variables = [tf.get_variable(name, initializer=tf.constant(value), use_resource=False)
                     for name, value in values.items()]
        s.run(tf.global_variables_initializer())
        tf.train.Saver(variables).save(s, prefix)


def write_openai(folder, vocabulary=None):
    write_tf(str(folder / "model.ckpt"), {f"{SCOPE}/{name}": value for name, value in WEIGHTS.items()})
    (folder / "hparams.json").write_text(json.dumps(HPARAMS))
    if vocabulary:
        shutil.copytree(vocabulary, folder, dirs_exist_ok=True)
    return str(folder)


def write_original(folder):
    """As the original saved them: bfloat16 weights, the optimizer's slots, a step in the name."""
    values = {}
    for name, value in WEIGHTS.items():
        values[f"{SCOPE}/{name}"] = value.astype(tf.bfloat16.as_numpy_dtype)
        values[f"{SCOPE}/{name}/adam_m"] = values[f"{SCOPE}/{name}/adam_v"] = value * 0 + 1
    write_tf(str(folder / "model.ckpt-1700"), {**values, "global_step": np.int64(1700)})
    return str(folder)
