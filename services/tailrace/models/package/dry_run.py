"""Runs a model on rows of the golden pairs before it serves: how long a request takes, if a full batch fits."""

from __future__ import annotations

import time

import numpy as np

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.columns import taken
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.load import LoadedModel
from tailrace.models.package.golden import read_golden

RUNS = 100
LEAST_RUNS = 10
SECONDS = 0.3


def dry_run(model: LoadedModel, golden: bytes, contract: ModelContract, batch_rows: int) -> None:
    """Answers single requests, then one batch of ``batch_rows``.

    A request's time is the CPU's, so that what else the machine does refuses nothing; its 99th percentile over
    up to 100 requests is held to ``service_levels.latency_p99``. The batch has to fit into the limit of memory, which
    the system enforces, and into the time of the examination.

    Raises:
        PackageRefused: the model is too slow, or raises.
    """
    columns, outputs = read_golden(golden, model.manifest.inputs)
    rows = len(outputs)
    took = []
    began = time.perf_counter()
    for run in range(RUNS):
        row = taken(columns, np.array([run % rows]))
        before = time.process_time()
        model.predict(row, 1)
        took.append(time.process_time() - before)
        if run + 1 >= LEAST_RUNS and time.perf_counter() - began > SECONDS:
            break
    level = contract.service_levels.latency_p99_ms
    p99 = float(np.quantile(took, 0.99, method="higher")) * 1000
    if level is not None and p99 > level:
        took_ms = f"one request takes {p99:.1f} ms of CPU (99th percentile of {len(took)})"
        remedy = "publish a smaller model, or raise the level"
        raise PackageRefused("latency", f"{took_ms}, service_levels.latency_p99 is {level:,} ms: {remedy}")
    model.predict(taken(columns, np.arange(batch_rows) % rows), batch_rows)
