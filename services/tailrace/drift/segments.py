"""The groups of rows that drift is judged for: all of them, and those of each value of the contract's ``drift.by``."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from tailrace.avro.columns.decoder import Column
from tailrace.contracts.language.model_contract import ModelContract
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
        if not isinstance(column.values, np.ndarray):
            code_of = {value.encode(): code for code, value in enumerate(self.values)}
            texts = column.values
            return np.fromiter(map(code_of.get, texts, repeat(-1)), np.int64, len(texts))
        codes = np.where(column.values != 0, self.values.index("true"), self.values.index("false"))
        missing = np.isnan(column.values) if column.present is None else ~column.present
        return np.where(missing, -1, codes)


def splits(contract: ModelContract) -> list[Split]:
    """The fields that split the rows of a window, each into segments called FIELD=VALUE."""
    fields: Mapping[str, Any] = {**contract.features, **contract.context}
    found = []
    for name in contract.drift.by:
        values = tuple(fields[name].categories or ("false", "true"))
        found.append(Split(name, tuple(f"{name}={value}" for value in values), values))
    return found


def segment_names(contract: ModelContract) -> list[str]:
    """Every segment, with or without rows."""
    return [ALL, *(name for split in splits(contract) for name in split.names)]
