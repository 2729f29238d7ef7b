"""Metrics of rows that are all there, by the same counts as those of windows that are added up."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tailrace.statistics.exact_sum import sums_by_group
from tailrace.statistics.judged_rows import JudgedRows
from tailrace.statistics.metric import BINARY, Estimate
from tailrace.statistics.metric_counts import MetricCounts
from tailrace.statistics.metrics import METRIC, METRICS_OF, row_losses
from tailrace.statistics.score_counts import count_all_scores


def estimates(rows: JudgedRows) -> dict[str, Estimate]:
    """Every metric of the rows' task, by name."""
    counts = count_rows(rows)
    return {name: METRIC[name].estimate(counts, rows.positive) for name in METRICS_OF[rows.task]}


def count_rows(rows: JudgedRows) -> MetricCounts:
    """The counts of rows of one version, of which each has an answer and a truth."""
    ones, zeros = (np.full(len(rows.classes), number, dtype=np.int64) for number in (1, 0))
    sums = {name: sums_by_group(values, ones, zeros, 1)[0] for name, values in row_losses(rows).items()}
    table: Counter[tuple[int, ...]] = Counter(zip(rows.classes.tolist(), rows.chosen.tolist(), strict=True))
    is_binary = rows.task == BINARY
    scores = count_all_scores(rows.score, rows.classes == rows.positive) if is_binary else None
    return MetricCounts(table=table, sums=sums, scores=scores)
