"""Two versions on the same requests: how much better one is than the other, by metric.

Means are compared by the differences of each request (paired t), the others by the delta method with the two
versions' covariance; two AUCs by DeLong, DeLong and Clarke-Pearson.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from tailrace.evaluator.class_metrics import class_metric, variance
from tailrace.evaluator.counts import PerformanceCounts, Sum
from tailrace.evaluator.metrics import SUM_OF, better_by
from tailrace.statistics.exact_sum import SCALE
from tailrace.statistics.intervals import normal, student, two_sided

SIDES = ("version", "against")


class PairedGain(NamedTuple):
    """How much better ``version`` is than ``against`` on the same ``n`` requests; positive is better.

    ``sum`` and ``sum_squares`` are of the gain of each request, where the metric is a mean over requests, so that
    windows can be taken together.
    """

    metric: str
    version_value: float | None = None
    against_value: float | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    n: int = 0
    sum: float | None = None
    sum_squares: float | None = None


def gain(metric: str, counts: PerformanceCounts, positive: int | None) -> PairedGain:
    """The gain by these counts of pairs. Their sums are, by name, of the differences (positive: ``version`` is
    better), and by ``NAME.version`` and ``NAME.against`` of either.
    """
    if metric == "auc":
        return _auc(counts)
    if metric == "accuracy":
        return _mean(metric, _rights(counts), *(_right(counts, side) for side in (1, 2)))
    if metric in ("balanced_accuracy", "f1"):
        return _of_classes(metric, counts, positive)
    name = SUM_OF.get(metric, metric)
    differences, version, against = (
        counts.sums.get(key, Sum()) for key in (name, *(f"{name}.{side}" for side in SIDES))
    )
    if metric in ("rmse", "bias"):
        return _of_residuals(metric, differences, version, against)
    return _mean(metric, differences, version, against)


def _mean(metric: str, differences: Sum, version: Sum, against: Sum) -> PairedGain:
    n, mean, spread = differences.n, differences.mean, differences.variance
    if mean is None:
        return PairedGain(metric, n=max(n, 0))
    low, high = student(mean, spread, n)
    p_value = None if spread is None else two_sided(mean, math.sqrt(spread / n), n)
    return PairedGain(
        metric,
        version.mean,
        against.mean,
        mean,
        low,
        high,
        p_value,
        n,
        differences.value,
        differences.total_squares,
    )


def _right(counts: PerformanceCounts, side: int) -> Sum:
    n = sum(counts.table.values())
    right = sum(rows for cell, rows in counts.table.items() if cell[0] == cell[side])
    return Sum(n, right * SCALE, right * SCALE)


def _rights(counts: PerformanceCounts) -> Sum:
    found: Counter[int] = Counter()
    for (actual, chosen, other), rows in counts.table.items():
        found[(chosen == actual) - (other == actual)] += rows
    return Sum(sum(found.values()), (found[1] - found[-1]) * SCALE, (found[1] + found[-1]) * SCALE)


def _of_classes(metric: str, counts: PerformanceCounts, positive: int | None) -> PairedGain:
    n = sum(counts.table.values())
    tables: list[Counter[tuple[int, int]]] = [Counter(), Counter()]
    for (actual, *chosen), rows in counts.table.items():
        for table, one in zip(tables, chosen, strict=True):
            table[actual, one] += rows
    version, against = (class_metric(metric, table, positive) for table in tables)
    if version is None or against is None:
        return PairedGain(metric, n=max(n, 0))
    spread = None
    if version.influence is not None and against.influence is not None:
        mine, theirs = version.influence, against.influence
        spread = variance(
            (rows, mine(actual, chosen) - theirs(actual, other))
            for (actual, chosen, other), rows in counts.table.items()
            if rows
        )
    return _normal(metric, version.value, against.value, spread, n)


def _auc(counts: PerformanceCounts) -> PairedGain:
    scores = counts.scores
    version, against = (scores.auc(side) if scores is not None else None for side in (0, 1))
    if scores is None or version is None or against is None:
        return PairedGain("auc", n=scores.n if scores is not None else 0)
    spread = None
    if version.variance is not None and against.variance is not None:
        together = scores.auc_covariance()
        assert together is not None
        spread = max(version.variance + against.variance - 2 * together, 0.0)
    return _normal("auc", version.value, against.value, spread, scores.n)


def _of_residuals(metric: str, differences: Sum, version: Sum, against: Sum) -> PairedGain:
    """``rmse`` from squares, ``bias`` from residuals."""
    n, mine, theirs = differences.n, version.mean, against.mean
    if mine is None or theirs is None:
        return PairedGain(metric, n=max(n, 0))
    if metric == "bias":
        slopes = math.copysign(1.0, mine), math.copysign(1.0, theirs)
        return _normal(metric, mine, theirs, _apart(slopes, differences, version, against), n)
    mine, theirs = math.sqrt(mine), math.sqrt(theirs)
    spread = None
    if mine > 0 and theirs > 0:
        spread = _apart((1 / (2 * mine), 1 / (2 * theirs)), differences, version, against)
    return _normal(metric, mine, theirs, spread, n)


def _apart(slopes: tuple[float, float], differences: Sum, version: Sum, against: Sum) -> float | None:
    """Variance of the difference of two functions of means, whose derivatives are ``slopes``."""
    mine, theirs, apart = version.variance, against.variance, differences.variance
    if mine is None or theirs is None or apart is None:
        return None
    a, b = slopes
    together = (mine + theirs - apart) / 2
    return max(a * a * mine + b * b * theirs - 2 * a * b * together, 0.0) / differences.n


def _normal(metric: str, version: float, against: float, spread: float | None, n: int) -> PairedGain:
    found = better_by(metric, version, against)
    low, high = normal(found, spread)
    p_value = None if spread is None else two_sided(found, math.sqrt(spread))
    return PairedGain(metric, version, against, found, low, high, p_value, n)
