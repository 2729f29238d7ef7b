"""Whether a version does worse than it did on its package's holdout: by how much, and how likely by chance."""

from __future__ import annotations

import math
from typing import NamedTuple

from tailrace.evaluator.metrics import Estimate, better_by
from tailrace.models.manifest import Holdout
from tailrace.statistics.intervals import upper_tail

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


def drop(metric: str, now: Estimate, holdout: Holdout | None) -> Drop:
    """Compares two independent samples: the outcomes and the holdout, whose rows are taken to vary as much.

    Two shares (accuracy) by the z-test with their pooled share, other metrics by the normal distribution.
    """
    then = holdout.metrics.get(metric) if holdout is not None else None
    if holdout is None or then is None:
        return Drop()
    if now.value is None:
        return Drop(then)
    worse = -better_by(metric, now.value, then)
    if holdout.rows < 1:
        return Drop(then, worse)
    if metric == "accuracy":
        pooled = (now.value * now.n + then * holdout.rows) / (now.n + holdout.rows)
        variance = pooled * (1 - pooled) * (1 / now.n + 1 / holdout.rows)
    elif now.variance is not None:
        variance = now.variance * (1 + now.n / holdout.rows)
    else:
        return Drop(then, worse)
    return Drop(then, worse, upper_tail(worse, math.sqrt(max(variance, 0.0))))
