"""The decoding loop: draws tokens from a step function, knowing nothing of the network behind it.

B samples, S prompt tokens, N new tokens, V vocabulary, Q states of the automaton that finds stop texts.
"""
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf

from configs.constants import RANDOM, STOPPED
from models.shapes import shape_of

COLDEST = 1e-6  # a temperature below it is 0


class Options(NamedTuple):
    """How each row is sampled, by tensors [B]: one graph serves rows with other options."""
    length: tf.Tensor  # int32: tokens to draw, at most Limits.length; 0: a row that only fills the batch
    temperature: tf.Tensor  # float32; 0: always the likeliest token
    top_k: tf.Tensor  # int32; 0: all tokens
    top_p: tf.Tensor  # float32; 1: all tokens
    repetition_penalty: tf.Tensor  # float32; 1: none
    seed: tf.Tensor  # int32
    stop: tf.Tensor  # int32: the state of Limits.stops that the row starts in; of no meaning without one


def dtype_of(option):
    """NumPy's dtype of the field `option` of Options."""
    return np.float32 if option in ("temperature", "top_p", "repetition_penalty") else np.int32


class Limits(NamedTuple):
    """What holds for every row of a graph, and which of its parts no row needs."""
    n_ctx: int  # tokens that the network sees at once
    eot: int  # the id that ends a sample
    length: Any  # N: the most tokens of a row, int (or a tensor, where no TPU need compile it)
    vocabulary: Optional[int] = None  # ids from here on (a padded embedding table) are never drawn
    largest: Any = 0  # of how many logits, at most, the order matters: the largest top_k, V for a top_p without top_k
    draws: bool = True  # False: every temperature is 0
    penalties: bool = False  # False: every repetition_penalty is 1
    stops: Optional[np.ndarray] = None  # int32 [Q, V]: the state after a token; STOPPED is where a row ends


class State(NamedTuple):
    """Between two tokens."""
    number: tf.Tensor  # int32 []: tokens drawn by the rows that have not ended
    text: tf.Tensor  # int32 [B, S + N]: prompt and new tokens of each row, left-aligned; what is not yet there is eot
    given: tf.Tensor  # int32 [B]: tokens of the prompt
    token: tf.Tensor  # int32 [B]: the newest, not yet read
    position: tf.Tensor  # int32 [B]: tokens in the cache
    count: tf.Tensor  # int32 [B]: tokens drawn
    ended: tf.Tensor  # bool [B]
    logprobs: tf.Tensor  # float32 [B, N]
    stop: tf.Tensor  # int32 [B]
    seen: Any  # float32 [B, V]: how often a row holds each token; () without penalties
    cache: Any


class Samples(NamedTuple):
    """The result: behind its `count` tokens, the one that ended it included, a row holds eot and 0."""
    tokens: tf.Tensor  # int32 [B, N]
    logprobs: tf.Tensor  # float32 [B, N]: under the network's own distribution, before any option changes it
    count: tf.Tensor  # int32 [B]


def sample(step_fn, empty_cache, prompt, given, options, limits):
    """prompt int32 [B, S] -> Samples; of row b the first given[b] >= 1 tokens are the prompt's.

    step_fn(tokens [B, n], position [B], last [B], cache) -> (float32 logits [B, V] of the token after row b's
    last[b]-th of `tokens`, cache), where row b has position[b] tokens in the cache; empty_cache(B, size) is any nested
    structure of tensors [B, ...] with room for `size` tokens.

    A row's tokens depend on its prompt, its seed and its options, not on its neighbours (nor, but for the draws
    themselves, on whether XLA compiles this).  When the cache holds n_ctx tokens of a row, its last n_ctx / 2 are read
    in again at positions 0.. and the text goes on from there.  A longer prompt keeps its last n_ctx tokens.
    """
    state = begin(step_fn, empty_cache, prompt, given, options, limits)
    most = tf.maximum(limits.length - 1, 0) if tf.is_tensor(limits.length) else max(limits.length - 1, 0)
    state, = tf.while_loop(lambda state: tf.logical_not(tf.reduce_all(state.ended)),
                           lambda state: [advance(step_fn, state, options, limits)], [state], maximum_iterations=most)
    tokens = tf.gather(state.text, state.given[:, None] + tf.range(limits.length), batch_dims=1)
    return Samples(tokens, state.logprobs, state.count)


