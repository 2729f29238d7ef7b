"""Metrics of predicted classes, from counts by class and predicted class (class_table.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tailrace.statistics.class_table import Cell, ClassValue, overlap, recalls, variance
from tailrace.statistics.exact_sum import SCALE, Sum
from tailrace.statistics.intervals import UNKNOWN, Bounds, mean_of_shares, normal, wilson
from tailrace.statistics.mean_metrics import mean_gain
from tailrace.statistics.metric import Estimate, Metric, PairedGain
from tailrace.statistics.metric_counts import MetricCounts

ClassTable = Mapping[Cell, int]
Measure = Callable[[ClassTable, int, int | None], ClassValue]
"""The value of a table of so many rows, and what each row contributes; the last is the positive class."""

DELTA = "delta"


def by_delta(table: ClassTable, positive: int | None) -> tuple[str, Bounds]:
    """The interval is left to the delta method."""
    return DELTA, UNKNOWN


@dataclass(frozen=True, kw_only=True)
class ClassMetric(Metric):
    """A metric that is a function of the table.

    Attributes:
        measure: its value, and what each row contributes.
        bounds: its interval and the method's name, where there is a better one than the delta method.
    """

    measure: Measure
    bounds: Callable[[ClassTable, int | None], tuple[str, Bounds]] = by_delta
    interval: str = "delta method"
    paired: str = "delta method, with the covariance"

    def estimate(self, counts: MetricCounts, positive: int | None) -> Estimate:
        table = {(cell[0], cell[1]): n for cell, n in counts.table.items()}
        n = sum(table.values())
        method, bounds = self.bounds(table, positive)
        if n <= 0:
            return Estimate(None, None, None, n, method)
        value, influence = self.measure(table, n, positive)
        spread = None
        if influence is not None:
            spread = variance((rows, influence(*cell)) for cell, rows in table.items() if rows)
            if method == DELTA:
                bounds = normal(value, spread, 0.0, 1.0)
        return Estimate(value, *bounds, n, method, None, spread)

    def gain(self, counts: MetricCounts, positive: int | None) -> PairedGain:
        n = sum(counts.table.values())
        if n <= 0:
            return PairedGain(self.name)
        tables: tuple[Counter[Cell], Counter[Cell]] = Counter(), Counter()
        for (actual, chosen, other), rows in counts.table.items():
            tables[0][actual, chosen] += rows
            tables[1][actual, other] += rows
        version, against = (self.measure(table, n, positive) for table in tables)
        spread = None
        if version.influence is not None and against.influence is not None:
            mine, theirs = version.influence, against.influence
            spread = variance(
                (rows, mine(actual, chosen) - theirs(actual, other))
                for (actual, chosen, other), rows in counts.table.items()
                if rows
            )
        return self._normal_gain(version.value, against.value, spread, n)


@dataclass(frozen=True, kw_only=True)
class ShareOfRows(ClassMetric):
    """The share of right rows; a mean over rows, so that two versions are compared by the differences of each."""

    paired: str = "paired t"

    def gain(self, counts: MetricCounts, positive: int | None) -> PairedGain:
        better: Counter[int] = Counter()
        for (actual, chosen, other), rows in counts.table.items():
            better[(chosen == actual) - (other == actual)] += rows
        n, total = sum(better.values()), better[1] - better[-1]
        differences = Sum(n, total * SCALE, (better[1] + better[-1]) * SCALE)
        return mean_gain(self.name, differences, *(_right(counts, side) for side in (1, 2)))

    def variance_against(self, now: Estimate, then: float, rows: int) -> float | None:
        """By the pooled share, as in the z-test of two shares."""
        if now.value is None:
            return None
        pooled = (now.value * now.n + then * rows) / (now.n + rows)
        return pooled * (1 - pooled) * (1 / now.n + 1 / rows)


def wilson_of_right(table: ClassTable, positive: int | None) -> tuple[str, Bounds]:
    return "wilson", wilson(sum(n for (a, b), n in table.items() if a == b), sum(table.values()))


def mover_of_recalls(table: ClassTable, positive: int | None) -> tuple[str, Bounds]:
    return "mover-wilson", mean_of_shares([*recalls(table).values()])


def wilson_of_overlap(table: ClassTable, positive: int | None) -> tuple[str, Bounds]:
    """F1 grows with the share J of rows that are both positive and predicted so among those that are either:
    F1 = 2 J / (1 + J). What bounds J bounds F1. Of several classes there is no such share.
    """
    if positive is None:
        return by_delta(table, positive)
    low, high = wilson(*overlap(table, positive))
    return "wilson-of-overlap", (
        None if low is None else 2 * low / (1 + low),
        None if high is None else 2 * high / (1 + high),
    )


def _right(counts: MetricCounts, side: int) -> Sum:
    n = sum(counts.table.values())
    right = sum(rows for cell, rows in counts.table.items() if cell[0] == cell[side])
    return Sum(n, right * SCALE, right * SCALE)
