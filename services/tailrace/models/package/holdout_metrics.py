"""Holdout metrics, as scikit-learn computes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn import metrics as sk

from tailrace.models.columns import Array
from tailrace.models.predictions import Predictions


def holdout_metrics(predictions: Predictions, truth: Array, positive: str | None) -> dict[str, float]:
    """Metrics of predictions against the truth (class texts, or float64 of a regression).

    ``positive`` is the class whose probability the score is. A metric that is not defined on these rows (an
    AUC where only one class occurs) is left out.
    """
    if predictions.value is not None:
        found = {
            "rmse": math.sqrt(sk.mean_squared_error(truth, predictions.value)),
            "mae": sk.mean_absolute_error(truth, predictions.value),
            "bias": float(np.mean(predictions.value - truth)),
        }
        if len(truth) > 1:
            found["r2"] = sk.r2_score(truth, predictions.value)
        return _finite(found)
    assert predictions.probabilities is not None
    classes = list(predictions.classes)
    expected = np.array([classes.index(t) for t in truth])
    chosen = predictions.probabilities.argmax(axis=1)
    found = {
        "accuracy": sk.accuracy_score(expected, chosen),
        "balanced_accuracy": _balanced_accuracy(expected, chosen),
        "log_loss": sk.log_loss(expected, _normal(predictions.probabilities), labels=range(len(classes))),
    }
    if predictions.score is not None:
        found |= _binary(truth == positive, predictions.score)
    else:
        one_hot = np.eye(len(classes))[expected]
        found["brier"] = float(np.mean(np.sum((predictions.probabilities - one_hot) ** 2, axis=1)))
        found["f1"] = sk.f1_score(expected, chosen, average="macro", zero_division=0)
    return _finite(found)


def _binary(positive: Array, score: Array) -> dict[str, float]:
    found = {
        "brier": sk.brier_score_loss(positive, np.clip(score, 0, 1)),
        "f1": sk.f1_score(positive, score > 0.5, zero_division=0),
        "positive_share": float(np.mean(positive)),
    }
    if positive.any() and not positive.all():
        found["auc"] = sk.roc_auc_score(positive, score)
    return found


def _balanced_accuracy(expected: Array, chosen: Array) -> float:
    """Mean recall over the classes that occur."""
    return float(np.mean([np.mean(chosen[expected == c] == c) for c in np.unique(expected)]))


def _normal(probabilities: Array) -> Array:
    """Probabilities that add up to 1; single-precision models miss it by some 1e-7."""
    total: Array = np.sum(probabilities, axis=1, keepdims=True)
    normal: Array = probabilities / np.where(total > 0, total, 1.0)
    return normal


def _finite(found: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}
