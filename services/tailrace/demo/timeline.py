"""What the demo sends and when: loans, their labels days later, a clerk's decisions. Pure and seeded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.demo.loans import DAY_MS, known_at, simulate
from tailrace.replay.schedule import LaterRecords

QUIET_DAYS = 40
LEAST_DAYS_AFTER = 145
"""Windows after the change: to see it, to learn from it, for the shadow, and for what comes of it."""
HISTORY_DAYS = 60
HISTORY_ROWS = 6_000
_NEVER_KNOWN = 0.02
_DECIDED_BY_CLERK = 0.05
_UNDECIDED_DAYS = (0.5, 1.5)


@dataclass(frozen=True)
class Timeline:
    """One run of the demo in event time (milliseconds since 1970), which passes ``speed`` times as fast as ours.

    Attributes:
        history: loans with known outcomes from before the start, for the first version.
        loans: those that stream, with ``request_id``, in order of time.
        labels, actions: what becomes known about them, and when; ``done`` are the actions themselves.
    """

    start_ms: int
    change_ms: int
    end_ms: int
    speed: float
    history: pl.DataFrame
    loans: pl.DataFrame
    labels: LaterRecords
    actions: LaterRecords
    done: list[str]


def timeline(contract: ModelContract, seed: int, end_ms: int, seconds: float, rate: int) -> Timeline:
    """A timeline that ends at ``end_ms`` and takes ``seconds`` of wall time at ``rate`` loans a second.

    The change comes at a boundary of windows, so that no window holds something of both worlds.
    """
    grid = max(contract.drift.window_ms, contract.quality.window_ms)
    change = (end_ms - LEAST_DAYS_AFTER * DAY_MS) // grid * grid
    start = change - QUIET_DAYS * DAY_MS
    every = (end_ms - start) / (seconds * rate)
    enough = int(seconds * rate * 1.1) + 100
    loans = simulate(enough, seed, start, every, change).filter(pl.col("applied_at") < end_ms)
    loans = loans.with_columns(pl.lit("credit-").add(pl.col("loan_id")).alias("request_id"))
    draw = np.random.default_rng([seed, 2])
    rows = loans.height
    known = known_at(loans, seed).to_numpy()
    labelled = np.flatnonzero((draw.random(rows) >= _NEVER_KNOWN) & (known < end_ms))
    undecided = (draw.uniform(*_UNDECIDED_DAYS, rows) * DAY_MS).astype(np.int64)
    decided = loans["applied_at"].to_numpy() + undecided
    acted = np.flatnonzero((draw.random(rows) < _DECIDED_BY_CLERK) & (decided < end_ms))
    history_start = start - HISTORY_DAYS * DAY_MS
    return Timeline(
        start_ms=start,
        change_ms=change,
        end_ms=end_ms,
        speed=(end_ms - start) / 1000 / seconds,
        history=simulate(HISTORY_ROWS, seed + 10_000, history_start, HISTORY_DAYS * DAY_MS / HISTORY_ROWS),
        loans=loans,
        labels=LaterRecords(labelled, known[labelled]),
        actions=LaterRecords(acted, decided[acted]),
        done=draw.choice(["approve", "refuse"], len(acted)).tolist(),
    )
