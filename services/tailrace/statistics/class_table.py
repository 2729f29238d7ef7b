"""Metrics of predicted classes, from counts by class and predicted class, with what each row contributes.

``influence`` is the derivative of a metric by the share of rows in a cell. With it the variance of any of them, and
of the difference between two versions on the same rows, follows by the delta method for multinomial counts
(Takahashi, Yamamoto, Kuchiba and Koyama, "Confidence interval for micro-averaged F1 and macro-averaged F1 scores",
Applied Intelligence 52, 2022, do so for F1).

Each takes a table that has rows, their number, and the number of the positive class, None where there is none. They are
scikit-learn's with ``zero_division=0``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

Cell = tuple[int, int]
"""Class and predicted class, by number."""

Influence = Callable[[int, int], float]


class ClassValue(NamedTuple):
    """A metric of a table; ``influence`` is None where it has no derivative: nothing to divide by."""

    value: float
    influence: Influence | None


def variance(cells: Iterable[tuple[int, float]]) -> float:
    """Variance of an estimate from (rows, influence) of each cell."""
    known = [(n, g) for n, g in cells if n]
    total = sum(n for n, _ in known)
    mean = math.fsum(n * g for n, g in known) / total
    return math.fsum(n * (g - mean) ** 2 for n, g in known) / total / total


def recalls(table: Mapping[Cell, int]) -> dict[int, tuple[int, int]]:
    """Rows predicted right, and all rows, of each class that occurs, in their order."""
    rows: Counter[int] = Counter()
    for (actual, _), n in table.items():
        rows[actual] += n
    return {c: (table.get((c, c), 0), n) for c, n in sorted(rows.items()) if n > 0}


def overlap(table: Mapping[Cell, int], cls: int) -> tuple[int, int]:
    """Rows that are of the class and predicted so, and rows that are either."""
    both = table.get((cls, cls), 0)
    return both, sum(n for cell, n in table.items() if cls in cell)


def accuracy(table: Mapping[Cell, int], total: int, _positive: int | None) -> ClassValue:
    right = sum(n for (actual, chosen), n in table.items() if actual == chosen)
    return ClassValue(right / total, lambda actual, chosen: float(actual == chosen))


def balanced_accuracy(table: Mapping[Cell, int], total: int, _positive: int | None) -> ClassValue:
    by_class = recalls(table)

    def influence(actual: int, chosen: int) -> float:
        right, rows = by_class[actual]
        return (float(actual == chosen) - right / rows) * total / rows / len(by_class)

    return ClassValue(math.fsum(right / rows for right, rows in by_class.values()) / len(by_class), influence)


def f1(table: Mapping[Cell, int], total: int, positive: int | None) -> ClassValue:
    seen = sorted({c for cell, n in table.items() if n for c in cell})
    classes = seen if positive is None else [positive]
    weight = {c: sum(n * cell.count(c) for cell, n in table.items()) for c in classes}
    by_class = {c: 2 * table.get((c, c), 0) / weight[c] if weight[c] else 0.0 for c in classes}

    def influence(actual: int, chosen: int) -> float:
        derivative = 0.0
        for c in {actual, chosen} & by_class.keys():
            touched = (actual == c) + (chosen == c)
            derivative += (2 * (actual == chosen) - by_class[c] * touched) * total / weight[c]
        return derivative / len(classes)

    defined = all(weight.values())
    return ClassValue(math.fsum(by_class.values()) / len(classes), influence if defined else None)
