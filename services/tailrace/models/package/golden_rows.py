"""Chooses inputs on which models are tried: rows of the data, and rows where something may go wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.columns import Array, Columns
from tailrace.models.inputs import Input
from tailrace.models.package.rows import LabelledRows, absent, imputed

ROWS = 64
FROM_DATA = 32
STRESS_ROWS = 512


def golden_rows(train: Columns, inputs: tuple[Input, ...], contract: ModelContract) -> tuple[Columns, int]:
    """At most 64 rows: half of them evenly spaced rows of the data, half such rows with one feature at an
    edge (smallest, largest, limits of the contract, each category, missing where the model may see that)."""
    rows = len(next(iter(train.values())))
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, FROM_DATA)).astype(np.int64))
    edges = list(_round_robin([[(i.name, v) for v in _edges(train[i.name], i, contract)] for i in inputs]))
    edges = edges[: ROWS - len(chosen)]
    columns = {}
    for i in inputs:
        base = train[i.name][chosen]
        varied = base[np.arange(len(edges)) % len(chosen)]
        for at, (name, value) in enumerate(edges):
            if name == i.name:
                varied[at] = value
        columns[i.name] = np.concatenate([base, varied])
    return columns, len(chosen) + len(edges)


def tried_rows(
    held: LabelledRows,
    train: LabelledRows,
    inputs: tuple[Input, ...],
    impute: Mapping[str, float | str],
    contract: ModelContract,
) -> Columns:
    """Where a conversion is compared with its original: the holdout, edges, and between the values."""
    seen = imputed(train.columns, inputs, impute)
    edges, _ = golden_rows(seen, inputs, contract)
    between = rows_between(seen, inputs, STRESS_ROWS)
    return {i.name: np.concatenate([c[i.name] for c in (held.columns, edges, between)]) for i in inputs}


def rows_between(train: Columns, inputs: tuple[Input, ...], rows: int) -> Columns:
    """Rows whose numbers lie at values of the data and halfway between neighbouring ones, which is where
    trees have their thresholds and where single and double precision part ways. Seeded."""
    draw = np.random.default_rng(0)
    columns = {}
    for i in inputs:
        column = train[i.name]
        if i.type in ("category", "boolean"):
            columns[i.name] = column[draw.integers(0, len(column), rows)]
            continue
        values = np.unique(column[~np.isnan(column)])
        places = np.concatenate([values, (values[1:] + values[:-1]) / 2]) if len(values) else column[:1]
        columns[i.name] = places[draw.integers(0, len(places), rows)]
    return columns


def _edges(column: Array, i: Input, contract: ModelContract) -> list[Any]:
    feature = contract.features[i.name]
    unknown: list[Any] = [None if i.type == "category" else np.nan] if feature.missing == "pass" else []
    if i.type == "category":
        return [*unknown, *i.categories]
    if i.type == "boolean":
        return [*unknown, 0.0, 1.0]
    present = column[~absent(column, i)]
    ends = [float(present.min()), float(present.max())] if len(present) else []
    return [*unknown, *dict.fromkeys([*ends, *(b for b in (feature.min, feature.max) if b is not None)])]


def _round_robin(groups: list[list[Any]]) -> Iterator[Any]:
    for at in range(max(map(len, groups), default=0)):
        yield from (group[at] for group in groups if at < len(group))
