"""Keeps the checkpoint with the lowest evaluation loss in model_dir/best, which is a model_dir by itself."""
import contextlib
import json
import os

from configs import reading, storage
from models.checkpoints import run_checkpoints

FOLDER = "best"
RESULT_FILE = "evaluation.json"
WORSE = "worse"  # its key for the steps of later evaluations


def keep(model_dir, path, result):
    """Copies the checkpoint `path` to model_dir/best if its `loss` is the lowest so far; returns whether it did.

    `result` {"loss", "step", "eval_set", "windows"} is written beside it, and later the steps with "worse" losses.  A
    loss on other evaluation windows is not compared.  Whenever the process is killed, best/ holds one whole checkpoint
    that loads.
    """
    folder, before = storage.join(model_dir, FOLDER), _read(model_dir)
    note = storage.join(folder, RESULT_FILE)
    comparable = all(before.get(key) == result[key] for key in ("eval_set", "windows"))
    if comparable and before["loss"] <= result["loss"]:
        worse = {*before.get(WORSE, []), result["step"]} - {before["step"]}  # a step may be evaluated twice
        storage.write_whole(note, json.dumps({**before, WORSE: sorted(worse)}) + "\n")
        return False
    stale = storage.glob(storage.below(folder, "model.ckpt-*"))
    run_checkpoints.copy(path, folder, _link)
    storage.write_whole(note, json.dumps(result) + "\n")
    for old in stale:
        if not os.path.basename(old).startswith(os.path.basename(path) + "."):
            storage.remove(old)
    return True


def evaluations(model_dir, step):
    """(step of the best evaluation or None, [steps up to `step` of those that were made since and were not better])."""
    note = _read(model_dir)
    return note.get("step"), [number for number in note.get(WORSE, []) if number <= step]


def has_seen(model_dir, step):
    """Whether the evaluation of this step was made and compared with the best."""
    best, worse = evaluations(model_dir, step)
    return step in (best, *worse)


def _read(model_dir):
    note = storage.join(storage.join(model_dir, FOLDER), RESULT_FILE)
    return reading.read_object(note) if storage.exists(note) else {}


def _link(source, target):
    """Links the file where the file system can, which takes no room: a checkpoint's files never change."""
    if not storage.is_remote(source):
        with contextlib.suppress(OSError):
            if os.path.exists(target):
                os.unlink(target)
            os.link(source, target)
            return
    storage.copy(source, target)
