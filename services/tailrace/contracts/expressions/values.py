"""What expressions are worked out in: columns of numbers, truths and texts, in numpy, in each of which a value may be
unknown. Anything may also be a single value, which is the same in every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tailrace.avro.columns.categorical_column import UNKNOWN, CategoricalColumn

Floats: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]


class TruthColumn(NamedTuple):
    """Where something holds and where it does not; where neither is so, it is unknown (Kleene's logic, as in SQL)."""

    yes: Mask
    no: Mask

    def __and__(self, other: TruthColumn) -> TruthColumn:
        return TruthColumn(self.yes & other.yes, self.no | other.no)

    def __or__(self, other: TruthColumn) -> TruthColumn:
        return TruthColumn(self.yes | other.yes, self.no & other.no)

    def __invert__(self) -> TruthColumn:
        return TruthColumn(self.no, self.yes)


Value: TypeAlias = Floats | TruthColumn | CategoricalColumn


class Columns(Protocol):
    """Where an expression finds its columns, by name; numbers are finite, or NaN where unknown."""

    rows: int

    def number(self, name: str) -> Floats: ...

    def truth(self, name: str) -> TruthColumn: ...

    def text(self, name: str) -> CategoricalColumn: ...


class Arrays:
    """Columns in numpy: float64 for numbers and truths (NaN where unknown), masks, objects (None where unknown), and
    `CategoricalColumn`. Each text column is looked at once, however many expressions read it.
    """

    def __init__(self, columns: Mapping[str, Any], rows: int) -> None:
        self.rows = rows
        self._columns = columns
        self._texts: dict[str, CategoricalColumn] = {}

    def number(self, name: str) -> Floats:
        return finite(self._columns[name])

    def truth(self, name: str) -> TruthColumn:
        values = self._columns[name]
        if values.dtype == np.bool_:
            return TruthColumn(values, ~values)
        return TruthColumn(values == 1.0, values == 0.0)

    def text(self, name: str) -> CategoricalColumn:
        values = self._columns[name]
        if isinstance(values, CategoricalColumn):
            return values
        if name not in self._texts:
            self._texts[name] = CategoricalColumn.of(values.tolist())
        return self._texts[name]


class FrameColumns:
    """The columns of a data frame. Raises polars.exceptions.ColumnNotFoundError for one that is not there."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.rows = frame.height
        self._frame = frame

    def number(self, name: str) -> Floats:
        numbers: Any = self._frame.get_column(name).cast(pl.Float64).to_numpy()
        return finite(numbers)

    def truth(self, name: str) -> TruthColumn:
        values = self._frame.get_column(name).cast(pl.Boolean)
        yes, no = (side.fill_null(False).to_numpy() for side in (values, ~values))
        return TruthColumn(yes, no)

    def text(self, name: str) -> CategoricalColumn:
        return CategoricalColumn.of(self._frame.get_column(name).cast(pl.String).to_list())


def finite(numbers: Floats) -> Floats:
    """The numbers with NaN for what is none."""
    return np.where(np.isfinite(numbers), numbers, np.nan)


def known(value: Value) -> Mask:
    """Where a value is known."""
    match value:
        case TruthColumn():
            return value.yes | value.no
        case CategoricalColumn():
            return value.codes >= 0
    return np.asarray(~np.isnan(value))


def where(condition: Mask, value: Value, other: Value) -> Value:
    """The one value where the condition is true, and the other elsewhere; both are of one kind."""
    if isinstance(value, TruthColumn):
        assert isinstance(other, TruthColumn)
        return TruthColumn(np.where(condition, value.yes, other.yes), np.where(condition, value.no, other.no))
    if isinstance(value, CategoricalColumn):
        assert isinstance(other, CategoricalColumn)
        return value.where(condition, other)
    assert not isinstance(other, TruthColumn | CategoricalColumn)
    return np.where(condition, value, other)


def equal(value: Value, other: Value) -> TruthColumn:
    """Where both are the same; unknown where one of them is."""
    if isinstance(value, TruthColumn):
        assert isinstance(other, TruthColumn)
        return (value & other) | (~value & ~other)
    if isinstance(value, CategoricalColumn):
        assert isinstance(other, CategoricalColumn)
        codes = other.in_terms_of(value.known)
        both = (value.codes != UNKNOWN) & (codes != UNKNOWN)
        same = value.codes == codes
        return TruthColumn(same & both, ~same & both)
    assert not isinstance(other, TruthColumn | CategoricalColumn)
    return TruthColumn(value == other, (value < other) | (value > other))


def series(value: Value, rows: int) -> pl.Series:
    """The value of every row: Float64, Boolean or String, null where unknown."""
    if isinstance(value, CategoricalColumn):
        texts = np.array([*value.known, None], dtype=np.object_)
        return pl.Series(np.broadcast_to(texts[value.codes], rows).tolist(), dtype=pl.String)
    plain = value.yes if isinstance(value, TruthColumn) else value
    is_known, values = (pl.Series(np.broadcast_to(column, rows)) for column in (known(value), plain))
    return pl.select(pl.when(is_known).then(values)).to_series()
