"""How the rows of a CSV file become requests and labels of a model: ``contracts/data/MODEL.yaml``.

The contract says what a request is, wherever it comes from; this file says where a CSV file has it.
``tailrace init`` writes it, ``train`` and ``replay`` read it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self

import polars as pl
from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from ruamel.yaml import YAML

from tailrace.contracts.expressions.compiler import ExpressionError, compile_expression, frame_columns
from tailrace.contracts.instants import read_time
from tailrace.contracts.language.durations import Duration
from tailrace.contracts.language.fields import FieldName, Section
from tailrace.contracts.language.model_contract import ModelContract, ModelName
from tailrace.contracts.language.sections import Expression
from tailrace.contracts.language.yaml_file import read_yaml
from tailrace.contracts.problems import did_you_mean
from tailrace.errors import TailraceError, UsageError

_HEADER = "# How rows of a CSV file become requests and labels of this model: for `train` and `replay`.\n"
_BOOLEANS = dict.fromkeys(("true", "t", "yes", "y", "1"), True)
_BOOLEANS |= dict.fromkeys(("false", "f", "no", "n", "0"), False)


def _iso(text: str) -> str:
    return datetime.fromtimestamp(parse_time(text) / 1000, UTC).isoformat().replace("+00:00", "Z")


class DataMapping(Section):
    """Where a CSV file holds what a model's requests and labels need. Column names are the file's."""

    model: ModelName
    target: Expression | None = None
    """The truth, as a SQL expression over the file's columns; None where the file does not know it."""
    time: str | None = None
    """Column of the event time: ISO 8601 (UTC by default), or seconds or milliseconds since 1970."""
    every_ms: Duration | None = Field(None, alias="every")
    """For a file without times: one row each so many milliseconds, the first at ``start``."""
    start: Annotated[str, AfterValidator(_iso), BeforeValidator(str)] | None = None
    key: str | None = None
    """Column of the contract's key; None where it has the key field's name or the key is the request id."""
    columns: dict[FieldName, str] = Field({})
    """The column of a feature or context field, where the names differ."""

    @model_validator(mode="after")
    def _has_times(self) -> Self:
        if (self.time is None) == (self.every_ms is None):
            raise ValueError("has no single source of event times; write either time: COLUMN or every: 30min")
        if (self.every_ms is None) != (self.start is None):
            raise ValueError("every and start belong together; write both or neither")
        return self


def mapping_path(project: Path, model: str) -> Path:
    return project / "contracts" / "data" / f"{model}.yaml"


def load_mapping(path: Path) -> DataMapping:
    """Reads a mapping.

    Raises:
        ContractError: it is not valid; names line and field.
        TailraceError: the file cannot be read.
    """
    return read_yaml(path).parse(DataMapping)


def find_mapping(project: Path, model: str) -> DataMapping | None:
    """The project's mapping for a model; None where there is none and the names have to fit as they are."""
    path = mapping_path(project, model)
    return load_mapping(path) if path.exists() else None


