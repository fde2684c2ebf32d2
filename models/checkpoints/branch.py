"""Makes a new run that goes on from a checkpoint of another, which may be older than that one's newest.

So a run that has cooled down is extended from before its decay: Hägele et al. 2024, https://arxiv.org/abs/2405.18392.
"""
import json
import shlex

import tensorflow.compat.v1 as tf

from configs import resume, schema, storage
from configs.errors import UserError
from models.checkpoints import run_checkpoints, state_file, tf_checkpoint


def run(args):
    """The command `branch` of `python3 -m models.checkpoints`; returns the exit status."""
    path = tf_checkpoint.find(args.checkpoint)
    if path is None:
        raise _without_checkpoint(args.checkpoint)
    step, config = run_checkpoints.step_of(path), _config_of(path)
    run_checkpoints.check(path, config, train=True)
    run_checkpoints.read_all(path)
    destination = args.dst.rstrip("/")
    with storage.new_folder(destination) as folder:
        try:
            run_checkpoints.copy(path, folder)
        except tf.errors.NotFoundError:
            raise UserError(f"{path}: its run trains, and has deleted it meanwhile; give a newer one, or raise"
                            ' "keep_checkpoint_max"') from None
    keys = ["max_steps", *(["decay_steps"] if config.lr_schedule == "wsd" else [])]
    print(f"{destination}: a run at step {step}, copied from {path}; go on with python3 main.py --model CONFIG.json"
          f" --set {shlex.quote(f'model_dir={destination}')} {' '.join(f'--set {key}=...' for key in keys)}")
    return 0


def _config_of(path):
    """The Config beside the checkpoint.  Raises UserError where no run has left one there."""
    folder = path.rpartition("/")[0] or "."
    note = storage.join(folder, resume.CONFIG_FILE)
    if not storage.exists(note):
        raise UserError(f"{path} is no run's checkpoint: no {resume.CONFIG_FILE} lies beside it; give one in the"
                        ' "model_dir" of a run')
    return schema.load(note, [f"model_dir={json.dumps(folder)}"])  # its own may have moved


def _without_checkpoint(path):
    """The UserError for a path where no checkpoint is."""
    folder = path if storage.is_folder(path) else path.rpartition("/")[0] or "."
    steps = sorted(map(state_file.step_in_name, run_checkpoints.all_in(folder)))
    there = f"{folder} has those of the steps {', '.join(map(str, steps))}" if steps else "give RUN/model.ckpt-STEP"
    return UserError(f"{path}: no such checkpoint{storage.looked_for_in(path)}; {there}")
