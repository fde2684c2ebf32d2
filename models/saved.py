"""The checkpoints of a run: which is the newest, its step, and whether it fits the network of a config."""
import contextlib
import glob

import tensorflow.compat.v1 as tf

import storage
from errors import UserError
from models.weights import SCOPE, weight_list

STATE_FILE = "checkpoint"  # where TensorFlow notes the newest
SHOWN = 3  # names per kind of misfit in a message


def latest(model_dir):
    """Path of the newest checkpoint in `model_dir`, or None where there never was one."""
    state = storage.join(model_dir, STATE_FILE)
    if not storage.exists(state):  # raises where Google Storage refuses; TensorFlow would say none, and we start over
        if storage.glob(storage.join(glob.escape(model_dir), "model.ckpt-*.index")):
            raise UserError(f'{model_dir} holds checkpoints, but not the file "{STATE_FILE}" that names the'
                            ' newest; write it (one line, model_checkpoint_path: "model.ckpt-STEP") or remove them')
        return None
    try:
        path = tf.train.latest_checkpoint(model_dir)
    except ValueError:  # empty, or not text
        path = None
    if path is None:
        raise UserError(f"{state} cannot be read or names a checkpoint that is not there; bring its files back, or"
                        " delete it to start anew")
    return path


def step_of(path):
    """The global step of the checkpoint at `path` (None: 0).  UserError where it holds weights only."""
    if path is None:
        return 0
    with reading(path):
        reader = tf.train.load_checkpoint(path)
        if reader.has_tensor(tf.GraphKeys.GLOBAL_STEP):
            return int(reader.get_tensor(tf.GraphKeys.GLOBAL_STEP))
    raise UserError(f"{path} holds weights but no step of training, so it cannot be continued; move it elsewhere and"
                    ' set "init_checkpoint" to it')


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


def check(path, config):
    """Raises UserError with the missing, extra and misshapen tensors of the checkpoint at `path`."""
    with reading(path):
        found = dict(tf.train.list_variables(path))
    wanted = {f"{SCOPE}/{weight.name}": list(weight.shape) for weight in weight_list(config)}
    # An optimizer's slot stands below its weight's name; everything else of the scope is of another network.
    extra = [name for name in found if name.startswith(SCOPE + "/") and name not in wanted
             and name.rpartition("/")[0] not in found]
    misshapen = [f"{name} is {found[name]}, not {shape}" for name, shape in wanted.items()
                 if name in found and list(found[name]) != shape]
    misfits = [("missing", [name for name in wanted if name not in found]), ("extra", extra),
               ("of another shape", misshapen)]
    if any(names for _, names in misfits):
        listed = "; ".join(f"{len(names)} {what} ({_shorten(names)})" for what, names in misfits if names)
        raise UserError(f"{path} does not fit the config: {listed}; use the config it was trained with or another"
                        ' "model_dir"')


def _shorten(names):
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f", and {rest} more" if rest > 0 else "")
