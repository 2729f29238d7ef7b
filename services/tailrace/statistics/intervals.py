"""95 % intervals and p-values, by textbook methods. Pure functions of numbers.

scipy is imported where it is needed: contracts know metrics, and whoever reads one has no use for 20 MB of functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Z = 1.959963984540054
"""The 97.5 % point of the normal distribution."""

_TAIL = 0.975

Bounds = tuple[float | None, float | None]
UNKNOWN: Bounds = (None, None)


def wilson(successes: int, n: int) -> Bounds:
    """The score interval of a share (Wilson, JASA 22, 1927); unknown without rows."""
    if n <= 0:
        return UNKNOWN
    share = successes / n
    middle = share + Z * Z / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    low = 0.0 if successes == 0 else (middle - half) / scale
    return low, 1.0 if successes == n else (middle + half) / scale


def mean_of_shares(shares: Sequence[tuple[int, int]]) -> Bounds:
    """The mean of independent shares (successes, n), recovered from their score intervals (MOVER: Zou and Donner,
    Statistics in Medicine 27, 2008).
    """
    if not shares or any(n <= 0 for _, n in shares):
        return UNKNOWN
    below = above = 0.0
    for successes, n in shares:
        low, high = wilson(successes, n)
        assert low is not None
        assert high is not None
        below += (successes / n - low) ** 2
        above += (high - successes / n) ** 2
    mean = math.fsum(s / n for s, n in shares) / len(shares)
    return max(mean - math.sqrt(below) / len(shares), 0.0), min(mean + math.sqrt(above) / len(shares), 1.0)


def student(mean: float | None, variance: float | None, n: int) -> Bounds:
    """A mean of ``n`` values of this sample variance, by Student's t."""
    if mean is None or variance is None or n < 2:
        return UNKNOWN
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, _TAIL)) * math.sqrt(variance / n)
    return mean - half, mean + half


def normal(value: float, variance: float | None, lower: float = -math.inf, upper: float = math.inf) -> Bounds:
    """An estimate of this variance, by the normal distribution, cut at the ends of what is possible."""
    if variance is None:
        return UNKNOWN
    half = Z * math.sqrt(variance)
    return max(value - half, lower), min(value + half, upper)


def upper_tail(value: float, error: float) -> float:
    """Probability of so much or more by chance, under a normal distribution around 0 with this standard error."""
    if error == 0.0:
        return 0.0 if value > 0 else 1.0
    from scipy.special import ndtr

    return float(ndtr(-value / error))


def two_sided(value: float, error: float, n: int | None = None) -> float:
    """Probability of so much or more, either way, by chance: Student's t with n - 1 degrees of freedom, or normal."""
    if error == 0.0:
        return 0.0 if value else 1.0
    from scipy.special import ndtr, stdtr

    tail = ndtr(-abs(value) / error) if n is None else stdtr(n - 1, -abs(value) / error)
    return min(2 * float(tail), 1.0)
