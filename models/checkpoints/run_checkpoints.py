"""The checkpoints of a run: which is the newest, its step, its copies, and whether it fits the network of a config."""
import contextlib
import os
import sys

import tensorflow.compat.v1 as tf

from configs import storage
from configs.errors import UserError
from configs.resume import ANOTHER, CONFIG_FILE, DATA_FILE
from models.checkpoints import hugging_face, state_file, tf_checkpoint
from models.checkpoints.state_file import STATE_FILE, files_of, step_in_name
from models.weights import SCOPE, is_slot, misfits, slot_shapes

REMEDY = ('set "init_checkpoint" to it, with another "model_dir", or give it to `python3 -m models.checkpoints`, which'
          ' imports it')


def latest(model_dir):
    """Path of the checkpoint that TensorFlow noted as the newest, or None where there never was one."""
    # storage raises where Google Storage refuses; TensorFlow would say none, and we start over
    path = state_file.named_newest(model_dir)
    return path if path and storage.exists(path + ".index") else None


def is_at(model_dir, step):
    """Whether the newest checkpoint is that of `step`."""
    return step_in_name(latest(model_dir) or "") == step


def newest_whole(model_dir, otherwise=ANOTHER, *, train=True):
    """Path of the newest checkpoint of which all can be read that `read_whole` reads; None where there never was one.

    A first save that was cut short, by a full disk or a kill, leaves one of step 0 and no file that names the newest.
    Names on stderr what it passes over.  Raises UserError where none is left, or where it is unclear; `otherwise` is
    the other remedy that it names.
    """
    state, named = storage.join(model_dir, STATE_FILE), state_file.named_newest(model_dir)
    paths, noted = state_file.all_in(model_dir), storage.exists(state)
    if not noted and not paths:
        # Somebody's weights that were put here would be overlooked.
        for name in (tf_checkpoint.NAME + ".index", hugging_face.SINGLE, hugging_face.INDEX, "pytorch_model.bin"):
            if storage.exists(storage.join(model_dir, name)):
                raise UserError(f"{model_dir} holds weights from elsewhere ({name}) and no checkpoint of a run;"
                                f" {REMEDY}")
        return None
    if named and step_in_name(named) < 0 and not storage.exists(named + ".index"):
        named = None  # the file names none of a run's checkpoints: all that are there count
    if named:  # what is newer was not yet noted when the process died
        paths = [named] + [path for path in paths if step_in_name(path) < step_in_name(named)]
    problems = []
    for path in paths:
        try:
            read_whole(path, train=train)
        except tf_checkpoint.Damaged as error:  # one that cannot be read just now is not passed over
            problems.append(str(error))
            continue
        for line in problems if noted else [*problems, f"there is no {state}"]:
            print(f"warning: {line}; going on from {path}", file=sys.stderr)
        return path
    if not noted and not any(map(step_in_name, paths)):
        print(f"warning: {problems[0]}; it is of step 0 and was never noted: nothing was trained yet", file=sys.stderr)
        return None
    reason = "; ".join(problems) or f"{state} cannot be read"
    raise UserError(f"{reason}; no checkpoint there can be read whole: bring one back, or {otherwise}")


def read_whole(path, *, train=True):
    """Reads the tensors of the checkpoint at `path`: all, or without `train` those that are not the optimizer's.

    Raises UserError where one cannot be read.
    """
    read, shapes, _ = tf_checkpoint.read_index(path)
    for name in shapes:
        if train or not is_slot(name, shapes):
            read(name)


def step_of(path):
    """The global step of the checkpoint at `path` (None: 0).  UserError where it holds weights only."""
    if path is None:
        return 0
    read, shapes, _ = tf_checkpoint.read_index(path)
    if tf.GraphKeys.GLOBAL_STEP not in shapes:
        raise UserError(f"{path} holds weights but no step of training, so it is no checkpoint of a run; {REMEDY}")
    return int(read(tf.GraphKeys.GLOBAL_STEP))


def remove(path):
    """Removes the checkpoint `path`, its index first: what is left without one is no checkpoint."""
    for file in reversed(files_of(path)):
        with contextlib.suppress(tf.errors.OpError):  # as TensorFlow: who may not remove it keeps it
            storage.remove(file)


def copy(path, folder, copy_file=storage.copy):
    """Makes `folder` a model_dir whose newest checkpoint is a copy of `path`, a run's; returns the bytes copied.

    Whenever the process is killed, the file "checkpoint" there names a whole checkpoint, or is not there.
    """
    files = files_of(path)
    if not any(name.endswith(".index") for name in files):
        raise tf.errors.NotFoundError(None, None, f"{path}: the run has deleted it")
    storage.make_folder(folder)
    run_files = [storage.join(os.path.dirname(path), name) for name in (CONFIG_FILE, DATA_FILE)]
    copied = 0
    for source in files + [source for source in run_files if storage.exists(source)]:
        target = storage.join(folder, os.path.basename(source))
        copy_file(source, target)
        copied += storage.size(target)
    state_file.note_newest(storage.join(folder, os.path.basename(path)))
    return copied


def check(path, config, *, train, otherwise=ANOTHER):
    """Raises UserError where the run's checkpoint at `path` does not fit the network, or to `train`, the optimizer.

    `otherwise` is the other remedy that it names.
    """
    stored = tf_checkpoint.open_weights(path)
    problem = misfits(stored.shapes, config)
    if problem:
        raise UserError(f"{path} does not fit the config: {problem}; use the config it was trained with or"
                        f" {otherwise}")
    foreign = [name for name, dtype in stored.dtypes.items() if dtype != "float32"]
    if foreign:
        raise UserError(f"{path} stores {SCOPE}/{foreign[0]} as {stored.dtypes[foreign[0]]}, so it is not of this"
                        f" program and cannot be used as it is; {REMEDY}")
    absent = [name for name, shape in slot_shapes(config).items() if stored.not_weights.get(f"{SCOPE}/{name}") != shape]
    if train and absent:
        raise UserError(f"{path} does not hold what the optimizer keeps ({SCOPE}/{absent[0]}), so it is not of this"
                        f" program or was stripped, and its training cannot be continued; {REMEDY}")
