"""Requests on their way: as they were read, and as they go through a model once they passed the checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.avro.columns.decoder import Column, Ints, Mask
from tailrace.models.columns import Coded, taken
from tailrace.scorer.contract_plan import ServingPlan


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
            {place: some for place, some in replaced if place >= 0},
            {name: missing[rows] for name, missing in self.impute.items()},
        )
