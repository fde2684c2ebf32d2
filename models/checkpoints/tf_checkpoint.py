"""Weights in TensorFlow's checkpoints: OpenAI's with hparams.json beside, the original's, and our own.

A model that does not fit into memory is written part by part.  Sources: the names,
https://github.com/openai/gpt-2, src/model.py; the format, tensorflow/core/util/tensor_bundle.
"""
import contextlib
import glob
import json
import math
import re

import tensorflow.compat.v1 as tf

from configs import reading, storage
from configs.errors import UserError
from models.checkpoints.state_file import named_newest, note_newest, step_in_name
from models.weights import SCOPE, StoredWeights, groups, heads_fit, is_slot, network_sizes

KIND = "TensorFlow checkpoint"
HPARAMS_FILE, NAME = "hparams.json", "model.ckpt"
HPARAMS = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")
READ_BYTES = 2**24
GROUP_BYTES = 2**28  # of the tensors that are in memory at once while they are written, and of a data file


def find(path):
    """The checkpoint that `path` (a folder, a prefix, or a file of it) means, without suffix; None where none is."""
    for prefix in (path, without_ending(path), named_newest(path)):
        if prefix and storage.exists(prefix + ".index"):
            return prefix
    if not storage.is_folder(path):
        return None
    prefixes = [name[:-len(".index")] for name in storage.glob(storage.below(path, "*.index"))]
    return max(prefixes, key=step_in_name, default=None)


def without_ending(path):
    """The prefix of the checkpoint that has the file `path`; `path` itself where it is no such file."""
    return re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)


class Damaged(UserError):
    """All files of a checkpoint that are there can be read, and it is not whole."""


@contextlib.contextmanager
def naming_damage(path, *, every_error=False):
    """Turns TensorFlow's error for a damaged or missing file of the checkpoint `path` (or None) into a UserError.

    A session also computes and reads data, so an error counts that names the checkpoint, or `every_error`.
    """
    try:
        yield
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError) as error:  # the last two: a file that was cut off
        said = " ".join(str(error).split())
        refused = path and storage.is_remote(path) and re.search("HTTP|permission|credential", said)  # it may be whole
        if not path or refused or not (every_error or "RestoreV2" in said or path in said):
            raise
        unreadable = _unreadable(path)
        if unreadable:
            raise UserError(f"the checkpoint {path} cannot be read, and may be whole: {unreadable}; mend that, or use"
                            " another checkpoint")
        raise Damaged(f"the checkpoint {path} is damaged or incomplete ({said[:160]}); bring its files back, or use"
                      " another checkpoint")


def _unreadable(path):
    """The first file of a checkpoint that cannot be read, and why; None where all that are there can."""
    for file in storage.glob(glob.escape(path) + ".*"):
        try:
            with storage.open_file(file, "rb") as f:
                while f.read(READ_BYTES):
                    pass
        except (OSError, tf.errors.OpError) as error:
            return f"{file}: {getattr(error, 'strerror', None) or str(error).splitlines()[0]}"
    return None


def read_index(path):
    """(read(name), {name: shape}, {name: dtype}) of all tensors.  It and `read` raise UserError for damaged files."""
    storage.check_for_tensorflow(path, "the checkpoint")
    with naming_damage(path, every_error=True):
        reader = tf.train.load_checkpoint(path)
        types, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
        declared = sum(math.prod(shape) * types[name].size for name, shape in shapes.items()
                       if types[name] != tf.string)
        there = sum(map(storage.size, storage.glob(glob.escape(path) + ".data-*")))
        if declared > there:  # TensorFlow would ask for as much memory as a damaged shape tells
            raise ValueError(f"its index tells of {declared:,} bytes of tensors, its data files have {there:,}")
    return (naming_damage(path, every_error=True)(reader.get_tensor),  # which compares checksums
            {name: tuple(shape) for name, shape in sorted(shapes.items())},
            {name: dtype.name for name, dtype in types.items()})


def open_weights(prefix):
    """The StoredWeights of the checkpoint `prefix`.  Raises UserError where it is damaged or not GPT-2's."""
    read, shapes, dtypes = read_index(prefix)
    below = {name[len(SCOPE) + 1:]: shape for name, shape in shapes.items() if name.startswith(SCOPE + "/")}
    weights = {name: shape for name, shape in below.items() if not is_slot(name, below)}
    sizes = network_sizes(weights)
    if sizes is None:
        raise UserError(f"{prefix} holds no GPT-2: no matrices {SCOPE}/wte and {SCOPE}/wpe among its {len(shapes)}"
                        " tensors; give the checkpoint of a GPT-2")

    def read_float32(name):
        return read(f"{SCOPE}/{name}").astype("float32", copy=False)  # some models of the original are in bfloat16
    for name in weights:
        del shapes[f"{SCOPE}/{name}"]
    return StoredWeights(prefix, KIND, weights, {name: dtypes[f"{SCOPE}/{name}"] for name in below}, read_float32,
                         {**sizes, **_read_hparams(prefix, sizes)}, not_weights=shapes)


def write(prefix, shapes, read):
    """Writes the checkpoint `prefix` of float32 weights `read(name)` for every {name: shape}."""
    parts = {f"{prefix}_temp/part-{number}": names for number, names in enumerate(groups(shapes, GROUP_BYTES))}
    for part, names in parts.items():
        with tf.Graph().as_default(), tf.Session() as session:
            tensors = [tf.placeholder(tf.float32, shapes[name]) for name in names]
            save = tf.raw_ops.SaveV2(prefix=part, tensor_names=[f"{SCOPE}/{name}" for name in names],
                                     shape_and_slices=[""] * len(names), tensors=tensors)
            session.run(save, {tensor: read(name) for tensor, name in zip(tensors, names)})
    with tf.Graph().as_default(), tf.Session() as session:  # renames the parts' data and joins their indices
        session.run(tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=list(parts), destination_prefix=prefix,
                                                  delete_old_dirs=True))


def write_folder(folder, config, shapes, read):
    """A folder as OpenAI's programs read it, but for the vocabulary: checkpoint and hparams.json."""
    storage.make_folder(folder)
    write(storage.join(folder, NAME), shapes, read)
    hparams = {name: getattr(config, name) for name in HPARAMS}
    storage.write_whole(storage.join(folder, HPARAMS_FILE), json.dumps(hparams, indent=2) + "\n")
    note_newest(storage.join(folder, NAME))


def _read_hparams(prefix, sizes):
    """{config key: value} of the hparams.json beside the checkpoint, {} without one."""
    path = storage.join(prefix.rpartition("/")[0] or ".", HPARAMS_FILE)
    if not storage.exists(path):
        return {}
    values = {name: value for name, value in reading.read_object(path).items() if name in HPARAMS}
    wrong = [f'"{name}" {reading.shown(value)}' for name, value in values.items() if sizes.get(name, value) != value
             or type(value) is not int or name == "n_head" and not heads_fit(value, sizes["n_embd"])]
    if wrong:
        raise UserError(f"{path} says {', '.join(wrong)}, and the tensors of {prefix} say otherwise"
                        f" ({json.dumps(sizes)}); bring the two of one model together")
    return values
