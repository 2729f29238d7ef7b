"""How sure a verdict must be, so that a quiet stream raises no more alerts than the contract's budget."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import false_discovery_control

LEAST_SURE = 0.05
"""No test is judged at a higher level than this, whatever the budget would allow."""


def level(at_most: float, per_ms: int, window_ms: int, segments: int) -> float:
    """The false-discovery rate for each report: ``at_most`` false alerts per ``per_ms``, shared equally by the
    windows in that time and the segments of each.

    While nothing has changed every discovery is false, so that the rate is the probability of any.
    """
    return min(LEAST_SURE, at_most * window_ms / per_ms / segments)


def adjusted(p_values: Sequence[float]) -> list[float]:
    """The q-values: the false-discovery rate at which each test is just significant.

    Benjamini and Hochberg, "Controlling the False Discovery Rate", Journal of the Royal Statistical Society B 57
    (1995).
    """
    return [float(q) for q in false_discovery_control(p_values)] if p_values else []