def save_mapping(mapping: DataMapping, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write(_HEADER)
        fields = mapping.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        YAML(typ="rt").dump(fields, file)


def read_csv(path: Path, text_columns: frozenset[str] = frozenset()) -> pl.DataFrame:
    """A CSV file with its types inferred over all rows, ``text_columns`` left as text.

    Raises:
        TailraceError: it cannot be read.
    """
    try:
        header = pl.read_csv(path, n_rows=0).columns
        overrides = {name: pl.String for name in header if name in text_columns}
        frame = pl.read_csv(path, infer_schema_length=None, schema_overrides=overrides)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise TailraceError(f"{path}: cannot be read as CSV: {error}") from None
    return frame.with_columns(pl.col(pl.String).str.strip_chars().replace("", None))


def read_rows(
    csv: Path,
    mapping: DataMapping | None,
    contract: ModelContract,
    where: str | None = None,
    limit: int | None = None,
) -> pl.DataFrame:
    """The rows of a CSV file as the contract's fields, in order of event time.

    A row's ``request_id`` is made of its number in the file, so that the same row has the same id in training
    and in replay, whatever ``where`` and ``limit`` select.

    Args:
        csv: the file.
        mapping: where the fields are; without one the file's columns must have the contract's names.
        contract: what the fields are.
        where: SQL condition over the file's columns; rows where it is false or unknown are left out.
        limit: the first so many rows in time.

    Returns:
        request_id (String), the key field (String or Int64) where it is another, the event time (Int64,
        milliseconds since 1970), every feature and context field (Float64, Int64, Boolean, String), and the
        target (Boolean, Float64, String; null where unknown), under the contract's names.

    Raises:
        TailraceError: a column is missing, or a cell is not of its field's type; names file, row and column.
        UsageError: ``where`` is not a valid condition over the file's columns.
    """
    fields = contract.features | contract.context
    column_of = {name: (mapping.columns.get(name, name) if mapping else name) for name in fields}
    key_column = (mapping.key if mapping else None) or contract.key.name
    as_text = {column_of[name] for name, field in fields.items() if field.type in ("category", "string")}
    if contract.key.type == "string":
        as_text.add(key_column)
    target = mapping.target if mapping else contract.target.name
    if target is not None and contract.target.type == "category":
        as_text.add(target)
    frame = read_csv(csv, frozenset(as_text)).with_row_index("tailrace row")
    if mapping is None:
        mapping = _as_named(csv, frame, contract)
        target = mapping.target
    reader = _Reader(csv, frame)

    columns = [pl.Series("request_id", reader.request_ids(contract.model))]
    if contract.key.name == "request_id":
        if mapping.key is not None:
            columns = [reader.typed("request_id", key_column, "string")]
    else:
        columns.append(reader.typed(contract.key.name, key_column, contract.key.type))
    columns.append(reader.times(contract.event_time.name, mapping))
    for name, field in fields.items():
        if column_of[name] not in frame.columns and name in contract.context:
            columns.append(pl.Series(name, [None] * frame.height, dtype=_DTYPES[field.type]))
        else:
            columns.append(reader.typed(name, column_of[name], field.type))
    columns.append(reader.target(contract, target))

    rows = pl.DataFrame(columns)
    if where is not None:
        try:
            condition = compile_expression(where, frame_columns(frame.drop("tailrace row")), want="boolean")
        except ExpressionError as error:
            raise UsageError(f"--where {where!r}: {error}") from None
        rows = rows.filter(condition.matches(frame))
    rows = rows.sort(contract.event_time.name, maintain_order=True)
    return rows if limit is None else rows.head(limit)


def parse_time(text: str) -> int:
    """Milliseconds since 1970 of an ISO 8601 time; UTC where it names no zone.

    Raises:
        ValueError: the text is no such time.
    """
    return read_time(text)


_DTYPES: dict[str, Any] = {
    "number": pl.Float64,
    "integer": pl.Int64,
    "boolean": pl.Boolean,
    "category": pl.String,
    "string": pl.String,
}


def _as_named(csv: Path, frame: pl.DataFrame, contract: ModelContract) -> DataMapping:
    """The mapping of a file whose columns have the contract's names."""
    if contract.event_time.name not in frame.columns:
        raise TailraceError(
            f"{csv}: has no column {contract.event_time.name!r} (the event time): "
            f"say in contracts/data/{contract.model}.yaml where the time is, as `tailrace init` writes it"
        )
    known = contract.target.name in frame.columns
    # Quoted, since a column may be called like a word of SQL.
    target = f'"{contract.target.name}"' if known else None
    return DataMapping(model=contract.model, target=target, time=contract.event_time.name)


class _Reader:
    """Turns columns of one file into typed fields, and says where that is not possible."""

    def __init__(self, csv: Path, frame: pl.DataFrame) -> None:
        self._csv = csv
        self._frame = frame

    def request_ids(self, model: str) -> pl.Series:
        numbers = self._frame["tailrace row"].cast(pl.String).str.zfill(7)
        return f"{model}-" + numbers

    def typed(self, name: str, column: str, kind: str) -> pl.Series:
        given = self._column(column)
        if kind == "boolean" and given.dtype != pl.Boolean:
            text = given.cast(pl.String).str.to_lowercase()
            converted = text.replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)
        else:
            converted = given.cast(_DTYPES[kind], strict=False)
            if kind == "integer" and given.dtype.is_float():
                converted = converted.set(converted.cast(pl.Float64) != given, None)
        self._refuse(column, given, converted.is_null() & given.is_not_null(), f"is not of type {kind}")
        return converted.alias(name)

    def times(self, name: str, mapping: DataMapping) -> pl.Series:
        if mapping.every_ms is not None and mapping.start is not None:
            first = parse_time(mapping.start)
            return (self._frame["tailrace row"].cast(pl.Int64) * mapping.every_ms + first).alias(name)
        given = self._column(mapping.time or "")
        self._refuse(given.name, given, given.is_null(), "is no time")
        if given.dtype.is_numeric():
            # Seconds until the year 5138 are below 1e11, and milliseconds since 1973 above.
            scale = 1 if (given.abs().max() or 0) >= 1e11 else 1000  # type: ignore[operator]
            return (given.cast(pl.Float64) * scale).round().cast(pl.Int64).alias(name)
        texts = given.cast(pl.String)
        known: dict[str, int | None] = {}
        for text in texts.unique():
            try:
                known[text] = parse_time(text)
            except ValueError:
                known[text] = None
        times = texts.replace_strict(known, return_dtype=pl.Int64)
        self._refuse(given.name, given, times.is_null(), "is not a time as 1996-05-07T00:00:00Z")
        return times.alias(name)

    def target(self, contract: ModelContract, target: str | None) -> pl.Series:
        kind = contract.target.type
        if target is None:
            return pl.Series(contract.target.name, [None] * self._frame.height, dtype=_DTYPES[kind])
        bare = target.strip('"')
        if bare in self._frame.columns:
            return self.typed(contract.target.name, bare, kind)
        wanted = {"boolean": "boolean", "number": "number", "category": "text"}[kind]
        try:
            columns = frame_columns(self._frame.drop("tailrace row"))
            expression = compile_expression(target, columns, want=wanted)  # type: ignore[arg-type]
        except ExpressionError as error:
            raise TailraceError(f"{self._csv}: target {target!r}: {error}") from None
        return expression.evaluate(self._frame).alias(contract.target.name)

    def _column(self, name: str) -> pl.Series:
        if name not in self._frame.columns:
            known = [column for column in self._frame.columns if column != "tailrace row"]
            raise TailraceError(f"{self._csv}: has no column {name!r}; {did_you_mean(name, known)}")
        return self._frame[name]

    def _refuse(self, column: str, given: pl.Series, bad: pl.Series, what: str) -> None:
        if bad.any():
            row = bad.arg_max() or 0
            raise TailraceError(
                f"{self._csv}: row {row + 1}, column {column!r}: {given[row]!r} {what} "
                f"({bad.sum()} such rows); correct the file or the contract"
            )
