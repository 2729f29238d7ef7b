"""Columns that name rows rather than describe them: row numbers, and texts of which hardly two are the same."""

from __future__ import annotations

import polars as pl

from tailrace.files.inference import InferredColumn

LEAST_ROWS = 20
"""In a smaller file values are different by chance."""
NEAR_UNIQUE = 0.9


def why_identifier(column: InferredColumn) -> str:
    """Why a column is taken to identify rows; empty where it is not."""
    values = column.values
    if len(values) < LEAST_ROWS:
        return ""
    if column.kind == "integer" and _are_consecutive(values):
        return "its values are the rows' numbers"
    if column.kind == "text" and _is_near_unique(values):
        why = "nearly every row has a value of its own"
        return f"{why}, and {column.why_text}" if column.why_text else why
    return ""


def identifier_note(column: InferredColumn) -> str:
    """A word about whole numbers that may be identifiers and are kept; empty where they are not like that."""
    values = column.values
    if len(values) < LEAST_ROWS or column.kind != "integer" or not _is_near_unique(values):
        return ""
    return (
        f"{values.name!r} is kept as a number, though nearly every row has one of its own: if it identifies something, "
        "take it out of the contract"
    )


def _are_consecutive(values: pl.Series) -> bool:
    if values.null_count() or values.n_unique() < len(values):
        return False
    least, most = values.min(), values.max()
    return isinstance(least, int) and isinstance(most, int) and most - least == len(values) - 1


def _is_near_unique(values: pl.Series) -> bool:
    known = values.drop_nulls()
    return len(known) >= LEAST_ROWS and known.n_unique() >= NEAR_UNIQUE * len(known)
