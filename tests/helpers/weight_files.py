"""Small random weights in the files of OpenAI, Hugging Face and the original, written by the formats' own libraries."""
import json
import os
import shutil

import numpy as np
import safetensors.numpy
import tensorflow.compat.v1 as tf

from models.weights import SCOPE
from tests.helpers import graphs, hugging_face

CONFIG = graphs.small_config(n_vocab=300)
WEIGHTS = graphs.random_weights(CONFIG)
HF_CONFIG = {"model_type": "gpt2", "vocab_size": 300, "n_positions": 13, "n_embd": 12, "n_layer": 2, "n_head": 3}
HPARAMS = {"n_vocab": 300, "n_ctx": 13, "n_embd": 12, "n_head": 3, "n_layer": 2}


def theirs(weights, prefix="transformer."):
    """The weights under Hugging Face's names and with its shapes."""
    return {hugging_face.their_name(name).replace("transformer.", prefix): value[0] if name.endswith("/w") else value
            for name, value in weights.items()}


def write_hf(folder, tensors=None, config=None, vocabulary=None):
    """A folder as Hugging Face has it, by its own library."""
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


def write_openai(folder, vocabulary=None, weights=WEIGHTS):
    """A folder as OpenAI has it."""
    write_tf(str(folder / "model.ckpt"), {f"{SCOPE}/{name}": value for name, value in weights.items()})
    (folder / "hparams.json").write_text(json.dumps({**HPARAMS, "n_vocab": len(weights["wte"])}))
    if vocabulary:
        shutil.copytree(vocabulary, folder, dirs_exist_ok=True)
    return str(folder)


def write_original(folder):
    """A folder as the original wrote it: bfloat16 weights, the optimizer's slots, a step in the name."""
    values = {}
    for name, value in WEIGHTS.items():
        values[f"{SCOPE}/{name}"] = value.astype(tf.bfloat16.as_numpy_dtype)
        values[f"{SCOPE}/{name}/adam_m"] = values[f"{SCOPE}/{name}/adam_v"] = value * 0 + 1
    write_tf(str(folder / "model.ckpt-1700"), {**values, "global_step": np.int64(1700)})
    return str(folder)
