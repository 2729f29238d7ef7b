"""Columns of texts of which there are few: the number of each row's text, and the texts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1


class CategoricalColumn(NamedTuple):
    """Texts by their number in ``known``, in which each is there once; -1 where unknown."""

    codes: NDArray[np.int64]
    known: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[str | None]) -> CategoricalColumn:
        known = [value for value in dict.fromkeys(values) if value is not None]
        numbers: dict[str | None, int] = {value: number for number, value in enumerate(known)}
        numbers[None] = UNKNOWN
        codes = np.fromiter(map(numbers.__getitem__, values), dtype=np.int64, count=len(values))
        return cls(codes, tuple(known))

    def take(self, rows: NDArray[Any]) -> CategoricalColumn:
        return CategoricalColumn(self.codes[rows], self.known)

    def filled(self, where: NDArray[np.bool_], value: str) -> CategoricalColumn:
        """With this text in these rows."""
        known = self.known if value in self.known else (*self.known, value)
        return CategoricalColumn(np.where(where, known.index(value), self.codes), known)

    def isin(self, values: Collection[str]) -> NDArray[np.bool_]:
        """Where the text is one of these."""
        return np.array([*(value in values for value in self.known), False]).take(self.codes)

    def in_terms_of(self, known: Sequence[str]) -> NDArray[np.int64]:
        """The codes as numbers in another list of texts; below -1 where the text is not in it."""
        numbers = {value: number for number, value in enumerate(known)}
        table = [numbers.get(value, UNKNOWN - 1) for value in self.known]
        return np.array([*table, UNKNOWN]).take(self.codes)

    def where(self, condition: NDArray[np.bool_], other: CategoricalColumn) -> CategoricalColumn:
        """This where the condition is true, and the other elsewhere."""
        both = tuple(dict.fromkeys(self.known + other.known))
        return CategoricalColumn(np.where(condition, self.in_terms_of(both), other.in_terms_of(both)), both)

    def objects(self) -> NDArray[Any]:
        """The texts themselves, None where unknown."""
        return np.array([*self.known, None], dtype=np.object_).take(self.codes)

    def tolist(self) -> list[str | None]:
        texts: list[str | None] = self.objects().tolist()
        return texts
