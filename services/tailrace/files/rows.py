"""The rows of a data file as a contract's fields: what train, replay and publish work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from tailrace.contracts.expressions.compiler import ExpressionError, compile_expression, frame_columns
from tailrace.contracts.instants import read_time
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.problems import did_you_mean
from tailrace.errors import TailraceError, UsageError
from tailrace.files.data_mapping import DataMapping
from tailrace.files.instants import (
    ISO,
    find_format,
    read_instants,
    refuse_implausible,
)
from tailrace.files.missing import without_numbers_words, without_words
from tailrace.files.numbers import numbers, whole_numbers
from tailrace.files.table import Table, read_table

DIGEST_LENGTH = 10
_ROW_DIGITS = 7
_BOOLEANS = dict.fromkeys(("true", "t", "yes", "y", "1"), True) | dict.fromkeys(
    ("false", "f", "no", "n", "0"), False
)
_DTYPES: dict[str, Any] = {
    "number": pl.Float64,
    "integer": pl.Int64,
    "boolean": pl.Boolean,
    "category": pl.String,
    "string": pl.String,
}


def request_id_prefix(model: str, digest: str) -> str:
    """What the request ids of a file's rows begin with; the row's number in the file, from 0, comes behind."""
    return f"{model}-{digest[:DIGEST_LENGTH]}-"


def read_rows(
    path: Path,
    mapping: DataMapping | None,
    contract: ModelContract,
    where: str | None = None,
    limit: int | None = None,
    say: Callable[[str], None] = lambda _note: None,
) -> pl.DataFrame:
    """The rows of a file as the contract's fields, in order of event time.

    A row's ``request_id`` names the file's content and the row's number in it: the same row has the same id in training
    and in replay, whatever ``where`` and ``limit`` select, and rows of two files never share one.

    Args:
        path: the file, CSV or Parquet.
        mapping: where the fields are; without one the file's columns must have the contract's names.
        contract: what the fields are.
        where: SQL condition over the file's columns; rows where it is false or unknown are left out.
        limit: the first so many rows in time.
        say: told what was left out.

    Returns:
        request_id (String), the key field (String or Int64) where it is another, the event time (Int64,
        milliseconds since 1970), every feature and context field (Float64, Int64, Boolean, String), and the
        target (Boolean, Float64, String; null where unknown), under the contract's names.

    Raises:
        TailraceError: a column is missing, or a cell is not of its field's type; names file, row and column.
        UsageError: ``where`` is not a valid condition over the file's columns.
    """
    table = read_table(path, mapping.format if mapping else None, mapping.missing if mapping else None)
    for note in table.notes:
        say(note)
    _refuse_other_delimiter(table, mapping)
    if mapping is None:
        mapping = _as_named(table, contract)
    reader = _RowReader(table, mapping, contract)
    selected = reader.condition(where)
    # Of what is left out by the condition nothing needs to be right.
    rows = reader.of(selected)
    undated = rows[contract.event_time.name].null_count()
    if undated:
        say(
            f"{undated} rows have no event time in {mapping.time!r} and are left out: fill it in to keep them"
        )
        rows = rows.filter(pl.col(contract.event_time.name).is_not_null())
    rows = rows.sort(contract.event_time.name, maintain_order=True)
    return rows if limit is None else rows.head(limit)


def _refuse_other_delimiter(table: Table, mapping: DataMapping | None) -> None:
    [first, *others] = table.frame.columns
    if mapping is not None and mapping.format is not None and not others and any(c in first for c in ",;\t|"):
        raise TailraceError(
            f"{table.path}: has one column, {first!r}: is the delimiter {mapping.format.delimiter!r}, as "
            f"contracts/data/{mapping.model}.yaml says?"
        )


def _as_named(table: Table, contract: ModelContract) -> DataMapping:
    """The mapping of a file whose columns have the contract's names."""
    if contract.event_time.name not in table.frame.columns:
        raise TailraceError(
            f"{table.path}: has no column {contract.event_time.name!r} (the event time): "
            f"say in contracts/data/{contract.model}.yaml where the time is, as `tailrace init` writes it"
        )
    known = contract.target.name in table.frame.columns
    # Quoted, since a column may be called like a word of SQL.
    target = f'"{contract.target.name}"' if known else None
    return DataMapping(model=contract.model, target=target, time=contract.event_time.name)


