"""The kernel below `Domain`. Whoever cannot wait for it to be loaded imports this beforehand."""

from __future__ import annotations

from math import isnan, sqrt
from typing import Any

import numpy as np

from tailrace.kernels.compiler import kernel
from tailrace.models.guards.domain_layout import ABSENT, NUMBER

BLOCK = 64
"""Rows that are worked on at once: as many as fit into the nearest cache with their columns."""


@kernel(
    "Tuple((float64[::1], int64[::1]))"
    "(float64[::1], float64[::1], float64, float64[:, ::1], float64[:, ::1], int64[:, ::1])"
)
def measure(centre: Any, steps: Any, bound: Any, whiten: Any, values: Any, layout: Any) -> Any:
    """Each row's distance, and the number of the input that is furthest off in one of its columns.

    Every row goes through the same operations in the same order, so that its distance has the same bits anywhere.

    Args:
        centre, steps: by encoded column, the mean and one over the standard deviation.
        bound: standard deviations that a column counts as at most.
        whiten: [columns, columns], lower triangular; [0, 0] for the columns as they are.
        values: [inputs, rows], numbers, NaN where one is missing, and codes of categories.
        layout: [columns, 2], by encoded column its input and what it holds of it (see models/guards/domain_layout.py).
    """
    rows, width = values.shape[1], len(layout)
    distances = np.empty(rows)
    furthest = np.empty(rows, dtype=np.int64)
    away, white = np.empty((width, BLOCK)), np.empty(BLOCK)
    off = np.empty(BLOCK)
    for begin in range(0, rows, BLOCK):
        size = min(BLOCK, rows - begin)
        off[:] = -1.0
        numbers, sums = furthest[begin : begin + size], distances[begin : begin + size]
        sums[:] = 0.0
        for column in range(width):
            number, holds = layout[column]
            for row in range(size):
                value = values[number, begin + row]
                if holds == ABSENT:
                    value = 1.0 if isnan(value) else 0.0
                elif holds != NUMBER:
                    value = 1.0 if value == holds else 0.0
                value = (value - centre[column]) * steps[column]
                # The mean stands for what is missing.
                away[column, row] = 0.0 if isnan(value) else min(max(value, -bound), bound)
            for row in range(size):
                if abs(away[column, row]) > off[row]:
                    off[row] = abs(away[column, row])
                    numbers[row] = number
        for column in range(width):
            if len(whiten):
                white[:] = 0.0
                for other in range(column, width):
                    for row in range(size):
                        white[row] += away[other, row] * whiten[other, column]
            else:
                white[:] = away[column]
            for row in range(size):
                sums[row] += white[row] * white[row]
        for row in range(size):
            sums[row] = sqrt(sums[row])
    return distances, furthest
