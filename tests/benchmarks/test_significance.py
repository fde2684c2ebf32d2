"""The permutation test against counts by hand, its symmetries, and how often chance fools it."""
import numpy as np
import pytest

from benchmarks.significance import one_sided, paired


def test_p_values_are_those_counted_by_hand():
    assert one_sided([1.0], [2.0, 3.0, 4.0]) == 1 / 4
    assert one_sided([1.0, 2.0], [3.0, 4.0, 5.0]) == 1 / 10
    assert one_sided([1.0, 4.0], [2.0, 3.0]) == 4 / 6  # sums of two: 3, 4, 5, 5, 6, 7
    assert one_sided([4.0, 5.0], [1.0, 2.0, 3.0]) == 1.0
    assert one_sided(np.arange(8) / 10, np.arange(8, 16) / 10) == 1 / 12870


def test_equal_numbers_count_as_no_better_and_only_differences_matter():
    assert one_sided([0.1, 0.1], [0.1, 0.1, 0.1]) == 1.0
    assert one_sided([1.1, 1.4], [1.2, 1.3]) == 4 / 6  # 1.1 + 1.4 and 1.2 + 1.3 differ in floating point
    better, worse = [1.61, 1.65, 1.63], [1.64, 1.7, 1.66, 1.62]
    assert one_sided(better, worse) == one_sided([x + 7 for x in better], [x + 7 for x in worse])


def test_chance_alone_is_called_significant_no_more_often_than_promised():
    random = np.random.RandomState(0)
    found = np.array([one_sided(group[:4], group[4:]) for group in random.randn(400, 8)])
    assert 0.02 < np.mean(found <= 0.05) < 0.08 and 0.4 < np.mean(found <= 0.5) < 0.6


@pytest.mark.parametrize("better, worse", [([], [1.0]), ([1.0], []), ([0.0] * 20, [1.0] * 20)])
def test_groups_that_cannot_be_compared_are_refused(better, worse):
    with pytest.raises(ValueError, match="give 1 to 12 of each"):
        one_sided(better, worse)


def test_p_value_of_paired_differences_is_that_of_fisher_s_example():
    """Darwin's 15 pairs of plants: 863 of the 2^15 signs reach the sum (The Design of Experiments, 1935, § 21)."""
    darwin = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert paired(darwin) == paired([-each / 1000 for each in darwin]) == 2 * 863 / 2 ** 15
    assert paired([0.125] * 8) == 2 / 256
    assert paired([0.1, 0.2, -0.3]) == 1  # the sum is 0 but for rounding


@pytest.mark.parametrize("count, signs", [(0, "1"), (22, "4,194,304"), (30, "1,073,741,824")])
def test_too_many_pairs_and_none_are_refused_before_anything_is_counted(count, signs):
    with pytest.raises(ValueError, match=f"{count} pairs have {signs} signs: give 1 to 21 pairs"):
        paired([0.5] * count)


def test_p_value_of_the_most_pairs_is_one_of_all_their_signs():
    assert paired([0.125] * 21) == 2 / 2 ** 21
