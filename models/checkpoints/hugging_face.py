"""Weights as Hugging Face's GPT2LMHeadModel stores them: config.json and safetensors, one file or several."""
import json
import os
import re

import numpy as np

from configs import reading, storage
from configs.constants import NORM_EPSILON
from configs.errors import UserError
from models.checkpoints import safetensors_file
from models.weights import StoredWeights, count, groups, heads_fit, network_sizes

KIND = "Hugging Face"
CONFIG_FILE, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
SHARD = "model-{:05d}-of-{:05d}.safetensors"
SHARD_BYTES = 5 * 10**8  # of the tensors in a file, which are in memory at once while it is written
PREFIX = "transformer."
MODULE = re.compile(r"(wte|wpe|ln_f|h\.\d+\.(?:ln_1|ln_2|attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj))"
                    r"\.(weight|bias)")
MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # buffers that old files hold
OUTPUT = "lm_head.weight"
ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")  # names for one function
# What GPT2Config can say and this network cannot do: key -> the values that mean what we do.
SUPPORTED = {"model_type": ("gpt2",), "activation_function": ACTIVATIONS, "layer_norm_epsilon": (NORM_EPSILON,),
             "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
             "add_cross_attention": (False,)}
# What it says of the tensors -> our name; other names that transformers takes for the same.
SIZES = {"vocab_size": "n_vocab", "n_positions": "n_ctx", "max_position_embeddings": "n_ctx", "n_embd": "n_embd",
         "hidden_size": "n_embd", "n_layer": "n_layer", "num_hidden_layers": "n_layer"}
HEADS = ("n_head", "num_attention_heads")
DROPOUTS = {"embd_pdrop": "embed_dropout", "attn_pdrop": "attn_dropout", "resid_pdrop": "res_dropout"}


def our_name(name):
    """'transformer.h.0.ln_1.weight' -> 'h0/ln_1/g'; None for what is no weight of GPT-2."""
    match = MODULE.fullmatch(name[len(PREFIX):] if name.startswith(PREFIX) else name)
    if not match:
        return None
    module, part = match.groups()
    if module in ("wte", "wpe"):
        return module if part == "weight" else None
    module = re.sub(r"^h\.(\d+)\.", r"h\1/", module).replace(".", "/")
    return f"{module}/{'b' if part == 'bias' else 'g' if '/c_' not in module else 'w'}"


def their_name(name):
    """The inverse of `our_name`, with the prefix."""
    if name in ("wte", "wpe"):
        return f"{PREFIX}{name}.weight"
    module, _, part = name.rpartition("/")
    module = re.sub(r"^h(\d+)/", r"h.\1.", module).replace("/", ".")
    return f"{PREFIX}{module}.{'bias' if part == 'b' else 'weight'}"


def find(path):
    """The safetensors file or index that `path` (it, or its folder) means; None where there is none."""
    if re.search(r"\.safetensors(\.index\.json)?$", path) and storage.exists(path):
        return path
    for name in (SINGLE, INDEX):
        if storage.exists(storage.join(path, name)):
            return storage.join(path, name)
    return None


def open_weights(path):
    """The StoredWeights of a safetensors file or an index of several.  Raises UserError where it is no GPT-2."""
    folder = path.rpartition("/")[0] or "."
    tensors = _read_index(path, folder) if path.endswith(".json") else safetensors_file.read_header(path)
    theirs = {}
    for name in tensors:
        ours = our_name(name)
        if ours in theirs:
            raise UserError(f"{path} holds {theirs[ours]} and {name}, which are one tensor; keep one of them")
        if ours:
            theirs[ours] = name
    shapes = {ours: (1, *tensors[name].shape) if ours.endswith("/w") else tensors[name].shape
              for ours, name in sorted(theirs.items())}
    not_weights = {name: tensor.shape for name, tensor in tensors.items() if our_name(name) is None}
    unknown = [name for name in not_weights if name != OUTPUT and not MASK.fullmatch(name.replace(PREFIX, "", 1))]
    sizes = network_sizes(shapes)
    if sizes is None or unknown:
        reason = f"{unknown[0]} is no tensor of a GPT2LMHeadModel" if unknown else \
            "no matrices wte.weight and wpe.weight"
        raise UserError(f"{path} holds no GPT-2: {reason}; give the files of a GPT-2")
    if OUTPUT in tensors and not np.array_equal(tensors[OUTPUT].read(), tensors[theirs["wte"]].read()):
        raise UserError(f"{path}: {OUTPUT} differs from wte.weight, and this network has one matrix for both; it cannot"
                        " be used here")

    def read(name):
        return tensors[theirs[name]].read().reshape(shapes[name])
    return StoredWeights(path, KIND, shapes, {ours: tensors[name].dtype for ours, name in theirs.items()}, read,
                         {**sizes, **_read_config(storage.join(folder, CONFIG_FILE), sizes)}, not_weights)


