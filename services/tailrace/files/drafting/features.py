"""Which columns become features, and of which type; what is left out, with the reason and the way to keep it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from typing import Any

import polars as pl

from tailrace.errors import UsageError
from tailrace.files.drafting.identifiers import identifier_note, why_identifier
from tailrace.files.drafting.times import are_times
from tailrace.files.inference import InferredColumn
from tailrace.files.missing import words_in
from tailrace.files.table import Table

MOST_CATEGORIES = 50
MOST_TOLD = 1_000
"""The most categories that a contract has."""
LONGEST = 200
Say = Callable[[str], None]


def feature(table: Table, name: str, say: Say, keep: bool = False) -> dict[str, Any] | None:
    """The declaration of a feature; None where the column is left out, which is said.

    Args:
        keep: the user wants it, whatever speaks against it.

    Raises:
        UsageError: it is wanted and cannot be a feature.
    """
    column = table.column(name)
    field = declaration(column, MOST_TOLD if keep else MOST_CATEGORIES)
    if not keep and (why := _why_left_out(table, column, field)):
        option = "--feature" if field is not None or _texts(column) <= MOST_TOLD else "--context"
        what = "has it logged and not learned from" if option == "--context" else "keeps it"
        say(f"{name!r} is left out: {why}; `{option} {shlex.quote(name)}` {what}")
        return None
    if field is None:
        raise UsageError(
            f"--feature {name!r}: {_texts(column):,} different texts, or texts of more than {LONGEST} characters, are "
            f"no categories: a contract has at most {MOST_TOLD:,}; --context has them logged"
        )
    say_found(table, column, say)
    if note := identifier_note(column):
        say(note)
    if column.values.null_count():
        field["missing"] = "impute"
    return field


def declaration(column: InferredColumn, most: int = MOST_CATEGORIES) -> dict[str, Any] | None:
    """A column's type, with categories or a bound; None for texts that are no categories."""
    if column.kind == "boolean":
        return {"type": "boolean"}
    if column.kind != "text":
        field: dict[str, Any] = {"type": column.kind}
        least = column.values.min()
        if isinstance(least, int | float) and math.isfinite(least) and least >= 0:
            field["min"] = 0
        return field
    values = column.values.drop_nulls().unique()
    if not 0 < len(values) <= most or values.str.len_chars().max() > LONGEST:  # type: ignore[operator]
        return None
    return {"categories": sorted(values.to_list())}


def say_found(table: Table, column: InferredColumn, say: Say) -> None:
    """What stands for a missing value in a column, and what is no number in it."""
    name = column.values.name
    given = table.frame[name]
    if given.dtype != pl.String or column.kind == "text":
        return
    if words := words_in(given, table.missing.in_numbers(name)):
        say(
            f"{name!r}: {_quoted(words)} {_are(words)} taken for a missing value "
            f"(`--missing {shlex.quote('not:' + words[0])}` makes it a value)"
        )
    if column.odd:
        say(
            f"{name!r} is a column of numbers but for {_quoted(column.odd)}, which {_are(column.odd)} taken for a "
            "missing value; contracts/data says so under missing"
        )


def say_bounds(fields: dict[str, dict[str, Any]], say: Say) -> None:
    """No number below 0 is in the file: what the bound that is drafted for that means."""
    bounded = [name for name, field in fields.items() if "min" in field]
    if bounded:
        say(
            f"min: 0 is drafted for {', '.join(bounded)}, as no value in the file is below: requests with a negative "
            "one become dead letters; take it out where there may be such"
        )


def _why_left_out(table: Table, column: InferredColumn, field: dict[str, Any] | None) -> str:
    values = column.values
    known = values.drop_nulls()
    if known.is_empty():
        return "it has no values"
    if known.n_unique() < 2:
        return "it has the same value in every row"
    if column.kind == "text" and are_times(table.frame[values.name]):
        return f"it holds times; if they say when each row happened, add `--time {shlex.quote(values.name)}`"
    if why := why_identifier(column):
        return why
    if field is None:
        why = f"more than {MOST_CATEGORIES} different texts are no categories"
        return f"{why} ({column.why_text})" if column.why_text else why
    return ""


def _texts(column: InferredColumn) -> int:
    return column.values.drop_nulls().n_unique() if column.kind == "text" else 0


def _are(words: tuple[str, ...] | list[str]) -> str:
    return "is" if len(words) == 1 else "are"


def _quoted(words: tuple[str, ...] | list[str]) -> str:
    shown = ", ".join(repr(word) for word in words[:5])
    return shown + (f" and {len(words) - 5} more" if len(words) > 5 else "")
