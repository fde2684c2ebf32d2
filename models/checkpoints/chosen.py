"""The checkpoint that --checkpoint names: the best of the run, one of any run, or the newest in a folder."""
import os

from configs import arguments, reading, storage
from configs.errors import UserError
from models.checkpoints import best_checkpoint, run_checkpoints, tf_checkpoint

ANOTHER = "name another checkpoint"  # what else helps where it does not fit


def path_of(config, checkpoint):
    """Path of the checkpoint that `checkpoint`, the value of the option, names; every byte of it can be read.

    Raises UserError where there is none, or only weights from elsewhere, or where it is damaged.
    """
    storage.check_for_tensorflow(checkpoint, "--checkpoint")
    best = checkpoint == arguments.BEST
    folder = best_checkpoint.folder_of(config.model_dir) if best else checkpoint
    if best or storage.is_folder(folder):
        path = run_checkpoints.newest_whole(folder, ANOTHER)
        if path is None:
            why = _why_no_best(config) if best else f"{ANOTHER}, or leave --checkpoint out"
            raise UserError(f"--checkpoint {checkpoint}: {folder}{storage.looked_for_in(folder)} holds no checkpoint;"
                            f" {why}")
        return path
    path = tf_checkpoint.without_ending(checkpoint)
    if path not in map(tf_checkpoint.without_ending, run_checkpoints.files_of(path)):
        raise UserError(_what_is_there(config, checkpoint))
    run_checkpoints.read_whole(path)
    return path


def _why_no_best(config):
    """How a best checkpoint comes to be, and what to do without one, in words."""
    if config.eval_steps == 0:
        return ('the evaluations of a training keep the best one there, and "eval_steps" is 0; set it to another number'
                " and train, or leave --checkpoint out to take the newest")
    return (f'the evaluations of a training keep the best one there, every "train_steps" {config.train_steps} steps;'
            " train up to one, or leave --checkpoint out to take the newest")


def _what_is_there(config, checkpoint):
    """What to say of a path that is no checkpoint."""
    if storage.exists(checkpoint):
        return (f"--checkpoint {checkpoint} is a file, but no checkpoint of a run; if it holds weights,"
                f" {run_checkpoints.REMEDY}")
    folder = os.path.dirname(checkpoint) or config.model_dir
    there = [path[:-len(".index")] for path in storage.glob(storage.below(folder, "model.ckpt-*.index"))]
    instead = f"there are {reading.shorten(there)}" if there else f"{folder} holds none, either"
    return f"--checkpoint {checkpoint}{storage.looked_for_in(checkpoint)}: no such checkpoint or folder; {instead}"