def write_folder(folder, config, shapes, read, eot):
    """A folder that transformers loads, but for the vocabulary: safetensors and config.json; `eot` ends a text."""
    storage.make_folder(folder)
    files = groups(shapes, SHARD_BYTES)
    names = [SINGLE] if len(files) == 1 else [SHARD.format(i + 1, len(files)) for i in range(len(files))]
    for file_name, held in zip(names, files):
        safetensors_file.write(storage.join(folder, file_name), (
            (their_name(name), read(name)[0] if name.endswith("/w") else read(name)) for name in held))
    if len(files) > 1:
        places = {their_name(name): file_name for file_name, held in zip(names, files) for name in held}
        index = {"metadata": {"total_size": 4 * count(shapes)}, "weight_map": dict(sorted(places.items()))}
        storage.write_whole(storage.join(folder, INDEX), json.dumps(index, indent=2) + "\n")
    storage.write_whole(storage.join(folder, CONFIG_FILE), json.dumps(_their_config(config, eot), indent=2) + "\n")


def _read_index(path, folder):
    """{name: safetensors_file.Tensor} of all files of an index.  Raises UserError where they are not what it says."""
    files = reading.read_object(path).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) and re.fullmatch(r"[^/]+\.safetensors", file)
                                              for file in files.values()):
        raise UserError(f'{path} has no "weight_map" of tensors to files beside it; fetch it anew')
    tensors = {}
    for file in sorted(set(files.values())):
        if not storage.exists(storage.join(folder, file)):
            raise UserError(f"{path} names {file}, which is not there; fetch it too")
        held = safetensors_file.read_header(storage.join(folder, file))
        twice = sorted(set(held) & set(tensors))
        if twice:
            raise UserError(f"{path} names {file} and {tensors[twice[0]].path}, which both hold {twice[0]}; fetch them"
                            " anew")
        tensors.update(held)
    absent = sorted(set(files) - set(tensors))
    if absent:
        raise UserError(f"{path} names {absent[0]}, which {files[absent[0]]} does not hold; fetch both anew")
    return tensors


def _read_config(path, sizes):
    """{config key: value} of n_head and dropouts in config.json, {} without one.

    Raises UserError where it is that of another network than one of these `sizes`, {config key: value}.
    """
    if not storage.exists(path):
        return {}
    values = reading.read_object(path)
    for name, allowed in SUPPORTED.items():
        if values.get(name, allowed[0]) not in allowed:
            raise UserError(f'{path}: "{name}" is {reading.shown(values[name])}, and this network knows only'
                            f" {reading.shown(allowed[0])}; it cannot be used here")
    if values.get("n_inner") not in (None, 4 * sizes["n_embd"]):
        raise UserError(f'{path}: "n_inner" is {reading.shown(values["n_inner"])}, and this network\'s is 4 x "n_embd"'
                        f' = {4 * sizes["n_embd"]}; it cannot be used here')
    wrong = [f'"{theirs}" is {reading.shown(values[theirs])}, and the tensors beside say {sizes[ours]}'
             for theirs, ours in SIZES.items() if theirs in values and values[theirs] != sizes[ours]]
    heads = {name: values[name] for name in HEADS if values.get(name) is not None}
    wrong += [f'"{name}" is {reading.shown(value)}, which cannot share a width of {sizes["n_embd"]}'
              for name, value in heads.items() if not heads_fit(value, sizes["n_embd"])]
    if not wrong and len({*heads.values()}) > 1:
        wrong = [" and ".join(f'"{name}" is {value}' for name, value in heads.items())]
    wrong += [f'"{name}" is {reading.shown(values[name])}, and a dropout is a number >= 0 and < 1' for name in DROPOUTS
              if name in values and not (type(values[name]) in (int, float) and 0 <= values[name] < 1)]
    if wrong:
        raise UserError(f"{path}: {'; '.join(wrong)}; bring the files of one model together")
    n_head = next(iter(heads.values()), None)
    dropouts = {ours: values[theirs] for theirs, ours in DROPOUTS.items() if theirs in values}
    return {**({} if n_head is None else {"n_head": n_head}), **dropouts}


def link_weights(stored, folder):
    """Makes `folder` one from which transformers reads the StoredWeights, and nothing else that lies beside them.

    config.json there has the values that `open_weights` has checked.  Both are local.
    """
    source, name = os.path.split(os.path.abspath(stored.path))
    files = {name: SINGLE}
    if name.endswith(".json"):
        files = {name: INDEX, **{file: file for file in reading.read_object(stored.path)["weight_map"].values()}}
    for file, link in files.items():
        os.symlink(os.path.join(source, file), os.path.join(folder, link))
    known = {**SUPPORTED, **SIZES, **DROPOUTS, **dict.fromkeys((*HEADS, "n_inner"))}
    config = reading.read_object(os.path.join(source, CONFIG_FILE))
    storage.write_whole(os.path.join(folder, CONFIG_FILE),
                        json.dumps({key: value for key, value in config.items() if key in known}))


def _their_config(config, eot):
    return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": ACTIVATIONS[0],
            "vocab_size": config.n_vocab, "n_positions": config.n_ctx, "n_ctx": config.n_ctx, "n_embd": config.n_embd,
            "n_layer": config.n_layer, "n_head": config.n_head, "layer_norm_epsilon": NORM_EPSILON,
            "bos_token_id": eot, "eos_token_id": eot, "tie_word_embeddings": True, "torch_dtype": "float32",
            **{theirs: getattr(config, ours) for theirs, ours in DROPOUTS.items()}}
