"""Finds which documents belong together: pairs of equal keys, and the connected components of pairs.

Every function works on whole arrays, so that millions of documents take seconds.  Documents are numbers; `parents`,
int32 [documents], holds for each a smaller document of its cluster, or itself.
"""
import numpy as np

PART = 1 << 22  # keys sorted at once


def roots(parents, numbers):
    """The smallest document of the cluster of each, as far as `parents` knows; noted there, to be near from now on."""
    above = parents[numbers]
    while not np.array_equal(above, parents[above]):
        above = parents[above]
    parents[numbers] = above
    return above


def unite(parents, one, other):
    """Joins the clusters of the pairs (one, other) in `parents`, in place; a cluster is named by its smallest document.

    At first each document is its own parent.  Rounds of hooking and shortcutting (Shiloach and Vishkin 1982,
    https://doi.org/10.1016/0196-6774(82)90008-6): every root is hung under one smaller root that a pair shows; where
    several pairs show one, the next round sees the others.
    """
    while True:
        one, other = roots(parents, one), roots(parents, other)
        apart = one != other
        if not apart.any():
            return
        one, other = one[apart], other[apart]
        hung = np.maximum(one, other)
        parents[hung] = np.minimum(one, other)
        # What was hung may be a chain as long as the pairs: each step halves what is left of it.
        while not np.array_equal(parents[hung], parents[parents[hung]]):
            parents[hung] = parents[parents[hung]]


def flatten(parents):
    """int32 [documents]: the smallest document of each one's cluster."""
    return roots(parents, np.arange(len(parents)))


def equal_pairs(keys, numbers):
    """Yields pairs (documents, documents) of equal `keys`, uint64, of the documents `numbers`, which ascend.

    Each document is paired with the first one of its key and with the one before it: enough to join all, and, where
    pairs are then judged, two chances for each at a cost that does not grow with the square of their number.
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
