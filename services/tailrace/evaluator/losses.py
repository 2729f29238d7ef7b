"""What each row adds to the sums behind the metrics, as scikit-learn defines them."""

from __future__ import annotations

import numpy as np

from tailrace.evaluator.arrays import Floats, Ints, Mask
from tailrace.evaluator.rows import LoggedAnswers

_EPSILON = np.finfo(np.float64).eps


def row_losses(
    task: str, answers: LoggedAnswers, classes: Ints, positive: Mask, values: Floats
) -> dict[str, Floats]:
    """Losses by name and row, NaN where the answer has nothing to judge, infinite where one is beyond all floats.

    Args:
        classes: number of the true class by row (of a task with classes).
        positive: whether it is the positive one (binary).
        values: the true value (regression).
    """
    if task == "regression":
        with np.errstate(over="ignore"):
            residual = answers.value - values
            return {"residual": residual, "absolute": np.abs(residual), "square": residual * residual}
    if task == "binary":
        score = answers.score
        of_truth = np.where(positive, score, 1.0 - score)
        brier = (np.clip(score, 0.0, 1.0) - positive) ** 2
    else:
        probabilities = answers.probabilities
        total = probabilities.sum(axis=1)
        total = np.where(total > 0, total, 1.0)
        rows = np.arange(len(classes))
        of_truth = probabilities[rows, classes] / total
        one_hot = np.zeros_like(probabilities)
        one_hot[rows, classes] = 1.0
        brier = ((probabilities - one_hot) ** 2).sum(axis=1)
    return {"log_loss": -np.log(np.clip(of_truth, _EPSILON, 1.0 - _EPSILON)), "brier": brier}
