"""What metrics are computed from: counts and exact sums, which add up in any order and can be taken away again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tailrace.statistics.exact_sum import Sum
from tailrace.statistics.score_counts import ScoreCounts


@dataclass(frozen=True, kw_only=True)
class MetricCounts:
    """Counts of rows of one version, or of two versions side by side.

    Attributes:
        table: rows by (class, predicted class), or by (class, predicted by one, predicted by the other).
        sums: by the name of a metric that is made of a sum, what each row adds to it. Of two versions, how much better
            the one is than the other, and as ``NAME.version`` and ``NAME.against`` what is of either.
        scores: rows by score and class; None where there are none.
    """

    table: Counter[tuple[int, ...]] = field(default_factory=Counter)
    sums: dict[str, Sum] = field(default_factory=dict)
    scores: ScoreCounts | None = None
