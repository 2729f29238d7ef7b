"""From what the model says to probabilities that mean it, by the map that the package brings (see
models/guards/calibration.py)."""

from __future__ import annotations

from tailrace.models.formats.load import LoadedModel
from tailrace.models.predictions import Predictions


def calibrate(outputs: Predictions, model: LoadedModel) -> Predictions:
    """The calibrated outputs of a model, those that its output guard lets pass; as they are where it has no map."""
    if model.manifest.calibration is None or outputs.probabilities is None:
        return outputs
    return model.predictions(model.calibrated(outputs.probabilities))
