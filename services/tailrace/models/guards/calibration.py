"""Calibration: probabilities that mean what they say, by a map that the package brings.

Of a binary model the log-odds are scaled and moved (Platt, "Probabilistic Outputs for Support Vector Machines", 1999);
of one with several classes the log-probabilities are divided by a temperature (Guo et al., "On Calibration of Modern
Neural Networks", 2017). Either keeps the order of rows, a temperature also each row's most probable class.

It is fitted on the earlier half of the rows held out and taken only if it lowers the log loss on the later half, by a
one-sided paired t-test at ``SIGNIFICANCE``: most models need none, and a map that is not needed adds noise.
"""

from __future__ import annotations

import functools
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tailrace.models.columns import BLOCK, Array
from tailrace.models.frozen import Finite, Frozen
from tailrace.models.predictions import Predictions

SIGNIFICANCE = 0.05
LEAST_ROWS = 200
"""Rows held out below which nothing is fitted: half of them fit, half of them judge."""
LEAST_PROBABILITY = 1e-6
"""What is nearer to 0 or 1 counts as this: forests say 0, and one such row would outweigh all others."""
_MOST_STEPS = 100
_CLOSE = 1e-10

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Calibration(Frozen):
    """``sigmoid``: log-odds of the positive class times ``slope`` plus ``offset``. ``temperature``: log-probabilities
    times ``slope``, one over the temperature.

    Attributes:
        rows: how many of the earliest rows held out it was fitted on.
        log_loss_before: on the later rows held out, without it.
        log_loss: on the same rows with it.
    """

    method: Literal["sigmoid", "temperature"]
    slope: Positive
    offset: Finite
    rows: int
    log_loss_before: Finite
    log_loss: Finite

    def apply(self, probabilities: Array, positive: int | None) -> Array:
        """The calibrated probabilities, [rows, classes]. A row comes to the same bits in whatever batch it is.

        Args:
            probabilities: float64 [rows, classes], without NaN.
            positive: number of the positive class of a binary model.
        """
        rows, classes = probabilities.shape
        if self.method == "sigmoid":
            assert positive is not None
            score = _sigmoid(self.slope * _odds(probabilities[:, positive]) + self.offset)
            sides = [1.0 - score, 1.0 - score]
            sides[positive] = score
            return np.column_stack(sides)
        logs = [self.slope * _log(probabilities[:, c]) for c in range(classes)]
        largest = functools.reduce(np.maximum, logs)
        shares = [_exp(log - largest) for log in logs]
        total = np.zeros(rows)
        for share in shares:  # one class after the other, so that the order of the sum is always the same
            total = total + share
        return np.column_stack([share / total for share in shares])


def fit_calibration(predictions: Predictions, truth: Array, positive: str | None) -> Calibration | None:
    """The map for a model with classes, or None where it needs none, or there is too little to tell.

    Args:
        predictions: of rows held out, in the order of time.
        truth: class texts by row.
        positive: the positive class of a binary model.
    """
    probabilities = predictions.probabilities
    if probabilities is None or len(truth) < LEAST_ROWS:
        return None
    place = {name: number for number, name in enumerate(predictions.classes)}
    known = np.array([place[name] for name in truth], dtype=np.int64)
    half = calibration_rows(len(truth))
    first, later = slice(half), slice(half, None)
    at = None if positive is None else place[positive]
    if at is None:
        slope, offset = _fit_temperature(probabilities[first], known[first]), 0.0
    else:
        slope, offset = _fit_sigmoid(_odds(probabilities[first, at]), known[first] == at)
    if not (np.isfinite(slope) and np.isfinite(offset) and slope > 0):
        return None  # the earlier half cannot tell, or says that the order is the wrong way round
    before = _losses(probabilities[later], known[later])
    calibration = Calibration(
        method="sigmoid" if at is not None else "temperature",
        slope=slope,
        offset=offset,
        rows=half,
        log_loss_before=float(before.mean()),
        log_loss=0.0,
    )
    after = _losses(calibration.apply(probabilities[later], at), known[later])
    if not _better(before - after):
        return None
    return calibration.model_copy(update={"log_loss": float(after.mean())})


def calibration_rows(held: int) -> int:
    """How many of the rows held out a calibration is fitted on: the earliest; the others judge."""
    return held // 2


def _better(gains: Array) -> bool:
    from scipy import stats

    spread = gains.std(ddof=1)
    if spread == 0.0:
        return False
    t = gains.mean() / (spread / np.sqrt(len(gains)))
    return bool(stats.t.sf(t, len(gains) - 1) < SIGNIFICANCE)


def _losses(probabilities: Array, known: Array) -> Array:
    likely = np.clip(probabilities[np.arange(len(known)), known], LEAST_PROBABILITY, 1.0)
    return np.asarray(-np.log(likely))


def _fit_sigmoid(odds: Array, positive: Array) -> tuple[float, float]:
    """Slope and offset of the greatest likelihood, with Platt's targets, by Newton's method with halved steps (Lin, Lin
    and Weng, "A Note on Platt's Probabilistic Outputs", 2007).
    """
    ups, downs = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (ups + 1.0) / (ups + 2.0), 1.0 / (downs + 2.0))
    design = np.column_stack([odds, np.ones(len(odds))])
    at = np.array([1.0, 0.0])

    def loss(weights: Array) -> float:
        z = design @ weights
        return float(np.sum(np.logaddexp(0.0, z) - target * z))

    for _ in range(_MOST_STEPS):
        share = _sigmoid(design @ at)
        gradient = design.T @ (share - target)
        curve = (design * (share * (1.0 - share))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(curve, gradient)
        size, now = 1.0, loss(at)
        while loss(at - size * step) > now and size > _CLOSE:
            size /= 2.0
        at = at - size * step
        if np.abs(size * step).max() < _CLOSE:
            break
    return float(at[0]), float(at[1])


def _fit_temperature(probabilities: Array, known: Array) -> float:
    """One over the temperature of the greatest likelihood."""
    from scipy import optimize

    logs = np.log(np.clip(probabilities, LEAST_PROBABILITY, 1.0))

    def loss(log_slope: float) -> float:
        scaled = np.exp(log_slope) * logs
        largest = scaled.max(axis=1)
        total = largest + np.log(np.exp(scaled - largest[:, None]).sum(axis=1))
        return float(np.sum(total - scaled[np.arange(len(known)), known]))

    least = optimize.minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded", options={"xatol": 1e-9})
    return float(np.exp(least.x))


def _log(values: Array) -> Array:
    return elementwise(np.log, np.clip(values, LEAST_PROBABILITY, 1.0))


def _odds(values: Array) -> Array:
    likely = np.clip(values, LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
    return elementwise(np.log, likely) - elementwise(np.log1p, -likely)


def _exp(values: Array) -> Array:
    return elementwise(np.exp, values)


def _sigmoid(odds: Array) -> Array:
    low = _exp(-np.abs(odds))  # never beyond all floats
    return np.asarray(np.where(odds >= 0, 1.0, low) / (1.0 + low))


def elementwise(function: np.ufunc, values: Array) -> Array:
    """The function of each value, to the same bits wherever it stands.

    numpy has kernels of their own for input that lies backwards, or that does not fill a vector: so each gets a
    contiguous array of whole blocks.
    """
    rows = len(values)
    whole = np.zeros(rows + -rows % BLOCK)
    whole[:rows] = values
    with np.errstate(divide="ignore"):  # the log of what fills up the last block
        return np.asarray(function(whole)[:rows])
