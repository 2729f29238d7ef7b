"""The groups of rows that drift is judged for: all of them, and those of each value of the contract's ``drift.by``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tailrace.avro.columns.decoder import Column
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.drift.layout import codes_of
from tailrace.statistics.result import Ints

ALL = ""
"""The segment of all rows."""


class Split(NamedTuple):
    """A field and its segments, by the value that a row of each has; rows with none of them are in no segment."""

    field: str
    names: tuple[str, ...]
    values: tuple[str, ...]

    def codes(self, column: Column | None, rows: int) -> Ints:
        """By row the number of its segment, or -1."""
        if column is None:
            return np.full(rows, -1, dtype=np.int64)
        code_of: dict[bytes | None, int] = {value.encode(): code for code, value in enumerate(self.values)}
        return codes_of(column, code_of | {None: -1}, -1)


def splits(contract: ModelContract) -> list[Split]:
    """The fields that split the rows of a window, each into segments called FIELD=VALUE."""
    fields: Mapping[str, Any] = {**contract.features, **contract.context}
    values_of = {name: tuple(fields[name].categories or ("false", "true")) for name in contract.drift.by}
    return [
        Split(name, tuple(f"{name}={value}" for value in values), values)
        for name, values in values_of.items()
    ]


def segment_names(contract: ModelContract) -> list[str]:
    """Every segment, with or without rows."""
    return [ALL, *(name for split in splits(contract) for name in split.names)]
