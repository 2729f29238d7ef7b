"""How far a model's outputs are from those that they should be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tailrace.models.columns import Array

MOST_DIFFERENCE = 1e-4
"""A conversion that is further off is not taken: largest difference of an output, as a share of the outputs' spread."""


class OutputDifference(NamedTuple):
    """Attributes:
    of_spread: the largest difference, as a share of its output's spread: the standard deviation over the rows. Where an
        output is the same in all rows, of its size.
    largest: the largest difference.
    spread: the output's in which ``of_spread`` is.
    agreement: share of rows with the same class; 1 of a regression.
    """

    of_spread: float
    largest: float
    spread: float
    agreement: float


def compare(outputs: Array, expected: Array, task: str) -> OutputDifference:
    """Of outputs [rows, k] from those expected. What is not finite on one side alone is infinitely far off."""
    if outputs.shape != expected.shape or not np.isfinite(outputs).all() or not np.isfinite(expected).all():
        return OutputDifference(float("inf"), float("inf"), 0.0, 0.0)
    size = np.abs(expected).max(axis=0)
    spread = expected.std(axis=0)
    scale = np.where(spread > 1e-12 * size, spread, np.where(size > 0, size, 1.0))
    off = np.abs(outputs - expected).max(axis=0)
    worst = int(np.argmax(off / scale))
    same = 1.0 if task == "regression" else float(np.mean(outputs.argmax(axis=1) == expected.argmax(axis=1)))
    return OutputDifference(float(off[worst] / scale[worst]), float(off.max()), float(scale[worst]), same)
