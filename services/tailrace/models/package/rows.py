"""Labelled rows, and what a scorer would make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError
from tailrace.models.class_names import ClassNames
from tailrace.models.columns import Array, Columns, missing, taken
from tailrace.models.inputs import Input
from tailrace.models.package.table import columns_of, target_of

LEAST_ROWS = 10


@dataclass(frozen=True)
class LabelledRows:
    """Columns as models are given them, and the truth by row (class texts, or float64 of a regression)."""

    columns: Columns
    truth: Array

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: Array) -> LabelledRows:
        return LabelledRows(taken(self.columns, rows), self.truth[rows])


def labelled(
    x: Any, y: Any, inputs: tuple[Input, ...], contract: ModelContract, names: ClassNames
) -> LabelledRows:
    """What users have, as rows.

    Raises:
        TailraceError: it does not fit the contract, or there are too few.
    """
    columns, truth = columns_of(x, inputs), target_of(y, contract, names)
    rows = len(next(iter(columns.values())))
    if rows != len(truth):
        raise TailraceError(f"X has {rows} rows, y has {len(truth)}")
    if rows < LEAST_ROWS:
        raise TailraceError(f"{rows} rows are too few to judge a model by; {LEAST_ROWS} are the least")
    return LabelledRows(columns, truth)


def impute_values(
    columns: Columns, inputs: tuple[Input, ...], contract: ModelContract
) -> dict[str, float | str]:
    """What stands in for a missing value where the contract imputes: lower median, commonest category.

    Raises:
        TailraceError: no row has a value.
    """
    values: dict[str, float | str] = {}
    for i in inputs:
        if contract.features[i.name].missing != "impute":
            continue
        column = columns[i.name]
        present = np.sort(column[~absent(column, i)])
        if not len(present):
            raise TailraceError(f"{i.name} is to be imputed, and no training row has a value for it")
        if i.type == "category":
            counts = [int(np.sum(present == c)) for c in i.categories]
            values[i.name] = i.categories[int(np.argmax(counts))]
        else:
            values[i.name] = float(present[(len(present) - 1) // 2])
    return values


def imputed(
    columns: Columns, inputs: tuple[Input, ...], impute: Mapping[str, float | str]
) -> dict[str, Array]:
    filled = dict(columns)
    for i in inputs:
        if i.name in impute:
            filled[i.name] = columns[i.name].copy()
            filled[i.name][absent(columns[i.name], i)] = impute[i.name]
    return filled


def servable(
    rows: LabelledRows, inputs: tuple[Input, ...], impute: Mapping[str, float | str], contract: ModelContract
) -> LabelledRows:
    """The rows as a scorer hands them to the model: imputed, without those that miss what must be there.

    Raises:
        TailraceError: no row is left.
    """
    columns = imputed(rows.columns, inputs, impute)
    keep = np.ones(len(rows), dtype=bool)
    for i in inputs:
        if contract.features[i.name].missing == "reject":
            keep &= ~absent(columns[i.name], i)
    if not keep.any():
        raise TailraceError("no row of the holdout has every feature that the contract insists on")
    return LabelledRows(columns, rows.truth).take(np.flatnonzero(keep))


def absent(column: Array, i: Input) -> Array:
    return missing(column) if i.type == "category" else np.isnan(column)
