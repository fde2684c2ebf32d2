"""The folder of a run: whether it fits config, vocabulary and disk, and the notes beside the checkpoints."""
import contextlib
import dataclasses
import json
import os
import shutil

import tensorflow.compat.v1 as tf

from configs import arguments, file_errors, schema, storage
from configs.errors import UserError
from configs.resume import ANOTHER, CONFIG_FILE, DATA_FILE, batch_sizes, check_data, saved_config_warnings
from models.checkpoints import best_checkpoint, chosen, run_checkpoints, state_file, warm_start

LOCK_FILE = ".lock"
EVALUATIONS = "eval"  # the folder in model_dir where Estimators write their points for TensorBoard


def check(config, encoder, train_set=None):
    """(path of the newest checkpoint or None, warning lines).

    `train_set` is the shard_sets.ShardSet of the training data; None: nothing is to be trained.
    Raises UserError where the vocabulary, the network or the optimizer of the run in model_dir, or of the weights that
    it is to start from, are others.
    """
    lines = []
    path = run_checkpoints.newest_whole(config.model_dir, train=train_set is not None)
    if path:
        lines = _check_run(path, config, encoder, train_set)
    elif config.init_checkpoint:
        warm_start.check_all(config, encoder)
    return path, lines


def _check_run(path, config, encoder, train_set=None, otherwise=ANOTHER):
    """`check` where model_dir holds the checkpoint `path`; `otherwise` is the other remedy that its errors name."""
    run_checkpoints.step_of(path)
    lines = saved_config_warnings(config, otherwise) + check_data(config, encoder, train_set, otherwise)
    run_checkpoints.check(path, config, train=train_set is not None, otherwise=otherwise)
    return lines


def trained(config, encoder, purpose, checkpoint=None):
    """Path of the newest checkpoint, or of the one that --checkpoint names, checked as `check` does.

    None: init_checkpoint is to be used.  Raises UserError where there is nothing to be used.
    """
    if checkpoint is not None:
        path = chosen.path_of(config, checkpoint)
        beside = dataclasses.replace(config, model_dir=os.path.dirname(path) or ".")
        _check_run(path, beside, encoder, otherwise=chosen.ANOTHER)
        return path
    path, _ = check(config, encoder)
    if path is None and not config.init_checkpoint:
        place = config.model_dir + storage.looked_for_in(config.model_dir)
        raise UserError(f'"model_dir" {place} holds no checkpoint to {purpose}; train first, or set "init_checkpoint"'
                        " to weights from elsewhere")
    if path is None and config.init_checkpoint.rpartition("/")[0] != config.model_dir.rstrip("/"):
        arguments.note(f'{config.model_dir} holds no checkpoint yet: using the weights of "init_checkpoint"'
                       f" {config.init_checkpoint}")
    return path


def make(model_dir):
    """Creates the folder.  Raises UserError where it, or a folder in it, cannot be written."""
    with _naming_refusal(model_dir):
        storage.check_folder(model_dir)
        storage.make_folder(model_dir)
    for folder in (storage.join(model_dir, EVALUATIONS), best_checkpoint.folder_of(model_dir)):
        try:
            storage.check_folder(folder)
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror}; a training keeps evaluations there: move"
                            " elsewhere what it is, or allow this account to use it") from None


@contextlib.contextmanager
def _naming_refusal(model_dir):
    """Turns an error of the disk or of Google Storage into a UserError."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f'"model_dir" {model_dir} cannot be written: {file_errors.cause(error)}; set it to a folder'
                        " that can")


def locked(model_dir):
    """A context in which no other run trains in model_dir.  Raises UserError where one does."""
    return storage.only_run(storage.join(model_dir, LOCK_FILE), 'choose another "model_dir"')


def save(config, encoder, train_set, path):
    """Notes what the run is made of: config, vocabulary, the training ShardSet, its newest checkpoint `path`."""
    note = {"vocabulary": encoder.fingerprint, "vocabulary_size": encoder.size, "shards": train_set.fingerprint,
            "files": train_set.names, "batch_sizes": batch_sizes(config, run_checkpoints.step_of(path))}
    with _naming_refusal(config.model_dir):
        storage.write_whole(storage.join(config.model_dir, DATA_FILE), json.dumps(note) + "\n")
        schema.save(config, storage.join(config.model_dir, CONFIG_FILE))
    if not storage.is_remote(config.model_dir):  # what was cut short left behind
        for temporary in storage.glob(storage.below(config.model_dir, "model.ckpt-*_temp")):
            shutil.rmtree(temporary, ignore_errors=True)
        for temporary in storage.glob(storage.below(config.model_dir, state_file.STATE_FILE + ".tmp*")):
            storage.remove(temporary)
        for folder in filter(os.path.isdir, (config.model_dir, best_checkpoint.folder_of(config.model_dir))):
            storage.clear(folder)
    if path:  # newer ones may be damaged
        state_file.note_run(path)
