"""Rows as columns, the form in which models take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from tailrace.avro.columns.categorical_column import CategoricalColumn

Array: TypeAlias = NDArray[Any]

# Numbers, integers and booleans: float64, NaN where missing. Categories: objects, str or None where missing.
Columns: TypeAlias = Mapping[str, Array]

# The same on its way through the scorer, where categories are known by their codes.
Coded: TypeAlias = Array | CategoricalColumn

Kind = TypeVar("Kind", Array, Coded)

BLOCK = 64


def padded(columns: Mapping[str, Kind], rows: int) -> tuple[Mapping[str, Kind], int]:
    """The columns, lengthened to the next multiple of 64 rows by repeating the last one.

    What a row scores depends on the batch that it is in (kernels are chosen by size), but not among batches
    whose size is a multiple of 64.
    """
    more = -rows % BLOCK
    if not more:
        return columns, rows
    return {name: _lengthened(column, more) for name, column in columns.items()}, rows + more


def _lengthened(column: Kind, more: int) -> Kind:
    if isinstance(column, CategoricalColumn):
        return CategoricalColumn(_lengthened(column.codes, more), column.known)
    return np.concatenate([column, np.repeat(column[-1:], more)])


def missing(values: Array) -> Array:
    """Where a column of objects is None."""
    return np.asarray(np.equal(values, None))  # type: ignore[call-overload]


def taken(columns: Mapping[str, Kind], rows: Array) -> dict[str, Kind]:
    """The rows of these numbers (not a mask), of every column."""
    return {name: column.take(rows) for name, column in columns.items()}


def plain(column: Coded) -> Array:
    """A column as a model takes it."""
    return column.objects() if isinstance(column, CategoricalColumn) else column


def coded(column: Coded) -> CategoricalColumn:
    """A column of categories as texts and codes."""
    return column if isinstance(column, CategoricalColumn) else CategoricalColumn.of(column.tolist())


def column_of(values: list[Any], kind: str) -> Array:
    """A column from Python values (None where missing) of a feature of the type ``kind``."""
    if kind == "category":
        column = np.empty(len(values), dtype=np.object_)
        column[:] = values
        return column
    return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)


def values_of(column: Array) -> list[Any]:
    """A column as JSON values, None where missing."""
    if column.dtype == np.object_:
        return [None if v is None else str(v) for v in column]
    return [None if np.isnan(v) else float(v) for v in column]
