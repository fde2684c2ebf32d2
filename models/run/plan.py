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

from configs import storage
from datasets import shard_sets, window_order
from models.weights import weight_list

FLOAT32 = 4
ACTIVATION_BYTES = {"float32": 4, "bfloat16": 2}
STEP_BYTES = 8

MOST_EPOCHS = 4  # up to here repeated tokens are nearly as good as new ones
LONGEST_WARMUP = 0.2  # of max_steps
OPTIMAL_TOKENS_PER_PARAMETER = 20


class Data(NamedTuple):
    """The corpus.Corpus of both sets; one that cannot be read is the str that says why."""
    train: shard_sets.Corpus | str
    eval: shard_sets.Corpus | str


class Memory(NamedTuple):
    """Bytes in training, on one device that computes a whole micro-batch."""
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int


def parameter_count(config):
    return sum(math.prod(weight.shape) for weight in weight_list(config))


def slot_count(config):
    """Numbers that the optimizer keeps: two per weight for Adam, a row and a column per matrix for Adafactor."""
    if config.opt_name == "adam":
        return 2 * parameter_count(config)
    shapes = [weight.shape for weight in weight_list(config)]
    factored = sum(math.prod(shape[:-1]) + math.prod(shape[:-2]) * shape[-1] if len(shape) > 1 else shape[0]
                   for shape in shapes)
    return factored + (parameter_count(config) if config.beta1 else 0)


def checkpoint_bytes(config):
    """Weights, optimizer state and step."""
    return FLOAT32 * (parameter_count(config) + slot_count(config)) + STEP_BYTES


