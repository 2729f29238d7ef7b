"""The columns of fields as what is counted: numbers, truths and texts. A value of another type is unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.avro.columns.bytes_kernels import distinct
from tailrace.avro.columns.categorical_column import UNKNOWN, CategoricalColumn
from tailrace.avro.columns.decoder import Column
from tailrace.statistics.result import Floats, Ints, Mask

Fields = Mapping[str, Column]
"""By name, those within records with a dot between. Values that make no array are an `ObjectColumn`."""


@dataclass(frozen=True)
class ObjectColumn:
    """Values of any kind, by their number in ``known``; -1 where there is none."""

    codes: Ints
    known: list[Any]

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: Ints) -> ObjectColumn:
        return ObjectColumn(self.codes[rows], self.known)

    def mapped(self, function: Callable[[Any], Any], missing: Any) -> Any:
        """An array of what the function says of each row's value."""
        return np.array([*map(function, self.known), missing])[self.codes]


def column_of(values: Iterable[Any]) -> Column:
    """A column of Python values, None where there is none."""
    known = list(values)
    present = np.array([value is not None for value in known], dtype=np.bool_)
    return Column(ObjectColumn(np.where(present, np.arange(len(known)), UNKNOWN), known), present)


def present(column: Column) -> Mask:
    """Where there is a value."""
    return np.ones(len(column.values), dtype=np.bool_) if column.present is None else column.present


def value_at(column: Column, row: int) -> Any:
    """The value of one row that has one."""
    if isinstance(column.values, ObjectColumn):
        return column.values.known[column.values.codes[row]]
    value = column.values[row]
    return value.decode() if isinstance(value, bytes) else value.item()


def numbers(column: Column) -> Floats:
    """NaN where there is none."""
    values = column.values
    if isinstance(values, ObjectColumn):
        floats: Floats = values.mapped(lambda v: float(v) if isinstance(v, float | int) else np.nan, np.nan)
        return floats
    if not isinstance(values, np.ndarray):
        return np.full(len(values), np.nan)
    return values if column.present is None else np.where(column.present, values, np.nan)


def integers(column: Column) -> Ints:
    """Of a column of integers; -1 where there is none."""
    values = column.values
    if isinstance(values, ObjectColumn):
        values = values.mapped(lambda value: -1 if value is None else value, -1)
    elif column.present is not None:
        values = np.where(column.present, values, -1)
    return np.asarray(values, dtype=np.int64)


def truths(column: Column) -> Floats:
    """1 and 0; NaN where it is neither."""
    values = numbers(column)
    return np.where(np.isnan(values), np.nan, values != 0)


def texts(column: Column) -> CategoricalColumn:
    """Of a column that has few different texts."""
    values = column.values
    if not isinstance(values, BytesColumn):
        return any_texts(column)
    codes, firsts = distinct(values.bytes, values.begins, values.ends)
    return CategoricalColumn(codes, tuple(values[row].decode() for row in firsts.tolist()))


def any_texts(column: Column) -> CategoricalColumn:
    """The same, however many there are."""
    values = column.values
    if isinstance(values, ObjectColumn):
        known = CategoricalColumn.of([value if isinstance(value, str) else None for value in values.known])
        return CategoricalColumn(np.append(known.codes, UNKNOWN)[values.codes], known.known)
    if not isinstance(values, BytesColumn):
        return CategoricalColumn(np.full(len(values), UNKNOWN), ())
    return CategoricalColumn.of([None if text is None else text.decode() for text in values])
