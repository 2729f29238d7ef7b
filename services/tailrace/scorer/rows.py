"""Requests on their way: as they were read, as they go through a model, and what guards find about them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.avro.columns.decoder import Column, Ints, Mask
from tailrace.avro.columns.numbering import distinct_numbers
from tailrace.contracts.language.guards.guard import Finding
from tailrace.models.columns import Coded, taken
from tailrace.models.guards.prediction_sets import Uncertainty
from tailrace.scorer.plans import ServingPlan

Flag = Literal["uncertain", "guarded"]


@dataclass
class Requests:
    """Some requests of one model, as columns.

    Attributes:
        at: where in the batch each of them is.
        values: each request in wire format, in the contract's schema, within what holds them all.
        columns: by name, every field of the request schema.
    """

    plan: ServingPlan
    at: Ints
    values: BytesColumn
    columns: dict[str, Column]

    def event_times(self, appended: Ints) -> tuple[Ints, Ints]:
        """The effective event times, in ms, and when each was appended, given that of the batch's messages."""
        at_append = appended[self.at]
        given, present = self.columns[self.plan.contract.event_time.name]
        return given if present is None else np.where(present, given, at_append), at_append

    def take(self, rows: Ints) -> Requests:
        return Requests(
            self.plan,
            self.at[rows],
            self.values.take(rows),
            {name: column.take(rows) for name, column in self.columns.items()},
        )


class Replaced(NamedTuple):
    """A value that was replaced before scoring: by what, as text, and why."""

    field: str
    value: str | None
    reason: str


@dataclass(frozen=True)
class CheckedRows:
    """Requests of one model that keep its contract, and what is to be scored of them, row by row.

    Attributes:
        at: where in the batch each of them is.
        bodies: each request in wire format, in the contract's schema.
        ids, keys: the effective request ids and texts of the key field, UTF-8.
        event_times: the effective ones, in ms.
        columns: features and context: float64 with NaN where missing, texts by their codes.
        replaced: what was replaced, by row.
        impute: where a feature is missing that the contract says to impute.
    """

    plan: ServingPlan
    at: Ints
    bodies: BytesColumn
    ids: BytesColumn
    keys: BytesColumn
    event_times: Ints
    columns: Mapping[str, Coded]
    replaced: Mapping[int, Sequence[Replaced]]
    impute: Mapping[str, Mask]

    def __len__(self) -> int:
        return len(self.event_times)

    def take(self, rows: Ints) -> CheckedRows:
        """Some of the rows, in their order."""
        if len(rows) == len(self):
            return self
        places = np.full(len(self), -1)
        places[rows] = np.arange(len(rows))
        replaced = zip(places[list(self.replaced)].tolist(), self.replaced.values(), strict=True)
        return CheckedRows(
            self.plan,
            self.at[rows],
            self.bodies.take(rows),
            self.ids.take(rows),
            self.keys.take(rows),
            self.event_times[rows],
            taken(self.columns, rows),
            {place: replacements for place, replacements in replaced if place >= 0},
            {name: missing[rows] for name, missing in self.impute.items()},
        )


class Findings:
    """What guards find about some rows. Many rows have the same, so that it is kept once.

    Attributes:
        kinds: the findings that a row may have, in the order of the steps; the first of the kinds is empty.
        which: by row, which of them it is.
        flags: by name, absent where no row has it.
        uncertainty: sets or intervals, where they are known.
    """

    def __init__(self, rows: int) -> None:
        self.kinds: list[tuple[Finding, ...]] = [()]
        self.which: Ints = np.zeros(rows, dtype=np.int64)
        self.flags: dict[str, Mask] = {}
        self.uncertainty: Uncertainty | None = None

    def add(self, by_row: Mapping[int, Finding], flag: Flag | None = None) -> None:
        """Adds a finding about each of these rows, and raises a flag for them."""
        if not by_row:
            return
        rows = np.array(list(by_row), dtype=np.int64)
        numbers = {finding: number for number, finding in enumerate(dict.fromkeys(by_row.values()))}
        findings, which = list(numbers), np.array([numbers[finding] for finding in by_row.values()])
        pairs, kind = distinct_numbers(self.which[rows] * len(findings) + which)
        self.which[rows] = len(self.kinds) + kind
        for pair in pairs.tolist():
            before, finding = divmod(pair, len(findings))
            self.kinds.append((*self.kinds[before], findings[finding]))
        if flag is not None:
            self.flags.setdefault(flag, np.zeros(len(self.which), dtype=np.bool_))[rows] = True

    def take(self, rows: Ints) -> Findings:
        """A copy for some of the rows, in their order."""
        taken = Findings(len(rows))
        taken.kinds, taken.which = list(self.kinds), self.which[rows]
        taken.flags = {name: raised[rows] for name, raised in self.flags.items()}
        taken.uncertainty = None if self.uncertainty is None else self.uncertainty.take(rows)
        return taken


def others(rows: Collection[int], of: int) -> Ints:
    """The rows that are none of these, of so many."""
    is_other = np.ones(of, dtype=np.bool_)
    is_other[list(rows)] = False
    return np.flatnonzero(is_other)
