"""Texts, or a context and what follows it, as sequences of tokens of which the last are scored."""
from typing import NamedTuple

import numpy as np


class Sequence(NamedTuple):
    """A piece of text to score.

    `tokens` is int32 [T + 1] with T <= n_ctx.  The network reads the first T tokens.  Each one predicts the next token.
    Only the last `scored` predictions count.
    """
    tokens: np.ndarray
    scored: int


def rolling(encoder, text, n_ctx, stride):
    """The Sequences that score each token of `text` once, behind <|endoftext|>, as lm-eval's rolling windows do.

    The first window scores all of its tokens, each other one the `stride` tokens behind those of the window before it,
    or what is left; all but the first have n_ctx inputs.
    """
    tokens = np.concatenate([np.array([encoder.eot], np.int32), encoder.encode_array(text)])
    targets = len(tokens) - 1
    done = min(n_ctx, targets)
    found = [Sequence(tokens[:done + 1], done)]
    while done < targets:
        count = min(stride, targets - done)
        done += count
        found.append(Sequence(tokens[done - n_ctx:done + 1], count))
    return found


def continuation(encoder, context, target, n_ctx):
    """The Sequence that scores `target` behind `context`, encoded together, as lm-eval does.

    Spaces at the end of the context belong to the target.  A context that is too long loses its beginning.
    <|endoftext|> takes the place of an empty context.
    Raises ValueError where the target does not fit the window.
    """
    whole = context + target
    context = context.rstrip()
    tokens, given = encoder.encode_array(whole), len(encoder.encode_array(context))
    return _within(encoder, tokens[:given], tokens[given:], n_ctx)


def joined(encoder, context, target, n_ctx):
    """As `continuation`, but both are encoded by themselves, as llm.c does."""
    return _within(encoder, encoder.encode_array(context), encoder.encode_array(target), n_ctx)


def _within(encoder, context, target, n_ctx):
    if len(target) > n_ctx:
        raise ValueError(f'what is scored has {len(target)} tokens, and "n_ctx" is {n_ctx}; take the line out')
    context = context if len(context) else np.array([encoder.eot], np.int32)
    return Sequence(np.concatenate([context, target])[-(n_ctx + 1):], len(target))
