"""tfrecord shards -> windows of n_ctx + 1 tokens -> (tokens, labels) batches of static shape, int32.

The sequence of global batches is a pure function of (shards, seed, batch size, n_ctx, step):

1. The shards, in the order of their names, are cut into blocks of files; a block is what is shuffled at once.
2. Each epoch has its own order of blocks, of documents in a block, and of windows in a block.
3. The documents of a block, <|endoftext|> behind each, are one text, cut into windows that overlap by one token:
   every token is a target once an epoch, but for less than one window a block.
4. The number of windows of a block follows from its counts of tokens and records, so the window that a step starts
   with is found by arithmetic: whole blocks are skipped unread, and part of one is replayed.

There is no Python operation in the pipeline: it runs on TPU hosts too.
"""
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from errors import UserError

BLOCK_TOKENS = 1 << 25  # what is shuffled at once: 70 MB of records
WINDOW_BUFFER_TOKENS = 1 << 24  # windows that wait to be drawn: 64 MB
DOCUMENTS_AT_ONCE = 256
IGNORED = -1  # label that does not count: models.layers.IGNORED
PREFETCHED_BATCHES = 4
LONGEST_SCHEDULE = 20000  # rows
MIXTURE_PERIOD = 1000  # windows in which each part of a mixture has exactly its share


class Block(NamedTuple):
    """Files [first, last) of a part's shards, with their records and windows."""
    first: int
    last: int
    records: int
    windows: int


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
            blocks.append(Block(first, last, records, window_count(tokens, records, n_ctx)))
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
        random = np.random.RandomState(_stable_seed(seed, epoch, 0))
        for number in random.permutation(len(blocks)):
            windows = blocks[number].windows
            if position + windows > start and position < stop:
                rows.append([number, _stable_seed(seed, epoch, 1 + number)[0], max(0, start - position)])
            position += windows
    return np.array(rows, np.int64).reshape(-1, 3)


def _stable_seed(*numbers):
    """uint32 [4] that NumPy promises never to change for the same numbers."""
    return np.random.SeedSequence([int(number) for number in numbers]).generate_state(4)


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
    random = np.random.RandomState(_stable_seed(seed, period, 2**32))
    return random.permutation(np.repeat(np.arange(len(quota)), quota))


def _tokens_of(serialized, eot):
    """Serialized records [N] -> their tokens with `eot` behind each record: int32 [any]."""
    parsed = tf.io.parse_example(serialized, {"text": tf.io.RaggedFeature(tf.int64)})["text"]
    ends = tf.fill([parsed.nrows(), 1], tf.constant(eot, tf.int64))
    return tf.cast(tf.concat([parsed, ends], 1).flat_values, tf.int32)


def _cut_windows(n_ctx):
    """Function for Dataset.scan: (tokens left over, new tokens) -> (tokens left over, windows [k, n_ctx + 1])."""
    def cut(left, new):
        text = tf.concat([left, new], 0)
        count = tf.maximum(tf.size(text) - 1, 0) // n_ctx
        first = tf.reshape(text[:count * n_ctx], [-1, n_ctx])
        following = tf.reshape(text[1:count * n_ctx + 1], [-1, n_ctx])
        return text[count * n_ctx:], tf.concat([first, following[:, -1:]], 1)
    return cut


def _windows_of(records, n_ctx, eot):
    """Dataset of serialized records -> dataset of windows int32 [n_ctx + 1]; what does not fill one is dropped."""
    tokens = records.batch(DOCUMENTS_AT_ONCE).map(lambda serialized: _tokens_of(serialized, eot))
    return tokens.scan(tf.zeros([0], tf.int32), _cut_windows(n_ctx)).unbatch()


