"""How likely chance alone makes one group of runs better than another, without any assumption on their distribution."""
import itertools
import math

MOST_SPLITS = 3_000_000  # some seconds: 12 runs against 12
MOST_PAIRS = MOST_SPLITS.bit_length() - 1  # 2 to this power are the most signs
ROUNDING = 1e-9  # of the sums: means that differ by less are equal


def one_sided(better, worse):
    """The p-value of "the mean of `better` is below that of `worse`" by the exact permutation test.

    That is the share of all ways to split the numbers into groups of these sizes in which the first mean is at least as
    low as it is (https://en.wikipedia.org/wiki/Permutation_test).  The least that 8 against 8 can show is 1 / 12,870.
    """
    numbers, size = [*better, *worse], len(better)
    splits = math.comb(len(numbers), size)
    if not len(better) or not len(worse) or splits > MOST_SPLITS:
        raise ValueError(f"{len(better)} against {len(worse)} runs have {splits:,} splits: give 1 to 12 of each")
    bound = sum(better) + ROUNDING * sum(map(abs, numbers))
    return sum(sum(group) <= bound for group in itertools.combinations(numbers, size)) / splits


def paired(differences):
    """Two-sided p-value of an exact sign-flip test: the share of the 2^n signs with a sum at least as far from 0.

    https://en.wikipedia.org/wiki/Permutation_test
    """
    if not 1 <= len(differences) <= MOST_PAIRS:
        raise ValueError(f"{len(differences)} pairs have {2 ** len(differences):,} signs: give 1 to {MOST_PAIRS} pairs")
    sums = [0.0]
    for difference in differences:
        sums = [before + signed for before in sums for signed in (difference, -difference)]
    least = abs(sum(differences)) - ROUNDING * sum(map(abs, differences))
    return sum(abs(each) >= least for each in sums) / len(sums)
