"""Sets rows of a batch apart that the contract's fallback is to answer for the latency level's sake: see latency.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tailrace.scorer.batch import Batch
from tailrace.scorer.contract_steps import steps_of
from tailrace.scorer.findings import Finding
from tailrace.scorer.latency import LatencyEstimates, blocks, too_many
from tailrace.scorer.route import Route
from tailrace.scorer.rows import CheckedRows
from tailrace.streaming.processor import Clock

TOO_SLOW = Finding("latency", None, "the version would have answered too late")


def shed_load(
    work: Batch, rows: CheckedRows, ways: Sequence[Route], pace: LatencyEstimates, clock: Clock
) -> Iterator[tuple[Route, Finding | None]]:
    """The ways, those of rows apart that the fallback is to answer; the time is taken as each way comes up."""
    plan = rows.plan
    level = plan.contract.service_levels.latency_p99_ms
    paces = [pace.block_ms(plan.model, way.version.number) or 0.0 for way in ways]
    for way, block_ms in zip(ways, paces, strict=True):
        if level is not None and steps_of(plan).fallback and block_ms:
            others = sum(p * blocks(len(w.rows)) for w, p in zip(ways, paces, strict=True) if w is not way)
            since_ms = (clock.perf_ns() - work.started_ns) / 1e6
            ages = clock.now_ms() - since_ms - work.append_times[rows.at[way.rows]]
            late = too_many(ages, level, block_ms, pace.besides_ms + others)
            if len(late):
                yield way._replace(rows=way.rows[late]), TOO_SLOW
                way = way._replace(rows=np.delete(way.rows, late))
        if len(way.rows):
            yield way, None
