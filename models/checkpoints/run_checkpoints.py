"""The checkpoints of a run: which is the newest, its step, and whether it fits the network of a config."""
import contextlib
import glob
import os
import re
import sys

import tensorflow.compat.v1 as tf

from configs import storage
from configs.errors import UserError
from models.checkpoints import hugging_face, tf_checkpoint
from models.weights import SCOPE, is_slot, misfits, slot_shapes

STATE_FILE = "checkpoint"  # where TensorFlow notes the newest
REMEDY = ('move it elsewhere and set "init_checkpoint" to it, or give it to `python3 -m models.checkpoints`, which'
          ' imports it')


def latest(model_dir):
    """Path of the checkpoint that TensorFlow noted as the newest, or None where there never was one."""
    if not storage.exists(storage.join(model_dir, STATE_FILE)):
        return None  # storage raises where Google Storage refuses; TensorFlow would say none, and we start over
    return tf.train.latest_checkpoint(model_dir)


def is_at(model_dir, step):
    """Whether the newest checkpoint is that of `step`."""
    return _number(latest(model_dir) or "") == step


def whole(model_dir):
    """Path of the newest checkpoint whose every byte can be read, or None where there never was one.

    Names on stderr what is passed over for it.  Raises UserError where none is left, or where it is unclear.
    """
    state = storage.join(model_dir, STATE_FILE)
    paths = sorted((path[:-len(".index")] for path in storage.glob(
        storage.join(glob.escape(model_dir), "model.ckpt-*.index"))), key=_number, reverse=True)
    if not storage.exists(state):
        if paths:
            raise UserError(f'{model_dir} holds checkpoints, but not the file "{STATE_FILE}" that names the'
                            ' newest; write it (one line, model_checkpoint_path: "model.ckpt-STEP") or remove them')
        _refuse_weights(model_dir)
        return None
    named = _named(state)
    if named:  # what is newer was not yet noted when the process died
        paths = [named] + [path for path in paths if _number(path) < _number(named)]
    problems = []
    for path in paths:
        problem = _damage(path)
        if problem is None:
            for line in problems:
                print(f"warning: {line}; going on from {path}", file=sys.stderr)
            return path
        problems.append(f"the checkpoint {path} is damaged or incomplete ({problem})")
    reason = "; ".join(problems) or f"{state} cannot be read"
    raise UserError(f"{reason}; no whole checkpoint is left: bring its files back, or remove {state} and the"
                    " model.ckpt files to start anew")


def note_newest(path):
    """Makes `path` the checkpoint that TensorFlow restores: `whole` may have passed over newer ones."""
    folder, _, name = path.rpartition("/")
    state = storage.join(folder, STATE_FILE)
    if _named(state) != path:
        storage.write_whole(state, f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n')


def _named(state):
    """Path of the checkpoint that the file `state` names, whether it is there or not; None where it names none."""
    with storage.open_file(state, "rb") as f:
        found = re.search(rb'^model_checkpoint_path: "([^"]+)"', f.read(), re.MULTILINE)
    return storage.join(os.path.dirname(state), os.fsdecode(found.group(1))) if found else None


def _number(path):
    """The step in the name of a checkpoint; -1 for a foreign name."""
    found = re.search(r"-(\d+)$", path)
    return int(found.group(1)) if found else -1


def _damage(path):
    """What keeps the checkpoint at `path` from being read, in a few words, or None; reads it tensor by tensor."""
    try:
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)  # compares checksums
    except Exception as error:  # TensorFlow's reader also raises IndexError, ValueError and RuntimeError for damage
        if storage.is_remote(path) and re.search("HTTP|permission|credential", str(error)):
            raise
        return " ".join(str(error).split())[:160]
    return None


def step_of(path):
    """The global step of the checkpoint at `path` (None: 0).  UserError where it holds weights only."""
    if path is None:
        return 0
    with reading(path):
        reader = tf.train.load_checkpoint(path)
        if reader.has_tensor(tf.GraphKeys.GLOBAL_STEP):
            return int(reader.get_tensor(tf.GraphKeys.GLOBAL_STEP))
    raise UserError(f"{path} holds weights but no step of training, so it cannot be continued; {REMEDY}")


def _refuse_weights(model_dir):
    """Raises UserError for somebody's weights that were put into model_dir, where they would be overlooked."""
    for name in (tf_checkpoint.NAME + ".index", hugging_face.SINGLE, hugging_face.INDEX, "pytorch_model.bin"):
        path = storage.join(model_dir, name)
        if storage.exists(path):
            raise UserError(f'"model_dir" {model_dir} holds weights from elsewhere ({name}), and only a run\'s own'
                            f" checkpoints are continued there; {REMEDY}")


@contextlib.contextmanager
def reading(path):
    """Turns TensorFlow's word of a damaged or missing file of the checkpoint `path` into a UserError."""
    try:
        yield
    except (tf.errors.OpError, ValueError) as error:
        # Restoring happens inside a session that also computes and reads data: only what names the checkpoint counts.
        if "RestoreV2" not in str(error) and path not in str(error):
            raise
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"the checkpoint {path} is damaged or incomplete ({reason}); remove its files, and name the one"
                        f' before it in "{STATE_FILE}" beside it')


def check(path, config, *, train):
    """Raises UserError where the run's checkpoint at `path` does not fit the network, or to `train`, the optimizer."""
    with reading(path):
        reader = tf.train.load_checkpoint(path)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    below = {name[len(SCOPE) + 1:]: shape for name, shape in sorted(shapes.items()) if name.startswith(SCOPE + "/")}
    problem = misfits({name: shape for name, shape in below.items() if not is_slot(name, below)}, config)
    if problem:
        raise UserError(f"{path} does not fit the config: {problem}; use the config it was trained with or another"
                        ' "model_dir"')
    foreign = [name for name in below if dtypes[f"{SCOPE}/{name}"] != tf.float32]
    if foreign:
        raise UserError(f"{path} stores {SCOPE}/{foreign[0]} as {dtypes[f'{SCOPE}/{foreign[0]}'].name}, so it is not of"
                        f" this program and cannot be used as it is; {REMEDY}")
    absent = [name for name, shape in slot_shapes(config).items() if tuple(below.get(name, ())) != shape]
    if train and absent:
        raise UserError(f"{path} does not hold what the optimizer keeps ({SCOPE}/{absent[0]}), so it is not of this"
                        f" program or was stripped, and its training cannot be continued; {REMEDY}")
