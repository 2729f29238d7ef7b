"""What a column is, told by all of its values and its name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import polars as pl

from tailrace.files.missing import MissingWords, without_numbers_words, without_words
from tailrace.files.numbers import (
    MOST_EXACT,
    NUMBER_SHARE,
    NumberFormat,
    are_whole,
    has_leading_zeros,
    numbers,
    whole_numbers,
)

ColumnKind = Literal["boolean", "integer", "number", "text"]
_BOOLEANS = {"true": True, "false": False}
_MOST_ODD = 20
_IDENTIFIERS = frozenset(
    {
        *(
            "id",
            "ids",
            "code",
            "codes",
            "zip",
            "zipcode",
            "postcode",
            "postal",
            "plz",
            "uuid",
            "guid",
            "iban",
            "ean",
        ),
        *("isbn", "ssn", "phone", "account_number", "sku"),
    }
)


@dataclass(frozen=True)
class InferredColumn:
    """A column and what it is.

    Attributes:
        values: Boolean, Int64, Float64 or String, null where missing.
        kind: what its values are.
        odd: texts in a column of numbers that are none, and so are missing.
        why_text: why a column of digits is text; empty where it is not, or has no digits.
    """

    values: pl.Series
    kind: ColumnKind
    odd: tuple[str, ...] = ()
    why_text: str = ""


def infer(series: pl.Series, missing: MissingWords, form: NumberFormat) -> InferredColumn:
    """What a column of a file is: booleans, whole numbers, numbers, or texts.

    Digits stay text where a number would lose something: a zero in front, what is beyond 2^53, and what its
    name calls a code, zip or id.
    """
    if series.dtype != pl.String:
        return _typed(series)
    texts = without_words(series, missing.in_texts(series.name))
    plain = without_numbers_words(series, missing.in_numbers(series.name))
    known = plain.drop_nulls()
    if known.is_empty():
        return InferredColumn(texts, "text")
    if known.str.to_lowercase().is_in(list(_BOOLEANS)).all():
        lowered = plain.str.to_lowercase()
        values = lowered.replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)
        return InferredColumn(values, "boolean")
    values = numbers(plain, form)
    odd = plain.filter(values.is_null() & plain.is_not_null()).unique(maintain_order=True)
    fitting = len(values) - values.null_count()
    if fitting < NUMBER_SHARE * len(known) or len(odd) > _MOST_ODD:
        return InferredColumn(texts, "text")
    digits = plain.filter(values.is_not_null())
    if why := _why_text(digits, series.name, values, form):
        return InferredColumn(texts, "text", (), why)
    if are_whole(digits, form):
        values = whole_numbers(plain.set(values.is_null(), None), form)
        return InferredColumn(values, "integer", tuple(odd))
    return InferredColumn(values, "number", tuple(odd))


def is_named_identifier(name: str) -> bool:
    """Whether a name ends in what identifiers are called: ``customer_id``, ``zip``, ``countryCode``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    last = re.split(r"[^a-z]+", words.strip("_ .-#0123456789"))
    return bool(last) and (last[-1] in _IDENTIFIERS or "_".join(last[-2:]) in _IDENTIFIERS)


def _why_text(digits: pl.Series, name: str, values: pl.Series, form: NumberFormat) -> str:
    if has_leading_zeros(digits):
        return "its digits begin with zeros"
    if not are_whole(digits, form):
        return ""
    if is_named_identifier(name):
        return "its name says that it identifies something"
    if (values.abs().max() or 0) > MOST_EXACT:  # type: ignore[operator]
        return "its whole numbers are beyond 2^53, where doubles are no longer exact"
    return ""


def _typed(series: pl.Series) -> InferredColumn:
    """A column of Parquet, which knows what it is."""
    if series.dtype == pl.Boolean:
        return InferredColumn(series, "boolean")
    if series.dtype.is_float():
        return InferredColumn(series.set(~series.is_finite().fill_null(value=True), None), "number")
    texts = series.cast(pl.String)
    why = ""
    if is_named_identifier(series.name):
        why = "its name says that it identifies something"
    elif series.cast(pl.Float64).abs().max() is not None and series.cast(pl.Float64).abs().max() > MOST_EXACT:  # type: ignore[operator]
        why = "its whole numbers are beyond 2^53, where doubles are no longer exact"
    if why:
        return InferredColumn(texts, "text", (), why)
    return InferredColumn(series.cast(pl.Int64), "integer")
