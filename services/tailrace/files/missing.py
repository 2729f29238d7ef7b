"""Words that stand for a missing value."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl
from pydantic import Field

from tailrace.contracts.language.fields import Section

WORDS = ("NA", "N/A", "#N/A", "<NA>", "NaN", "NaT", "null", "None", "?", "-", "\\N")
_NOT = "not:"


class MissingWords(Section):
    """What stands for a missing value in a file, besides empty and blank, which do everywhere."""

    words: list[str] = Field(list(WORDS))
    """In numbers, times and the target, in capitals or small letters; in categories they are values."""
    everywhere: list[str] = Field([])
    """In categories and texts too, as they are written here."""
    columns: dict[str, list[str]] = Field({})
    """In one column only: what is no number in a column of numbers."""

    def in_numbers(self, column: str) -> frozenset[str]:
        return frozenset(word.casefold() for word in (*self.words, *self._of(column)))

    def in_texts(self, column: str) -> frozenset[str]:
        return frozenset(self._of(column))

    def _of(self, column: str) -> list[str]:
        return [*self.everywhere, *self.columns.get(column, ())]


def missing_words(options: Iterable[str]) -> MissingWords:
    """The usual words, changed by options: ``WORD`` is missing everywhere, ``not:WORD`` is a value everywhere."""
    words, everywhere = list(WORDS), []
    for option in options:
        if option.startswith(_NOT):
            kept = option.removeprefix(_NOT).casefold()
            words = [word for word in words if word.casefold() != kept]
        else:
            everywhere.append(option)
    return MissingWords(words=words, everywhere=everywhere)


def without_numbers_words(texts: pl.Series, words: frozenset[str]) -> pl.Series:
    """The texts of a column of numbers, times or truth, null where they say that a value is missing."""
    # polars has no case folding; all known words are the same in small letters.
    is_word = texts.str.to_lowercase().is_in(list(words))
    return texts.set(is_word.fill_null(value=False), None)


def without_words(texts: pl.Series, words: frozenset[str]) -> pl.Series:
    """The texts of a column of categories, null where they say that a value is missing."""
    return texts.set(texts.is_in(list(words)).fill_null(value=False), None) if words else texts


def words_in(texts: pl.Series, words: frozenset[str]) -> list[str]:
    """Which of the words a column has, as it spells them."""
    spelled = texts.drop_nulls().unique()
    return sorted(spelled.filter(spelled.str.to_lowercase().is_in(list(words))).to_list())
