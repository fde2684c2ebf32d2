"""Which documents belong together: pairs of equal keys, and the connected components of pairs.

Every function works on whole arrays, so that millions of documents take seconds; a document is its number.
"""
import numpy as np

PART = 1 << 22  # keys sorted at once


def singles(count):
    """int32 [documents]: every document by itself, for `unite`."""
    return np.arange(count, dtype=np.int32)


def roots(parents, numbers):
    """The smallest document of the cluster of each, as far as `parents` knows."""
    found = parents[numbers]
    while True:
        above = parents[found]
        if np.array_equal(above, found):
            return found
        found = above


def unite(parents, one, other):
    """Joins the clusters of the pairs (one, other) in `parents`, in place; a cluster is named by its smallest document.

    Rounds of hooking and shortcutting (Shiloach and Vishkin 1982, https://doi.org/10.1016/0196-6774(82)90008-6): every
    root is hung under one smaller root that a pair shows; where several pairs show one, the next round sees the others.
    """
    while True:
        one, other = _shortened(parents, one), _shortened(parents, other)
        apart = one != other
        if not apart.any():
            return
        one, other = one[apart], other[apart]
        hung = np.maximum(one, other)
        parents[hung] = np.minimum(one, other)
        # What was hung may be a chain as long as the pairs: each step halves what is left of it.
        while not np.array_equal(parents[hung], parents[parents[hung]]):
            parents[hung] = parents[parents[hung]]


def _shortened(parents, numbers):
    """`roots`, which are noted so that the way there is short from now on."""
    found = roots(parents, numbers)
    parents[numbers] = found
    return found


def flatten(parents):
    """int32 [documents]: the smallest document of each one's cluster."""
    return roots(parents, np.arange(len(parents)))


def equal_pairs(keys, numbers):
    """Yields (documents, documents) that have equal `keys`, uint64; those of `numbers`, ascending, at most `PART` or so
    at a time.

    Of a run of equal keys each document is paired with the first one and with the one before it: enough to join all,
    and, where pairs are then judged, two chances for each at a cost that does not grow with the square of the run.
    """
    parts = -(-len(keys) // PART)
    part_of = (keys >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32) if parts > 1 else None
    for part in range(parts):
        chosen = np.flatnonzero(part_of == part) if parts > 1 else slice(None)
        some, order = keys[chosen], numbers[chosen]
        ranks = np.argsort(some, kind="stable")
        some, order = some[ranks], order[ranks]
        starts = np.concatenate(([True], some[1:] != some[:-1]))
        firsts = order[np.maximum.accumulate(np.where(starts, np.arange(len(some)), 0))]
        later = np.flatnonzero(~starts)
        yield firsts[later], order[later]
        later = later[~starts[later - 1]]
        yield order[later - 1], order[later]