def begin(step_fn, empty_cache, prompt, given, options, limits):
    """The State after the prompt is read and the first token drawn."""
    prompt, given = keep_tail(prompt, given, limits)
    batch, width = shape_of(prompt)
    nothing = tf.fill([batch], 0)
    cache = empty_cache(batch, _smaller(width + limits.length, limits.n_ctx))
    logits, cache = step_fn(prompt, nothing, given - 1, cache)
    seen = _count_tokens(prompt, given, shape_of(logits)[1]) if limits.penalties else ()
    # All tokens in one tensor: what is read in again may reach back into the prompt.
    text = tf.concat([prompt, tf.fill([batch, limits.length], limits.eot)], 1)  # [B, S + N]
    state = State(tf.constant(0), text, given, nothing, given, nothing, options.length < 1,
                  tf.fill([batch, limits.length], 0.0), options.stop, seen, cache)
    return _draw(logits, state, options, limits)


def advance(step_fn, state, options, limits):
    """The State one token later."""
    logits, position, cache = _read_token(step_fn, state, limits)
    return _draw(logits, state._replace(position=position, cache=cache), options, limits)


def keep_tail(prompt, given, limits):
    """(prompt int32 [B, S'], given) with the last n_ctx tokens of each row, and eot behind them."""
    width = shape_of(prompt)[1]
    places = tf.range(_smaller(width, limits.n_ctx))  # [S']
    if tf.is_tensor(width) or width > limits.n_ctx:
        skipped = tf.maximum(given - limits.n_ctx, 0)
        prompt = tf.gather(prompt, skipped[:, None] + places, batch_dims=1)
        given -= skipped
    return tf.where_v2(places < given[:, None], prompt, limits.eot), given


