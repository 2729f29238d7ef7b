"""The arithmetic of what is measured: percentiles, slopes, gaps. Plain functions."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


def percentile(values: Sequence[float], at: float) -> float:
    """The smallest value that at least so many per cent of the values do not exceed (nearest rank).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a percentile of nothing")
    return sorted(values)[max(0, math.ceil(len(values) * at / 100) - 1)]


class Slope(NamedTuple):
    """``per_unit`` with its standard error, both in units of y per unit of x."""

    per_unit: float
    error: float


def slope(x: Sequence[float], y: Sequence[float]) -> Slope:
    """The line through the points by least squares. The error takes what is off the line as independent.

    Raises:
        ValueError: fewer than three points, or all at one x.
    """
    if len(x) < 3 or len(set(x)) < 2:
        raise ValueError("a slope needs three points, not all at one x")
    x_mean, y_mean = math.fsum(x) / len(x), math.fsum(y) / len(y)
    spread = math.fsum((one - x_mean) ** 2 for one in x)
    per_unit = math.fsum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / spread
    off = math.fsum((b - y_mean - per_unit * (a - x_mean)) ** 2 for a, b in zip(x, y, strict=True))
    return Slope(per_unit, math.sqrt(off / (len(x) - 2) / spread))


def longest_gap(times: Sequence[float], start: float, end: float) -> float:
    """The longest time within ``start`` to ``end`` in which nothing happened; ``times`` are in order."""
    within = times[bisect.bisect_left(times, start) : bisect.bisect_right(times, end)]
    edges = [start, *within, end]
    return max(after - before for before, after in pairwise(edges))
