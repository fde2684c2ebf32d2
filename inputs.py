"""Cuts TFRecord shards into windows of n_ctx + 1 tokens and makes int32 (tokens, labels) batches of static shape.

The sequence of global batches is a pure function of (shards, seed, batch size, n_ctx, step):

1. The shards, in the order of their names, are cut into blocks of files; a block is what is shuffled at once.
2. Each epoch has its own order of blocks, of documents in a block, and of windows in a block.
3. The documents of a block, <|endoftext|> behind each, are one text, closed to a ring and cut into windows that overlap
   by one token, from a place that is another each epoch (a corpus may be a single document): every token is a target
   once an epoch, but for less than one window a block.
4. The number of windows of a block follows from its counts of tokens and records, so the window that a step starts
   with is found by arithmetic: whole blocks are skipped unread, and part of one is replayed.

There is no Python operation in the pipeline: it runs on TPU hosts too.
"""
import functools

import numpy as np
import tensorflow as tf

from configs.constants import IGNORED
from datasets import window_order

# What waits to be drawn, of all parts of a mixture together and twice (_in_turn): 35 MB of records, 67 MB of windows.
# A whole block, so that the first batch takes the same time wherever in its block a run goes on.
SHUFFLED_TOKENS = window_order.BLOCK_TOKENS
DOCUMENTS_AT_ONCE, TOKENS_AT_ONCE = 256, 1 << 19  # that are parsed in one call: whichever is reached first
PARSERS = 4  # calls at the same time
PREFETCHED_BATCHES = 4
PREFETCHED_WINDOWS = 256  # handing them from thread to thread one by one would take most of the pipeline's time
MISCOUNTED = "shards hold other amounts than was counted: tokens, and ends of documents"
# Without AutoGraph, which finds nothing to convert in a pipeline and takes a run 0.7 s to find that.
as_written = tf.autograph.experimental.do_not_convert
PLACE_BITS = 31  # of a mark: the place of the record in its block; the bits above are the seed of the block's shuffles


# Training

def train_input_fn(order, eot, *, start_step, stop_step):
    """input_fn for the steps [start_step, stop_step) of a window_order.WindowOrder; `eot` ends a document."""
    @as_written
    def prepared(params, input_context):
        seed_shuffles(order.seed)
        windows = _training_windows(order, eot, start_step, stop_step)
        hosts, host, replicas = _host(params, input_context)
        # The rows of a host stand together in the global batch, and those of a replica within them.
        batches = windows.batch(params["batch_size"] * replicas, drop_remainder=True).shard(hosts, host)
        if replicas > 1:
            batches = batches.rebatch(params["batch_size"], drop_remainder=True)
        # After batching: a function of its own for each window would take most of the pipeline's time.
        return ready(batches.map(lambda windows: _split(windows, order.n_ctx)))
    return lambda params, input_context=None: prepared(params, input_context)  # Estimators look at the arguments' names


def seed_shuffles(seed):
    """tf.data's shuffles mix the graph's seed into their own."""
    tf.compat.v1.set_random_seed(seed)


def _training_windows(order, eot, start_step, stop_step):
    """Dataset of the windows (and maybe more) of all parts that these steps read."""
    def read(records, part, row):
        return _tokens(records, part, eot)
    ranges = order.ranges(start_step, stop_step)
    if len(ranges) == 1:
        return part_windows(order, 0, read, *ranges[0])
    parts = [part_windows(order, number, read, first, last + 1) for number, (first, last) in enumerate(ranges)]
    choices = tf.data.Dataset.from_tensor_slices(order.turns(start_step, stop_step))
    return tf.data.Dataset.choose_from_datasets(parts, choices, stop_on_empty_dataset=True)


