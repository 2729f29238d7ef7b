"""Answers beside what turned out to be true, row by row, and what each row adds to the means that metrics are made of.

Losses are scikit-learn's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tailrace.statistics.metric import BINARY
from tailrace.statistics.result import Floats, Ints

_EPSILON = np.finfo(np.float64).eps


@dataclass(frozen=True)
class JudgedRows:
    """Attributes:
    task: binary, multiclass or regression.
    classes: number of the true class; -1 where there is none.
    truth: the true value, of a regression.
    chosen: number of the predicted class; -1 where there is none.
    score: probability of the positive class, of a binary model; NaN where there is none.
    probabilities: [rows, classes], of a model of several classes; NaN where there are none.
    value: the predicted value, of a regression; NaN where there is none.
    positive: number of the class that ``score`` is about.
    """

    task: str
    classes: Ints
    truth: Floats
    chosen: Ints
    score: Floats
    probabilities: Floats
    value: Floats
    positive: int | None


def log_loss(rows: JudgedRows) -> Floats:
    """Probabilities are cut at the least step from 0 and from 1; those of several classes are made to add up to 1."""
    if rows.task == BINARY:
        of_truth = np.where(rows.classes == rows.positive, rows.score, 1.0 - rows.score)
    else:
        total = rows.probabilities.sum(axis=1)
        total = np.where(total > 0, total, 1.0)
        of_truth = rows.probabilities[np.arange(len(rows.classes)), rows.classes] / total
    return np.asarray(-np.log(np.clip(of_truth, _EPSILON, 1.0 - _EPSILON)))


def brier(rows: JudgedRows) -> Floats:
    if rows.task == BINARY:
        return np.asarray((np.clip(rows.score, 0.0, 1.0) - (rows.classes == rows.positive)) ** 2)
    one_hot = np.zeros_like(rows.probabilities)
    one_hot[np.arange(len(rows.classes)), rows.classes] = 1.0
    return np.asarray(((rows.probabilities - one_hot) ** 2).sum(axis=1))


def residual(rows: JudgedRows) -> Floats:
    """Infinite where it is beyond all floats."""
    return rows.value - rows.truth


def square(rows: JudgedRows) -> Floats:
    """Infinite where it is beyond all floats."""
    errors = residual(rows)
    return errors * errors
