"""What a version is worth on rows whose truth is known: the metrics of METRICS, with their intervals."""

from __future__ import annotations

import math

import numpy as np
from sklearn.metrics import r2_score

from tailrace.models.columns import Array
from tailrace.models.predictions import Predictions
from tailrace.statistics.count_rows import estimates
from tailrace.statistics.judged_rows import JudgedRows
from tailrace.statistics.metric import BINARY, MULTICLASS, REGRESSION, Estimate


def holdout_metrics(predictions: Predictions, truth: Array, positive: str | None) -> dict[str, float]:
    """The values of `holdout_estimates`, of those that are defined on these rows: an AUC is not, where only one class
    occurs. And what describes the rows: of a regression ``r2``, of two classes ``positive_share``.
    """
    values = {name: each.value for name, each in holdout_estimates(predictions, truth, positive).items()}
    if predictions.value is not None and len(truth) > 1:
        values["r2"] = float(r2_score(truth, predictions.value))
    elif predictions.score is not None:
        values["positive_share"] = float(np.mean(truth == positive))
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def holdout_estimates(predictions: Predictions, truth: Array, positive: str | None) -> dict[str, Estimate]:
    """Metrics of predictions against the truth (class texts, or float64 of a regression), by name.

    ``positive`` is the class whose probability the score is.
    """
    return estimates(_judged(predictions, truth, positive))


def _judged(predictions: Predictions, truth: Array, positive: str | None) -> JudgedRows:
    nothing = np.full(len(truth), np.nan)
    none = np.full(len(truth), -1, dtype=np.int64)
    if predictions.value is not None:
        wide = np.empty((len(truth), 0))
        return JudgedRows(REGRESSION, none, truth, none, nothing, wide, predictions.value, None)
    assert predictions.probabilities is not None
    assert predictions.most_probable is not None
    numbers = {name: number for number, name in enumerate(predictions.classes)}
    return JudgedRows(
        MULTICLASS if predictions.score is None else BINARY,
        np.array([numbers[text] for text in truth], dtype=np.int64),
        nothing,
        predictions.most_probable,
        nothing if predictions.score is None else predictions.score,
        predictions.probabilities,
        nothing,
        None if predictions.score is None or positive is None else numbers[positive],
    )
