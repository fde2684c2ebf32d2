"""What TensorFlow says of damaged data, numbers that are not finite and memory, as one line that names the cause."""
import contextlib
import os

import tensorflow.compat.v1 as tf

import inputs
from configs import arguments, file_errors
from configs.errors import UserError
from datasets import framing, integrity, repair, shard_sets
from models.checkpoints import run_checkpoints
from models.run import cost, devices, room, workarounds

SHOWN = 5  # documents named in a message
OF_A_TPU = "Gradient for"  # TPUEstimator's message for weights that are not finite; a TPU itself checks nothing
# TensorFlow's words where it gets no memory, those of XLA and CUDA that it passes on, what it says where a GPU has no
# room for a tensor (https://github.com/tensorflow/tensorflow/issues/7025), and oneDNN's status for it.
NO_MEMORY = ("OOM when allocating", "ut of memory", "OUT_OF_MEMORY", "_ALLOC_FAILED", "Dst tensor is not initialized",
             "exception:Status: 1,")
OF_TPU_MEMORY = "hbm"  # what a TPU calls its own
# TensorFlow's words where a record is no example, or an id no vocabulary's; ours where others were counted.
BAD_RECORD = ("parse", "is not in [0", inputs.MISCOUNTED)


@contextlib.contextmanager
def named(config, shards):
    """Turns TensorFlow's error about a damaged record of a ShardSet into one that names the file and the offset."""
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
        if isinstance(error, tf.errors.DataLossError) or any(words in error.message for words in BAD_RECORD):
            for shard in shards.shards:
                problem = integrity.first_problem(shard.path, config.n_vocab)
                if problem:
                    raise UserError(f"{shard.path}: {problem}: {_remedy(config)}")
            miscounted = _miscounted(config, shards)
            if miscounted:
                raise miscounted
        raise


def without_a_step(config, shards, step):
    """The UserError for a training that ended without a step after `step`: reads the ShardSet to find out why."""
    return _miscounted(config, shards) or UserError(
        f"no step was made after step {step}, and why is not known: all shards are undamaged and hold as much as was"
        f" counted, and the newest checkpoint is {run_checkpoints.latest(config.model_dir) or 'none'}; run again, and"
        " report it if that fails")


def _miscounted(config, shards):
    """The UserError for the first shard of a ShardSet that holds another amount than was counted; or None."""
    arguments.note(f"the data ended too early; reading {len(shards.shards)} shards to find out why")
    for shard in shards.shards:
        there = integrity.scan(shard.path)
        if (there.records, there.tokens) != (shard.records, shard.tokens):
            if config.skip_corrupt_records:
                repair.forget(shard_sets.repair_folder(config))
            remedy = "run again: all shards are counted anew" if config.skip_corrupt_records else \
                'fetch or build it and its manifest together, or set "skip_corrupt_records" to true, and it is counted'
            return UserError(f"{shard.path} holds {there.records} records of {there.tokens} tokens, undamaged, and was"
                             f" counted as {shard.records} of {shard.tokens}; {remedy}")
    return None


def _remedy(config):
    """What to do about a damaged record."""
    if not config.skip_corrupt_records:
        return framing.REMEDY
    repair.forget(shard_sets.repair_folder(config))
    return "it was good when this run began; run again: all shards are read once more, and what is damaged is skipped"


@contextlib.contextmanager
def _out_of_memory_named(config, line_of):
    """Turns TensorFlow's error about memory, or the silent end of the process, into the line for a room.Machine."""
    line = line_of(room.here(config, len(devices.devices())))
    try:
        with workarounds.bad_alloc_told(line):
            yield
    except (tf.errors.OpError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        raise UserError(line_of(room.Machine(on_cpu=False)) if OF_TPU_MEMORY in str(error) else line)


@contextlib.contextmanager
def named_in_evaluation(config, shards):
    """`named`, and where memory runs out, what helps."""
    with named(config, shards), named_in_zero_shot(config):
        yield


@contextlib.contextmanager
def named_in_zero_shot(config):
    """Where memory runs out in an evaluation, says what helps."""
    remedy = f'lower "eval_batch_size" {config.eval_batch_size}' if config.eval_batch_size > 1 else cost.SMALLER
    line = f"an evaluation ran out of memory: {remedy}"
    with _out_of_memory_named(config, lambda machine: line):
        yield


@contextlib.contextmanager
def named_in_generation(config, at_once=1):
    """Where memory runs out for so many texts at once, says what helps."""
    remedy = f'lower "predict_batch_size" {config.predict_batch_size}' if at_once > 1 else \
        "end other programs, or generate on a machine that has more"
    with _out_of_memory_named(config, lambda machine: f"generating ran out of memory: {remedy}"):
        yield


@contextlib.contextmanager
def named_in_training(config, order, progress, target):
    """Turns TensorFlow's error in a step after `progress.step` into one that names its documents, disk or memory."""
    def no_memory(machine):
        return "a training step ran out of memory: " + cost.out_of_memory(
            config, machine.memory, machine.on_cpu, machine.devices)
    try:
        with _out_of_memory_named(config, no_memory):
            yield
    except (tf.train.NanLossDuringTrainingError, tf.errors.OpError) as error:
        if full := file_errors.no_room(error):
            raise UserError(f'"model_dir" {config.model_dir}: {os.strerror(full)}; {file_errors.REMEDIES[full]}')
        if isinstance(error, tf.errors.OpError) and "Tensor had" not in error.message:
            raise
        if OF_A_TPU in str(error):
            raise UserError(f"a weight is not finite after one of the steps {progress.step + 1} to"
                            f" {min(target, progress.step + config.iterations)}, which a TPU makes at once;"
                            f" {_way_on(config)}")
        what = "gradient" if "gradient norm" in str(error) else "loss"
        step = progress.step + 1
        names = inputs.documents_of(order, step)
        rest = f" and {len(names) - SHOWN} more (--which_data {step} lists them)" if len(names) > SHOWN else ""
        raise UserError(f"the {what} is not finite at step {step}, whose batch holds the documents"
                        f" {', '.join(names[:SHOWN])}{rest}; {_way_on(config)}")


def _way_on(config):
    """What to do about a loss that is not finite."""
    return (f"the last checkpoint is {run_checkpoints.latest(config.model_dir) or 'none'}; lower \"lr\" or raise"
            ' "warmup_steps" and run again, from an older checkpoint if it fails at once')
