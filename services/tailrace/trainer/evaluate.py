"""How well models did on the same rows: every metric of METRICS with its 95 % interval."""

from __future__ import annotations

from typing import Any

import numpy as np

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.record_types import EvaluationRecord
from tailrace.models.class_names import class_text
from tailrace.models.columns import Array
from tailrace.models.package.holdout_metrics import holdout_estimates
from tailrace.models.package.table import target_of
from tailrace.models.predictions import Predictions
from tailrace.statistics.metrics import METRICS_OF


def evaluations(
    who: str,
    predictions: Predictions,
    truth: Array,
    contract: ModelContract,
    *,
    template: str | None = None,
    version: int | None = None,
) -> list[EvaluationRecord]:
    """One entry per metric of the contract's task, as a training run records it (see ``training_run.avsc``).

    Args:
        who: candidate, champion, baseline or other.
        predictions: of the rows.
        truth: class texts, or float64 of a regression, by row.
        template: what was trained.
        version: the version's number, where it has one.
    """
    estimates = holdout_estimates(predictions, truth, contract.positive_class)
    return [
        {
            "who": who,
            "template": template,
            "version": version,
            "metric": metric,
            "value": estimates[metric].value,
            "low": estimates[metric].low,
            "high": estimates[metric].high,
            "n": len(truth),
        }
        for metric in METRICS_OF[contract.task]
    ]


def predictions_of(estimator: Any, x: Any, contract: ModelContract) -> Predictions:
    """What a fitted scikit-learn estimator says about the rows of a pandas frame."""
    if contract.task == "regression":
        return Predictions(None, None, np.asarray(estimator.predict(x), dtype=np.float64), ())
    texts = [class_text(c, contract) for c in estimator.classes_]
    return _of_probabilities(np.asarray(estimator.predict_proba(x), dtype=np.float64), texts, contract)


def baseline(train: Array, rows: int, contract: ModelContract) -> Predictions:
    """Knows only the target's distribution in training: its mean, or the share of each class."""
    truth = target_of(train, contract)
    if contract.task == "regression":
        return Predictions(None, None, np.full(rows, float(np.mean(truth))), ())
    shares = [float(np.mean(truth == c)) for c in contract.classes]
    return _of_probabilities(np.tile(shares, (rows, 1)), contract.classes, contract)


def _of_probabilities(probabilities: Array, classes: list[str], contract: ModelContract) -> Predictions:
    positive = contract.positive_class
    score = None if positive is None else probabilities[:, classes.index(positive)]
    return Predictions(probabilities, score, None, tuple(classes))
