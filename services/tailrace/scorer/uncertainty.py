"""How sure an answer is: the classes, or the interval, that hold the truth at the contract's coverage.

Split conformal prediction by the quantiles that the package brings (see models/conformal.py). A set of one class is
certain; one of several, or of none (every class is less likely than the true ones were), is not. An interval has the
same width for every row, so that none is less certain than another.
"""

from __future__ import annotations

import numpy as np

from tailrace.models.load import LoadedModel, Predictions
from tailrace.models.prediction_sets import INTERVAL, UNCERTAIN, interval_text, set_text
from tailrace.scorer.notes import Finding, Notes


def note_uncertainty(notes: Notes, outputs: Predictions, model: LoadedModel, coverage: float | None) -> None:
    """Notes the sets that make an answer uncertain, or each answer's interval.

    Nothing is noted where the contract asks for no coverage, or the package is of before it could know.
    """
    quantiles = model.manifest.conformal
    if coverage is None or quantiles is None:
        return
    most = quantiles.at(coverage)
    if outputs.value is not None:
        low, high = (outputs.value - most).tolist(), (outputs.value + most).tolist()
        details = [interval_text(a, b, coverage) for a, b in zip(low, high, strict=True)]
        notes.add({row: Finding(INTERVAL, None, detail) for row, detail in enumerate(details)})
        return
    assert outputs.probabilities is not None
    within = 1.0 - outputs.probabilities <= most
    uncertain = np.flatnonzero(within.sum(axis=1) != 1)
    if not len(uncertain):
        return
    kinds, kind = np.unique(within[uncertain], axis=0, return_inverse=True)
    found = [Finding(UNCERTAIN, None, _said(inside.tolist(), outputs.classes, coverage)) for inside in kinds]
    notes.add(
        {row: found[k] for row, k in zip(uncertain.tolist(), kind.ravel().tolist(), strict=True)}, "uncertain"
    )


def _said(inside: list[bool], classes: tuple[str, ...], coverage: float) -> str:
    named = [name for name, is_in in zip(classes, inside, strict=True) if is_in]
    return set_text(named, coverage)
