"""The area under the ROC curve, from counts of rows by score and class (score_counts.py)."""

from __future__ import annotations

from dataclasses import dataclass

from tailrace.statistics.intervals import normal
from tailrace.statistics.metric import Estimate, Metric, PairedGain
from tailrace.statistics.metric_counts import MetricCounts
from tailrace.statistics.score_counts import LIMIT


@dataclass(frozen=True, kw_only=True)
class AucMetric(Metric):
    interval: str = "DeLong"
    paired: str = "DeLong, with the covariance"

    def estimate(self, counts: MetricCounts, positive: int | None) -> Estimate:
        scores = counts.scores
        n = scores.n if scores is not None else 0
        method = "delong" if scores is None or not scores.shift else f"delong-binned-{LIMIT}"
        auc = scores.auc() if scores is not None else None
        if auc is None:
            return Estimate(None, None, None, n, method)
        spread = auc.variance
        if spread == 0.0 and auc.value in (0.0, 1.0):
            spread = None  # Perfect separation on few rows says nothing about how far it may be from perfect.
        return Estimate(auc.value, *normal(auc.value, spread, 0.0, 1.0), n, method, auc.error, spread)

    def gain(self, counts: MetricCounts, positive: int | None) -> PairedGain:
        scores = counts.scores
        version, against = (scores.auc(side) if scores is not None else None for side in (0, 1))
        if scores is None or version is None or against is None:
            return PairedGain(self.name, n=scores.n if scores is not None else 0)
        spread = None
        if version.variance is not None and against.variance is not None:
            covariance = scores.auc_covariance()
            assert covariance is not None
            spread = max(version.variance + against.variance - 2 * covariance, 0.0)
        return self._normal_gain(version.value, against.value, spread, scores.n)
