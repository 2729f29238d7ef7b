"""The gain of one version over another, over several windows together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tailrace.statistics.intervals import student


class PooledGain(NamedTuple):
    """How much better one version was than another on the same ``n`` requests, with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int


def pooled(metrics: Iterable[Mapping[str, Any]]) -> PooledGain | None:
    """The gain over windows together; None where nothing is known of how far it may be off.

    Metrics that are means over requests are pooled exactly, by their sums, with Student's interval of a mean of
    differences. Others (an AUC, an RMSE) are averaged with the windows' numbers of requests as weights, their
    intervals taken for those of independent normal estimates.
    """
    defined = [m for m in metrics if m["n"] > 0 and m["gain"] is not None]
    n = sum(m["n"] for m in defined)
    if n < 2:
        return None
    if all(m["sum"] is not None and m["sum_squares"] is not None for m in defined):
        total, squares = math.fsum(m["sum"] for m in defined), math.fsum(m["sum_squares"] for m in defined)
        mean = total / n
        low, high = student(mean, max(0.0, squares - total * mean) / (n - 1), n)
    elif all(m["low"] is not None and m["high"] is not None for m in defined):
        mean = math.fsum(m["n"] / n * m["gain"] for m in defined)
        half = math.sqrt(math.fsum((m["n"] / n * (m["high"] - m["low"]) / 2) ** 2 for m in defined))
        low, high = mean - half, mean + half
    else:
        return None
    assert low is not None
    assert high is not None
    return PooledGain(mean, low, high, n)
