"""Metrics that are means over rows, or functions of one; two versions are compared by the differences of each row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tailrace.statistics.exact_sum import Sum
from tailrace.statistics.intervals import student, two_sided, wilson
from tailrace.statistics.judged_rows import JudgedRows
from tailrace.statistics.metric import Estimate, Metric, PairedGain
from tailrace.statistics.metric_counts import MetricCounts
from tailrace.statistics.result import Floats

SIDES = ("version", "against")


@dataclass(frozen=True, kw_only=True)
class MeanMetric(Metric):
    """The mean of what each row adds.

    Attributes:
        loss: what each row adds, NaN where an answer has nothing to judge; None where that is no function of answer
            and truth alone.
    """

    loss: Callable[[JudgedRows], Floats] | None = None
    interval: str = "Student's t"
    paired: str = "paired t"

    def estimate(self, counts: MetricCounts, positive: int | None) -> Estimate:
        losses = counts.sums.get(self.name, Sum())
        n, mean, spread = losses.n, losses.mean, losses.variance
        if mean is None:
            return Estimate(None, None, None, max(n, 0), "student-t")
        of_mean = None if spread is None else spread / n
        return Estimate(mean, *student(mean, spread, n), n, "student-t", None, of_mean)

    def gain(self, counts: MetricCounts, positive: int | None) -> PairedGain:
        return mean_gain(self.name, *_sides(self.name, counts))


@dataclass(frozen=True, kw_only=True)
class RootMeanMetric(MeanMetric):
    """The root of a mean."""

    interval: str = "root of the interval of the mean square, by Student's t"
    paired: str = "delta method, with the covariance"

    def estimate(self, counts: MetricCounts, positive: int | None) -> Estimate:
        mean, low, high, n, method, _, of_mean = super().estimate(counts, positive)
        if mean is None:
            return Estimate(None, None, None, n, method)
        low, high = (None if bound is None else math.sqrt(max(bound, 0.0)) for bound in (low, high))
        by_delta = of_mean / (4 * mean) if of_mean is not None and mean > 0 else None
        return Estimate(math.sqrt(mean), low, high, n, "student-t-of-the-square", None, by_delta)

    def gain(self, counts: MetricCounts, positive: int | None) -> PairedGain:
        differences, version, against = _sides(self.name, counts)
        mine, theirs = version.mean, against.mean
        if mine is None or theirs is None:
            return PairedGain(self.name, n=max(differences.n, 0))
        mine, theirs = math.sqrt(mine), math.sqrt(theirs)
        spread = None
        if mine > 0 and theirs > 0:
            spread = _apart((1 / (2 * mine), 1 / (2 * theirs)), differences, version, against)
        return self._normal_gain(mine, theirs, spread, differences.n)


@dataclass(frozen=True, kw_only=True)
class SignedMeanMetric(MeanMetric):
    """A mean of which the size counts."""

    paired: str = "delta method, with the covariance"

    def gain(self, counts: MetricCounts, positive: int | None) -> PairedGain:
        differences, version, against = _sides(self.name, counts)
        mine, theirs = version.mean, against.mean
        if mine is None or theirs is None:
            return PairedGain(self.name, n=max(differences.n, 0))
        slopes = math.copysign(1.0, mine), math.copysign(1.0, theirs)
        return self._normal_gain(mine, theirs, _apart(slopes, differences, version, against), differences.n)


@dataclass(frozen=True, kw_only=True)
class ShareMetric(Metric):
    """The share of rows in which something is so: the mean of ones and zeros."""

    interval: str = "Wilson"

    def estimate(self, counts: MetricCounts, positive: int | None) -> Estimate:
        ones = counts.sums.get(self.name, Sum())
        if ones.n <= 0:
            return Estimate(None, None, None, 0, "wilson")
        return Estimate(ones.mean, *wilson(round(ones.value or 0.0), ones.n), ones.n, "wilson")


def mean_gain(metric: str, differences: Sum, version: Sum, against: Sum) -> PairedGain:
    """By the paired t-test of the differences of each request."""
    n, mean, spread = differences.n, differences.mean, differences.variance
    if mean is None:
        return PairedGain(metric, n=max(n, 0))
    low, high = student(mean, spread, n)
    p_value = None if spread is None else two_sided(mean, math.sqrt(spread / n), n)
    total, squares = differences.value, differences.total_squares
    return PairedGain(metric, version.mean, against.mean, mean, low, high, p_value, n, total, squares)


def _sides(name: str, counts: MetricCounts) -> tuple[Sum, Sum, Sum]:
    version, against = (counts.sums.get(f"{name}.{side}", Sum()) for side in SIDES)
    return counts.sums.get(name, Sum()), version, against


def _apart(slopes: tuple[float, float], differences: Sum, version: Sum, against: Sum) -> float | None:
    """Variance of the difference of two functions of means, whose derivatives are ``slopes``."""
    mine, theirs, apart = version.variance, against.variance, differences.variance
    if mine is None or theirs is None or apart is None:
        return None
    a, b = slopes
    covariance = (mine + theirs - apart) / 2
    return max(a * a * mine + b * b * theirs - 2 * a * b * covariance, 0.0) / differences.n
