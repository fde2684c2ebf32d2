"""Which documents are put aside for evaluation, and the order of all: decided by the seed and their names alone."""
import hashlib
import math
import os

import numpy as np

from datasets import documents

TRAIN, EVAL = "train", "eval"
DRAWS = 2 ** 64


def is_alone(index, fraction):
    """Whether there is one document, whose end is put aside: `fraction` of it."""
    return len(index.file) == 1 and fraction > 0


def orders(index, fraction, seed):
    """{TRAIN, EVAL: int64 document numbers}, each in the seed's random order; a document that is alone is in both.

    EVAL is what was named for it, and `fraction` of the others.  Whether a document is among these depends on the seed
    and its name alone: more documents do not move it.
    """
    if is_alone(index, fraction):
        return {TRAIN: np.zeros(1, np.int64), EVAL: np.zeros(1, np.int64)}
    chosen = np.arange(len(index.file)) < index.held_out
    if fraction:
        chosen |= _taken(_draws(index, seed), fraction)
    # RandomState's stream is frozen (https://numpy.org/neps/nep-0019-rng-policy.html); a Generator's may change.
    random = np.random.RandomState(seed)
    return {TRAIN: random.permutation(np.flatnonzero(~chosen)), EVAL: random.permutation(np.flatnonzero(chosen))}


def enough(index, seed):
    """What to give where --eval_fraction took no document."""
    draws = _draws(index, seed)
    fraction = (int(draws.min()) * 1000 // DRAWS + 1) / 1000
    named = "--eval_input PATH, which names some"
    if fraction >= 1:
        return named
    taken = np.count_nonzero(_taken(draws, fraction))
    return f"--eval_fraction {fraction:g}, which takes {taken} of {len(draws)} documents, or {named}"


def _draws(index, seed):
    """uint64 [documents]."""
    names = (os.fsencode(f"{seed}:{documents.identity(index, number)}") for number in range(len(index.file)))
    digests = b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in names)
    return np.frombuffer(digests, ">u8")


def _taken(draws, fraction):
    return draws < np.uint64(math.ceil(fraction * DRAWS))
