"""Weights in TensorFlow's checkpoints: OpenAI's with hparams.json beside, the original's, and our own.

Written tensor by tensor: a model that does not fit into memory can be converted.  Source of the names:
https://github.com/openai/gpt-2, src/model.py; of the sharded format: tensorflow/core/util/tensor_bundle.
"""
import contextlib
import glob
import json
import re

import tensorflow.compat.v1 as tf

from configs import reading, storage
from configs.errors import UserError
from models.weights import SCOPE, Source, is_slot, sizes

KIND = "TensorFlow checkpoint"
HPARAMS_FILE, STATE_FILE, NAME = "hparams.json", "checkpoint", "model.ckpt"
HPARAMS = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")
GROUP_BYTES = 2**28  # tensors that are in memory at once while writing, and the size of a data file


def find(path):
    """The checkpoint that `path` (a folder, a prefix, or a file of it) means, without suffix; None where none is."""
    for prefix in (path, re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)):
        if storage.exists(prefix + ".index"):
            return prefix
    if not storage.is_folder(path):
        return None
    state = storage.exists(storage.join(path, STATE_FILE)) and tf.train.get_checkpoint_state(path)
    if state:  # not TensorFlow's latest_checkpoint: in a folder that was copied, it finds the place of the original
        newest = storage.join(path, state.model_checkpoint_path.rpartition("/")[2])
        if storage.exists(newest + ".index"):
            return newest
    found = [name[:-len(".index")] for name in storage.glob(storage.join(glob.escape(path), "*.index"))]
    return max(found, key=_step, default=None)


def open_source(prefix):
    """The Source of the checkpoint `prefix`.  Raises UserError where it is damaged or not GPT-2's."""
    with _naming_damage(prefix):
        reader = tf.train.load_checkpoint(prefix)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    below = {name[len(SCOPE) + 1:]: tuple(shape) for name, shape in shapes.items() if name.startswith(SCOPE + "/")}
    weights = {name: shape for name, shape in sorted(below.items()) if not is_slot(name, below)}
    found = sizes(weights)
    if found is None:
        raise UserError(f"{prefix} holds no GPT-2: no matrices {SCOPE}/wte and {SCOPE}/wpe among its {len(shapes)}"
                        " tensors; give the checkpoint of a GPT-2")

    def read(name):
        with _naming_damage(prefix):
            value = reader.get_tensor(f"{SCOPE}/{name}")
        return value.astype("float32", copy=False)  # the original stored some models in bfloat16
    return Source(prefix, KIND, weights, {name: dtypes[f"{SCOPE}/{name}"].name for name in weights}, read,
                  {**found, **_read_hparams(prefix, found)},
                  {name: tuple(shape) for name, shape in sorted(shapes.items())
                   if name[len(SCOPE) + 1:] not in weights or not name.startswith(SCOPE + "/")})


def write(prefix, shapes, read):
    """Writes the checkpoint `prefix` of float32 weights `read(name)` for every {name: shape}."""
    groups, space = [], 0
    for name, shape in shapes.items():
        size = 4 * int(tf.TensorShape(shape).num_elements())
        if not groups or space + size > GROUP_BYTES:
            groups, space = groups + [[]], 0
        groups[-1].append(name)
        space += size
    parts = [f"{prefix}_temp/part-{number}" for number in range(len(groups))]
    for names, part in zip(groups, parts):
        with tf.Graph().as_default(), tf.Session() as session:
            tensors = [tf.placeholder(tf.float32, shapes[name]) for name in names]
            save = tf.raw_ops.SaveV2(prefix=part, tensor_names=[f"{SCOPE}/{name}" for name in names],
                                     shape_and_slices=[""] * len(names), tensors=tensors)
            session.run(save, {tensor: read(name) for tensor, name in zip(tensors, names)})
    with tf.Graph().as_default(), tf.Session() as session:  # renames the parts' data and joins their indices
        session.run(tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=prefix,
                                                  delete_old_dirs=True))


def write_folder(folder, config, shapes, read):
    """A folder as OpenAI's programs read it, but for the vocabulary: checkpoint and hparams.json."""
    storage.make_folder(folder)
    write(storage.join(folder, NAME), shapes, read)
    hparams = {name: getattr(config, name) for name in HPARAMS}
    storage.write_whole(storage.join(folder, HPARAMS_FILE), json.dumps(hparams, indent=2) + "\n")
    storage.write_whole(storage.join(folder, STATE_FILE), f'model_checkpoint_path: "{NAME}"\n'
                                                          f'all_model_checkpoint_paths: "{NAME}"\n')


def _read_hparams(prefix, found):
    """{config key: value} of the hparams.json beside the checkpoint, {} without one."""
    path = storage.join(prefix.rpartition("/")[0] or ".", HPARAMS_FILE)
    if not storage.exists(path):
        return {}
    values = {name: value for name, value in reading.read_object(path).items() if name in HPARAMS}
    wrong = [f'"{name}" {reading.shown(value)}' for name, value in values.items() if found.get(name, value) != value
             or type(value) is not int]
    if wrong:
        raise UserError(f"{path} says {', '.join(wrong)}, and the tensors of {prefix} say otherwise"
                        f" ({json.dumps(found)}); bring the two of one model together")
    return values


def _step(prefix):
    found = re.search(r"-(\d+)$", prefix)
    return int(found.group(1)) if found else -1


@contextlib.contextmanager
def _naming_damage(prefix):
    try:
        yield
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError) as error:  # the reader's words for a cut-off file
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"the checkpoint {prefix} is damaged or incomplete ({reason}); fetch its files anew")
