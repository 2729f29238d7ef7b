"""Runs the model. A row that makes it raise is found by bisection and fails alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tailrace.models.columns import Array, Coded, taken
from tailrace.models.formats.load import LoadedModel
from tailrace.models.predictions import Predictions


@dataclass
class Scored:
    """``outputs`` of all rows (those of failed ones mean nothing), and why each of the ``failed`` rows has
    none.
    """

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
