"""Columns as a data frame, for the expressions of contracts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from tailrace.models.columns import Array


def frame_of(columns: Mapping[str, Array], kinds: Mapping[str, str]) -> pl.DataFrame:
    """The columns as expressions take them."""
    return pl.DataFrame(
        [_series(name, values, kinds.get(name, "number")) for name, values in columns.items()]
    )


def _series(name: str, values: Array, kind: str) -> pl.Series:
    if values.dtype == np.object_:
        return pl.Series(name, values.tolist(), dtype=pl.String)
    if kind == "boolean":
        known = ~np.isnan(values)
        truth = pl.Series(name, values == 1.0)
        if known.all():
            return truth
        return pl.select(pl.when(pl.Series(known)).then(truth).alias(name)).to_series()
    return pl.Series(name, values)
