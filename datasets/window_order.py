"""Computes which window of the training data stands where, and how much was read, from the counts of the shards.

The rules stand in inputs.py, which carries them out.
"""
from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np

from configs.errors import UserError

BLOCK_TOKENS = 1 << 24  # what is shuffled at once: 35 MB of records
MIXTURE_PERIOD = 1000  # windows in which each part of a mixture has exactly its share
LONGEST_SCHEDULE = 20000  # rows


class Block(NamedTuple):
    """Files [first, last) of a part's shards, with their records and windows."""
    first: int
    last: int
    records: int
    tokens: int
    windows: int


class Seen(NamedTuple):
    """What so many steps read of the data."""
    epochs: tuple  # float for each part of the mixture
    documents: int  # one that is read twice counts twice
    tokens: int  # targets

    def __str__(self):
        epochs = " and ".join(f"{epoch:,.2f}" for epoch in self.epochs)
        return f"{epochs} epochs, {self.documents:,} documents, {self.tokens:,} tokens"


class PartOrder:
    """The order of one part of a mixture, a shard_sets.Part: its blocks, and any stretch of its windows."""

    def __init__(self, part, n_ctx, seed):
        self.part, self._seed = part, seed
        self.blocks = cut_blocks(part.shards, n_ctx)
        self.windows = sum(block.windows for block in self.blocks)  # of an epoch

    def schedule(self, first, last):
        """Windows [first, last) of all epochs, int64 [N, 3]: number of a block, seed of its shuffles, windows to skip.

        The last row may give more windows than asked for.
        """
        rows, position = [], first // self.windows * self.windows
        while position < last:
            epoch = position // self.windows
            random = np.random.RandomState(stable_seed(self._seed, epoch, 0))
            for number in random.permutation(len(self.blocks)):
                windows = self.blocks[number].windows
                if position + windows > first and position < last:
                    rows.append([number, stable_seed(self._seed, epoch, 1 + number)[0], max(0, first - position)])
                position += windows
        return np.array(rows, np.int64).reshape(-1, 3)


class WindowOrder:
    """The sequence of global batches as a function of (parts, n_ctx, batch, seed, step); it never changes.

    `parts` are those of a shard_sets.ShardSet, `batch` is the size of the global batch; `shards` is that ShardSet.
    Raises UserError where a part does not fill one window.
    """

    def __init__(self, parts, *, n_ctx, batch, seed, shards=None):
        self.n_ctx, self.batch, self.seed, self.shards = n_ctx, batch, seed, shards
        self._batch_sizes = [[0, batch]]
        self.parts = tuple(PartOrder(part, n_ctx, seed) for part in parts)
        self._quota = mixture_quota([part.weight for part in parts])
        empty = next((part_order.part for part_order in self.parts if not part_order.windows), None)
        if empty:
            others = f" and {len(empty.shards) - 1} more" if len(empty.shards) > 1 else ""
            raise UserError(f"the {empty.tokens} tokens in {empty.shards[0].path}{others} do not fill one window of"
                            f' n_ctx + 1 = {n_ctx + 1}; read more shards, or lower "n_ctx"')

    @classmethod
    def of(cls, config, shards):
        """The order in which `config` reads the ShardSet `shards`."""
        return cls(shards.parts, n_ctx=config.n_ctx, batch=config.train_batch_size, seed=config.seed, shards=shards)

    def of_a_run(self, batch_sizes):
        """This order, `seen` of a run whose batches had other sizes before: [[first step, windows in a batch] ...].

        What a step reads is a function of the step and the batch size of today; what a run has read is not.
        """
        order = copy.copy(self)
        order._batch_sizes = batch_sizes
        return order

    @property
    def windows(self):
        """Windows in one epoch of all parts."""
        return sum(part_order.windows for part_order in self.parts)

    @property
    def dropped(self):
        """Share of the targets that no window of an epoch holds: what is left over at the end of each block."""
        targets = sum(part_order.part.tokens + part_order.part.records for part_order in self.parts)
        return 1 - self.windows * self.n_ctx / targets

    @property
    def longest_stretch(self):
        """Steps whose schedule is worked out at once: a tiny data set has many epochs in few steps."""
        rows = max(len(part_order.blocks) / part_order.windows for part_order in self.parts)  # for each window
        return max(1, int(LONGEST_SCHEDULE / (rows * self.batch)))

    def seen(self, step):
        """The Seen of the first `step` steps."""
        ends = [first for first, _ in self._batch_sizes[1:]] + [step]
        windows = sum(size * max(0, min(end, step) - first) for (first, size), end in zip(self._batch_sizes, ends))
        counts = mixture_counts(self._quota, self.seed, windows)
        epochs = tuple(int(count) / part_order.windows for part_order, count in zip(self.parts, counts))
        documents = sum(int(epoch * part_order.part.records) for epoch, part_order in zip(epochs, self.parts))
        return Seen(epochs, documents, windows * self.n_ctx)

    def ranges(self, start_step, stop_step):
        """[(first, last)]: steps [start_step, stop_step) read windows [first, last) of each part."""
        ends = [mixture_counts(self._quota, self.seed, step * self.batch) for step in (start_step, stop_step)]
        return [(int(first), int(last)) for first, last in zip(*ends)]

    def turns(self, start_step, stop_step):
        """Which part each window of steps [start_step, stop_step) comes from: int64 [windows]."""
        start, stop = start_step * self.batch, stop_step * self.batch
        periods = range(start // MIXTURE_PERIOD, -(-stop // MIXTURE_PERIOD))
        turns = np.concatenate([mixture_order(self._quota, self.seed, period) for period in periods])
        return turns[start % MIXTURE_PERIOD:][:stop - start]


class EvalWindows(NamedTuple):
    """The batches of an evaluation: the text of a shard_sets.ShardSet in order, every token but the first a target."""
    shards: object
    n_ctx: int
    batch: int  # windows
    batches: int  # that are read

    @classmethod
    def of(cls, config, shards):
        """What `config` evaluates of the ShardSet `shards`.  Raises UserError where that is empty."""
        if shards.targets < 1:
            raise UserError(f"the eval set {shards.shards[0].path} holds no text ({shards.records} records of"
                            f' {shards.tokens} tokens); give another in "eval_files" or set "eval_steps" to 0')
        whole = cls(shards, config.n_ctx, config.eval_batch_size, 0)
        batches = -(-whole.windows // whole.batch)
        return whole._replace(batches=batches if config.eval_steps < 0 else min(config.eval_steps, batches))

    @property
    def windows(self):
        """Of the whole set; the last one may be shorter."""
        return -(-self.shards.targets // self.n_ctx)


def cut_blocks(shards, n_ctx):
    """The Blocks of the shards; only those that hold a window."""
    blocks, first, tokens, records = [], 0, 0, 0
    for last, shard in enumerate(shards, 1):
        tokens, records = tokens + shard.tokens, records + shard.records
        following = shards[last].tokens if last < len(shards) else BLOCK_TOKENS
        if tokens + following > BLOCK_TOKENS:
            windows = max(0, tokens + records - 1) // n_ctx  # an <|endoftext|> behind each record
            blocks.append(Block(first, last, records, tokens, windows))
            first, tokens, records = last, 0, 0
    return [block for block in blocks if block.windows]


def stable_seed(*numbers):
    """uint32 [4] that NumPy promises never to change for the same numbers."""
    return np.random.SeedSequence([int(number) for number in numbers]).generate_state(4)


def mixture_counts(quota, seed, start):
    """How many of the first `start` windows of a mixture come from each part: int [parts]."""
    period, rest = divmod(start, MIXTURE_PERIOD)
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
