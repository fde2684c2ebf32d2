"""Scores the tasks of datasets/zero_shot/ with a checkpoint: for tools/zero_shot.py, and after a run's evaluations."""
import dataclasses
import math
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from configs import arguments, start, storage
from configs.errors import UserError
from datasets.zero_shot import tasks
from datasets.zero_shot.numbers import Score
from models import gpt2, initial_values
from models.checkpoints import run_checkpoints, warm_start
from models.run import damage, extras, hooks, metrics_file, workarounds

SHORTEST = 16  # inputs: shorter sequences are filled up to so many, longer ones to the next power of two
ROWS = 256  # of logits in memory at a time
LARGEST = np.finfo(np.float32).max  # of TensorBoard's numbers


class Network(NamedTuple):
    """What is fed and fetched for sequences of one length."""
    tokens: tf.Tensor  # int32 [B, T]
    places: tf.Tensor  # int32 [S, ROWS]: which of the B T positions are scored
    labels: tf.Tensor  # int32 [S, ROWS]
    scores: list  # of tensors [S, ROWS]: the fields of Score


class Scorer:
    """A session with the weights at `path` (None: init_checkpoint), in one graph with a network for each length.

    Use it in `with`: its end gives the memory of the weights back.
    """

    def __init__(self, config, path):
        self._config = dataclasses.replace(config, recompute=False)  # no gradients, nothing to compute again
        self._networks = {}
        with tf.Graph().as_default() as self._graph:
            self._weights = initial_values.create_variables(config)
            self._allowed = tf.placeholder(tf.bool, [config.n_vocab])
            self._session = tf.Session(config=workarounds.session_config())
            with start.ended_at_once():
                warm_start.restore(path, config, self._weights, self._session)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session.close()
        workarounds.release_graphs()

    def scores(self, sequences, not_allowed, between=lambda: None):
        """The Score of each Sequence; `between` is called before each batch."""
        allowed = np.ones(self._config.n_vocab, bool)
        allowed[not_allowed] = False
        found = [None] * len(sequences)
        for length, numbers in _by_length(sequences, self._config.n_ctx).items():
            rows = min(len(numbers), max(1, self._config.eval_batch_size * self._config.n_ctx // length))
            network = self._network(length, rows)
            for first in range(0, len(numbers), rows):
                between()
                batch = numbers[first:first + rows]
                for number, score in zip(batch, self._run(network, [sequences[i] for i in batch], allowed)):
                    found[number] = score
        return found

    def _network(self, length, rows):
        """The Network for `rows` sequences of `length` inputs: their sizes are known, so that CPUs are fast."""
        if (length, rows) not in self._networks:
            with self._graph.as_default():
                tokens = tf.placeholder(tf.int32, [rows, length])
                places, labels = (tf.placeholder(tf.int32, [None, ROWS]) for _ in range(2))
                hidden = gpt2.transformer(self._weights, tokens, self._config)
                scores = _scored(tf.reshape(hidden, [rows * length, -1]), tf.identity(self._weights["wte"]), places,
                                 labels, self._allowed)
                self._networks[length, rows] = Network(tokens, places, labels, scores)
        return self._networks[length, rows]

    def _run(self, network, sequences, allowed):
        """Yields the Score of each of the sequences, as many as `network` has rows or fewer."""
        rows, length = network.tokens.shape.as_list()
        tokens, places, labels = np.zeros([rows, length], np.int32), [], []
        for row, (ids, scored) in enumerate(sequences):
            tokens[row, :len(ids) - 1] = ids[:-1]
            places.append(row * length + np.arange(len(ids) - 1 - scored, len(ids) - 1, dtype=np.int32))
            labels.append(ids[len(ids) - scored:])
        with start.ended_at_once():
            fetched = self._session.run(network.scores, {
                network.tokens: tokens, network.places: _in_rows(places), network.labels: _in_rows(labels),
                self._allowed: allowed})
        losses, likeliest, likeliest_allowed = (values.reshape(-1) for values in fetched)
        end = 0
        for sequence in sequences:
            part = slice(end, end + sequence.scored)
            yield Score(losses[part].astype(np.float64), likeliest[part], likeliest_allowed[part])
            end = part.stop


def _by_length(sequences, n_ctx):
    """{inputs to fill up to: numbers of the sequences}, of few different lengths."""
    found = {}
    for number, sequence in enumerate(sequences):
        inputs = max(SHORTEST, len(sequence.tokens) - 1)
        found.setdefault(min(n_ctx, 1 << (inputs - 1).bit_length()), []).append(number)
    return found


def _in_rows(parts):
    """int32 [S, ROWS] of arrays one after the other, filled up with 0."""
    values = np.concatenate(parts)
    return np.pad(values, (0, -len(values) % ROWS)).reshape(-1, ROWS)


def _scored(hidden, wte, places, labels, allowed):
    """The fields of Score, [S, ROWS] each, of hidden [N, C] at `places` for `labels`; the logits of ROWS at a time."""
    def some(given):
        places, labels = given
        logits = gpt2.logits(tf.gather(hidden, places), wte)  # [ROWS, V]
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=labels)
        left = tf.where_v2(allowed, logits, logits.dtype.min)
        return losses, *(tf.equal(tf.argmax(of, -1, output_type=tf.int32), labels) for of in (logits, left))
    return tf.map_fn(some, (places, labels), fn_output_signature=(tf.float32, tf.bool, tf.bool), parallel_iterations=1)


def measure(config, path, labelled, between=lambda: None):
    """Yields (label, Variant, Numbers) of [(label, Parts)], with the weights at `path` (None: init_checkpoint)."""
    with damage.named_in_zero_shot(config), Scorer(config, path) as scorer:
        for label, parts in labelled:
            for part in parts:
                scores = scorer.scores(part.sequences, part.not_allowed, between)
                for variant, of in part.variants:
                    yield label, variant, _finite(of(scores), path or config.init_checkpoint)


def _finite(numbers, weights):
    """Returns the Numbers.  Raises UserError if their loss is not finite."""
    if not math.isfinite(numbers.loss):
        raise UserError(f"the loss is not finite ({numbers.loss}) with the weights in {weights}; go back to an older"
                        " checkpoint")
    return numbers


def line(label, variant, numbers):
    """The numbers of a variant in words."""
    shown = [f"loss {numbers.loss:.4f} nats a token"]
    for name, digits in (("perplexity", 2), ("word_perplexity", 2), ("bits_per_byte", 4), ("accuracy", 4),
                         ("accuracy_norm", 4)):
        value = getattr(numbers, name)
        if value is not None:
            shown.append(f"{'accuracy by length' if name == 'accuracy_norm' else name.replace('_', ' ')}"
                         f" {metrics_file.in_words(value, digits)}")
    return f"{label}, {variant.name}: {', '.join(shown)}; {numbers.examples:,} examples, {numbers.tokens:,} tokens"


def writer(config, encoder, tpu):
    """write(path, stop): scores the checkpoint `path` on the config's "zero_shot", shows and stores the numbers.

    A signal that `stop`, a StopOnSignal or None, sees ends it with hooks.Interrupted.  The files are read here: what is
    wrong with them is a UserError before the first step.
    """
    labelled = tasks.read_all(config, encoder)
    if labelled and tpu:
        arguments.note(f"no zero-shot tasks: they are scored on CPUs and GPUs, and this run is on --tpu {tpu};"
                       " tools/zero_shot.py scores its checkpoints")
        labelled = []

    def write(path, stop):
        if not labelled:
            return
        step = run_checkpoints.step_of(path)
        for label, variant, numbers in measure(config, path, labelled, _ended_by(stop)):
            print(f"at step {step}, {line(label, variant, numbers)}", flush=True)
            _store(config.model_dir, step, f"zero_shot/{label}/{variant.name}", numbers)
    return write


def _ended_by(stop):
    """A function that raises hooks.Interrupted once `stop`, a StopOnSignal or None, has seen a signal."""
    if stop is None:
        return lambda: None
    hook = hooks.GiveUpOnSignal(stop)

    def check():
        hook.before_run(None)
        hook.after_run(None, None)
    return check


def _store(model_dir, step, prefix, numbers):
    """Writes the Numbers of a variant into metrics.jsonl and TensorBoard's file."""
    figures = {f"{prefix}/{name}": value for name, value in numbers._asdict().items()}
    metrics_file.append(model_dir, [metrics_file.entry(step, **figures)])
    values = [tf.Summary.Value(tag=name, simple_value=value) for name, value in figures.items()
              if value is not None and value <= LARGEST and not name.endswith(("/examples", "/tokens"))]
    with extras.written(storage.join(model_dir, "events.out.tfevents...")):
        events = tf.summary.FileWriterCache.get(model_dir)
        events.add_summary(tf.Summary(value=values), step)
        events.flush()