class _RowReader:
    """Turns columns of one file into a contract's fields, and says where that is not possible."""

    def __init__(self, table: Table, mapping: DataMapping, contract: ModelContract) -> None:
        self._table, self._mapping, self._contract = table, mapping, contract
        fields = contract.features | contract.context
        self._column_of = {name: mapping.columns.get(name, name) for name in fields}
        self._kinds: Mapping[str, str] = {name: field.type for name, field in fields.items()}
        self._rows = pl.Series(range(table.frame.height), dtype=pl.Int64)

    def condition(self, where: str | None) -> pl.Series | None:
        """Boolean by row of the file; None where all are wanted."""
        if where is None:
            return None
        frame = self._seen()
        try:
            return compile_expression(where, frame_columns(frame), want="boolean").matches(frame)
        except ExpressionError as error:
            raise UsageError(f"--where {where!r}: {error}") from None

    def of(self, selected: pl.Series | None) -> pl.DataFrame:
        """The contract's fields of the selected rows."""
        contract, mapping = self._contract, self._mapping
        target = self._target()
        if selected is not None:
            self._rows, target = self._rows.filter(selected), target.filter(selected)
        columns = [pl.Series("request_id", self._request_ids())]
        if contract.key.name == "request_id":
            if mapping.key is not None:
                columns = [self._typed("request_id", mapping.key, "string")]
        else:
            key = mapping.key or contract.key.name
            columns.append(self._typed(contract.key.name, key, contract.key.type))
        columns.append(self._times())
        for name, column in self._column_of.items():
            if column not in self._table.frame.columns and name in contract.context:
                empty = [None] * len(self._rows)
                columns.append(pl.Series(name, empty, dtype=_DTYPES[self._kinds[name]]))
            else:
                columns.append(self._typed(name, column, self._kinds[name]))
        return pl.DataFrame([*columns, target])

    def _request_ids(self) -> pl.Series:
        prefix = request_id_prefix(self._contract.model, self._table.digest)
        return prefix + self._rows.cast(pl.String).str.zfill(_ROW_DIGITS)

    def _seen(self) -> pl.DataFrame:
        """The file's columns as expressions see them: what the contract knows by its types, the others as they are."""
        kinds = {self._column_of[name]: kind for name, kind in self._kinds.items()}
        if self._contract.key.name != "request_id":
            kinds.setdefault(self._mapping.key or self._contract.key.name, self._contract.key.type)
        columns = []
        for name in self._table.frame.columns:
            kind = kinds.get(name)
            known = kind in ("category", "string", "number", "integer")
            columns.append(self._converted(name, kind or "") if known else self._table.column(name).values)
        return pl.DataFrame(columns)

    def _typed(self, name: str, column: str, kind: str) -> pl.Series:
        self._require(column)
        given = self._given(column, kind).gather(self._rows)
        converted = self._converted(column, kind).gather(self._rows)
        self._refuse(column, given, converted.is_null() & given.is_not_null(), f"is not of type {kind}")
        return converted.alias(name)

    def _given(self, column: str, kind: str) -> pl.Series:
        """A column as the file has it, null where a value is missing."""
        series, missing = self._table.frame[column], self._table.missing
        if series.dtype != pl.String:
            return series
        if kind in ("category", "string"):
            return without_words(series, missing.in_texts(column))
        return without_numbers_words(series, missing.in_numbers(column))

    def _converted(self, column: str, kind: str) -> pl.Series:
        given = self._given(column, kind)
        if kind in ("category", "string"):
            return _as_text(given)
        if kind == "boolean":
            lowered = _as_text(given).str.to_lowercase()
            return lowered.replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)
        if given.dtype != pl.String:
            converted = given.cast(_DTYPES[kind], strict=False)
            if kind == "integer" and given.dtype.is_float():
                return converted.set(converted.cast(pl.Float64) != given, None)
            return converted
        return (whole_numbers if kind == "integer" else numbers)(given, self._table.numbers)

    def _times(self) -> pl.Series:
        name, mapping = self._contract.event_time.name, self._mapping
        if mapping.every_ms is not None and mapping.start is not None:
            return (self._rows * mapping.every_ms + read_time(mapping.start)).alias(name)
        self._require(column := mapping.time or "")
        texts = _as_text(self._given(column, "number"))
        form = mapping.time_format or find_format(texts) or ISO
        texts = texts.gather(self._rows)
        times = read_instants(texts, form)
        self._refuse(
            column,
            texts,
            times.is_null() & texts.is_not_null(),
            f"is no time of the format {form!r}: say how it is written (--time-format of init, `time_format` in "
            "contracts/data)"
            if form != ISO
            else "is not a time as 1996-05-07T00:00:00Z, or of one format that is known",
        )
        refuse_implausible(times, texts, f"{self._table.path}: column {column!r}", self._rows)
        return times.alias(name)

    def _target(self) -> pl.Series:
        name, kind, target = self._contract.target.name, self._contract.target.type, self._mapping.target
        if target is None:
            return pl.Series(name, [None] * self._table.frame.height, dtype=_DTYPES[kind])
        bare = target.strip('"')
        if bare in self._table.frame.columns:
            return self._truth(name, bare, kind)
        wanted = {"boolean": "boolean", "number": "number", "category": "text"}[kind]
        frame = self._table.truths()
        try:
            expression = compile_expression(target, frame_columns(frame), want=wanted)  # type: ignore[arg-type]
        except ExpressionError as error:
            raise TailraceError(f"{self._table.path}: target {target!r}: {error}") from None
        return expression.evaluate(frame).alias(name)

    def _truth(self, name: str, column: str, kind: str) -> pl.Series:
        """The column that is the truth; words for missing are no truth in it, classes included."""
        if kind != "category":
            return self._typed(name, column, kind)
        series, missing = self._table.frame[column], self._table.missing
        texts = _as_text(series)
        return without_numbers_words(texts, missing.in_numbers(column)).alias(name)

    def _require(self, name: str) -> None:
        if name not in self._table.frame.columns:
            hint = did_you_mean(name, self._table.frame.columns)
            raise TailraceError(f"{self._table.path}: has no column {name!r}; {hint}")

    def _refuse(self, column: str, given: pl.Series, bad: pl.Series, what: str) -> None:
        if bad.any():
            at = bad.arg_max() or 0
            raise TailraceError(
                f"{self._table.path}: row {self._rows[at] + 1}, column {column!r}: {given[at]!r} {what} "
                f"({bad.sum()} such rows); correct the file or the contract, or name it a word for missing in "
                "contracts/data"
            )


def _as_text(series: pl.Series) -> pl.Series:
    """A column as text: 1.0 of Parquet's doubles is ``1``, booleans are ``true`` and ``false``."""
    if series.dtype.is_float():
        texts = series.cast(pl.String)
        whole = (series == series.floor()).fill_null(value=False) & (series.abs() < 2**53).fill_null(
            value=False
        )
        return series.cast(pl.Int64, strict=False).cast(pl.String).zip_with(whole, texts)
    return series if series.dtype == pl.String else series.cast(pl.String)
