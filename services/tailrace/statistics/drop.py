"""Whether a version does worse than it did on its package's holdout: by how much, and how likely by chance."""

from __future__ import annotations

import math
from typing import NamedTuple

from tailrace.statistics.intervals import upper_tail
from tailrace.statistics.metric import Estimate, Metric

SIGNIFICANT = 0.01
"""Most probability of a drop by chance at which a report's verdict is a drop, shared among the metrics watched."""


class Drop(NamedTuple):
    """Attributes:
    holdout: the package's value.
    drop: how much worse than that; negative where better.
    p_value: probability of such a drop by chance, one-sided; None where it cannot be told.
    """

    holdout: float | None = None
    drop: float | None = None
    p_value: float | None = None


def drop(metric: Metric, now: Estimate, holdout: float | None, rows: int) -> Drop:
    """Compares two independent samples: the outcomes and the ``rows`` of the holdout, by the normal distribution."""
    if holdout is None:
        return Drop()
    if now.value is None:
        return Drop(holdout)
    worse = -metric.better_by(now.value, holdout)
    variance = metric.variance_against(now, holdout, rows) if rows > 0 else None
    if variance is None:
        return Drop(holdout, worse)
    return Drop(holdout, worse, upper_tail(worse, math.sqrt(max(variance, 0.0))))
