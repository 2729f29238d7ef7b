"""Where each value of a row is counted: the slots of a version's features and outputs, one after the other.

The slots follow from the version's reference alone, so that whoever counts and whoever judges agree on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import TypeAlias

import numpy as np

from tailrace.avro.columns.decoder import Column
from tailrace.models.reference import CategoryProfile, NumberProfile, Reference
from tailrace.statistics.ks import slots_of
from tailrace.statistics.result import Floats, Ints

SCORE, PREDICTED_CLASS = "score", "predicted_class"
MISSING, UNSEEN = 0, 1
"""Slots, counted from a field's first, of what has no value and (categories only) of what training never saw."""


@dataclass(frozen=True)
class NumberSlots:
    """A number: slot 0 where it is missing, then those of `ks.slots_of`."""

    name: str
    is_output: bool
    first: int
    profile: NumberProfile

    @cached_property
    def points(self) -> Floats:
        return np.array(self.profile.points, dtype=np.float64)

    @cached_property
    def reference(self) -> Ints:
        """How often each point is in the reference's sample."""
        return np.array(self.profile.counts, dtype=np.int64)

    @property
    def width(self) -> int:
        return 2 * len(self.profile.points) + 2

    def slots(self, column: Column) -> Ints:
        """The slot of each row's value; of what is no number, that of the missing."""
        if not isinstance(column.values, np.ndarray):
            return np.zeros(len(column.values), dtype=np.int64)
        values = column.values.astype(np.float64, copy=False)
        if column.present is not None:
            values = np.where(column.present, values, np.nan)
        slots = 1 + slots_of(values, self.points)
        slots[np.isnan(values)] = MISSING
        return slots


@dataclass(frozen=True)
class Categories:
    """A category or a boolean: slot 0 where it is missing, 1 where training never saw it, then those that it saw."""

    name: str
    is_output: bool
    first: int
    profile: CategoryProfile

    @cached_property
    def seen(self) -> tuple[str, ...]:
        return tuple(category for category, count in self.profile.counts.items() if count)

    @cached_property
    def reference(self) -> Ints:
        """How often each of ``seen`` is in the reference."""
        return np.array([self.profile.counts[category] for category in self.seen], dtype=np.int64)

    @property
    def width(self) -> int:
        return len(self.seen) + 2

    @cached_property
    def _slot_of(self) -> dict[bytes | None, int]:
        return {None: MISSING} | {category.encode(): 2 + at for at, category in enumerate(self.seen)}

    def slots(self, column: Column) -> Ints:
        """The slot of each row's value."""
        return codes_of(column, self._slot_of, UNSEEN)


def codes_of(column: Column, code_of: Mapping[bytes | None, int], unseen: int) -> Ints:
    """The code of each row's text, or of ``true`` and ``false``: that of None where there is no value."""
    if not isinstance(column.values, np.ndarray):
        texts = column.values
        return np.fromiter(map(code_of.get, texts, repeat(unseen)), np.int64, len(texts))
    false, true = code_of.get(b"false", unseen), code_of.get(b"true", unseen)
    missing = np.isnan(column.values) if column.present is None else ~column.present
    return np.where(missing, code_of[None], np.where(column.values != 0, true, false))


Field: TypeAlias = NumberSlots | Categories


@dataclass(frozen=True)
class SlotLayout:
    """The slots of one package."""

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, reference: Reference, inputs: Sequence[str]) -> SlotLayout:
        """Features in the order of the model's inputs, then its outputs."""
        profiles = [(name, False, reference.features[name]) for name in inputs if name in reference.features]
        outputs = ((SCORE, reference.score), (PREDICTED_CLASS, reference.predicted_class))
        profiles += [(name, True, profile) for name, profile in outputs if profile is not None]
        fields: list[Field] = []
        first = 0
        for name, is_output, profile in profiles:
            if isinstance(profile, NumberProfile):
                fields.append(NumberSlots(name, is_output, first, profile))
            else:
                fields.append(Categories(name, is_output, first, profile))
            first += fields[-1].width
        return cls(tuple(fields))

    @property
    def width(self) -> int:
        """How many slots there are."""
        return sum(field.width for field in self.fields)

    def slots(self, columns: Mapping[str, Column], rows: int) -> list[Ints]:
        """By field the slot of each row; a field without a column is missing everywhere."""
        nothing = np.zeros(rows, dtype=np.int64)
        return [
            field.first + (field.slots(columns[field.name]) if field.name in columns else nothing)
            for field in self.fields
        ]
