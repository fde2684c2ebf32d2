"""What a run would cost and read, and whether it could start here: sizes, memory, time, schedule, epochs, problems.

Sources: compute-optimal tokens per parameter, https://arxiv.org/abs/2203.15556; the worth of repeated data,
https://arxiv.org/abs/2305.16264; the shape of the warm-up, https://github.com/karpathy/nanoGPT.
"""
from __future__ import annotations

import contextlib
from typing import NamedTuple

import numpy as np

from configs import arguments, cluster, file_errors, hardware, resume, schedule, start, storage
from configs.errors import USER_ERROR, UserError, printable
from datasets import shard_sets
from datasets.jobs import workers
from datasets.window_order import EvalWindows, WindowOrder
from datasets.zero_shot import tasks
from models.checkpoints import state_file
from models.run import room
from models.run.cost import (
    checkpoint_bytes,
    human_bytes,
    human_seconds,
    memory,
    parameter_count,
    seconds_a_step,
    step_operations,
    update_operations,
)
from models.run.room import Problems

MOST_EPOCHS = 4  # up to here repeated tokens are nearly as good as new ones
LONGEST_WARMUP = 0.2  # of max_steps
OPTIMAL_TOKENS_PER_PARAMETER = 20
A100_AT_40_PERCENT = 0.4 * 312e12  # operations a second, in bfloat16


class Data(NamedTuple):
    """The shard_sets.ShardSet of both sets; one that cannot be read is the str that says why."""
    train: shard_sets.ShardSet | str
    eval: shard_sets.ShardSet | str


def show(config, encoder, args):
    """Prints the plan of the run that main.py's arguments ask for; returns the exit status, 2 if it could not start."""
    def look(split):
        try:
            return shard_sets.read(config, encoder, split, cache=False)
        except UserError as error:
            return str(error)
    data = Data(look(shard_sets.TRAIN), look(shard_sets.EVAL) if config.eval_steps else '"eval_steps" is 0')
    gpus, unused = ([], []) if args.tpu else hardware.gpus()
    device = f"TPU: {args.tpu}" if args.tpu else hardware.in_words(gpus, workers.cores())
    machine = room.here(config, len(gpus), args.tpu)
    found = Problems.joined([_run_problems(config, encoder, data.train, args), Problems([], unused),
                             problems(config, data, machine)])
    print(f"{'device':<24}{device}\n{report(config, data, machine, found)}")
    return USER_ERROR if found.stop else 0


def _run_problems(config, encoder, train, args):
    """Problems that are seen in model_dir, in init_checkpoint, and in paths that a TPU would not see."""
    found, train_set = Problems([], []), None if isinstance(train, str) else train
    checks = [_check_bucket, resume.saved_config_warnings, lambda config: resume.check_data(config, encoder, train_set),
              lambda config: _check_start(config, encoder), lambda config: _check_zero_shot(config, encoder)]
    checks += [lambda config: arguments.check_tpu_paths(args, config)] if args.tpu else [_check_cluster]
    for check in checks:
        try:
            found.spoil.extend(check(config) or [])
        except UserError as error:
            found.stop.append(str(error))
    return found


def _check_cluster(_):
    """Raises UserError where TF_CONFIG describes no hosts."""
    cluster.hosts()


def _check_bucket(config):
    """Raises TensorFlow's error, which names the bucket, where model_dir lies in one that is not there."""
    if storage.is_remote(config.model_dir):
        storage.glob(storage.join(config.model_dir, "*"))  # to ask for one object would only say that it is not there


def _check_start(config, encoder):
    """Raises UserError where the run cannot start from its init_checkpoint: shapes and vocabulary are looked at."""
    if config.init_checkpoint and not state_file.newest(config.model_dir):
        storage.silence_tensorflow()
        with start.importing():  # TensorFlow reads its own checkpoints: only who starts from weights waits for it
            from models.checkpoints import warm_start
        warm_start.check_all(config, encoder)


def _check_zero_shot(config, encoder):
    """Raises UserError where a file of "zero_shot", which evaluations read, is not what its task needs."""
    if config.eval_steps:
        tasks.read_all(config, encoder)


