"""The order of the training data and how much of it was read, by arithmetic on the counts of its shards.

The rules stand in inputs.py, which carries them out; here is no TensorFlow.
"""
from typing import NamedTuple

import numpy as np

from configs.errors import UserError

BLOCK_TOKENS = 1 << 24  # what is shuffled at once: 35 MB of records
MIXTURE_PERIOD = 1000  # windows in which each part of a mixture has exactly its share


class Block(NamedTuple):
    """Files [first, last) of a part's shards, with their records and windows."""
    first: int
    last: int
    records: int
    tokens: int
    windows: int


class Seen(NamedTuple):
    """What so many steps read of a corpus."""
    epochs: tuple  # float for each part of the mixture
    documents: int  # one that is read twice counts twice
    tokens: int  # targets

    def __str__(self):
        epochs = " and ".join(f"{epoch:,.2f}" for epoch in self.epochs)
        return f"{epochs} epochs, {self.documents:,} documents, {self.tokens:,} tokens"


def seen(config, found, step):
    """The Seen of the corpus.Corpus `found` after `step` steps."""
    windows = step * config.train_batch_size
    epochs = tuple(count / windows_an_epoch(part, config.n_ctx)
                   for part, (_, count) in zip(found.parts, part_ranges(config, found, 0, windows)))
    documents = sum(int(epoch * part.records) for epoch, part in zip(epochs, found.parts))
    return Seen(epochs, documents, windows * config.n_ctx)


def windows_an_epoch(part, n_ctx):
    return sum(block.windows for block in cut_blocks(part.shards, n_ctx))


def dropped(config, found):
    """Share of the targets that no window of an epoch holds: what is left over at the end of each block."""
    kept = sum(windows_an_epoch(part, config.n_ctx) for part in found.parts) * config.n_ctx
    return 1 - kept / (found.tokens + found.records)


def window_count(tokens, records, n_ctx):
    """Whole windows in `records` documents of `tokens` tokens in all."""
    return max(0, tokens + records - 1) // n_ctx


def cut_blocks(shards, n_ctx):
    """The Blocks of the shards; only those that hold a window."""
    blocks, first, tokens, records = [], 0, 0, 0
    for last, shard in enumerate(shards, 1):
        tokens, records = tokens + shard.tokens, records + shard.records
        following = shards[last].tokens if last < len(shards) else BLOCK_TOKENS
        if tokens + following > BLOCK_TOKENS:
            blocks.append(Block(first, last, records, tokens, window_count(tokens, records, n_ctx)))
            first, tokens, records = last, 0, 0
    return [block for block in blocks if block.windows]


def schedule(blocks, seed, start, stop):
    """Rows (number of the block, seed of its shuffles, windows to skip) that give windows [start, stop) of all epochs.

    int64 [N, 3].  The last row may give more windows than asked for.
    """
    per_epoch = sum(block.windows for block in blocks)
    rows, position = [], start // per_epoch * per_epoch
    while position < stop:
        epoch = position // per_epoch
        random = np.random.RandomState(stable_seed(seed, epoch, 0))
        for number in random.permutation(len(blocks)):
            windows = blocks[number].windows
            if position + windows > start and position < stop:
                rows.append([number, stable_seed(seed, epoch, 1 + number)[0], max(0, start - position)])
            position += windows
    return np.array(rows, np.int64).reshape(-1, 3)


def stable_seed(*numbers):
    """uint32 [4] that NumPy promises never to change for the same numbers."""
    return np.random.SeedSequence([int(number) for number in numbers]).generate_state(4)


def part_ranges(config, found, start, stop):
    """[(first, last)]: windows [start, stop) of the mixture `found` are windows [first, last) of each part."""
    weights = [part.weight for part in found.parts]
    ends = [mixture_counts(weights, config.seed, position) for position in (start, stop)]
    return [(int(first), int(last)) for first, last in zip(*ends)]


def mixture_turns(config, found, start, stop):
    """Which part each of the windows [start, stop) comes from: int64 [stop - start]."""
    quota = mixture_quota([part.weight for part in found.parts])
    periods = range(start // MIXTURE_PERIOD, -(-stop // MIXTURE_PERIOD))
    turns = np.concatenate([mixture_order(quota, config.seed, period) for period in periods])
    return turns[start % MIXTURE_PERIOD:][:stop - start]


def mixture_counts(weights, seed, start):
    """How many of the first `start` windows of a mixture come from each part: int [parts]."""
    period, rest = divmod(start, MIXTURE_PERIOD)
    quota = mixture_quota(weights)
    return period * quota + np.bincount(mixture_order(quota, seed, period)[:rest], minlength=len(quota))


def mixture_quota(weights):
    """Windows of each part in one period: proportional to the weights, by largest remainder, at least 1."""
    exact = np.array(weights) / sum(weights) * MIXTURE_PERIOD
    quota = np.maximum(np.floor(exact).astype(np.int64), 1)
    for number in np.argsort(quota - exact, kind="stable")[:max(0, MIXTURE_PERIOD - quota.sum())]:
        quota[number] += 1
    quota[np.argmax(quota)] -= quota.sum() - MIXTURE_PERIOD
    if quota.min() < 1:
        raise UserError(f"a mixture of {len(weights)} parts cannot give each its share; use fewer parts")
    return quota


def mixture_order(quota, seed, period):
    """Which part each window of one period comes from: int64 [MIXTURE_PERIOD]."""
    random = np.random.RandomState(stable_seed(seed, period, 2**32))
    return random.permutation(np.repeat(np.arange(len(quota)), quota))
