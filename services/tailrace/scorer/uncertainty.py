"""How sure an answer is: the classes, or the interval, that hold the truth at the contract's coverage.

Split conformal prediction by the quantiles that the package brings (models/guards/conformal.py). A set of one class is
certain; one of several, or of none (every class is less likely than the true ones were), is not. An interval has the
same width for every row, so that none is less certain than another.
"""

from __future__ import annotations

import numpy as np

from tailrace.avro.columns.bytes_kernels import distinct
from tailrace.models.formats.load import LoadedModel
from tailrace.models.guards.prediction_sets import INTERVAL, UNCERTAIN, interval_text, set_text
from tailrace.models.predictions import Predictions
from tailrace.scorer.findings import Finding, Findings


def note_uncertainty(
    notes: Findings, outputs: Predictions, model: LoadedModel, coverage: float | None
) -> None:
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
    classes = len(outputs.classes)
    begins = np.arange(0, within.size, classes)
    begins[within @ np.ones(classes) == 1] = -1
    which, firsts = distinct(within.view(np.uint8).ravel(), begins, begins + classes)
    sets = [set_text(_named(within[row].tolist(), outputs.classes), coverage) for row in firsts.tolist()]
    uncertain = np.flatnonzero(begins >= 0)
    notes.add_some(
        uncertain, [Finding(UNCERTAIN, None, said) for said in sets], which[uncertain], "uncertain"
    )


def _named(inside: list[bool], classes: tuple[str, ...]) -> list[str]:
    return [name for name, is_in in zip(classes, inside, strict=True) if is_in]
