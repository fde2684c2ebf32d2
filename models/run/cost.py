"""What a run costs, worked out from its Config: parameters, memory, disk, time; and what makes a step take less memory.

Legend: B sequences at once, T context, C width, H heads, V vocabulary, L layers, P parameters.
Sources: activation memory, https://arxiv.org/abs/2205.05198 section 4; operations of a token,
https://arxiv.org/abs/2204.02311 appendix B.
"""
from __future__ import annotations

import dataclasses
import json
import time
from typing import NamedTuple

import numpy as np

from configs import hardware
from configs.constants import MUON_STEPS
from models.weights import MATRIX_RANK, count, slot_shapes, weight_list

FLOAT32 = 4
ACTIVATION_BYTES = {"float32": 4, "bfloat16": 2}
STEP_BYTES = 8
# Python, TensorFlow and the data that is read ahead: what the small network of benchmarks/RESULTS.md takes (Training).
FRAMEWORK = 700_000_000

# A step against its products alone: what is done element by element grows with C, the products with C times C.
BEYOND_PRODUCTS, BEYOND_OF_WIDTH = 1.2, 80
BFLOAT16_FASTER = 1.5  # than float32, where the processor multiplies it: 1.0 (width 64) to 1.7 (124M) in RESULTS.md
RECOMPUTED = 4 / 3  # of the operations: forward once more
SMALLER = 'make "n_layer", "n_embd" or "n_ctx" smaller'  # what else would help
MEASURED_SECONDS = 0.1
MEASURED = (256, 2048, 8192)  # the largest product; those of wider networks have its rate
ONEDNN_FASTER = 2  # than NumPy's OpenBLAS: so were steps of the small network and of 124M, see RESULTS.md, Training


class Memory(NamedTuple):
    """Bytes in training, on one device."""
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    framework: int


def parameter_count(config):
    return count({weight.name: weight.shape for weight in weight_list(config)})


def checkpoint_bytes(config):
    """Weights, optimizer state and step."""
    return FLOAT32 * (parameter_count(config) + count(slot_shapes(config))) + STEP_BYTES


