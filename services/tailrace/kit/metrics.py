"""Every metric that a service may have, declared before it is used.

Metrics of one service's own are declared here too, so that dashboards and alerts are written against one
list.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RECORDS = Counter("tailrace_records_total", "Records processed and committed.", ["topic"])
OUTPUTS = Counter("tailrace_outputs_total", "Records written and committed, dead letters apart.")
BATCHES = Counter("tailrace_batches_total", "Batches committed.")
DEAD_LETTERS = Counter("tailrace_dead_letters_total", "Records that went to a dead-letter topic.", ["code"])
ABORTS = Counter("tailrace_aborts_total", "Batches given up and taken again.")
PROCESS_SECONDS = Histogram(
    "tailrace_process_seconds",
    "Time that a batch took in the service's logic.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
COMMIT_SECONDS = Histogram(
    "tailrace_commit_seconds",
    "Time from the begin of a transaction to its commit.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
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
