"""What a run would cost and read, worked out from its Config alone: sizes, memory, schedule, epochs, problems.

Legend: B sequences at once, T context, C width, H heads, V vocabulary, L layers, P parameters.
Sources: activation memory, https://arxiv.org/abs/2205.05198 section 4; compute-optimal tokens per parameter,
https://arxiv.org/abs/2203.15556; the worth of repeated data, https://arxiv.org/abs/2305.16264; the shape of the
warm-up, https://github.com/karpathy/nanoGPT.
"""
from __future__ import annotations

import math
import os
from typing import NamedTuple

import numpy as np

from configs import arguments, resume, schedule, storage
from configs.errors import UserError
from datasets import shard_sets
from datasets.window_order import EvalWindows, WindowOrder
from models.weights import count, slot_shapes, weight_list

FLOAT32 = 4
ACTIVATION_BYTES = {"float32": 4, "bfloat16": 2}
STEP_BYTES = 8

MOST_EPOCHS = 4  # up to here repeated tokens are nearly as good as new ones
LONGEST_WARMUP = 0.2  # of max_steps
OPTIMAL_TOKENS_PER_PARAMETER = 20


class Data(NamedTuple):
    """The shard_sets.ShardSet of both sets; one that cannot be read is the str that says why."""
    train: shard_sets.ShardSet | str
    eval: shard_sets.ShardSet | str


class Memory(NamedTuple):
    """Bytes in training, on one device that computes a whole micro-batch."""
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int


def parameter_count(config):
    return count({weight.name: weight.shape for weight in weight_list(config)})


def checkpoint_bytes(config):
    """Weights, optimizer state and step."""
    return FLOAT32 * (parameter_count(config) + count(slot_shapes(config))) + STEP_BYTES


def memory(config, on_cpu=False):
    """An estimate (Memory); the framework itself needs some more.

    Per layer and token: 16 C numbers (norms, qkv, both projections, the 4 C of the MLP twice, residuals) and 2 C bytes
    of dropout masks; per layer, sequence and head: the T x T attention weights in float32 and their copy for the
    product with the values.  With `recompute`: each layer's input, and all of this for one layer.
    Logits: float32 and their gradient.  Accumulation keeps a second set of gradients.

    `on_cpu`, a backward pass computes the rest again (models/cpu/, Recomputed): 10 C numbers (qkv, attention's result,
    the 4 C before GELU, residuals), attention weights only to drop some, and of the logits the gradient alone.
    """
    B = config.micro_batch_size or config.train_batch_size
    T, C, H, V, L = config.n_ctx, config.n_embd, config.n_head, config.n_vocab, config.n_layer
    P = parameter_count(config)
    width = ACTIVATION_BYTES[config.precision]
    layer = B * T * ((10 if on_cpu else 16) * C * width + 2 * C)
    if config.attn_dropout or not on_cpu:
        layer += B * H * T * T * (FLOAT32 + width)
    kept = L * B * T * C * width + layer if config.recompute else L * layer
    accumulated = config.train_batch_size > B
    return Memory(weights=FLOAT32 * P, gradients=FLOAT32 * P * (2 if accumulated else 1),
                  optimizer=FLOAT32 * count(slot_shapes(config)), activations=kept,
                  logits=(width if on_cpu else 2 * FLOAT32) * B * T * V)


def show(config, encoder, args):
    """Prints the plan of the run that main.py's arguments ask for; returns the exit status."""
    def look(split):
        try:
            return shard_sets.read(config, encoder, split, cache=False)
        except UserError as error:
            return str(error)
    data = Data(look(shard_sets.TRAIN), look(shard_sets.EVAL) if config.eval_steps else '"eval_steps" is 0')
    print(report(config, data, _run_problems(config, args)))
    return 0


def _run_problems(config, args):
    """Lines on what is seen in model_dir, in init_checkpoint, and on what a TPU would not see."""
    problems = []
    checks = [_check_bucket, resume.saved_config_warnings, _check_start]
    checks += [lambda config: arguments.check_tpu_paths(args, config)] if args.tpu else []
    for check in checks:
        try:
            problems += check(config) or []
        except UserError as error:
            problems.append(str(error))
    return problems