def memory(config, on_cpu=False, devices=1):
    """An estimate (Memory) for each of so many devices that share a micro-batch.

    Per layer and token: 16 C numbers (norms, qkv, both projections, the 4 C of the MLP twice, residuals) and 2 C bytes
    of dropout masks; per layer, sequence and head: the T x T attention weights in float32 and their copy for the
    product with the values.  With `recompute`: each layer's input, and all of this for one layer.
    Logits: float32 and their gradient.  Accumulation keeps a second set of gradients.

    `on_cpu`, a layer keeps 10 C numbers a token (qkv, attention's result, the 4 C before GELU, residuals), a byte of
    each attention weight where some are dropped, and of the logits the gradient alone.  The backward pass computes the
    rest again; what models/cpu/compiled.py's `again` keeps is too small to count.
    """
    at_once = config.micro_batch_size or config.train_batch_size
    B, T, C, H, V, L = (max(1, at_once // devices), config.n_ctx, config.n_embd, config.n_head, config.n_vocab,
                        config.n_layer)
    P = parameter_count(config)
    width = ACTIVATION_BYTES[config.precision]
    layer = B * T * ((10 if on_cpu else 16) * C * width + 2 * C)
    layer += B * H * T * T * (bool(config.attn_dropout) if on_cpu else FLOAT32 + width)
    kept = L * B * T * C * width + layer if config.recompute else L * layer
    accumulated = config.train_batch_size > at_once
    return Memory(weights=FLOAT32 * P, gradients=FLOAT32 * P * (2 if accumulated else 1),
                  optimizer=FLOAT32 * count(slot_shapes(config)), activations=kept,
                  logits=(width if on_cpu else 2 * FLOAT32) * B * T * V, framework=FRAMEWORK)


def ways_to_fit(config, limit, on_cpu=False, devices=1, precision=True):
    """[{key: value}] that bring a step to at most `limit` bytes on each device: each other values of one key or of two.

    Micro-batches and "recompute" leave the result as it is but for rounding; with `precision` bfloat16 is named, too,
    where it is faster.
    """
    at_once = config.micro_batch_size or config.train_batch_size
    sizes = [size for size in range(at_once, devices - 1, -1) if config.train_batch_size % size == 0]

    def first_to_fit(ways):
        return next(([way] for way in ways if _bytes_with(config, way, on_cpu, devices) <= limit), [])
    smaller = [{"micro_batch_size": size} for size in sizes if size < at_once]
    halved = [{"precision": "bfloat16"}] if precision and config.precision == "float32" and (
        not on_cpu or hardware.multiplies_bfloat16()) else []
    again = [] if config.recompute else [{"recompute": True}, *({"recompute": True, **way} for way in smaller)]
    ways = first_to_fit(smaller) + first_to_fit(again) + first_to_fit(halved)
    return ways or first_to_fit({**way, **halved[0]} for way in reversed(again or smaller) if halved)


def _bytes_with(config, way, on_cpu, devices):
    return sum(memory(dataclasses.replace(config, **way), on_cpu, devices))


def lighter(config, limit, on_cpu=False, devices=1, precision=True):
    """The `ways_to_fit`, in words."""
    ways = ways_to_fit(config, limit, on_cpu, devices, precision)
    if not ways:
        return SMALLER
    return "set " + ", or ".join(" and ".join(f"{json.dumps(key)} to {json.dumps(value)}" for key, value in way.items())
                                 + f" (about {human_bytes(_bytes_with(config, way, on_cpu, devices))})" for way in ways)


def out_of_memory(config, limit, on_cpu=False, devices=1):
    """What to do where a step ran out of memory, in words; `limit` is what each device has, or None.

    Where the estimate fits the limit it is too low, or others use memory, too: then what can be spared is halved.
    """
    needed = memory(config, on_cpu, devices)
    half = sum(needed) - (needed.activations + needed.logits) // 2
    return (lighter(config, min(half, limit or half), on_cpu, devices, precision=False)
            + f"; as it is, a step takes about {human_bytes(sum(needed))}")


def token_operations(config):
    """Floating-point operations of a token in training: 6 for each parameter, and 12 L C T of attention's products."""
    return 6 * parameter_count(config) + 12 * config.n_layer * config.n_embd * config.n_ctx


def step_operations(config):
    """Floating-point operations of a step on all devices together, without those of `update_operations`."""
    return token_operations(config) * config.train_batch_size * config.n_ctx


def update_operations(config):
    """Floating-point operations of the products in an update, on each device: Muon's, whatever the batch; else none."""
    if config.opt_name != "muon":
        return 0
    matrices = [sorted(weight.shape[1:]) for weight in weight_list(config) if len(weight.shape) == MATRIX_RANK]
    return sum(MUON_STEPS * (4 * short ** 2 * long + 2 * short ** 3) for short, long in matrices)


def seconds_a_step(config, rate=None, devices=1):
    """An estimate of the seconds of a step on so many devices, from products of the network's width.

    `rate` is a function (m, k, n, precision) -> operations a second of products [m, k] x [k, n] on one device;
    None measures this machine's CPU.
    """
    rows = (config.micro_batch_size or config.train_batch_size) * config.n_ctx
    C = config.n_embd
    again = RECOMPUTED if config.recompute else 1
    shared = step_operations(config) * again * (BEYOND_PRODUCTS + BEYOND_OF_WIDTH / C) / devices
    return (shared + update_operations(config)) / (rate or cpu_rate)(rows, C, 4 * C, config.precision)


def cpu_rate(m, k, n, precision):
    """Operations a second of TensorFlow's products, from NumPy's: of the fastest, for others may compute, too."""
    m, k, n = (min(size, most) for size, most in zip((m, k, n), MEASURED))
    left, right = np.ones((m, k), np.float32), np.ones((k, n), np.float32)
    times = [time.monotonic()]
    while len(times) < 3 or times[-1] < times[0] + MEASURED_SECONDS:
        left @ right
        times.append(time.monotonic())
    faster = BFLOAT16_FASTER if precision == "bfloat16" and hardware.multiplies_bfloat16() else 1
    return 2 * left.size * n * ONEDNN_FASTER * faster / min(np.diff(times))


def human_bytes(number):
    """1_500_000_000 -> '1.5 GB'."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"


def human_seconds(number):
    """5400 -> '1.5 hours'."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if number >= 1.5 * size:
            return f"{number / size:,.{0 if number >= 10 * size else 1}f} {unit}"
    return f"{number:.2g} seconds"
