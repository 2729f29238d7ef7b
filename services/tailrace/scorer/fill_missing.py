"""Fills in what is missing, by the values that travel with the package."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tailrace.avro.columns.categorical_column import CategoricalColumn
from tailrace.models.formats.load import LoadedModel
from tailrace.scorer.rows import CheckedRows, Replaced


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
    replaced = {row: list(some) for row, some in rows.replaced.items()}
    for name, missing in filled.items():
        value = values[name]
        column = columns[name]
        columns[name] = (
            column.filled(missing, str(value))
            if isinstance(column, CategoricalColumn)
            else np.where(missing, value, column)
        )
        text = value if isinstance(value, str) else repr(float(value))
        for row in np.flatnonzero(missing).tolist():
            replaced.setdefault(row, []).append(Replaced(name, text, "missing"))
    return replace(rows, columns=columns, replaced=replaced)
