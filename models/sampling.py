"""The decoding loop: draws tokens from a step function, knowing nothing of the network behind it.

B samples, S prompt tokens, N new tokens, V vocabulary.
"""
from typing import NamedTuple, Optional

import tensorflow.compat.v1 as tf

from models import layers


class Options(NamedTuple):
    """How to sample; `length` is N, `eot` the id that ends a sample."""
    length: int
    eot: int
    temperature: float = 1.0  # 0: always the likeliest token
    top_k: int = 0  # 0: all tokens
    top_p: float = 1.0  # 1: all tokens
    vocabulary: Optional[int] = None  # ids from here on (a padded embedding table) are never drawn


def sample(step_fn, cache, prompt, seeds, *, n_ctx, options):
    """prompt int32 [B, S], seeds int32 [B] -> the N tokens that follow, int32 [B, N].

    step_fn(tokens [B, n], position, cache) -> (float32 logits [B, V] of the token after the last, cache), where
    `position` tokens are in the cache and `cache` is any nested structure of tensors with static shapes.

    A row's tokens depend on its prompt, its seed and the options, not on its neighbours (nor, but for the draws
    themselves, on whether XLA compiles this).  When the cache holds
    n_ctx tokens, the last n_ctx / 2 are read in again at positions 0.. and the text goes on from there.  A longer
    prompt keeps its last n_ctx tokens.  After `eot` a row holds nothing but `eot`.
    """
    length = options.length
    batch, given = prompt.shape.as_list()
    kept = min(given, n_ctx)
    logits, cache = step_fn(prompt[:, given - kept:], tf.constant(0), cache)
    token = choose(logits, seeds, 0, options)
    # All tokens in one tensor, those not yet drawn as eot: what is read in again may reach back into the prompt.
    text = tf.concat([prompt, tf.fill([batch, length], options.eot)], 1)  # [B, S + N]
    text = _put(text, token, given)

    def unfinished(i, text, token, position, ended, cache):
        return tf.logical_and(i < length, tf.logical_not(tf.reduce_all(ended)))

    def body(i, text, token, position, ended, cache):
        logits, position, cache = _next_logits(step_fn, text, token, given + i, position, cache, n_ctx=n_ctx,
                                               total=given + length)
        token = tf.where_v2(ended, tf.fill([batch], options.eot), choose(logits, seeds, i, options))
        ended = tf.logical_or(ended, tf.equal(token, options.eot))
        return i + 1, _put(text, token, given + i), token, position, ended, cache
    state = (tf.constant(1), text, token, tf.constant(kept), tf.equal(token, options.eot), cache)
    return tf.while_loop(unfinished, body, state, maximum_iterations=max(length - 1, 0))[1][:, given:]


def _next_logits(step_fn, text, token, written, position, cache, *, n_ctx, total):
    """(logits, position, cache) after reading `token`, the last of `written` tokens of `text`."""
    def go_on():
        logits, new_cache = step_fn(token[:, None], position, cache)
        return logits, position + 1, new_cache

    def slide():
        window = max(n_ctx // 2, 1)
        recent = tf.gather(text, written - window + tf.range(window), axis=1)  # [B, n_ctx / 2]
        logits, new_cache = step_fn(recent, tf.constant(0), cache)
        return logits, tf.constant(window), new_cache
    if total <= n_ctx:  # the window cannot fill up, so a short text needs no second branch in the graph
        return go_on()
    return tf.cond(position < n_ctx, go_on, slide)


def _put(text, token, column):
    """`text` [B, S + N] with `token` [B] at `column`."""
    here = tf.equal(tf.range(text.shape[1]), column)  # [S + N]
    return tf.where_v2(here, token[:, None], text)


def choose(logits, seeds, number, options):
    """Draws the `number`-th token of each row: logits float32 [B, V], seeds int32 [B] -> int32 [B]."""
    if options.vocabulary is not None and options.vocabulary < logits.shape[1]:
        logits = tf.where_v2(tf.range(logits.shape[1]) < options.vocabulary, logits, -float("inf"))
    if options.temperature == 0:
        return tf.argmax(logits, -1, output_type=tf.int32)
    logits = keep_nucleus(keep_top(logits / options.temperature, options.top_k), options.top_p)
    noise = [tf.random.stateless_uniform(logits.shape[1:], tf.stack([seed, number]), 1e-20, 1.0, alg=layers.RANDOM)
             for seed in tf.unstack(seeds)]
    # Gumbel's trick: the largest of logits plus this noise is a draw from their softmax.
    return tf.argmax(logits - tf.math.log(-tf.math.log(tf.stack(noise))), -1, output_type=tf.int32)


def keep_top(logits, k):
    """-inf for all but the k largest logits of each row (all that tie with the k-th stay); k = 0 keeps all."""
    if not 0 < k < logits.shape[-1]:
        return logits
    smallest = tf.math.top_k(logits, k).values[:, -1:]
    return tf.where_v2(logits < smallest, -float("inf"), logits)


def keep_nucleus(logits, p):
    """-inf for all but the fewest likeliest tokens whose probabilities reach p (https://arxiv.org/abs/1904.09751)."""
    if p >= 1:
        return logits
    descending = tf.sort(logits, -1, direction="DESCENDING")
    before = tf.cumsum(tf.nn.softmax(descending), -1, exclusive=True)
    smallest = tf.reduce_min(tf.where_v2(before < max(p, 1e-9), descending, float("inf")), -1, keepdims=True)
    return tf.where_v2(logits < smallest, -float("inf"), logits)
