"""A quality metric: one entry of METRICS (metrics.py), by which all that judges a model knows it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tailrace.statistics.intervals import normal, two_sided
from tailrace.statistics.metric_counts import MetricCounts

BINARY, MULTICLASS, REGRESSION = "binary", "multiclass", "regression"

Better = Literal["higher", "lower", "nearer 0"]


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


@dataclass(frozen=True)
class Metric(ABC):
    """A metric that is computed from counts.

    Attributes:
        name: as contracts and reports have it.
        tasks: of models that contracts may judge by it; none where reports have it for another reason.
        better: which values are.
        doc: its definition, in one line.
        interval: method of its 95 % interval, in a few words.
        paired: how two versions on the same requests are compared, in a few words; empty where they are not.
    """

    name: str
    tasks: tuple[str, ...]
    better: Better
    doc: str
    interval: str = ""
    paired: str = ""

    @abstractmethod
    def estimate(self, counts: MetricCounts, positive: int | None) -> Estimate:
        """The metric of these counts; ``positive`` is the number of the class that a binary score is about."""

    def gain(self, counts: MetricCounts, positive: int | None) -> PairedGain:
        """How much better one version is than the other by these counts of pairs."""
        return PairedGain(self.name)

    def better_by(self, value: float, than: float) -> float:
        """How much better ``value`` is; negative where it is worse."""
        if self.better == "nearer 0":
            return abs(than) - abs(value)
        return value - than if self.better == "higher" else than - value

    def variance_against(self, now: Estimate, then: float, rows: int) -> float | None:
        """Variance of the difference between an estimate and the value ``then`` of as many independent rows, which
        are taken to vary as much; None where it is not known.
        """
        return None if now.variance is None else now.variance * (1 + now.n / rows)

    def _normal_gain(self, version: float, against: float, spread: float | None, n: int) -> PairedGain:
        """The gain with the normal interval of a difference of the variance ``spread``."""
        gain = self.better_by(version, against)
        low, high = normal(gain, spread)
        p_value = None if spread is None else two_sided(gain, math.sqrt(spread))
        return PairedGain(self.name, version, against, gain, low, high, p_value, n)