def _check_bucket(config):
    """Raises TensorFlow's error, which names the bucket, where model_dir lies in one that is not there."""
    if storage.is_remote(config.model_dir):
        storage.glob(storage.join(config.model_dir, "*"))  # to ask for one object would only say that it is not there


def _check_start(config):
    """Raises UserError where the run cannot start from its init_checkpoint: shapes alone are looked at."""
    if config.init_checkpoint and not storage.exists(storage.join(config.model_dir, "checkpoint")):
        storage.silence_tensorflow()
        # TensorFlow reads its own checkpoints: only who starts from weights waits for it.
        from models.checkpoints import any_format, warm_start
        warm_start.check(any_format.open_weights(config.init_checkpoint), config)


def report(config, data, others=()):
    """The plan as text; `others` are lines on problems found elsewhere."""
    rows = _sizes(config) + _data(config, data) + _cost(config) + _schedule(config)
    lines = [f"{name:<24}{value}" for name, value in rows]
    wrong = [*problems(config, data), *others]
    return "\n".join(lines + (["problems:", *(f"  - {line}" for line in wrong)] if wrong else ["no problems found"]))


def problems(config, data):
    """Everything that would stop or spoil the run, one line each."""
    lines, warmup = _data_problems(config, data), config.warmup_steps / config.max_steps
    if warmup > LONGEST_WARMUP:
        lines.append(f'"warmup_steps" {config.warmup_steps:,} is {warmup:.0%} of "max_steps" {config.max_steps:,};'
                     " 5 % is plenty")
    return lines + _folder_problems(config.model_dir)


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


def _data(config, data):
    rows = [(name, shards if isinstance(shards, str) else
             f"{sum(len(part.shards) for part in shards.parts):,} shards, {shards.records:,} documents,"
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
        return train if isinstance(train, str) else WindowOrder.of(config, train)
    except UserError as error:
        return str(error)


def _cost(config):
    kept = config.keep_checkpoint_max or math.ceil(config.max_steps / config.save_checkpoints_steps)
    size = checkpoint_bytes(config)
    return [("checkpoints", f"{kept:,} x {human_bytes(size)} = {human_bytes(kept * size)}"),
            ("memory in training", f"on a CPU {_parts(memory(config, on_cpu=True))}"),
            ("", f"on a GPU or TPU {_parts(memory(config))}")]


def _parts(sizes):
    parts = ", ".join(f"{name} {human_bytes(part)}" for name, part in sizes._asdict().items())
    return f"about {human_bytes(sum(sizes))} ({parts})"


def _schedule(config):
    steps = [("start", 0), ("warm-up over", config.warmup_steps)]
    steps += [(f"{share} %", config.max_steps * share // 100) for share in (25, 50, 75)]
    return [(f"lr, {name}", f"{schedule.learning_rate(float(step), config, np):.3g} at step {step:,}")
            for name, step in [*steps, ("end", config.max_steps)]]


def _data_problems(config, data):
    order = _order(config, data.train)
    lines = [f"no training data: {order}"] if isinstance(order, str) else reading_problems(config, order)
    if config.eval_steps == 0:
        return lines
    if isinstance(data.eval, str):
        return [*lines, f'no eval data: {data.eval}; set "eval_steps" to 0 to train without']
    try:
        windows = EvalWindows.of(config, data.eval).windows
    except UserError as error:
        return [*lines, str(error)]
    if config.eval_steps * config.eval_batch_size > windows:
        lines.append(f'"eval_steps" {config.eval_steps:,} x "eval_batch_size" {config.eval_batch_size:,} is more than'
                     f' the {windows:,} windows of the eval data; set "eval_steps" to -1')
    return lines


def reading_problems(config, order):
    """Lines on training data, a WindowOrder, that are too few for the run."""
    lines = []
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
    if storage.is_remote(folder):
        return []
    existing = os.path.abspath(folder)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        return [f'"model_dir" {folder} cannot be made: {existing} is not a folder']
    if not os.access(existing, os.W_OK | os.X_OK):
        return [f'"model_dir" {folder} cannot be written: no permission in {existing}']
    return []


def human_bytes(number):
    """1_500_000_000 -> '1.5 GB'."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"
