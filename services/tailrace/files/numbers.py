"""Numbers as people write them: decimal point or comma, thousands apart, a sign of currency or percent around."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

import polars as pl

MOST_EXACT = 2**53
"""Whole numbers up to here are exact as a double."""
NUMBER_SHARE = 0.9
"""A column of so many numbers is one of numbers; what is not a number in it is said."""
_PLAIN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_WHOLE = r"^[+-]?\d+$"
_SIGNS = r"^([+-]?)\s*[$€£¥]\s*|\s*[$€£¥%]$"
_SPACES = " \u00a0\u202f"


class NumberFormat(NamedTuple):
    """How a file writes numbers.

    Attributes:
        decimal: what stands before the decimals.
        thousands: what may stand between groups of three digits; empty: nothing. A space stands for every kind.
    """

    decimal: str = "."
    thousands: str = ""


POINT, COMMA = ".", ","
Decimal = Literal[".", ","]


class FoundFormat(NamedTuple):
    """How a file seems to write numbers, and the columns that could be read otherwise, where none decides."""

    form: NumberFormat
    unsure: list[str]


def numbers(texts: pl.Series, form: NumberFormat) -> pl.Series:
    """The texts as Float64; null where they are no finite number."""
    plain = _plain(texts, form)
    values = plain.set(~plain.str.contains(_PLAIN).fill_null(value=False), None).cast(
        pl.Float64, strict=False
    )
    return values.set(~values.is_finite().fill_null(value=False), None)


def whole_numbers(texts: pl.Series, form: NumberFormat) -> pl.Series:
    """The texts as Int64; null where they are no whole number, or one beyond 2^63."""
    plain = _plain(texts, form).str.replace(r"\.0+$", "")
    plain = plain.set(~plain.str.contains(_WHOLE).fill_null(value=False), None)
    return plain.str.strip_prefix("+").cast(pl.Int64, strict=False)


def are_whole(texts: pl.Series, form: NumberFormat) -> bool:
    """Whether all texts are whole numbers, without decimals."""
    plain = _plain(texts.drop_nulls(), form)
    return bool(plain.str.contains(_WHOLE).all())


def has_leading_zeros(texts: pl.Series) -> bool:
    """Whether a text is digits that begin with a zero, such as 007: a number would lose it."""
    return bool(texts.str.contains(r"^0\d+$").fill_null(value=False).any())


def find_number_format(
    columns: Iterable[pl.Series], delimiter: str, decimal: Decimal | None = None
) -> FoundFormat:
    """How a file writes its numbers, by all columns of texts, words for missing taken out.

    ``decimal`` is what stands before decimals, where it was told. Where a point or comma may mean either, columns of
    which it is sure decide. Where none is, three digits behind a comma are decimals in a file whose delimiter is a
    semicolon, and thousands in any other.
    """
    votes = {POINT: 0, COMMA: 0}
    groups = {POINT: "", COMMA: ""}
    open_columns: list[tuple[pl.Series, dict[str, str | None]]] = []
    for column in columns:
        texts = column.drop_nulls().unique()
        if texts.is_empty() or are_whole(texts, NumberFormat()):
            continue
        fits = {decimal: _best(texts, decimal) for decimal in (POINT, COMMA)}
        sure = [decimal for decimal, best in fits.items() if best is not None]
        if len(sure) == 1:
            votes[sure[0]] += 1
            groups[sure[0]] += fits[sure[0]] or ""
        elif len(sure) == 2:
            open_columns.append((texts, fits))
    is_unsure = decimal is None and votes[POINT] == votes[COMMA]
    chosen = decimal or _decided(votes, [texts for texts, _ in open_columns], delimiter)
    for _, fits in open_columns:
        groups[chosen] += fits[chosen] or ""
    form = NumberFormat(chosen, "".join(sorted(set(groups[chosen]))))
    return FoundFormat(form, [texts.name for texts, _ in open_columns] if is_unsure else [])


def _decided(votes: dict[str, int], unsure: list[pl.Series], delimiter: str) -> str:
    if votes[POINT] != votes[COMMA]:
        return max(votes, key=lambda decimal: votes[decimal])
    if votes[POINT] or delimiter != ";":
        return POINT
    return COMMA if any(texts.str.contains(",", literal=True).any() for texts in unsure) else POINT


def _best(texts: pl.Series, decimal: str) -> str | None:
    """The characters between thousands with which the texts are numbers; None where with none."""
    other = COMMA if decimal == POINT else POINT
    for thousands in ("", other, " ", "'"):
        read = numbers(texts, NumberFormat(decimal, thousands))
        if len(read) - read.null_count() >= NUMBER_SHARE * len(texts):
            # One column that has decimals as well is not to be taken for thousands alone.
            return thousands
    return None


def _plain(texts: pl.Series, form: NumberFormat) -> pl.Series:
    """The texts as a program writes numbers; what is none stays what is none."""
    plain = texts.str.strip_chars().str.replace_all(_SIGNS, "${1}").str.replace("^−", "-")
    decimal = re.escape(form.decimal)
    if form.thousands:
        group = (
            "["
            + re.escape(form.thousands.replace(" ", ""))
            + (_SPACES if " " in form.thousands else "")
            + "]"
        )
        grouped = plain.str.contains(rf"^[+-]?[1-9]\d{{0,2}}({group}\d{{3}})+({decimal}\d*)?$").fill_null(
            value=False
        )
        plain = plain.str.replace_all(group, "").zip_with(grouped, plain)
    if form.decimal == COMMA:
        # A point that is still there is none of this format's, so the text is no number.
        plain = plain.str.replace_all(".", "_", literal=True).str.replace(",", ".", literal=True)
    return plain
