"""Notes how sure an answer is, and which answers are uncertain."""

from __future__ import annotations

from tailrace.models.formats.load import LoadedModel
from tailrace.models.guards.prediction_sets import PredictionSets, uncertainty
from tailrace.models.predictions import Predictions
from tailrace.scorer.findings import Findings


def note_uncertainty(
    notes: Findings, outputs: Predictions, model: LoadedModel, coverage: float | None
) -> None:
    """Notes the set or the interval of each answer, and raises the flag of those that are uncertain.

    Nothing is noted where the contract asks for no coverage, or the package is of before it could know.
    """
    quantiles = model.manifest.conformal
    if coverage is None or quantiles is None:
        return
    notes.uncertainty = found = uncertainty(outputs, quantiles, coverage)
    if isinstance(found, PredictionSets) and found.uncertain.any():
        notes.flags["uncertain"] = found.uncertain
