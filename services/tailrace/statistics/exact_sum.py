"""Sums of floats without rounding: the same whatever the order, and what was added can be taken away.

Every finite float64 is an integer over 2**1074, and so is their sum, which is kept as that integer (Kulisch and
Miranker, "The arithmetic of the digital computer", 1986, with Python's integers as the long accumulator). Rounding
happens once, when the sum is read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SCALE = 1 << 1074
"""A sum is an integer in units of 1 / SCALE, the least positive float64."""

_MANTISSA = 53
_LOW = 26
_EXPONENTS = 1 << 12


def exact_sums(values: NDArray[np.float64], groups: NDArray[np.int64], count: int) -> list[int]:
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


def exact_sum(values: NDArray[np.float64]) -> int:
    """The exact sum of finite values, in units of 1 / SCALE."""
    return exact_sums(values, np.zeros(len(values), dtype=np.int64), 1)[0]


def nearest(units: int, over: int = 1) -> float:
    """The float64 nearest to ``units / SCALE / over``; an infinity where that is beyond all floats."""
    try:
        return units / (SCALE * over)
    except OverflowError:
        return float("inf") if units > 0 else float("-inf")
