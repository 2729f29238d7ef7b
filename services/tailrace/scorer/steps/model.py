"""The version at work: the package's values fill in what is missing, the model runs, and the package's map makes its
probabilities mean what they say (models/guards/calibration.py).

A row that makes the model raise is found by bisection and fails alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tailrace.avro.columns.categorical_column import CategoricalColumn
from tailrace.contracts.language.guards.guard import Finding
from tailrace.models.columns import Array, Coded, taken
from tailrace.models.formats.load import LoadedModel
from tailrace.models.predictions import Predictions
from tailrace.scorer.routed_rows import RoutedRows
from tailrace.scorer.rows import CheckedRows, Replaced


def fill_in(routed: RoutedRows) -> None:
    routed.rows = fill_missing(routed.received, routed.model)


def run_model(routed: RoutedRows) -> None:
    routed.outputs, failed = score(routed.model, routed.rows.columns, len(routed))
    routed.failed = {row: Finding("model", None, why) for row, why in failed.items()}


def run_timed(routed: RoutedRows) -> None:
    """Runs the model, and takes how long that took."""
    assert routed.version is not None
    began = routed.clock.perf_ns()
    run_model(routed)
    took_ms = (routed.clock.perf_ns() - began) / 1e6
    routed.batch.time(routed.plan.model, routed.version.number, took_ms, len(routed))


def calibrate(routed: RoutedRows) -> None:
    """Only what the guards of outputs let pass; as it is where the package has no map."""
    probabilities = routed.outputs.probabilities
    if routed.model.manifest.calibration is not None and probabilities is not None:
        routed.outputs = routed.model.predictions(routed.model.calibrated(probabilities))


class Scored(NamedTuple):
    """``outputs`` of all rows (those of failed ones mean nothing), and why each of the ``failed`` rows has none."""

    outputs: Predictions
    failed: dict[int, str]


def score(model: LoadedModel, columns: Mapping[str, Coded], rows: int) -> Scored:
    """Scores a batch. A row scores the same bits in whatever batch it is (see models/columns.py)."""
    inputs = {name: columns[name] for name in model.input_names}
    failed: dict[int, str] = {}
    outputs = np.full((rows, len(model.manifest.classes) or 1), np.nan)
    _bisect(model, inputs, np.arange(rows), outputs, failed)
    if not np.isfinite(outputs).all():
        for row in np.flatnonzero(~np.isfinite(outputs).all(axis=1)).tolist():
            failed.setdefault(row, "the model's output is not a finite number")
    return Scored(model.predictions(outputs), failed)


def _bisect(
    model: LoadedModel, columns: Mapping[str, Coded], rows: Array, outputs: Array, failed: dict[int, str]
) -> None:
    try:
        outputs[rows] = model.outputs(columns, len(rows))
    except MemoryError:  # says nothing about a row
        raise
    except Exception as error:  # whatever a model raises
        if len(rows) == 1:
            failed[int(rows[0])] = f"the model raises {type(error).__name__}: {error}"[:500]
            return
        middle = len(rows) // 2
        for half in (np.arange(middle), np.arange(middle, len(rows))):
            _bisect(model, taken(columns, half), rows[half], outputs, failed)


def fill_missing(rows: CheckedRows, model: LoadedModel) -> CheckedRows:
    """The rows with the package's value wherever the contract says ``missing: impute``.

    A feature that this version does not read stays missing. The rows given are left as they are, since other
    versions may score them too.
    """
    values = model.manifest.impute
    filled = {name: missing for name, missing in rows.impute.items() if name in values and missing.any()}
    if not filled:
        return rows
    columns = dict(rows.columns)
    replaced = {row: list(replacements) for row, replacements in rows.replaced.items()}
    for name, missing in filled.items():
        value, column = values[name], columns[name]
        if isinstance(column, CategoricalColumn):
            columns[name] = column.filled(missing, str(value))
        else:
            columns[name] = np.where(missing, value, column)
        text = value if isinstance(value, str) else repr(float(value))
        for row in np.flatnonzero(missing).tolist():
            replaced.setdefault(row, []).append(Replaced(name, text, "missing"))
    return replace(rows, columns=columns, replaced=replaced)
