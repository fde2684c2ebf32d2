"""The learning rate of a step, written once: for NumPy (`--plan`) and for the graph.

1. A linear warm-up, which is not zero at step 0, reaches `lr` at `warmup_steps`
   (https://github.com/karpathy/nanoGPT, train.py).
2. "wsd" alone stays at `lr` until the last `decay_steps` begin (Hägele et al. 2024, https://arxiv.org/abs/2405.18392).
3. A cosine, a line or 1 - sqrt falls to `lr_min` times `lr` at `max_steps`.  "constant" does not fall.
"""
import math


def learning_rate(step, config, library):
    """The rate of the update that follows `step`, a float or a float32 tensor, 0 for the first update.

    `library` is numpy or tensorflow: its cos, sqrt, minimum, maximum and where are used.
    """
    warming = (step + 1.0) / (config.warmup_steps + 1.0)
    if config.lr_schedule == "constant":
        return config.lr * library.minimum(warming, 1.0)
    first, shape = config.warmup_steps, config.lr_schedule
    if config.lr_schedule == "wsd":
        first, shape = config.max_steps - config.decay_steps, config.decay_shape
    done = library.minimum(library.maximum((step - first) / max(config.max_steps - first, 1), 0.0), 1.0)
    left = {"cosine": lambda: 0.5 * (1.0 + library.cos(math.pi * done)), "linear": lambda: 1.0 - done,
            "1-sqrt": lambda: 1.0 - library.sqrt(done)}
    decaying = config.lr_min + (1.0 - config.lr_min) * left[shape]()
    return config.lr * library.where(step < config.warmup_steps, warming, decaying)