def part_windows(part, config, eot, *, start, stop):
    """Dataset of windows [start, stop) (and maybe more) of one part: int32 [n_ctx + 1]."""
    blocks = cut_blocks(part.shards, config.n_ctx)
    rows = schedule(blocks, config.seed, start, stop)
    paths = tf.constant([shard.path for shard in part.shards])
    facts = tf.constant(blocks, tf.int64)  # [blocks, 4]
    buffer = max(1, WINDOW_BUFFER_TOKENS // config.n_ctx)

    def one_block(row):
        number, seed, skipped = row[0], row[1], row[2]
        first, last, records = facts[number, 0], facts[number, 1], facts[number, 2]
        found = tf.data.TFRecordDataset(paths[first:last])
        found = found.shuffle(records, seed=seed, reshuffle_each_iteration=False)
        # Windows are shuffled after they are cut: neighbours in a document would else stand in one batch.
        windows = _windows_of(found, config.n_ctx, eot)
        return windows.shuffle(buffer, seed=seed, reshuffle_each_iteration=False).skip(skipped)
    return tf.data.Dataset.from_tensor_slices(rows).flat_map(one_block)


def _training_windows(found, config, eot, start, stop):
    """Dataset of windows [start, stop) of the whole mixture."""
    if len(found.parts) == 1:
        return part_windows(found.parts[0], config, eot, start=start, stop=stop)
    quota = mixture_quota([part.weight for part in found.parts])
    begin, end = (mixture_counts([part.weight for part in found.parts], config.seed, at) for at in (start, stop))
    parts = [part_windows(part, config, eot, start=int(a), stop=int(b) + 1)
             for part, a, b in zip(found.parts, begin, end)]
    periods = range(start // MIXTURE_PERIOD, -(-stop // MIXTURE_PERIOD))
    order = np.concatenate([mixture_order(quota, config.seed, period) for period in periods])
    choices = tf.data.Dataset.from_tensor_slices(order[start % MIXTURE_PERIOD:][:stop - start])
    return tf.data.Dataset.choose_from_datasets(parts, choices, stop_on_empty_dataset=True)


def _static(window, n_ctx):
    """A window as (tokens, labels), int32 [n_ctx] each: TPUs need the shapes in the graph."""
    window = tf.ensure_shape(window, [n_ctx + 1])
    return window[:-1], window[1:]


def make_train_input_fn(config, found, eot, *, start_step, stop_step):
    """input_fn for the steps [start_step, stop_step) of the run; `found` is its corpus.Corpus.

    Raises UserError where a part of the corpus does not hold one window.
    """
    for part in found.parts:
        if not cut_blocks(part.shards, config.n_ctx):
            raise UserError(f"the {part.tokens} tokens in {part.shards[0].path} do not fill one window of n_ctx + 1 ="
                            f' {config.n_ctx + 1}; add text or lower "n_ctx"')

    def input_fn(params):
        tf.compat.v1.set_random_seed(config.seed)  # tf.data's shuffles mix the graph's seed into their own
        start, stop = start_step * config.train_batch_size, stop_step * config.train_batch_size
        windows = _training_windows(found, config, eot, start, stop)
        examples = windows.map(lambda window: _static(window, config.n_ctx))
        batches = examples.batch(params["batch_size"], drop_remainder=True)
        hosts, host = _host(params)
        return _ready(batches.shard(hosts, host))
    return input_fn


def _ready(batches):
    """The dataset read ahead of the network.

    Without tf.data's autotuning: the thread that does it misses the signal to end now and then, and the end of
    every train() call waits for its next look, up to a minute (TensorFlow 2.15.1; look again with another release).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(PREFETCHED_BATCHES).with_options(options)


def _host(params):
    """(number of hosts, number of this one) that feed a TPU, each with its own rows of the global batch."""
    context = params.get("context")
    if context is None:
        return 1, 0
    _, number, hosts, _ = context.current_input_fn_deployment()
    return hosts, number


def longest_chunk(config, found):
    """Steps whose schedule stays small enough to be worked out at once: a tiny corpus has many epochs in few steps."""
    rows = max(len(blocks) / sum(block.windows for block in blocks)
               for blocks in (cut_blocks(part.shards, config.n_ctx) for part in found.parts))  # a window
    return max(1, int(LONGEST_SCHEDULE / (rows * config.train_batch_size)))


def eval_steps(config, found):
    """Batches of one evaluation: the config's eval_steps, at most (and for -1 exactly) the whole set.

    Raises UserError where there is nothing to predict.
    """
    targets = sum(part.tokens + part.records for part in found.parts) - 1
    if targets < 1:
        raise UserError(f"the eval set {found.parts[0].shards[0].path} holds no text; give another in \"eval_files\" or"
                        ' set "eval_steps" to 0')
    windows = -(-targets // config.n_ctx)
    batches = -(-windows // config.eval_batch_size)
    return batches if config.eval_steps < 0 else min(config.eval_steps, batches)


def make_eval_input_fn(config, found, eot):
    """input_fn that reads all shards once in order; the last window and batch are filled up with IGNORED labels."""
    def example(window):
        tokens, labels = _static(window, config.n_ctx)
        return tf.where(tf.equal(tokens, IGNORED), eot, tokens), labels

    def input_fn(params):
        paths = [shard.path for part in found.parts for shard in part.shards]
        tokens = tf.data.TFRecordDataset(paths).batch(DOCUMENTS_AT_ONCE).map(lambda x: _tokens_of(x, eot))
        # What the last whole window leaves over becomes one more, filled up with IGNORED.
        end = tf.data.Dataset.from_tensors(tf.fill([config.n_ctx], IGNORED))
        windows = tokens.concatenate(end).scan(tf.zeros([0], tf.int32), _cut_windows(config.n_ctx)).unbatch()
        examples = windows.map(example)
        nothing = (tf.fill([config.n_ctx], eot), tf.fill([config.n_ctx], IGNORED))
        filler = tf.data.Dataset.from_tensors(nothing).repeat(params["batch_size"] - 1)
        batches = examples.concatenate(filler).batch(params["batch_size"], drop_remainder=True)
        return _ready(batches)
    return input_fn
