"""What the original did differently, one choice at a time, put in the place of the product's while a benchmark runs.

Sources: https://github.com/ConnorJL/GPT2, models/gpt2/gpt2.py (the network), optimizers.py, inputs.py (the data),
main.py (the loop) and 1.5B.json.  The product has no switches for these, except keys of published configs.
"""
from __future__ import annotations

import contextlib
import functools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

import inputs
from configs.constants import RANDOM
from configs.errors import UserError
from datasets import integrity, window_order
from datasets.window_order import WindowOrder
from models import dropout, initial_values, optimizers
from models.weights import weight_list

TABLE_DROPOUT = 0.1
BEYOND = 10**6  # a site of noise that no network has
STITCH = 42  # documents that the original joined to draw one window from (2 in its corpus of long ones)


class Choice(NamedTuple):
    """One thing that the original did differently."""
    meaning: str
    keys: dict  # of the config
    replace: object = None  # function of all the names chosen that gives [(owner, name, new)]


def choices():
    """{name: Choice}, in the order in which they are applied."""
    return {
        "tied_dropout": Choice("dropout 0.1 on the entries of the token and position tables; the first is also the"
                               " output layer", {},
                               lambda names: [(optimizers, "gradients", _dropping_tables(optimizers.gradients))]),
        "scale_by_in": Choice("starting weights also divided by sqrt(fan-in)", {"scale_by_in": True}),
        "residual_scale": Choice("attention's projection starts at 0.02, the MLP's at 0.02 / sqrt(n_layer)", {},
                                 lambda names: [(initial_values, "weight_list", _residual_scale(weight_list))]),
        "vector_decay": Choice("weight decay on gains and biases too", {},
                               lambda names: [(optimizers._Decoupled, "_decay_of", _decay_all)]),
        "no_clipping": Choice("gradients are not clipped", {"grad_clip": 0}),
        "one_window": Choice(f"one random window out of {STITCH} joined documents", {},
                             lambda names: [(inputs, "train_input_fn", _one_window)]),
        "first_shards_again": Choice("after every evaluation the data begin with the first shards again", {},
                                     _first_shards_again),
        "adafactor": Choice("Adafactor, lr 2.5e-4 times the size of each tensor",
                            {"opt_name": "adafactor", "lr": 2.5e-4, "decay_type": "pow", "decay_exponent": 0.8}),
    }


@contextlib.contextmanager
def put_over(names):
    """Makes the product do as the original in the named choices, until the context ends; yields their config keys."""
    keys = {}
    with contextlib.ExitStack() as stack:
        for name, choice in choices().items():
            if name in names:
                keys.update(choice.keys)
                for owner, attribute, new in choice.replace(names) if choice.replace else ():
                    stack.callback(setattr, owner, attribute, getattr(owner, attribute))
                    setattr(owner, attribute, new)
        yield keys


def _dropping_tables(gradients):
    """models.optimizers.gradients of a loss with dropout on wte and wpe themselves."""
    def dropping(loss_fn, variables, batch, slices=1):
        def dropped_loss(weights, *micro_batch):
            return loss_fn({**weights, **dropped_tables(weights)}, *micro_batch)
        return gradients(dropped_loss, variables, batch, slices)
    return dropping


def dropped_tables(tables):
    """{"wte", "wpe"} of `tables` with the dropout of the graph's seed and step."""
    base = tf.stack([tf.compat.v1.get_default_graph().seed or 0,
                     tf.cast(tf.compat.v1.train.get_global_step(), tf.int32)])

    def drop(name, number):
        seed = tf.random.experimental.stateless_fold_in(base, number, alg=RANDOM)
        return dropout.Site(TABLE_DROPOUT, seed, 0)(tables[name])
    return {"wte": drop("wte", 0), "wpe": drop("wpe", BEYOND)}