def _read_token(step_fn, state, limits):
    """(logits, position, cache) after each row's newest token; where its window is full, a row starts a new one."""
    width, n_ctx = shape_of(state.text)[1], limits.n_ctx
    nothing = tf.zeros_like(state.position)
    logits, cache = step_fn(state.token[:, None], tf.minimum(state.position, n_ctx - 1), nothing, state.cache)
    position = tf.where_v2(state.ended, state.position, state.position + 1)
    if not tf.is_tensor(width) and width <= n_ctx:  # no window can fill up: a short text needs no second branch
        return logits, position, cache
    full = position > n_ctx  # [B]

    def slide():
        half = max(n_ctx // 2, 1)
        first = tf.maximum(state.given + state.number - half, 0)  # other rows may not have as many tokens
        recent = tf.gather(state.text, first[:, None] + tf.range(half), batch_dims=1)  # [B, n_ctx / 2]
        again = step_fn(recent, nothing, nothing + half - 1, cache)
        new_logits, new_cache = tf.nest.map_structure(
            lambda new, old: tf.where_v2(tf.reshape(full, [-1] + [1] * (len(new.shape) - 1)), new, old),
            again, (logits, cache))
        return new_logits, tf.where_v2(full, half, position), new_cache
    return tf.cond(tf.reduce_any(full), slide, lambda: (logits, position, cache))


def _draw(logits, state, options, limits):
    """`state` with one more token in each row that has not ended: logits float32 [B, V] are those of that token."""
    if limits.vocabulary is not None and limits.vocabulary < logits.shape[1]:
        logits = tf.where_v2(tf.range(logits.shape[1]) < limits.vocabulary, logits, -float("inf"))
    wanted = penalise(logits, state.seen, options.repetition_penalty) if limits.penalties else logits
    token = tf.where_v2(state.ended, limits.eot, choose(wanted, state.number, options, limits))
    logprob = tf.gather(logits, token, batch_dims=1) - tf.reduce_logsumexp(logits, 1)
    stop, seen, drawn = state.stop, state.seen, tf.logical_not(state.ended)
    finished = tf.logical_or(tf.equal(token, limits.eot), state.number + 1 >= options.length)
    if limits.stops is not None:
        stop = tf.gather_nd(tf.constant(limits.stops, tf.int32), tf.stack([stop, token], 1))
        finished = tf.logical_or(finished, tf.equal(stop, STOPPED))
    if limits.penalties:
        places = tf.stack([tf.range(shape_of(token)[0]), token], 1)
        seen = tf.tensor_scatter_nd_add(seen, places, tf.ones_like(logprob))
    return state._replace(
        number=state.number + 1, text=_put(state.text, token, state.given + state.number, drawn), token=token,
        count=state.count + tf.cast(drawn, tf.int32), ended=tf.logical_or(state.ended, finished),
        logprobs=_put(state.logprobs, logprob, state.number + tf.zeros_like(token), drawn), stop=stop, seen=seen)


def choose(logits, number, options, limits):
    """Draws the `number`-th token of each row: logits float32 [B, V] -> int32 [B]."""
    likeliest = tf.argmax(logits, -1, output_type=tf.int32)
    if not limits.draws:
        return likeliest
    cold = options.temperature < COLDEST
    # From the largest down, so that the quotient of a low temperature cannot be too large for float32.
    logits = (logits - tf.reduce_max(logits, -1, keepdims=True)) / tf.where_v2(cold, 1.0, options.temperature)[:, None]
    if tf.is_tensor(limits.largest) or limits.largest:
        logits = keep_likeliest(logits, options.top_k, options.top_p, limits.largest)
    # Gumbel's trick: the largest of logits plus this noise is a draw from their softmax.
    noise = -tf.math.log(-tf.math.log(_uniform(options.seed, number, logits.shape[1])))
    return tf.where_v2(cold, likeliest, tf.argmax(logits + noise, -1, output_type=tf.int32))


def keep_likeliest(logits, top_k, top_p, largest):
    """logits [B, V], but -inf for all beyond each row's top_k largest, and of these beyond the fewest that together
    have probability top_p (https://arxiv.org/abs/1904.09751).  All that tie with the last stay.  top_k, top_p [B].
    """
    largest = _smaller(largest, shape_of(logits)[1])
    descending = tf.math.top_k(logits, largest).values  # [B, largest]
    within = tf.logical_or(tf.equal(top_k, 0)[:, None], tf.range(largest) < top_k[:, None])
    descending = tf.where_v2(within, descending, -float("inf"))
    before = tf.cumsum(tf.nn.softmax(descending), -1, exclusive=True)
    whole = (top_p >= 1)[:, None]  # without it, rounding of the sum could cut off the least likely
    kept = tf.logical_and(within, tf.logical_or(whole, before < tf.maximum(top_p, 1e-9)[:, None]))
    smallest = tf.reduce_min(tf.where_v2(kept, descending, float("inf")), -1, keepdims=True)
    free = tf.logical_and(tf.equal(top_k, 0)[:, None], whole)
    return tf.where_v2(tf.logical_or(free, logits >= smallest), logits, -float("inf"))


def largest_needed(options, vocabulary):
    """Limits.largest int32 [] where only the graph knows the values of `options`; V is `vocabulary`."""
    unsorted = tf.logical_and(tf.equal(options.top_k, 0), options.top_p < 1)
    return tf.reduce_max(tf.where_v2(unsorted, vocabulary, options.top_k))


def penalise(logits, seen, penalty):
    """Logits of the tokens that a row holds (seen float32 [B, V]) divided, or where below 0 multiplied, by its
    `penalty` float32 [B]: CTRL's (https://arxiv.org/abs/1909.05858), as transformers has it.
    """
    penalty = penalty[:, None]
    return tf.where_v2(seen > 0, tf.where_v2(logits > 0, logits / penalty, logits * penalty), logits)


def _uniform(seeds, number, size):
    """float32 [B, size] in (0, 1): row b's depend on seeds[b] and `number` alone."""
    def row(seed):
        return tf.random.stateless_uniform([size], tf.stack([seed, number]), 1e-20, 1.0, alg=RANDOM)
    if seeds.shape[0] is None:
        return tf.map_fn(row, seeds, fn_output_signature=tf.TensorSpec([size], tf.float32))
    return tf.stack([row(seed) for seed in tf.unstack(seeds)])


def _count_tokens(prompt, given, vocabulary):
    """float32 [B, V]: how often each of V ids stands among row b's first given[b] tokens."""
    batch, width = shape_of(prompt)
    places = tf.stack([tf.tile(tf.range(batch)[:, None], [1, width]), prompt], 2)  # [B, S, 2]
    there = tf.cast(tf.range(width) < given[:, None], tf.float32)
    return tf.tensor_scatter_nd_add(tf.fill([batch, vocabulary], 0.0), places, there)


def _put(rows, value, column, wanted):
    """`rows` [B, K] with value[b] at column[b] of each row b that is `wanted`."""
    here = tf.equal(tf.range(shape_of(rows)[1]), column[:, None])  # [B, K]
    return tf.where_v2(tf.logical_and(here, wanted[:, None]), value[:, None], rows)


def _smaller(a, b):
    return tf.minimum(a, b) if tf.is_tensor(a) or tf.is_tensor(b) else min(a, b)
