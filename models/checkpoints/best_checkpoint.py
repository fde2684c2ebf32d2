"""Keeps the checkpoint with the lowest evaluation loss in model_dir/best, which is a model_dir by itself."""
import contextlib
import json
import math
import os

from configs import reading, storage
from configs.errors import UserError
from models.checkpoints import run_checkpoints
from models.checkpoints.state_file import BEST

RESULT_FILE = "evaluation.json"
WORSE = "worse"  # its key for the steps of later evaluations


def folder_of(model_dir):
    """Where the best checkpoint of a run is kept."""
    return storage.join(model_dir, BEST)


def keep(model_dir, path, result):
    """Copies the checkpoint `path` to model_dir/best if its `loss` is the lowest so far; returns whether it did.

    `result` {"loss", "step", "eval_set", "windows"} is written beside it, and later the steps with "worse" losses.  A
    loss on other evaluation windows is not compared.  Whenever the process is killed, best/ holds one whole checkpoint
    that loads.
    """
    result = {**result, "loss": result["loss"] if math.isfinite(result["loss"]) else None}  # JSON has no NaN
    folder, before = folder_of(model_dir), _read(model_dir)
    note = storage.join(folder, RESULT_FILE)
    comparable = all(before.get(key) == result[key] for key in ("eval_set", "windows"))
    loss, lowest = result["loss"], before.get("loss")
    if comparable and (loss is None or lowest is not None and lowest <= loss):
        # The run has made this step again: its checkpoint was damaged, and the best one may be, too.
        if loss == lowest and result["step"] == before["step"]:
            run_checkpoints.copy(path, folder, _link)
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
    note = storage.join(folder_of(model_dir), RESULT_FILE)
    if not storage.exists(note):
        return {}
    remedy = "move the folder it lies in elsewhere, and the best checkpoint is kept anew from the next evaluation on"
    result = reading.read_object(note, remedy)
    try:
        reading.check_kinds(result, {"loss": (float, int, type(None)), "step": int, "eval_set": str, "windows": int})
        reading.check_kinds({WORSE: [], **result}, {WORSE: list})
        wrong = [step for step in result.get(WORSE, []) if type(step) is not int]
        if wrong:
            raise ValueError(f'"{WORSE}" holds {reading.shown(wrong[0])}')
    except ValueError as error:
        raise UserError(f"{note} is damaged ({error}); {remedy}")
    return result


def _link(source, target):
    """Links the file where the file system can: a link takes no room.  Copies an index.

    Where a run makes a step again, TensorFlow replaces the file of data, but writes into the index that is there.
    """
    if not storage.is_remote(source):
        with contextlib.suppress(OSError):
            if os.path.exists(target):
                os.unlink(target)  # it may be a link to the source
            if not source.endswith(".index"):
                os.link(source, target)
                return
    storage.copy(source, target)