def start_lines(config, order, path, step, device):
    """What a training says when it begins behind `step`, from its checkpoint `path` or None, on `device` (words)."""
    lines = [f"{'continuing' if path else 'starting'} {config.model_dir} at step {step} of {config.max_steps} from"
             f" {state_file.weights_source(config, path)}, on {device}; {parameter_count(config):,} parameters,"
             f" {order.batch * order.n_ctx:,} tokens a step; {order.dropped:.4%} of each epoch's tokens fill no window"]
    without = ["evaluations", *["samples"][:bool(config.sample_prompts)], *["zero-shot tasks"][:bool(config.zero_shot)]]
    return lines if config.eval_steps else [
        *lines, f"{' and '.join(f'no {name}' for name in without)}: \"eval_steps\" is 0"]


def report(config, data, machine, found):
    """The plan as text; `found` are its Problems."""
    rows = _sizes(config) + _weights(config) + _data(config, data) + _cost(config, machine) + _schedule(config)
    lines = [f"{name:<24}{value}" for name, value in rows]
    for title, problems_of_kind in (("problems that stop the run:", found.stop),
                                    ("problems that spoil the run:", found.spoil)):
        lines += [title, *(f"  - {line}" for line in problems_of_kind)] if problems_of_kind else []
    return "\n".join(map(printable, lines + ([] if any(found) else ["no problems found"])))


def problems(config, data, machine):
    """The Problems of sizes, data, machine and folder."""
    warmup = config.warmup_steps / config.max_steps
    sizes = Problems([], [f'"warmup_steps" {config.warmup_steps:,} is {warmup:.0%} of "max_steps"'
                          f" {config.max_steps:,}; 5 % is plenty"] if warmup > LONGEST_WARMUP else [])
    return Problems.joined([_data_problems(config, data), sizes, room.memory_problems(config, machine),
                            room.disk_problems(config, machine.disk), Problems(_folder_problems(config.model_dir), [])])


def _sizes(config):
    """Rows on the network and on what it is trained with."""
    shape = (f"{config.n_layer:,} layers, {config.n_head:,} heads of {config.head_size:,}, width {config.n_embd:,},"
             f" context {config.n_ctx:,}, vocabulary {config.n_vocab:,}")
    parameters, step = parameter_count(config), config.train_batch_size * config.n_ctx
    total = step * config.max_steps
    passes = config.train_batch_size // (config.micro_batch_size or config.train_batch_size)
    split = f" in {passes:,} micro-batches of {config.micro_batch_size:,}" if passes > 1 else ""
    ratio = f"{total / parameters:,.1f} (about {OPTIMAL_TOKENS_PER_PARAMETER} are compute-optimal)"
    return [("network", shape),
            ("parameters", f"{parameters:,}"),
            ("tokens per step", f"{step:,} = {config.train_batch_size:,} x {config.n_ctx:,}{split}"),
            ("steps", f"{config.max_steps:,}"),
            ("tokens in all", f"{total:,}"),
            ("tokens per parameter", ratio)]


def _weights(config):
    path = state_file.newest(config.model_dir)
    source = state_file.weights_source(config, path)
    return [("weights from", f"{source} in {config.model_dir}" if path else source)]


def _data(config, data):
    rows = [(name, shards if isinstance(shards, str) else
             f"{len(shards.shards):,} shards, {shards.records:,} documents,"
             f" {shards.tokens:,} tokens") for name, shards in (("train data", data.train), ("eval data", data.eval))]
    if config.skip_corrupt_records:
        rows.append(("damaged records", "skipped: the start of training reads every shard whole once and counts the"
                     " good records; above, manifests are believed"))
    order = _order(config, data.train)
    if isinstance(order, WindowOrder):
        rows += [("read in all", str(order.seen(config.max_steps))),
                 ("dropped", f"{order.dropped:.4%} of each epoch, at the ends of blocks of files")]
    return rows


def _order(config, train):
    """Returns the WindowOrder of the training data.  Where there is none, returns a str that says why."""
    try:
        order = train if isinstance(train, str) else WindowOrder.of(config, train)
    except UserError as error:
        return str(error)
    step = max(0, state_file.step_in_name(state_file.newest(config.model_dir) or ""))
    with contextlib.suppress(UserError):  # of a damaged note, which another check tells
        return order if isinstance(order, str) else order.of_a_run(resume.batch_sizes(config, step))
    return order


