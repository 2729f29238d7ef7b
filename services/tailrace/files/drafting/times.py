"""When rows happened: a column's format with the first and last instant understood, or an even spacing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import polars as pl

from tailrace.contracts.language.durations import format_duration
from tailrace.errors import UsageError
from tailrace.files.instants import (
    EPOCHS,
    EXCEL,
    find_format,
    format_time,
    read_instants,
    refuse_implausible,
)
from tailrace.files.missing import MissingWords, without_numbers_words, words_in
from tailrace.files.table import Table

_DAY_MS = 86_400_000
_LEAST_SPAN_MS = 14 * _DAY_MS
"""Of a file without times: long enough that labels a day later are known for nearly all rows."""
_SPACINGS_MS = tuple(minutes * 60_000 for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440))


class Spacing(NamedTuple):
    """Rows of a file without times: ``every_ms`` apart, the first at ``start`` (ISO 8601)."""

    every_ms: int
    start: str


def time_format(table: Table, column: str, wanted: str | None, say: Callable[[str], None]) -> str:
    """How a column of times is written; its first and last instant are said.

    Raises:
        UsageError: no format fits every value, or more than one does; names the option.
        TailraceError: an instant is before 1900 or after 2199.
    """
    given = table.frame[column].cast(pl.String)
    texts = without_numbers_words(given, table.missing.in_numbers(column))
    form = wanted or find_format(texts)
    if form is None:
        raise UsageError(_not_understood(column, texts))
    times = read_instants(texts, form)
    wrong = times.is_null() & texts.is_not_null()
    if wrong.any():
        raise UsageError(f"--time-format {form!r} does not fit {texts.filter(wrong)[0]!r} in {column!r}")
    refuse_implausible(times, texts, f"{table.path}: column {column!r}")
    if times.null_count() == len(times):
        raise UsageError(f"--time {column!r} has no values")
    first, last = times.min(), times.max()
    assert isinstance(first, int)
    assert isinstance(last, int)
    say(
        f"{column!r} is read as {form}: the first instant is {format_time(first)}, the last {format_time(last)}"
    )
    if times.null_count():
        words = ", ".join(repr(word) for word in words_in(given, table.missing.in_numbers(column)))
        say(
            f"{times.null_count()} rows have no time in {column!r}{f' ({words})' if words else ''}: train and replay "
            "leave them out; fill the time in to keep them"
        )
    return form


def are_times(series: pl.Series) -> bool:
    """Whether all texts of a column are times; digits alone are not taken for such."""
    words = MissingWords().in_numbers(series.name)
    texts = without_numbers_words(series.cast(pl.String), words)
    known = texts.drop_nulls()
    if known.is_empty() or known.head(20).str.contains(r"^\d+$").any():
        return False
    try:
        return find_format(texts) is not None
    except UsageError:
        return True  # times it holds, though in more than one way


def spacing(rows: int, every_ms: int | None, now_ms: int, say: Callable[[str], None]) -> Spacing:
    """An even spacing of rows that ends now. Without ``every_ms``, the file lasts two weeks or more."""
    every = every_ms or next((ms for ms in _SPACINGS_MS if ms * rows >= _LEAST_SPAN_MS), _SPACINGS_MS[-1])
    start = datetime.fromtimestamp((now_ms - rows * every) // 1000, UTC).isoformat()
    say(
        f"no column of times is named: rows are taken to be {format_duration(every)} apart and to end now "
        "(--time, --every)"
    )
    if rows * every < _DAY_MS:
        say(
            f"the file so lasts {format_duration(rows * every)}: labels that come later than that after their "
            "requests are not known yet when it ends; a longer --every gives it more time"
        )
    return Spacing(every, start)


def _not_understood(column: str, texts: pl.Series) -> str:
    example = texts.drop_nulls()
    shown = repr(example[0]) if len(example) else "nothing"
    numeric = len(example) and example.str.contains(r"^[+-]?\d+(\.\d+)?$").all()
    choices = (
        f"one of {', '.join((*EPOCHS, EXCEL))}, or a pattern such as '%Y%j'"
        if numeric
        else "such as '%d.%m.%Y %H:%M'"
    )
    return (
        f"--time {column!r}: no format of times fits all of its values (the first is {shown}): say how it is written "
        f"with --time-format, {choices}; name what stands for a missing time with --missing"
    )
