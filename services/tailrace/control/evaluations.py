"""The model evaluation store: what each training run found out, folded from ``tailrace.training-runs``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.contracts.records.record_types import TrainingRunRecord
from tailrace.contracts.state.records import ControlRecords
from tailrace.streaming.backends.kafka.reading import read_all


def evaluations(connection: Connection, model: str | None = None) -> list[dict[str, Any]]:
    """What candidates, champions, baselines and other templates were worth on the outcomes held back, run by run.

    One row per run, model and metric: ``model``, ``run``, ``state`` and ``at`` of the run (event time), ``rows`` and
    ``held_back``, ``dataset`` (its digest), then ``who``, ``template``, ``version``, ``metric``, ``value``, ``low`` and
    ``high`` (95 % interval) and ``n``.
    """
    records = ControlRecords.of(connection)
    latest: dict[str, TrainingRunRecord] = {}
    for message in read_all(connection, [lanes.TRAINING_RUNS]):
        record: TrainingRunRecord | None = records.read(message)
        if record is not None and model in (None, record["model"]) and record["evaluations"]:
            latest[record["run_id"]] = record
    runs = sorted(latest.values(), key=lambda run: (run["model"], run["at"]))
    return [
        {
            "model": run["model"],
            "run": run["run_id"],
            "state": run["state"],
            "at": datetime.fromtimestamp(run["at"] / 1000, UTC).isoformat(),
            "rows": run["rows"],
            "held_back": run["held_back"],
            "dataset": run["dataset_digest"],
            **evaluation,
        }
        for run in runs
        for evaluation in run["evaluations"]
    ]
