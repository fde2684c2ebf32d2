"""Which documents are put aside for evaluation, and the order of all: decided by the seed and their names alone."""
import hashlib
import math
import os
from typing import NamedTuple

import numpy as np

from datasets import documents
from datasets.manifest import EVAL, TRAIN

DRAWS = 2 ** 64
FEW = 10  # documents: of fewer none is spared whole unless the fraction takes one


class Choice(NamedTuple):
    """What is trained on and what is for evaluation."""
    orders: dict  # {TRAIN, EVAL: int64 document numbers}, each in the seed's random order
    ends: bool  # whether all documents are in both, and give their ends for evaluation
    exception: str  # what is put aside although the fraction takes no document, in words; or ""


def choose(index, fraction, seed):
    """The Choice among the documents of the Index.

    For evaluation is what was named for it, and `fraction` of the others.  Whether a document is among these depends on
    the seed and its name alone: more documents do not move it.  Where the fraction takes none, the one that is next to
    be taken is put aside; of fewer than FEW, the last `fraction` of each.
    """
    count, exception = len(index.file), ""
    chosen = np.arange(count) < index.held_out
    ends = count == 1 and fraction > 0
    if ends:
        exception = f"the end of {documents.identity(index, 0)}, the only document, is put aside for evaluation"
    elif fraction:
        draws = _draws(index, seed)
        chosen |= draws < np.uint64(math.ceil(fraction * DRAWS))
        if not chosen.any():
            ends, first = count < FEW, int(draws.argmin())
            chosen[first] = not ends
            put_aside = "the end of each" if ends else documents.identity(index, first)
            exception = (f"--eval_fraction {fraction:g} takes none of {count} documents: {put_aside} is put aside for"
                         " evaluation")
    # RandomState's stream is frozen (https://numpy.org/neps/nep-0019-rng-policy.html); a Generator's may change.
    random = np.random.RandomState(seed)
    return Choice({split: random.permutation(np.flatnonzero(ends | (chosen == (split == EVAL))))
                   for split in (TRAIN, EVAL)}, ends, exception)


def _draws(index, seed):
    """uint64 [documents]."""
    names = (os.fsencode(f"{seed}:{documents.identity(index, number)}") for number in range(len(index.file)))
    digests = b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in names)
    return np.frombuffer(digests, ">u8")
