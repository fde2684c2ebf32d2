"""datasets/duplicates/clusters.py against a union-find of one pair at a time."""
import random

import numpy as np
import pytest

from datasets.duplicates import clusters


def slowly(count, pairs):
    """The smallest member of each one's component."""
    parents = list(range(count))

    def find(number):
        while parents[number] != number:
            number = parents[number]
        return number
    for one, other in pairs:
        one, other = find(one), find(other)
        parents[max(one, other)] = min(one, other)
    return [find(number) for number in range(count)]


def quickly(count, pairs, batch):
    parents = np.arange(count, dtype=np.int32)
    for i in range(0, len(pairs), batch):
        one, other = np.array(pairs[i:i + batch], np.int32).T
        clusters.unite(parents, one, other)
    return clusters.flatten(parents).tolist()


@pytest.mark.parametrize("pairs", [10, 150, 300, 2000])
def test_components_of_random_pairs(pairs):
    rng = random.Random(pairs)
    chosen = [(rng.randrange(311), rng.randrange(311)) for _ in range(pairs)]
    expected = slowly(311, chosen)
    assert quickly(311, chosen, 7) == quickly(311, chosen, pairs) == expected


@pytest.mark.parametrize("shape", ["chain", "star", "tree"])
def test_a_large_component_is_one_whatever_its_shape(shape):
    count, rng = 20001, random.Random(5)
    above = {"chain": lambda i: i - 1, "star": lambda i: count - 1, "tree": lambda i: rng.randrange(i)}[shape]
    pairs = [(i, above(i)) for i in range(1, count)] + [(0, count - 1)]
    rng.shuffle(pairs)
    assert set(quickly(count, pairs, len(pairs))) == {0}


@pytest.mark.parametrize("part", [3, 1000])
def test_equal_keys_are_joined_and_others_are_not(monkeypatch, part):
    monkeypatch.setattr(clusters, "PART", part)
    random_state = np.random.RandomState(6)
    keys = random_state.randint(0, 2 ** 64, 60, np.uint64)[random_state.randint(0, 60, 173)]
    numbers = np.flatnonzero(random_state.randint(0, 2, 400))[:173].astype(np.int32)
    pairs = [pair for one, other in clusters.equal_pairs(keys, numbers) for pair in zip(one.tolist(), other.tolist())]
    key_of = dict(zip(numbers.tolist(), keys.tolist()))
    assert all(key_of[one] == key_of[other] and one < other for one, other in pairs) and len(set(pairs)) == len(pairs)
    roots = slowly(400, pairs)
    assert len({roots[number] for number in key_of}) == len(set(key_of.values()))
    for number in key_of:  # with the first of its run, and with the one before it
        run = [other for other in key_of if key_of[other] == key_of[number]]
        found = {one for one, other in pairs if other == number}
        assert found == {run[0], run[run.index(number) - 1]} - {number} if number != run[0] else not found


def test_no_keys_give_no_pairs():
    assert sum(len(one) for one, _ in clusters.equal_pairs(np.zeros(0, np.uint64), np.zeros(0, np.int32))) == 0
