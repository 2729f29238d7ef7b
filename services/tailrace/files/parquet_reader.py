"""Parquet files as columns: texts, numbers, booleans and times, as they are stored."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tailrace.errors import TailraceError

_TEXTS = (pl.Categorical, pl.Enum)


def read_typed(path: Path) -> tuple[pl.DataFrame, list[str]]:
    """The columns of a Parquet file, and what was left out.

    Times are text in ISO 8601, decimals doubles. Columns of lists, structs, bytes and durations are left out, said.

    Raises:
        TailraceError: it cannot be read.
    """
    try:
        frame = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise TailraceError(f"{path}: cannot be read as Parquet: {error}") from None
    columns, notes = [], []
    for series in frame:
        taken = _taken(series)
        if taken is None:
            notes.append(f"{series.name!r} is left out: it holds values of the kind {series.dtype}")
        else:
            columns.append(taken)
    return pl.DataFrame(columns), notes


def _taken(series: pl.Series) -> pl.Series | None:
    kind = series.dtype
    if kind == pl.String or isinstance(kind, _TEXTS):
        return series.cast(pl.String).str.strip_chars().replace("", None)
    if kind == pl.Boolean or kind.is_integer():
        return series
    if kind.is_float() or kind.is_decimal():
        return series.cast(pl.Float64).fill_nan(None)
    if isinstance(kind, pl.Datetime):
        utc = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if kind.time_zone else series
        return utc.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f")
    if kind == pl.Date:
        return series.dt.strftime("%Y-%m-%d")
    return pl.Series(series.name, [None] * len(series), dtype=pl.String) if kind == pl.Null else None
