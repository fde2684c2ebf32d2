"""Keeps the checkpoint with the lowest evaluation loss in model_dir/best, which is a model_dir by itself."""
import contextlib
import glob
import json
import os

import tensorflow.compat.v1 as tf

from configs import reading, storage
from configs.resume import CONFIG_FILE
from models.checkpoints import run_checkpoints
from models.checkpoints.run_folder import DATA_FILE

FOLDER = "best"
RESULT_FILE = "evaluation.json"


def keep(model_dir, path, result):
    """Copies the checkpoint `path` to model_dir/best if its `loss` is the lowest so far; returns whether it did.

    `result` {"loss", "eval_set", "windows", ...} is written beside it.  A loss on other evaluation windows is not
    compared.  Whenever the process is killed, best/ holds one whole checkpoint that loads.
    """
    folder = storage.join(model_dir, FOLDER)
    note = storage.join(folder, RESULT_FILE)
    before = reading.read_object(note) if storage.exists(note) else {}
    comparable = all(before.get(key) == result[key] for key in ("eval_set", "windows"))
    if comparable and before["loss"] <= result["loss"]:
        return False
    storage.make_folder(folder)
    stale = storage.glob(storage.join(glob.escape(folder), "model.ckpt-*"))
    name = os.path.basename(path)
    for source in storage.glob(glob.escape(path) + ".*"):
        _copy(source, storage.join(folder, os.path.basename(source)))
    for source in (CONFIG_FILE, DATA_FILE):
        _copy(storage.join(model_dir, source), storage.join(folder, source))
    storage.write_whole(storage.join(folder, run_checkpoints.STATE_FILE), f'model_checkpoint_path: "{name}"\n')
    storage.write_whole(note, json.dumps(result) + "\n")
    for old in stale:
        if not os.path.basename(old).startswith(name + "."):
            tf.io.gfile.remove(old)
    return True


def _copy(source, target):
    """A link where the file system can, which takes no room: files of a checkpoint are never written to again."""
    if not storage.is_remote(source):
        with contextlib.suppress(OSError):
            if os.path.exists(target):
                os.unlink(target)
            os.link(source, target)
            return
    tf.io.gfile.copy(source, target, overwrite=True)
