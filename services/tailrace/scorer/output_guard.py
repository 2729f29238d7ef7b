"""Is an answer one that the model may give? Its bounds are the contract's, and probabilities are some."""

from __future__ import annotations

import numpy as np

from tailrace.contracts.language.sections import Range
from tailrace.models.guards.prediction_sets import PROBABILITIES, SCORE
from tailrace.models.predictions import Predictions
from tailrace.scorer.findings import Finding

SLACK = 1e-3
"""By how much probabilities may miss 0, 1 and their sum: models compute in single precision, or in half."""


def broken_outputs(outputs: Predictions, bounds: Range | None) -> dict[int, Finding]:
    """What is wrong with the answers, by row.

    Bounds are those of the score, which is the probability of the predicted class where there are several, and of the
    value of a regression.
    """
    found: dict[int, Finding] = {}
    shares = outputs.probabilities
    if shares is not None:
        sums = shares @ np.ones(shares.shape[1])
        off = np.abs(sums - 1.0)
        if not (shares.min(initial=0.0) >= -SLACK and off.max(initial=0.0) <= SLACK):
            proper = (shares.min(axis=1) >= -SLACK) & (off <= SLACK)
            for row in np.flatnonzero(~proper).tolist():
                found[row] = Finding(
                    PROBABILITIES, None, f"sum to {float(shares[row].sum()):.9g}, or one is below 0"
                )
    if bounds is None or (bounds.min is None and bounds.max is None):
        return found
    said = outputs.value if outputs.value is not None else outputs.score
    if said is None:
        assert shares is not None
        said = shares.max(axis=1)
    low = -np.inf if bounds.min is None else bounds.min
    high = np.inf if bounds.max is None else bounds.max
    for row in np.flatnonzero(~((said >= low) & (said <= high))).tolist():
        found.setdefault(
            row, Finding(SCORE, None, f"{float(said[row]):.9g} is not between {low:.6g} and {high:.6g}")
        )
    return found
