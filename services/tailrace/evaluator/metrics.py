"""Metrics of one version from its counts, each with a 95 % interval; equal to scikit-learn's."""

from __future__ import annotations

import math
from typing import NamedTuple

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.sections import METRICS_OF
from tailrace.evaluator.class_metrics import class_metric, overlap, recalls, variance
from tailrace.evaluator.counts import PerformanceCounts, Sum
from tailrace.evaluator.score_counts import LIMIT
from tailrace.statistics.intervals import UNKNOWN, Bounds, mean_of_shares, normal, student, wilson

HIGHER_IS_BETTER = frozenset({"accuracy", "balanced_accuracy", "f1", "auc", "value"})
"""Of the others less is better; of ``bias``, less of its size."""

SUM_OF = {"log_loss": "log_loss", "brier": "brier", "mae": "absolute", "bias": "residual", "rmse": "square"}
"""The metrics that are means over rows (``rmse`` is the root of one), and the name of their sum."""


class Estimate(NamedTuple):
    """A metric's value, None where it is not defined, and how sure it is.

    Attributes:
        n: outcomes that it rests on.
        interval: method of the interval, as on the reports.
        error: how far an AUC may be off where scores were binned.
        variance: of the estimate; None where it is not known.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    interval: str
    error: float | None = None
    variance: float | None = None


def metrics_of(contract: ModelContract) -> list[str]:
    """All metrics of the contract's task, those that it names first."""
    named = [str(metric) for metric in contract.quality.metrics]
    return list(dict.fromkeys([*named, *METRICS_OF[contract.task]]))


def positive_index(contract: ModelContract) -> int | None:
    positive = contract.positive_class
    return None if positive is None else contract.classes.index(positive)


def estimate(metric: str, counts: PerformanceCounts, positive: int | None) -> Estimate:
    """The metric of these counts; ``positive`` is the number of the class that a binary score is about."""
    if metric == "auc":
        return _auc(counts)
    if metric in SUM_OF:
        return _mean(metric, counts.sums.get(SUM_OF[metric], Sum()))
    return _of_classes(metric, counts, positive)


def coverage(counts: PerformanceCounts) -> Estimate:
    """The share of outcomes whose truth the set or the interval behind the answer holds."""
    found = counts.sums.get("covered", Sum())
    if found.n <= 0:
        return Estimate(None, None, None, 0, "wilson")
    return Estimate(found.mean, *wilson(round(found.value or 0.0), found.n), found.n, "wilson")


def better_by(metric: str, value: float, than: float) -> float:
    """How much better ``value`` is; negative where it is worse."""
    if metric == "bias":
        return abs(than) - abs(value)
    return value - than if metric in HIGHER_IS_BETTER else than - value


def _auc(counts: PerformanceCounts) -> Estimate:
    n = counts.scores.n if counts.scores is not None else 0
    method = "delong" if counts.scores is None or not counts.scores.shift else f"delong-binned-{LIMIT}"
    found = counts.scores.auc() if counts.scores is not None else None
    if found is None:
        return Estimate(None, None, None, n, method)
    spread = found.variance
    if spread == 0.0 and found.value in (0.0, 1.0):
        spread = None  # Perfect separation on few rows says nothing about how far it may be from perfect.
    return Estimate(found.value, *normal(found.value, spread, 0.0, 1.0), n, method, found.error, spread)


def _mean(metric: str, found: Sum) -> Estimate:
    mean, spread = found.mean, found.variance
    method = "student-t"
    if mean is None:
        return Estimate(None, None, None, max(found.n, 0), method)
    bounds = student(mean, spread, found.n)
    of_mean = None if spread is None else spread / found.n
    if metric != "rmse":
        return Estimate(mean, *bounds, found.n, method, None, of_mean)
    low, high = (None if bound is None else math.sqrt(max(bound, 0.0)) for bound in bounds)
    by_delta = of_mean / (4 * mean) if of_mean is not None and mean > 0 else None
    return Estimate(math.sqrt(mean), low, high, found.n, "student-t-of-the-square", None, by_delta)


def _of_classes(metric: str, counts: PerformanceCounts, positive: int | None) -> Estimate:
    table = {(cell[0], cell[1]): n for cell, n in counts.table.items()}
    n = sum(table.values())
    found = class_metric(metric, table, positive)
    method, bounds = _class_interval(metric, table, positive)
    if found is None:
        return Estimate(None, None, None, n, method)
    spread = None
    if found.influence is not None:
        influence = found.influence
        spread = variance((rows, influence(*cell)) for cell, rows in table.items() if rows)
        if method == "delta":
            bounds = normal(found.value, spread, 0.0, 1.0)
    return Estimate(found.value, *bounds, n, method, None, spread)


def _class_interval(
    metric: str, table: dict[tuple[int, int], int], positive: int | None
) -> tuple[str, Bounds]:
    if metric == "accuracy":
        return "wilson", wilson(sum(n for (a, b), n in table.items() if a == b), sum(table.values()))
    if metric == "balanced_accuracy":
        return "mover-wilson", mean_of_shares(recalls(table))
    if positive is None:
        return "delta", UNKNOWN
    # F1 grows with the share J of rows that are both positive and predicted so among those that are either:
    # F1 = 2 J / (1 + J). What bounds J bounds F1.
    low, high = wilson(*overlap(table, positive))
    return "wilson-of-overlap", (
        None if low is None else 2 * low / (1 + low),
        None if high is None else 2 * high / (1 + high),
    )
