"""Is an answer one that the model may give? Probabilities are some, and the score's bounds are the contract's."""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import model_validator

from tailrace.contracts.language.fields import Finite, Section
from tailrace.contracts.language.guards.guard import Finding, GuardedRows, ModelGuard

SLACK = 1e-3
"""By how much probabilities may miss 0, 1 and their sum: models compute in single precision, or in half."""


class Range(Section):
    min: Finite | None = None
    """The least score that may be."""
    max: Finite | None = None
    """The largest score that may be."""

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError("min is not below max; exchange them")
        return self


def improper_rows(setting: None, rows: GuardedRows) -> dict[int, Finding]:
    """Rows whose probabilities are none."""
    shares = rows.outputs.probabilities
    if shares is None:
        return {}
    off = np.abs(shares @ np.ones(shares.shape[1]) - 1.0)
    if shares.min(initial=0.0) >= -SLACK and off.max(initial=0.0) <= SLACK:
        return {}
    proper = (shares.min(axis=1) >= -SLACK) & (off <= SLACK)
    return {
        row: Finding("probabilities", None, f"sum to {float(shares[row].sum()):.9g}, or one is below 0")
        for row in np.flatnonzero(~proper).tolist()
    }


def rows_out_of_bounds(bounds: Range, rows: GuardedRows) -> dict[int, Finding]:
    """Rows whose score is beyond its bounds: of several classes the probability of the predicted one, of a
    regression the value.
    """
    if bounds.min is None and bounds.max is None:
        return {}
    outputs = rows.outputs
    scores = outputs.value if outputs.value is not None else outputs.score
    if scores is None:
        scores = outputs.probabilities.max(axis=1)
    low = -np.inf if bounds.min is None else bounds.min
    high = np.inf if bounds.max is None else bounds.max
    return {
        row: Finding("score", None, f"{float(scores[row]):.9g} is not between {low:.6g} and {high:.6g}")
        for row in np.flatnonzero(~((scores >= low) & (scores <= high))).tolist()
    }


PROBABILITIES = ModelGuard(
    "probabilities", None, "outputs", "Probabilities are not below 0, and add up to 1.", improper_rows
)
SCORE = ModelGuard("score", Range, "outputs", "Bounds of the score.", rows_out_of_bounds)
