"""Every metric that a service may have, one service's own too: dashboards and alerts are written against one list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class BulkHistogram(Collector):
    """A histogram that takes many values at once: client libraries take a microsecond for each.

    Args:
        buckets: their upper bounds, rising, without the infinite one.
    """

    def __init__(self, name: str, about: str, labels: Sequence[str], buckets: Sequence[float]) -> None:
        self._name, self._about, self._labels = name, about, list(labels)
        self._bounds = np.array(buckets, dtype=np.float64)
        self._names = [*(repr(float(bound)) for bound in buckets), "+Inf"]
        self._counts: dict[tuple[str, ...], tuple[NDArray[np.int64], float]] = {}
        REGISTRY.register(self)

    def observe(self, labels: tuple[str, ...], values: NDArray[np.float64]) -> None:
        new = np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._names))
        counts, total = self._counts.get(labels, (0, 0.0))
        self._counts[labels] = counts + new, total + float(values.sum())

    def remove(self, *labels: str) -> None:
        self._counts.pop(labels, None)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        for labels, (counts, total) in list(self._counts.items()):
            family.add_metric(labels, list(zip(self._names, counts.cumsum().tolist(), strict=True)), total)
        yield family


RECORDS = Counter("tailrace_records_total", "Records processed and committed.", ["topic"])
OUTPUTS = Counter("tailrace_outputs_total", "Records written and committed, dead letters apart.")
BATCHES = Counter("tailrace_batches_total", "Batches committed.")
DEAD_LETTERS = Counter(
    "tailrace_dead_letters_total", "Records that went to a dead-letter topic.", ["topic", "code"]
)
SKIPPED = Counter(
    "tailrace_skipped_records_total",
    "Records that were left out where no dead letter is due: nobody honest writes such.",
    ["topic", "code"],
)
_STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ABORTS = Counter("tailrace_aborts_total", "Batches given up and taken again.")
PROCESS_SECONDS = Histogram(
    "tailrace_process_seconds", "Time that a batch took in the service's logic.", buckets=_STEP_BUCKETS
)
COMMIT_SECONDS = Histogram(
    "tailrace_commit_seconds", "Time from the begin of a transaction to its commit.", buckets=_STEP_BUCKETS
)
POSITION = Gauge(
    "kafka_consumergroup_current_offset",
    "The next offset that the group reads.",
    ["group", "topic", "partition"],
)
LAG = Gauge(
    "kafka_consumergroup_lag",
    "Offsets between what the group has committed and the end of the partition (markers count).",
    ["group", "topic", "partition"],
)
WATERMARK = Gauge(
    "tailrace_watermark_seconds",
    "Append time (Unix) of the last record of the partition that was processed and committed.",
    ["topic", "partition"],
)
INSERT_SECONDS = Histogram(
    "tailrace_insert_seconds",
    "Time that ClickHouse took for one block.",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
UNREADABLE = Counter("tailrace_unreadable_total", "Records that the sink could not decode.", ["code"])

_VERSION = ["model", "version", "role"]
REQUESTS = Counter(
    "tailrace_requests_total", "Requests answered (in shadow: scored) and committed.", _VERSION
)
ACTIONS = Counter("tailrace_actions_total", "Requests by the action that was chosen.", [*_VERSION, "action"])
FINDINGS = Counter("tailrace_guard_findings_total", "What guards found.", [*_VERSION, "guard"])
FALLBACKS = Counter(
    "tailrace_fallbacks_total",
    "Requests that something else than the version answered.",
    [*_VERSION, "cause"],
)
LATENCY = BulkHistogram(
    "tailrace_latency_seconds",
    "From a request's append to the commit of its answer; the former by the broker's clock.",
    _VERSION,
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)
