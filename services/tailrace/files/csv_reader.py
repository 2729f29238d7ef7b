"""CSV files as columns of texts. DuckDB finds delimiter, quotes and what stands before the header, and reads."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from tailrace.errors import TailraceError

if TYPE_CHECKING:
    import duckdb

MOST_LEFT_OUT = 0.1
_LONGEST_LINE = 100_000_000
_SHOWN = 10
_UNCLOSED = "UNQUOTED VALUE"


class Dialect(NamedTuple):
    """How a CSV file sets its values apart; ``skip`` lines stand before the header."""

    delimiter: str = ","
    quote: str = '"'
    escape: str = '"'
    skip: int = 0


@dataclass(frozen=True)
class TextTable:
    """What was read.

    Attributes:
        frame: texts without the spaces around them, null where empty; columns named once each.
        dialect: how it was read.
        notes: rows and lines that were left out, and columns that were named anew, for people.
    """

    frame: pl.DataFrame
    dialect: Dialect
    notes: list[str]


def read_texts(text: Path, name: Path, dialect: Dialect | None = None) -> TextTable:
    """All rows of a CSV file as texts.

    Args:
        text: UTF-8 (see contents.py).
        name: the file as people know it.
        dialect: as it was found before; else it is found.

    Raises:
        TailraceError: it has no header, a quote is left open, or too many rows have another number of values.
    """
    import duckdb

    connection = _shut_in(text)
    try:
        dialect = dialect or _sniff(connection, text)
        header = _header(connection, text, dialect, name)
        columns = _distinct([cell.strip() for cell in header])
        frame = _read(connection, text, dialect, columns)
        rejected = connection.execute(
            "SELECT DISTINCT line_byte_position, error_type FROM reject_errors ORDER BY ALL"
        ).fetchall()
    except duckdb.Error as error:
        raise TailraceError(f"{name}: cannot be read as CSV: {str(error).splitlines()[0]}") from None
    finally:
        connection.close()
    _refuse_unclosed(text, name, rejected)
    _refuse_without_header(frame, name, columns)
    notes = [*_said_skipped(text, dialect), *_said_renamed(header, columns)]
    return TextTable(frame, dialect, notes + _said_left_out(text, name, rejected, frame.height))


def _shut_in(text: Path) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that reads this file and nothing else, here or elsewhere."""
    import duckdb

    options = ("autoinstall_known_extensions", "autoload_known_extensions", "python_enable_replacements")
    connection = duckdb.connect(":memory:", config=dict.fromkeys(options, "false"))
    connection.execute(f"SET allowed_paths = [{_literal(str(text))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _sniff(connection: Any, text: Path) -> Dialect:
    import duckdb

    # One row too long makes the whole file a single column, unless errors are passed over; then again the sniffer
    # does not see what stands before a header.
    for passing in ("", "ignore_errors = true, "):
        query = (
            f"SELECT Delimiter, Quote, Escape, SkipRows, len(Columns) FROM sniff_csv(?, {passing}"  # noqa: S608
            "all_varchar = true)"
        )
        try:
            [(delimiter, quote, escape, skip, width)] = connection.execute(query, [str(text)]).fetchall()
        except duckdb.Error:
            if passing:
                raise
            continue
        if width > 1 and int(skip) <= _most_skipped(text):
            break
    usual = {"(empty)": '"', "": '"'}
    return Dialect(delimiter, usual.get(quote, quote), usual.get(escape, escape), int(skip))


def _most_skipped(text: Path) -> int:
    """How many lines may stand before a header: beyond it, the sniffer took one row too long for the header."""
    with text.open("rb") as file:
        return max(3, file.read(1 << 20).count(b"\n") // 10)


def _header(connection: Any, text: Path, dialect: Dialect, name: Path) -> list[str]:
    # As the only column, so that a header of any width is read.
    with text.open(encoding="utf-8", newline="") as lines:
        for _ in range(dialect.skip):
            lines.readline()
        reader = csv.reader(
            lines, delimiter=dialect.delimiter, quotechar=dialect.quote, skipinitialspace=True
        )
        names = next((row for row in reader if any(cell.strip() for cell in row)), None)
    if names is None:
        raise TailraceError(f"{name}: has no rows")
    # A delimiter at the end of every line makes no column.
    while len(names) > 1 and not names[-1].strip():
        names.pop()
    return names


def _read(connection: Any, text: Path, dialect: Dialect, columns: list[str]) -> pl.DataFrame:
    types = ", ".join(f"{_literal(column)}: 'VARCHAR'" for column in columns)
    relation = connection.sql(
        f"SELECT * FROM read_csv(?, auto_detect = false, all_varchar = true, columns = {{{types}}}, "  # noqa: S608
        f"delim = {_literal(dialect.delimiter)}, quote = {_literal(dialect.quote)}, "
        f"escape = {_literal(dialect.escape)}, skip = {dialect.skip}, header = true, comment = '', "
        f"store_rejects = true, max_line_size = {_LONGEST_LINE})",
        params=[str(text)],
    )
    frame = pl.from_arrow(relation.to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    frame = frame.rename(dict(zip(frame.columns, columns, strict=True)))
    frame = frame.with_columns(pl.col(pl.String).str.strip_chars().replace("", None))
    return frame.filter(~pl.all_horizontal(pl.all().is_null()))


def _distinct(header: list[str]) -> list[str]:
    """Each name once: the second ``a`` is ``a_2``, and the third column without a name ``column_3``."""
    columns: list[str] = []
    for place, cell in enumerate(header, 1):
        wanted = cell or f"column_{place}"
        candidate, number = wanted, 2
        while candidate.lower() in {column.lower() for column in columns}:
            candidate, number = f"{wanted}_{number}", number + 1
        columns.append(candidate)
    return columns


def _said_renamed(header: list[str], columns: list[str]) -> list[str]:
    renamed = [
        f"{cell.strip() or 'a column without a name'!r} is called {column!r}"
        for cell, column in zip(header, columns, strict=True)
        if cell.strip() != column
    ]
    return [f"the header names columns twice or not at all: {', '.join(renamed)}"] if renamed else []


def _said_skipped(text: Path, dialect: Dialect) -> list[str]:
    if not dialect.skip:
        return []
    with text.open(encoding="utf-8") as lines:
        first = lines.readline().strip()
    return [f"{dialect.skip} lines before the header are passed over; the first is {first[:60]!r}"]


def _refuse_unclosed(text: Path, name: Path, rejected: list[tuple[int, str]]) -> None:
    unclosed = [at for at, kind in rejected if kind == _UNCLOSED]
    if unclosed:
        raise TailraceError(
            f"{name}: line {_line(text, unclosed[0])}: a quote is opened and not closed before the next delimiter: "
            'write a quote within a value twice ("")'
        )


def _refuse_without_header(frame: pl.DataFrame, name: Path, columns: list[str]) -> None:
    """A header of numbers above columns of numbers is a row of data."""
    head = frame.head(1_000)
    over = [
        column
        for column in columns
        if head[column].drop_nulls().len() and head[column].drop_nulls().str.contains(r"^[+-]?[\d.,]+$").all()
    ]
    if over and all(column[:1].isdigit() or column[:1] in "+-." for column in over):
        raise TailraceError(
            f"{name}: has no header: its first line is {', '.join(columns[:5])!r}; write the columns' names above it"
        )


def _said_left_out(text: Path, name: Path, rejected: list[tuple[int, str]], rows: int) -> list[str]:
    places = sorted({at for at, _ in rejected})
    if not places:
        return []
    lines = ", ".join(str(_line(text, at)) for at in places[:_SHOWN])
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    what = f"{len(places)} rows have more or fewer values than the header has names: lines {lines}{more}"
    if len(places) > MOST_LEFT_OUT * (rows + len(places)):
        raise TailraceError(f"{name}: {what}; correct them, or the delimiter in contracts/data")
    return [f"{what}. They are left out; correct them in the file to keep them"]


def _line(text: Path, position: int) -> int:
    """The number of the line, from 1, in which a byte is."""
    with text.open("rb") as file:
        before = file.read(max(position - 1, 0))
        # DuckDB has a line begin between the two characters of the end before it.
        if before.endswith(b"\r") and file.read(1) == b"\n":
            before += b"\n"
    return (before.count(b"\n") or before.count(b"\r")) + 1


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