def part_windows(order, number, read, first, last):
    """Dataset of windows [first, last) (and maybe more) of part `number`: [n_ctx + 1] values, of those `read` gives.

    read(dataset of serialized records, their part, their row of the schedule) -> dataset of vectors, one value for each
    token of a record and one for its end.  The windows are the same whatever these values are (`seed_shuffles` once for
    the graph).  What does not fill a window at the end of a block is dropped.
    """
    part_order, n_ctx = order.parts[number], order.n_ctx
    rows = part_order.schedule(first, last)
    most = max(1, SHUFFLED_TOKENS // len(order.parts) // n_ctx)

    @tf.function(autograph=False)  # so that it is traced once for both datasets below
    def one_block(row):
        block = _block(part_order, row)
        windows = _cut_windows(read(block_records(order, number, row), part_order.part, row), n_ctx, row[1] % n_ctx,
                               block.tokens + block.records)
        buffer = tf.minimum(block.windows, most)  # tf.data allocates all of it at once
        # Windows are shuffled after they are cut: neighbours in a document would else stand in one batch.
        return windows.shuffle(buffer, seed=row[1], reshuffle_each_iteration=False).skip(row[2])
    return _in_turn([tf.data.Dataset.from_tensor_slices(rows[k::2]).flat_map(one_block) for k in (0, 1)], [
        part_order.blocks[block].windows - skipped for block, _, skipped in rows])


def block_records(order, number, row):
    """Dataset of the serialized records of a block, in the order of one epoch; `row` int64 [3] of the schedule."""
    part_order = order.parts[number]
    paths, block = tf.constant([shard.path for shard in part_order.part.shards]), _block(part_order, row)
    share = max(1, SHUFFLED_TOKENS // len(order.parts))
    # A shard that is larger than all that may wait to be drawn is shuffled piecemeal.
    buffer = tf.maximum(block.records * share // tf.maximum(block.tokens, share), 1)
    records = tf.data.TFRecordDataset(paths[block.first:block.last])
    return records.shuffle(buffer, seed=row[1], reshuffle_each_iteration=False)


def _block(part_order, row):
    """The window_order.Block of a row, int64 [] each."""
    return window_order.Block(*tf.unstack(tf.constant(part_order.blocks, tf.int64)[row[0]]))


def _in_turn(datasets, counts):
    """Dataset of counts[0] elements of the first of two datasets, counts[1] of the second, counts[2] of the first ...

    Both are read ahead from the start: the one fills its shuffle with the next block while the other is drawn from,
    and a run that goes on at the end of a block does not wait for two blocks one after the other.
    """
    # A dataset starts to read ahead when its first element is asked for; that must not cost a block.
    first = tf.data.Dataset.from_tensors(tf.zeros([0], datasets[0].element_spec.dtype))
    ahead = [first.concatenate(dataset).prefetch(PREFETCHED_WINDOWS) for dataset in datasets]
    turns = tf.data.Dataset.from_tensor_slices((np.arange(len(counts)) % 2, np.array(counts, np.int64))).flat_map(
        lambda turn, count: tf.data.Dataset.from_tensors(turn).repeat(count))
    choices = tf.data.Dataset.range(2).concatenate(turns)
    return tf.data.Dataset.choose_from_datasets(ahead, choices, stop_on_empty_dataset=False).skip(2)


# Records -> tokens -> windows

def _tokens(records, part, eot):
    """Dataset of serialized records of a part -> dataset of their tokens, `eot` behind each record: int32 [any]."""
    def parse(serialized):
        parsed = tf.io.parse_example(serialized, {"text": tf.io.RaggedFeature(tf.int64)})["text"]
        ends = tf.fill([parsed.nrows(), 1], tf.constant(eot, tf.int64))
        return tf.cast(tf.concat([parsed, ends], 1).flat_values, tf.int32)
    return records.batch(documents_at_once(part)).map(parse, PARSERS)


def documents_at_once(part):
    """How many of the part's documents are parsed in one call: long ones would take gigabytes by the hundred."""
    mean = max(1, part.tokens // max(1, part.records))
    return min(DOCUMENTS_AT_ONCE, max(1, TOKENS_AT_ONCE // mean))


def _cut_windows(values, n_ctx, offset, count):
    """Dataset of vectors -> dataset of windows [n_ctx + 1] of their ring: the first `offset` values come last.

    It fails with MISCOUNTED in the message where there are not `count` values.
    """
    dtype = values.element_spec.dtype
    end = tf.data.Dataset.from_tensors((tf.zeros([0], dtype), True))

    def cut(state, piece):
        left, head, missing, seen = state
        new, last = piece
        size = tf.size(new, tf.int64)
        seen += size
        right = tf.debugging.Assert(tf.logical_or(tf.logical_not(last), tf.equal(seen, count)),
                                    [MISCOUNTED, seen, count])
        taken = tf.minimum(missing, size)
        head = tf.concat([head, new[:taken]], 0)
        text = tf.concat([left, new[taken:], head[:tf.where(last, tf.size(head), 0)]], 0)
        with tf.control_dependencies([right]):
            windows = _whole_windows(text, n_ctx)
        return (text[tf.shape(windows)[0] * n_ctx:], head, missing - taken, seen), windows
    # Its length is hidden.  TensorFlow traces `cut` a second time when a known length changes.
    nothing = tf.compat.v1.placeholder_with_default(tf.zeros([0], dtype), [None])
    start = nothing, nothing, offset, tf.constant(0, tf.int64)
    pieces = tf.data.Dataset.zip((values, tf.data.Dataset.from_tensors(False).repeat())).concatenate(end)
    return pieces.scan(start, cut).unbatch()


def _whole_windows(text, n_ctx):
    """The windows [k, n_ctx + 1], overlapping by one, that `text` [any] fills from its start."""
    count = tf.maximum(tf.size(text) - 1, 0) // n_ctx
    first = tf.reshape(text[:count * n_ctx], [-1, n_ctx])
    following = tf.reshape(text[1:count * n_ctx + 1], [-1, n_ctx])
    return tf.concat([first, following[:, -1:]], 1)


def _split(windows, n_ctx):
    """Windows [B, n_ctx + 1] as (tokens, labels), int32 [B, n_ctx] each: TPUs need the shapes in the graph."""
    windows = tf.ensure_shape(windows, [windows.shape[0], n_ctx + 1])
    return windows[:, :-1], windows[:, 1:]


def ready(batches):
    """The dataset read ahead of the network.

    Without tf.data's autotuning: the thread that does it misses the signal to end now and then, and the end of
    every session waits for its next look, up to a minute (TensorFlow 2.15.1; look again with another release).
    tf.data's rewriting is off, too: it makes nothing here faster, and takes half of the time of a start.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return batches.prefetch(PREFETCHED_BATCHES).with_options(options)


def _host(params, context):
    """(number of hosts, number of this one, batches it feeds in a step); each has its own rows of the global batch.

    TPUEstimator tells it in `params` for a TPU (whose batch is then one a host), in a tf.distribute.InputContext else.
    """
    if "context" in params:
        _, number, hosts, _ = params["context"].current_input_fn_deployment()
        return hosts, number, 1
    if context is None:
        return 1, 0, 1
    hosts = context.num_input_pipelines
    return hosts, context.input_pipeline_id, context.num_replicas_in_sync // hosts


# Evaluation

def eval_input_fn(evaluation, eot):
    """input_fn that reads the shards of an EvalWindows once in order.

    The last window and batch are filled up with IGNORED labels.
    """
    n_ctx = evaluation.n_ctx

    def examples(windows):
        tokens, labels = _split(windows, n_ctx)
        return tf.where(tf.equal(tokens, IGNORED), eot, tokens), labels

    @as_written
    def prepared(params):
        parts = [_tokens(tf.data.TFRecordDataset([shard.path for shard in part.shards]), part, eot)
                 for part in evaluation.shards.parts]
        tokens = functools.reduce(tf.data.Dataset.concatenate, parts)
        # What the last whole window leaves over becomes one more, filled up with IGNORED.
        end = tf.data.Dataset.from_tensors(tf.fill([n_ctx], IGNORED))
        count = evaluation.shards.tokens + evaluation.shards.records + n_ctx
        windows = _cut_windows(tokens.concatenate(end), n_ctx, tf.constant(0, tf.int64), count)
        filler = tf.data.Dataset.from_tensors(tf.fill([n_ctx + 1], IGNORED)).repeat(params["batch_size"] - 1)
        batches = windows.concatenate(filler).batch(params["batch_size"], drop_remainder=True)
        return ready(batches.map(examples))
    return lambda params: prepared(params)


# Which documents stand in the batch of a step, found by reading the same data in the same order once more.

def documents_of(order, step):
    """The `hash`es (str) of the documents in the global batch of update number `step` (from 1 on), sorted.

    Reads at most one block of files twice for each part of the WindowOrder.
    """
    return sorted({name for number, (first, last) in enumerate(order.ranges(step - 1, step)) if first < last
                   for name in _part_documents(order, number, first, last)})


def _part_documents(order, number, first, last):
    """Yields the hashes of the documents in windows [first, last) of part `number`."""
    part_order = order.parts[number]
    with tf.Graph().as_default():
        seed_shuffles(order.seed)
        windows = part_windows(order, number, _marks, first, last)
        marks = np.unique(_elements(windows.take(last - first)))
    for row in part_order.schedule(first, last):
        places = marks[marks >> PLACE_BITS == row[1]] & (1 << PLACE_BITS) - 1
        with tf.Graph().as_default():
            seed_shuffles(order.seed)
            records = block_records(order, number, tf.constant(row)).enumerate()
            chosen = records.filter(lambda place, _, places=places: tf.reduce_any(tf.equal(place, places)))
            hashes = _elements(chosen.map(lambda _, record: tf.io.parse_single_example(
                record, {"hash": tf.io.FixedLenFeature([], tf.string, "")})["hash"]))
        yield from (name.decode("utf-8", "replace") for name in hashes)


def _marks(records, part, row):
    """For part_windows: instead of each token its document's mark, int64."""
    def repeat(places, serialized):
        texts = tf.io.parse_example(serialized, {"text": tf.io.RaggedFeature(tf.int64)})["text"]
        return tf.repeat(tf.bitwise.left_shift(row[1], PLACE_BITS) + places, texts.row_lengths() + 1)
    return records.enumerate().batch(documents_at_once(part)).map(repeat)


def _elements(dataset):
    """All elements of the dataset, which has one at least, as one NumPy array."""
    with tf.compat.v1.Session() as session:
        return session.run(dataset.batch(np.iinfo(np.int64).max).get_single_element())