def memory(config, on_cpu=False):
    """An estimate (Memory); the framework itself needs some more.

    Per layer and token: 16 C numbers (norms, qkv, both projections, the 4 C of the MLP twice, residuals) and 2 C bytes
    of dropout masks; per layer, sequence and head: the T x T attention weights in float32 and their copy for the
    product with the values.  With `recompute`: each layer's input, and all of this for one layer.
    Logits: float32 and their gradient.  Accumulation keeps a second set of gradients.

    `on_cpu`, where a backward pass computes the rest anew (models/fused.py, Late): 10 C numbers (qkv, what attention
    gives, the 4 C before GELU, residuals), attention weights only to drop some, and of the logits the gradient alone.
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
                  optimizer=FLOAT32 * slot_count(config), activations=kept,
                  logits=(width if on_cpu else 2 * FLOAT32) * B * T * V)


def tokens_per_step(config):
    return config.train_batch_size * config.n_ctx


def learning_rate(config, step):
    """The learning rate of the update made at `step` (the first update is made at step 0)."""
    if step < config.warmup_steps:  # never 0, and `lr` is reached at step warmup_steps
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    if config.lr_schedule == "constant":
        return config.lr
    if step >= config.max_steps:
        return config.lr_min * config.lr
    progress = (step - config.warmup_steps) / (config.max_steps - config.warmup_steps)
    height = 1 - progress if config.lr_schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.lr * (config.lr_min + (1 - config.lr_min) * height)


def report(config, data, others=(), replicas=1):
    """The plan as text.

    Args:
      data: Data, or a str that says why there is none.
      others: lines on problems found elsewhere.
      replicas: devices or TPU cores that share each batch.
    """
    if isinstance(data, str):
        data = Data(data, "not looked for")
    rows = _network(config) + _volume(config) + _data(config, data) + _cost(config) + _schedule(config)
    lines = [f"{name:<24}{value}" for name, value in rows]
    found = [*problems(config, data, replicas), *others]
    return "\n".join(lines + (["problems:", *(f"  - {line}" for line in found)] if found else ["no problems found"]))


def problems(config, data, replicas=1):
    """Everything that would stop or spoil the run, one line each."""
    return (_data_problems(config, data) + _batch_problems(config, replicas)
            + _schedule_problems(config) + _folder_problems(config.model_dir))


def _network(config):
    shape = (f"{config.n_layer:,} layers, {config.n_head:,} heads of {config.head_size:,}, width {config.n_embd:,},"
             f" context {config.n_ctx:,}, vocabulary {config.n_vocab:,}")
    return [("network", shape), ("parameters", f"{parameter_count(config):,}")]


def _volume(config):
    step = tokens_per_step(config)
    total = step * config.max_steps
    passes = config.train_batch_size // (config.micro_batch_size or config.train_batch_size)
    split = f" in {passes:,} micro-batches of {config.micro_batch_size:,}" if passes > 1 else ""
    ratio = f"{total / parameter_count(config):,.1f} (about {OPTIMAL_TOKENS_PER_PARAMETER} are compute-optimal)"
    return [("tokens per step", f"{step:,} = {config.train_batch_size:,} x {config.n_ctx:,}{split}"),
            ("steps", f"{config.max_steps:,}"),
            ("tokens in all", f"{total:,}"),
            ("tokens per parameter", ratio)]


def _data(config, data):
    rows = [(name, found if isinstance(found, str) else
             f"{sum(len(part.shards) for part in found.parts):,} shards, {found.records:,} documents,"
             f" {found.tokens:,} tokens") for name, found in (("train data", data.train), ("eval data", data.eval))]
    if config.skip_corrupt_records:
        rows.append(("damaged records", "skipped: the start of training reads every shard whole once and counts the"
                     " good records; above, manifests are believed"))
    if _readable(config, data.train):
        rows += [("read in all", str(window_order.seen(config, data.train, config.max_steps))),
                 ("dropped", f"{window_order.dropped(config, data.train):.4%} of each epoch, at the ends of blocks of"
                  " files")]
    return rows


def _readable(config, train):
    return not isinstance(train, str) and all(
        window_order.cut_blocks(part.shards, config.n_ctx) for part in train.parts)


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
    return [(f"lr, {name}", f"{learning_rate(config, step):.3g} at step {step:,}")
            for name, step in [*steps, ("end", config.max_steps)]]


def _data_problems(config, data):
    lines = []
    if isinstance(data.train, str):
        lines.append(f"no training data: {data.train}")
    elif not _readable(config, data.train):
        tokens = min(part.tokens for part in data.train.parts)
        lines.append(f"the training data has {tokens:,} tokens, less than one window of"
                     f' "n_ctx" + 1 = {config.n_ctx + 1:,}')
    else:
        lines += reading_problems(config, data.train)
    if config.eval_steps == 0:
        return lines
    if isinstance(data.eval, str):
        lines.append(f'no eval data: {data.eval}; set "eval_steps" to 0 to train without')
    elif data.eval.targets < 1:
        lines.append('the eval data is empty; give another, or set "eval_steps" to 0 to train without')
    elif config.eval_steps * config.eval_batch_size > _eval_windows(config, data.eval):
        lines.append(f'"eval_steps" {config.eval_steps:,} x "eval_batch_size" {config.eval_batch_size:,} is more than'
                     f' the {_eval_windows(config, data.eval):,} windows of the eval data; set "eval_steps" to -1')
    return lines


def reading_problems(config, train):
    """Lines on a corpus.Corpus that is too small for the run."""
    lines = []
    windows = sum(window_order.windows_an_epoch(part, config.n_ctx) for part in train.parts)
    count = max(window_order.seen(config, train, config.max_steps).epochs)
    if windows < config.train_batch_size:
        lines.append(f'tiny corpus: its {windows:,} windows of "n_ctx" do not fill one batch of "train_batch_size"'
                     f" {config.train_batch_size:,}")
    if count > MOST_EPOCHS:
        lines.append(f'"max_steps" {config.max_steps:,} reads the training data {count:,.1f} times; beyond'
                     f" {MOST_EPOCHS} epochs a network learns less and less from it")
    return lines


def _batch_problems(config, replicas):
    return [f'"{name}" {size:,} cannot be shared by {replicas:,} devices; use a multiple of {replicas:,}'
            for name, size in (("train_batch_size", config.train_batch_size),
                               ("eval_batch_size", config.eval_batch_size)) if size % replicas]


def _schedule_problems(config):
    share = config.warmup_steps / config.max_steps
    if share <= LONGEST_WARMUP:
        return []
    return [f'"warmup_steps" {config.warmup_steps:,} is {share:.0%} of "max_steps" {config.max_steps:,}; 5 % is plenty']


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


def _eval_windows(config, found):
    """Windows of an evaluation, the last of which may be shorter."""
    return -(-found.targets // config.n_ctx)


def human_bytes(count):
    """1_500_000_000 -> '1.5 GB'."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
