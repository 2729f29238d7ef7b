"""Whom the contract's fallback answers so that the latency level is kept: requests that would be answered too late if
the model took them all, and in time if it does not.

A batch is committed as a whole, so that all its requests wait for the slowest. Those that are too late already
have nothing to gain; so a backlog is worked off by the model.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence, Set
from statistics import median

import numpy as np

from tailrace.avro.columns.decoder import Ints
from tailrace.contracts.language.guards.guard import Finding
from tailrace.models.columns import Array
from tailrace.scorer.batch import Batch
from tailrace.scorer.rows import CheckedRows
from tailrace.scorer.steps.route import Route
from tailrace.streaming.processor import Clock

BLOCK = 64
"""Rows that a model takes at a time, at least."""
REMEMBERED = 9
"""Measurements of which the median counts, so that a single pause says nothing."""

_NOBODY = np.empty(0, dtype=np.int64)


class LatencyEstimates:
    """What things have taken lately, in ms: a version for a block of rows, and a batch beside the versions."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, int], deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._besides: deque[float] = deque(maxlen=REMEMBERED)

    def learn(self, batch_ms: float, versions: Mapping[tuple[str, int], tuple[float, int]]) -> None:
        """Takes a batch from its beginning to its commit; of each version, how long it took for how many rows."""
        for which, (took_ms, rows) in versions.items():
            self._blocks[which].append(took_ms / blocks(rows))
        self._besides.append(max(batch_ms - sum(took for took, _ in versions.values()), 0.0))

    def keep(self, versions: Set[tuple[str, int]]) -> None:
        """Forgets versions that are none of these."""
        for gone in self._blocks.keys() - versions:
            del self._blocks[gone]

    @property
    def besides_ms(self) -> float:
        return median(self._besides) if self._besides else 0.0

    def block_ms(self, model: str, version: int) -> float | None:
        """None while the version has not been asked."""
        return median(self._blocks[model, version]) if (model, version) in self._blocks else None


def too_many(ages_ms: Array, level_ms: float, block_ms: float, besides_ms: float) -> Ints:
    """Which of the rows the fallback is to answer, so that the others and they are answered within the level.

    Empty where that would save no more requests from being late than it takes from the model. The model is always
    left a block: a package is held to the level with that many before it serves.

    Args:
        ages_ms: how long each request has been waiting.
        block_ms: what the model takes for a block of rows.
        besides_ms: what a batch takes beside that, up to its commit.
    """
    left_ms = level_ms - besides_ms - ages_ms
    in_time = np.flatnonzero(left_ms >= 0)
    of_all_ms = block_ms * blocks(len(ages_ms))
    if not len(in_time) or left_ms[in_time].min() >= of_all_ms:
        return _NOBODY
    of_late_ms = block_ms * blocks(len(ages_ms) - len(in_time))
    room = int((left_ms[in_time].min() - of_late_ms) / block_ms)
    by_fallback: Ints = in_time[BLOCK * max(room, 1) :]
    of_others_ms = block_ms * blocks(len(ages_ms) - len(by_fallback))
    saved = np.count_nonzero((left_ms[in_time] < of_all_ms) & (left_ms[in_time] >= of_others_ms))
    return by_fallback if len(by_fallback) <= saved else _NOBODY


def blocks(rows: int) -> int:
    return -(-rows // BLOCK)


TOO_SLOW = Finding("latency", None, "the version would have answered too late")


def shed_load(
    batch: Batch, rows: CheckedRows, routes: Sequence[Route], pace: LatencyEstimates, clock: Clock
) -> Iterator[tuple[Route, Finding | None]]:
    """The routes, those of rows apart that the fallback is to answer; the time is taken as each comes up."""
    plan = rows.plan
    level = plan.contract.service_levels.latency_p99_ms
    paces = [pace.block_ms(plan.model, route.version.number) or 0.0 for route in routes]
    for route, block_ms in zip(routes, paces, strict=True):
        if level is not None and plan.has_fallback and block_ms:
            timed = zip(routes, paces, strict=True)
            others = sum(p * blocks(len(each.rows)) for each, p in timed if each is not route)
            since_ms = (clock.perf_ns() - batch.started_ns) / 1e6
            ages = clock.now_ms() - since_ms - batch.append_times[rows.at[route.rows]]
            late = too_many(ages, level, block_ms, pace.besides_ms + others)
            if len(late):
                yield route._replace(rows=route.rows[late]), TOO_SLOW
                route = route._replace(rows=np.delete(route.rows, late))
        if len(route.rows):
            yield route, None
