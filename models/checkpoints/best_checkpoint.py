"""Keeps the checkpoint with the lowest evaluation loss in model_dir/best, which is a model_dir by itself."""
import contextlib
import json
import os

from configs import reading, storage
from models.checkpoints import run_checkpoints

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
    stale = storage.glob(storage.below(folder, "model.ckpt-*"))
    run_checkpoints.copy(path, folder, _link)
    storage.write_whole(note, json.dumps(result) + "\n")
    for old in stale:
        if not os.path.basename(old).startswith(os.path.basename(path) + "."):
            storage.remove(old)
    return True


def _link(source, target):
    """Links the file where the file system can, which takes no room: a checkpoint's files never change."""
    if not storage.is_remote(source):
        with contextlib.suppress(OSError):
            if os.path.exists(target):
                os.unlink(target)
            os.link(source, target)
            return
    storage.copy(source, target)
