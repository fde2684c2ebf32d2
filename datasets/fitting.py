"""Batch, steps and evaluations that fit a data set, for the configs that this project writes itself."""
from datasets import manifest, shard_sets

LEAST_BATCH, ENOUGH_STEPS = 4, 1000  # a small data set gets smaller batches, down to the one, up to the other
EVALUATIONS = 10  # in a run
EVALUATION_SHARE = 0.1  # of the time between two evaluations, at most
LONGEST_WARMUP, WARMUP_SHARE = 100, 0.05  # steps, and of all


def sets(config):
    """(ShardSet to train on, ShardSet to evaluate on or None where the data set has none) of the config's data_path.

    Nothing is written.  Raises UserError where they cannot be read.
    """
    train = shard_sets.find(config, shard_sets.TRAIN, cache=False)
    listed = manifest.beside([config.data_path]).values()
    if all(entry.split != shard_sets.EVAL for entry, _ in listed):
        return train, None
    held_out = shard_sets.find(config, shard_sets.EVAL, cache=False)
    return train, held_out if held_out.targets >= 1 else None


def steps(windows, *, batch, epochs, most=10**9):
    """{key: value} of batch, steps and warm-up for `windows` > 0, read `epochs` times or in `most` steps."""
    while batch > windows or (batch > LEAST_BATCH and epochs * windows / batch < ENOUGH_STEPS):
        batch //= 2
    count = _rounded(max(1, min(most, int(epochs * windows / batch))))
    return {"warmup_steps": min(LONGEST_WARMUP, int(WARMUP_SHARE * count)), "train_batch_size": batch,
            "max_steps": count}


def evaluations(found, held_out, *, n_ctx, eval_batch, between):
    """{key: value} of evaluations and checkpoints for what `steps` found, at least every `between` steps.

    `held_out` is a ShardSet or None.  An evaluation that would take long reads a part of it.
    """
    every = _rounded(max(1, min(between, found["max_steps"] // EVALUATIONS)))
    if held_out is None:
        wanted = 0
    else:
        # Forward alone, a window takes a third of the time of one that is trained on.
        affordable = max(1, int(EVALUATION_SHARE * 3 * every * found["train_batch_size"] / eval_batch))
        wanted = affordable if affordable * eval_batch * n_ctx < held_out.targets else -1
    return {"train_steps": every, "eval_steps": wanted, "save_checkpoints_steps": every}


def _rounded(number):
    """1234 -> 1200: two digits are enough."""
    digits = 10 ** max(0, len(str(number)) - 2)
    return number // digits * digits
