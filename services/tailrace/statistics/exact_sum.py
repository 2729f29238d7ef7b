"""Sums of floats without rounding: the same whatever the order, and what was added can be taken away.

Every finite float64 is an integer over 2**1074, and so is their sum, which is kept as that integer (Kulisch and
Miranker, "The arithmetic of the digital computer", 1986, with Python's integers as the long accumulator). Rounding
happens once, when the sum is read.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tailrace.statistics.result import Floats, Ints

SCALE = 1 << 1074
"""A sum is an integer in units of 1 / SCALE, the least positive float64."""

_MANTISSA = 53
_LOW = 26
_EXPONENTS = 1 << 12


def exact_sums(values: Floats, groups: Ints, count: int) -> list[int]:
    """The exact sum of the finite ``values`` of each of ``count`` groups, numbered from 0, in units of 1 / SCALE."""
    sums = [0] * count
    if not len(values):
        return sums
    mantissas, exponents = np.frexp(values)
    # value = integer * 2 ** (exponent - 53), and exponent - 53 >= -1074 - 52; the lowest bits are zero there.
    integers = (mantissas * 2.0**_MANTISSA).astype(np.int64)
    cells = groups * _EXPONENTS + (exponents + 1074)
    order = np.argsort(cells, kind="stable")
    cells, integers = cells[order], integers[order]
    starts = np.flatnonzero(np.concatenate(([True], cells[1:] != cells[:-1])))
    # In two halves, so that 2**36 of them add up within 64 bits.
    high = np.add.reduceat(integers >> _LOW, starts)
    low = np.add.reduceat(integers & ((1 << _LOW) - 1), starts)
    for cell, top, bottom in zip(cells[starts].tolist(), high.tolist(), low.tolist(), strict=True):
        group, shift = divmod(cell, _EXPONENTS)
        shift -= _MANTISSA
        integer = (top << _LOW) + bottom
        sums[group] += integer << shift if shift >= 0 else integer >> -shift
    return sums


def nearest(units: int, over: int = 1) -> float:
    """The float64 nearest to ``units / SCALE / over``; an infinity where that is beyond all floats."""
    try:
        return units / (SCALE * over)
    except OverflowError:
        return float("inf") if units > 0 else float("-inf")


class Sum(NamedTuple):
    """How many values, their exact sum and that of their squares, in units of 1 / SCALE; and how many of the values
    have squares ``beyond`` all floats, which are in neither sum.
    """

    n: int = 0
    total: int = 0
    squares: int = 0
    beyond: int = 0

    def plus(self, other: Sum) -> Sum:
        return Sum(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def value(self) -> float | None:
        """The sum, rounded once; None where something is beyond all floats."""
        total = nearest(self.total)
        return None if self.beyond or not math.isfinite(total) else total

    @property
    def total_squares(self) -> float | None:
        """The sum of the squares, rounded once; None where something is beyond all floats."""
        return self._replace(total=self.squares).value

    @property
    def mean(self) -> float | None:
        """Rounded once; None without values, or where something is beyond all floats."""
        return nearest(self.total, self.n) if self.n > 0 and not self.beyond else None

    @property
    def variance(self) -> float | None:
        """Sample variance (n - 1 below the line); None with fewer than two values."""
        if self.n < 2 or self.beyond:
            return None
        above = self.n * self.squares * SCALE - self.total * self.total
        variance = max(nearest(above, SCALE * self.n * (self.n - 1)), 0.0)
        return variance if math.isfinite(variance) else None


def sums_by_group(values: Floats, signs: Ints, groups: Ints, count: int) -> list[Sum]:
    """The sum of each of ``count`` groups, numbered from 0; NaN is no value.

    ``signs`` are 1 where a value is added, -1 where it is taken back.
    """
    known = ~np.isnan(values)
    values, signs, groups = values[known], signs[known], groups[known]
    n, beyond = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    np.add.at(n, groups, signs)
    with np.errstate(over="ignore"):
        squares = values * values
    within = np.isfinite(squares)
    if not within.all():
        np.add.at(beyond, groups[~within], signs[~within])
        values, squares, signs, groups = values[within], squares[within], signs[within], groups[within]
    totals, of_squares = (exact_sums(signs * added, groups, count) for added in (values, squares))
    return list(map(Sum, n.tolist(), totals, of_squares, beyond.tolist()))