def _residual_scale(weight_list):
    """models.weights.weight_list, whose residual projections start as in the original."""
    def scaled(config):
        # Ours both start at 0.02 / sqrt(2 n_layer).
        factors = {"attn/c_proj/w": math.sqrt(2 * config.n_layer), "mlp/c_proj/w": math.sqrt(2)}
        return [weight._replace(deviation=weight.deviation * factors.get(weight.name.partition("/")[2], 1.0))
                for weight in weight_list(config)]
    return scaled


def _decay_all(self, variable):
    """Decay for tensors of any rank, as a method of optimizers._Decoupled."""
    return self._config.weight_decay


def _one_window(order, eot, *, start_step, stop_step):
    """inputs.train_input_fn with windows as the original drew them."""
    if len(order.parts) > 1:
        raise UserError("one window per group of documents is for one corpus, not for a mixture")
    paths = tuple(shard.path for shard in order.parts[0].part.shards)

    def input_fn(params):
        start, stop = start_step * order.batch, stop_step * order.batch
        windows = stitched_windows(_documents(paths), eot, order.n_ctx, order.seed, start, stop)
        batches = tf.data.Dataset.from_tensor_slices((windows[:, :-1], windows[:, 1:])).batch(
            params["batch_size"], drop_remainder=True)
        return inputs.ready(batches)
    return input_fn


@functools.lru_cache(maxsize=2)
def _documents(paths):
    """[int64 [T]] of all records in these files."""
    return [ids for path in paths for _, ids in integrity.read(path)]


def stitched_windows(documents, eot, n_ctx, seed, start, stop):
    """Windows [start, stop) of all passes, int32 [stop - start, n_ctx + 1].

    In each pass the documents get a new random order and are joined by `eot`, STITCH at a time.  One window is read
    from a random place of each such text.
    """
    groups = len(documents) // STITCH
    if not groups:
        raise UserError(f"{len(documents)} documents are fewer than the {STITCH} that one window is drawn from; give"
                        " more text")
    windows = np.zeros([stop - start, n_ctx + 1], np.int32)
    for number in range(start, stop):
        turn, group = divmod(number, groups)
        if number == start or not group:
            shuffled = np.random.RandomState(window_order.stable_seed(seed, turn)).permutation(len(documents))
        text = [piece for i in shuffled[group * STITCH:(group + 1) * STITCH] for piece in (documents[i], [eot])]
        text = np.concatenate(text[:-1])
        places = len(text) - (n_ctx + 1)  # the last one is never drawn, as there
        if places < 1:
            raise UserError(f"{STITCH} documents of {len(text)} tokens in all are shorter than a window of"
                            f" {n_ctx + 1}; give longer ones or lower n_ctx")
        place = np.random.RandomState(window_order.stable_seed(seed, turn, 1 + group)).randint(places)
        windows[number - start] = text[place:place + n_ctx + 1]
    return windows


def _first_shards_again(names):
    """Makes every train() call read from the start of the first shards, in an order of its own within them."""
    make_input_fn = inputs.train_input_fn  # or what another choice has put there
    texts = STITCH if "one_window" in names else 1  # documents that are read for one window

    def again(order, eot, *, start_step, stop_step):
        windows = (stop_step - start_step) * order.batch
        parts = [part_order.part._replace(shards=_first_shards(part_order.part.shards, windows * texts * order.n_ctx))
                 for part_order in order.parts]
        first = WindowOrder(parts, n_ctx=order.n_ctx, batch=order.batch, seed=1000 * order.seed + start_step)
        return make_input_fn(first, eot, start_step=0, stop_step=stop_step - start_step)
    return [(inputs, "train_input_fn", again)]


def _first_shards(shards, tokens):
    """The fewest leading shards, at least one, that hold so many tokens with <|endoftext|> behind each document."""
    for count, held in enumerate(np.cumsum([shard.tokens + shard.records for shard in shards]), 1):
        if held > tokens:
            return shards[:count]
    return shards
