"""Makes a new run that goes on from a checkpoint of another, which may be older than that one's newest.

So a run that has cooled down is extended from before its decay: Hägele et al. 2024, https://arxiv.org/abs/2405.18392.
"""
import json
import shlex

import tensorflow.compat.v1 as tf

from configs import resume, schema, storage
from configs.errors import UserError
from models.checkpoints import chosen, run_checkpoints


def run(args):
    """The command `branch` of `python3 -m models.checkpoints`; returns the exit status."""
    path = chosen.of_path(args.checkpoint, args.checkpoint)
    step, config = run_checkpoints.step_of(path), _config_of(path)
    run_checkpoints.check(path, config, train=True)
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
