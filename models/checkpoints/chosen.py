"""The checkpoint that a user names: the best of the run, one of any run, or the newest in a folder."""
import os

from configs import arguments, reading, storage
from configs.errors import UserError
from models.checkpoints import best_checkpoint, run_checkpoints, state_file, tf_checkpoint

ANOTHER = "name another checkpoint"  # what else helps where it does not fit


def path_of(config, checkpoint):
    """Path of the checkpoint that `checkpoint`, the value of the option, names; its weights can be read.

    Raises UserError where there is none, or only weights from elsewhere, or where it is damaged.
    """
    option = f"--checkpoint {checkpoint}"
    if checkpoint == arguments.BEST:
        return _newest_in(best_checkpoint.folder_of(config.model_dir), option, _why_no_best(config), train=False)
    storage.check_for_tensorflow(checkpoint, "--checkpoint")
    return of_path(checkpoint, option, f"{ANOTHER}, or leave --checkpoint out", config.model_dir, train=False)


def of_path(path, name, otherwise=ANOTHER, run=".", *, train=True):
    """As `path_of`, for the `path` of a checkpoint, of a file of it, or of a folder, whose newest one is meant.

    An error calls it `name` and says `otherwise`; if the path is a bare name, it tells what lies in the folder `run`.
    With `train`, what its optimizer kept can be read as well.
    """
    if storage.is_folder(path):
        return _newest_in(path, name, otherwise, train=train)
    prefix = tf_checkpoint.without_ending(path)
    if prefix not in map(tf_checkpoint.without_ending, state_file.files_of(prefix)):
        raise UserError(f"{name}{_what_is_there(path, os.path.dirname(path) or run)}")
    run_checkpoints.read_whole(prefix, train=train)
    return prefix


def _newest_in(folder, name, otherwise, *, train):
    path = run_checkpoints.newest_whole(folder, ANOTHER, train=train)
    if path is None:
        raise UserError(f"{name}: {folder}{storage.looked_for_in(folder)} holds no checkpoint; {otherwise}")
    return path


def _why_no_best(config):
    """How a best checkpoint comes to be, and what to do without one, in words."""
    if config.eval_steps == 0:
        return ('the evaluations of a training keep the best one there, and "eval_steps" is 0; set it to another number'
                " and train, or leave --checkpoint out to take the newest")
    return (f'the evaluations of a training keep the best one there, every "train_steps" {config.train_steps} steps;'
            " train up to one, or leave --checkpoint out to take the newest")


def _what_is_there(path, folder):
    """What to say of a path that is no checkpoint, where those in `folder` may be meant."""
    if storage.exists(path):
        return f" is a file, but no checkpoint of a run; if it holds weights, {run_checkpoints.REMEDY}"
    there = state_file.all_in(folder)[::-1]
    instead = f"there are {reading.shorten(there)}" if there else f"{folder} holds none, either"
    return f"{storage.looked_for_in(path)}: no such checkpoint or folder; {instead}"