def _cost(config, machine):
    size, kept = checkpoint_bytes(config), room.checkpoints_kept(config)
    rows = [("checkpoints", f"{kept:,} x {human_bytes(size)} = {human_bytes(kept * size)}"),
            ("memory in training", f"on a CPU {_parts(memory(config, on_cpu=True))}"),
            ("", f"on a GPU or TPU {_parts(memory(config, devices=machine.devices))}")]
    if machine.memory is not None:
        free = "" if machine.free is None else f", of which {human_bytes(machine.free)} are free"
        rows.append(("memory here", f"{human_bytes(machine.memory)}{'' if machine.on_cpu else ' on each GPU'}{free}"))
    if machine.disk is not None:
        rows.append(("disk", f"{human_bytes(machine.disk)} are free for {config.model_dir}"))
    return [*rows, ("time", _time(config, machine))]


def _time(config, machine):
    """How long the training takes, in words, without its evaluations."""
    if machine.on_cpu:
        seconds = seconds_a_step(config)
        return (f"about {human_seconds(seconds * config.max_steps)}, {human_seconds(seconds)} a step: an estimate from"
                " products of matrices on this CPU")
    operations = (step_operations(config) + update_operations(config)) * config.max_steps
    return (f"{operations:.1e} operations, {human_seconds(operations / A100_AT_40_PERCENT)} of an A100 at 40 %;"
            " a plan computes nothing on a GPU or TPU")


def _parts(sizes):
    parts = ", ".join(f"{name} {human_bytes(part)}" for name, part in sizes._asdict().items())
    return f"about {human_bytes(sum(sizes))} ({parts})"


def _schedule(config):
    steps = [("start", 0), ("warm-up over", config.warmup_steps)]
    steps += [(f"{share} %", config.max_steps * share // 100) for share in (25, 50, 75)]
    steps += [("decay begins", config.max_steps - config.decay_steps)] if config.lr_schedule == "wsd" else []
    return [(f"lr, {name}", f"{schedule.learning_rate(float(step), config, np):.3g} at step {step:,}")
            for name, step in [*steps, ("end", config.max_steps)]]


def _data_problems(config, data):
    order = _order(config, data.train)
    evaluated = None if isinstance(data.eval, str) else data.eval
    found = Problems([f"training data: {order}"], []) if isinstance(order, str) else Problems(
        [], reading_problems(config, order, evaluated))
    if config.eval_steps == 0:
        return found
    if isinstance(data.eval, str):
        found.stop.extend([f"eval data: {data.eval}"] if data.eval != data.train else [])  # the same is said once
        return found
    try:
        windows = EvalWindows.of(config, data.eval).windows
    except UserError as error:
        found.stop.append(str(error))
        return found
    if config.eval_steps * config.eval_batch_size > windows:
        found.spoil.append(f'"eval_steps" {config.eval_steps:,} x "eval_batch_size" {config.eval_batch_size:,} is more'
                           f' than the {windows:,} windows of the eval data; set "eval_steps" to -1')
    return found


def reading_problems(config, order, evaluated):
    """Lines on training data, a WindowOrder, that are too few for the run or stand in the ShardSet `evaluated`, too."""
    lines = shard_sets.overlap_warnings(order.shards, evaluated) if evaluated else []
    epochs = max(order.seen(config.max_steps).epochs)
    if order.windows < config.train_batch_size:
        lines.append(f'tiny corpus: its {order.windows:,} windows of "n_ctx" do not fill one batch of'
                     f' "train_batch_size" {config.train_batch_size:,}')
    if epochs > MOST_EPOCHS:
        lines.append(f'"max_steps" {config.max_steps:,} reads the training data {epochs:,.1f} times; beyond'
                     f" {MOST_EPOCHS} epochs a network learns less and less from it")
    return lines


def _folder_problems(folder):
    """Whether a local folder can be written or made; looks only, and leaves Google Storage to the run itself."""
    try:
        storage.check_folder(folder)
    except OSError as error:
        return [f'"model_dir" {folder} cannot be written: {error.filename}: {error.strerror};'
                f" {file_errors.remedy(error)}"]
    return []
