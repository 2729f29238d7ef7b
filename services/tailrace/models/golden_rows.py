"""Chooses the inputs of the golden pairs: rows of the data, and rows at the edges of what the contract
lets in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tailrace.contracts.model_contract import ModelContract
from tailrace.models.columns import Array, Columns, missing
from tailrace.models.manifest import Input

ROWS = 64
FROM_DATA = 32


def golden_rows(
    train: Columns, inputs: tuple[Input, ...], impute: Mapping[str, Any], contract: ModelContract
) -> tuple[Columns, int]:
    """About 64 rows: half evenly spaced rows of the data, half such rows with one feature at an edge
    (smallest, largest, limits of the contract, each category, missing where the model gets to see that)."""
    rows = len(next(iter(train.values())))
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, FROM_DATA)).astype(np.int64))
    base = {i.name: _filled(train[i.name][chosen], i, impute, train[i.name]) for i in inputs}
    edges = list(_round_robin([[(i.name, v) for v in _edges(train[i.name], i, contract)] for i in inputs]))
    edges = edges[: ROWS - len(chosen)]
    columns = {}
    for i in inputs:
        extra = base[i.name][np.arange(len(edges)) % len(chosen)].copy()
        for at, (name, value) in enumerate(edges):
            if name == i.name:
                extra[at] = value
        columns[i.name] = np.concatenate([base[i.name], extra])
    return columns, len(chosen) + len(edges)


def _filled(column: Array, i: Input, impute: Mapping[str, Any], whole: Array) -> Array:
    if i.name not in impute:
        return column
    filled = column.copy()
    filled[missing(column) if i.type == "category" else np.isnan(column)] = impute[i.name]
    return filled


def _edges(column: Array, i: Input, contract: ModelContract) -> list[Any]:
    feature = contract.features[i.name]
    unknown: list[Any] = [None if i.type == "category" else np.nan] if feature.missing == "pass" else []
    if i.type == "category":
        return [*unknown, *i.categories]
    if i.type == "boolean":
        return [*unknown, 0.0, 1.0]
    present = column[~np.isnan(column)]
    found = [float(present.min()), float(present.max())] if len(present) else []
    return [*unknown, *dict.fromkeys([*found, *(b for b in (feature.min, feature.max) if b is not None)])]


def _round_robin(groups: list[list[Any]]) -> Iterator[Any]:
    for at in range(max(map(len, groups), default=0)):
        yield from (group[at] for group in groups if at < len(group))
