"""configs/grouping.py: whatever the sizes, nothing is lost and no group is larger than it must be."""
import pytest

from configs import grouping


@pytest.mark.parametrize("items, expected", [
    ([], []), ([3], [[3]]), ([9], [[9]]), ([2, 3, 1], [[2, 3], [1]]),
    ([1, 9, 5, 0, 0, 4, 1], [[1], [9], [5, 0, 0], [4, 1]])])
def test_groups_hold_the_limit_at_most_or_a_single_item(items, expected):
    assert list(grouping.groups(iter(items), lambda item: item, 5)) == expected
