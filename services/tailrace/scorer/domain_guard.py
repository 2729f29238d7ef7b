"""Is a row like anything that the model was trained on? By the distance that travels with the package (see
models/guards/domain.py), with as many false alarms as the contract allows."""

from __future__ import annotations

import numpy as np

import tailrace.models.guards.domain_kernels  # noqa: F401 - at start, so that no request waits for it
from tailrace.contracts.language.sections import Domain
from tailrace.models.formats.load import LoadedModel
from tailrace.models.guards.prediction_sets import DOMAIN
from tailrace.scorer.findings import Finding, Findings
from tailrace.scorer.rows import CheckedRows


def note_domain(notes: Findings, rows: CheckedRows, model: LoadedModel, rule: Domain | None) -> None:
    """Notes each row that is further out than rows like those in training are, and the field that is furthest.

    Nothing is noted where the contract does not ask, or the package is of before it could know.
    """
    known = model.reference.domain if model.reference is not None else None
    if rule is None or known is None or not len(rows):
        return
    inputs, most = model.manifest.inputs, known.distances.at(1.0 - rule.false_alarms)
    distances, furthest = known.measure(rows.columns, len(rows), inputs)
    far = np.flatnonzero(distances > most)
    findings = [
        Finding(DOMAIN, inputs[at].name, f"distance {distance:.6g}, at most {most:.6g} is usual")
        for at, distance in zip(furthest[far].tolist(), distances[far].tolist(), strict=True)
    ]
    notes.add_some(far, findings, np.arange(len(far)), "guarded")
