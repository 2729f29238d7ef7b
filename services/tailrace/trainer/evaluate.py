"""How well models did on the same rows: every metric with a 95 % interval.

Values are scikit-learn's. Intervals: accuracy by Wilson (1927), AUC by DeLong et al. (1988), means over rows (log
loss, Brier, MAE, bias) and RMSE (through the mean of squares) by the normal approximation, F1 and balanced accuracy by
2,000 bootstrap draws of the table of truth and prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.sections import METRICS_OF, Template
from tailrace.models.class_names import class_text
from tailrace.models.columns import Array
from tailrace.models.package.holdout_metrics import holdout_metrics
from tailrace.models.package.table import target_of
from tailrace.models.predictions import Predictions

Z = 1.959963984540054
DRAWS = 2_000
_LEAST_PROBABILITY = float(np.finfo(np.float64).eps)  # as scikit-learn's log loss

Interval = tuple[float, float]


def evaluations(
    who: str,
    predictions: Predictions,
    truth: Array,
    contract: ModelContract,
    *,
    template: Template | None = None,
    version: int | None = None,
) -> list[dict[str, Any]]:
    """One entry per metric of the contract's task, as a training run records it (see ``training_run.avsc``).

    Args:
        who: candidate, champion, baseline or other.
        predictions: of the rows.
        truth: class texts, or float64 of a regression, by row.
        template: what was trained.
        version: the version's number, where it has one.
    """
    values = holdout_metrics(predictions, truth, contract.positive_class)
    found = []
    for metric in METRICS_OF[contract.task]:
        value = values.get(metric)
        low, high = (None, None) if value is None else interval(metric, predictions, truth, contract)
        low, high = (end if end is not None and math.isfinite(end) else None for end in (low, high))
        found.append(
            {
                "who": who,
                "template": template,
                "version": version,
                "metric": metric,
                "value": value,
                "low": low,
                "high": high,
                "n": len(truth),
            }
        )
    return found


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


def interval(metric: str, predictions: Predictions, truth: Array, contract: ModelContract) -> Interval:
    """The 95 % interval of a metric that is defined on these rows."""
    if metric in ("rmse", "mae", "bias"):
        assert predictions.value is not None
        error = predictions.value - truth
        if metric == "rmse":
            low, high = _mean(error**2)
            return math.sqrt(max(0.0, low)), math.sqrt(high)
        return _mean(np.abs(error) if metric == "mae" else error)
    assert predictions.probabilities is not None
    known = [list(predictions.classes).index(t) for t in truth]
    chosen = predictions.probabilities.argmax(axis=1)
    if metric == "accuracy":
        return _wilson(int(np.sum(chosen == known)), len(truth))
    if metric == "log_loss":
        normal = predictions.probabilities / predictions.probabilities.sum(axis=1, keepdims=True)
        told = normal[np.arange(len(truth)), known]
        return _mean(-np.log(np.clip(told, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)))
    if metric == "brier":
        return _mean(_squares(predictions, truth, np.array(known), contract))
    if metric == "auc":
        assert predictions.score is not None
        return _delong(predictions.score, truth == contract.positive_class)
    score = _balanced if metric == "balanced_accuracy" else _f1
    if metric == "f1" and predictions.score is not None:
        positive, called = truth == contract.positive_class, predictions.score > 0.5
        return _bootstrap(_table(positive.astype(int), called.astype(int), 2), _f1_of_second)
    return _bootstrap(_table(np.array(known), chosen, len(predictions.classes)), score)


def _of_probabilities(probabilities: Array, classes: list[str], contract: ModelContract) -> Predictions:
    positive = contract.positive_class
    score = None if positive is None else probabilities[:, classes.index(positive)]
    return Predictions(probabilities, score, None, tuple(classes))


def _squares(predictions: Predictions, truth: Array, known: Array, contract: ModelContract) -> Array:
    """The Brier score's terms by row."""
    if predictions.score is not None:
        found: Array = (np.clip(predictions.score, 0, 1) - (truth == contract.positive_class)) ** 2
        return found
    assert predictions.probabilities is not None
    one_hot = np.eye(len(predictions.classes))[known]
    return np.asarray(np.sum((predictions.probabilities - one_hot) ** 2, axis=1))


def _mean(terms: Array) -> Interval:
    at, n = float(np.mean(terms)), len(terms)
    half = Z * float(np.std(terms, ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return at - half, at + half


def _wilson(right: int, n: int) -> Interval:
    share, z2 = right / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _delong(score: Array, positive: Array) -> Interval:
    """By the placement values of each row among those of the other class (ties count half)."""
    ranks = stats.rankdata(score)
    ups, downs = ranks[positive], ranks[~positive]
    m, n = len(ups), len(downs)
    above = (ups - stats.rankdata(score[positive])) / n
    below = 1 - (downs - stats.rankdata(score[~positive])) / m
    area = float(np.mean(above))
    spread = (float(np.var(above, ddof=1)) / m if m > 1 else 0.0) + (
        float(np.var(below, ddof=1)) / n if n > 1 else 0.0
    )
    half = Z * math.sqrt(spread)
    return max(0.0, area - half), min(1.0, area + half)


def _table(known: Array, chosen: Array, classes: int) -> Array:
    """Counts by [truth, prediction]."""
    found = np.bincount(known * classes + chosen, minlength=classes * classes)
    return found.reshape(classes, classes)


def _bootstrap(table: Array, score: Callable[[Array], Array]) -> Interval:
    """Drawing rows again is drawing the table from the multinomial distribution of its shares."""
    total = int(table.sum())
    draws = np.random.default_rng(0).multinomial(total, table.ravel() / total, size=DRAWS)
    found = score(draws.reshape(DRAWS, *table.shape))
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


def _balanced(tables: Array) -> Array:
    totals = tables.sum(axis=2)
    right = np.diagonal(tables, axis1=1, axis2=2)
    recall = np.divide(right, totals, out=np.full(totals.shape, np.nan), where=totals > 0)
    found: Array = np.nanmean(recall, axis=1)
    return found


def _f1_by_class(tables: Array) -> Array:
    right = np.diagonal(tables, axis1=1, axis2=2)
    named = tables.sum(axis=2) + tables.sum(axis=1)
    found: Array = np.divide(2 * right, named, out=np.full(named.shape, np.nan), where=named > 0)
    return found


def _f1(tables: Array) -> Array:
    """Macro: a class that neither occurs nor is predicted does not count."""
    found: Array = np.nanmean(_f1_by_class(tables), axis=1)
    return found


def _f1_of_second(tables: Array) -> Array:
    found: Array = np.nan_to_num(_f1_by_class(tables)[:, 1])
    return found
