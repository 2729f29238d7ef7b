"""The two-sample Kolmogorov-Smirnov test from integer counts, against a reference sample that stays the same.

Values are counted at and between the distinct points of the reference: of k points in ascending order, slot
``2j + 1`` is point j itself and slot ``2j`` what lies between it and the point before. The reference's
distribution function changes at the points only, so between two points the distance is largest at an end: the
counts give the statistic exactly, ties included, and windows are merged by adding counts.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache

import numpy as np

from tailrace.statistics.result import Floats, Ints, TestResult

LARGEST_EXACT = 10_000
"""With a sample larger than this the p-value is the asymptotic one, as by scipy's default."""
NEXT_TO_NOTHING = 1e-12
"""So is a p-value that is known to be smaller than this."""


def slots_of(values: Floats, points: Floats) -> Ints:
    """The slot of each value. ``points`` are distinct and ascend; infinite values lie beyond all of them.

    NaN has no slot of its own: leave it out.
    """
    before = np.empty(len(values), dtype=np.int64)
    order = np.argsort(values)  # looked up in order, they take a quarter of the time
    before[order] = np.searchsorted(points, values[order])
    if not len(points):
        return before
    at = points[np.minimum(before, len(points) - 1)] == values
    return np.asarray(2 * before + at)


def ks_test(counts: Ints, reference: Ints) -> TestResult | None:
    """The two-sided test, equal to ``scipy.stats.ks_2samp``; its effect is the statistic.

    Args:
        counts: how many values of the window are in each of the 2k + 1 slots.
        reference: how many of the reference are at each of the k points.

    Returns:
        None where either sample is empty.
    """
    n, m = int(counts.sum()), int(reference.sum())
    if n == 0 or m == 0:
        return None
    common = math.gcd(n, m)
    at_or_before = np.zeros(len(counts), dtype=np.int64)
    at_or_before[1::2] = reference
    differences = counts.cumsum() * (m // common) - at_or_before.cumsum() * (n // common)
    largest = int(np.abs(differences).max())
    distance = largest / (n // common * m)
    return TestResult(distance, p_value(n, m, largest), distance)


@lru_cache(maxsize=1 << 16)
def p_value(n: int, m: int, largest: int) -> float:
    """The probability of a distance of at least ``largest`` over the least common multiple of n and m between
    samples of n and of m from one continuous distribution.

    Raises:
        ValueError: no two samples of these sizes have this distance.
    """
    if largest == 0:
        return 1.0
    from scipy import stats  # 60 MB, which only who tests has a use for

    common = math.gcd(n, m)
    distance = largest / (n // common * m)
    # The exact value takes time in proportion to the distance. Both it and the asymptotic one are below Massart's
    # bound (1990) for either sample's distance to the common distribution: where that is next to nothing, so is
    # their difference.
    bound = 4 * math.exp(-2 * n * m / (math.sqrt(n) + math.sqrt(m)) ** 2 * distance**2)
    if max(n, m) > LARGEST_EXACT or bound < NEXT_TO_NOTHING:
        return float(stats.kstwo.sf(distance, round(n * m / (n + m))))
    # It depends on nothing else about the samples: two with this distance, of zeros and ones, will do.
    zeros, other_zeros = _zeros(n // common, m // common, largest)
    if zeros > n or other_zeros > m:
        raise ValueError(f"samples of {n} and {m} have no distance of {largest}")
    with warnings.catch_warnings():
        # Where rounding spoils the exact value it says so and gives the asymptotic one.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(stats.ks_2samp(np.arange(n) >= zeros, np.arange(m) >= other_zeros).pvalue)


def _zeros(n: int, m: int, largest: int) -> tuple[int, int]:
    """The least a and b, not negative, with ``a * m - b * n == largest``, for n and m without a common divisor."""
    a = largest * pow(m, -1, n) % n if n > 1 else 0
    b = (a * m - largest) // n
    short = max(0, -(b // m))
    return a + short * n, b + short * m
