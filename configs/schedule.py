"""The learning rate of a step, written once: for NumPy (`--plan`) and for the graph.

The shape is nanoGPT's (https://github.com/karpathy/nanoGPT, train.py):

1. a linear warm-up that is not zero at step 0 and reaches `lr` at `warmup_steps`,
2. then a cosine, a line or a constant, down to `lr_min` times `lr` at `max_steps`.
"""
import math


def learning_rate(step, config, library):
    """The rate of the update that follows `step`, a float or a float32 tensor, 0 for the first update.

    `library` is numpy or tensorflow: its cos, minimum, maximum and where are used.
    """
    warming = (step + 1.0) / (config.warmup_steps + 1.0)
    done = (step - config.warmup_steps) / max(config.max_steps - config.warmup_steps, 1)
    done = library.minimum(library.maximum(done, 0.0), 1.0)
    if config.lr_schedule == "constant":
        return config.lr * library.minimum(warming, 1.0)
    left = {"cosine": lambda: 0.5 * (1.0 + library.cos(math.pi * done)), "linear": lambda: 1.0 - done}
    decaying = config.lr_min + (1.0 - config.lr_min) * left[config.lr_schedule]()
    return config.lr * library.where(step < config.warmup_steps, warming, decaying)
