"""Whether a version ranks rows the wrong way round on its holdout: classes or outputs that were mixed up do.

The tests are the one-sided rank tests of Mann and Whitney (1947), for a class against the others the test of an AUC
below 0.5, and of Spearman (1904) for values.
"""

from __future__ import annotations

import numpy as np

from tailrace.errors import TailraceError
from tailrace.models.columns import Array
from tailrace.models.predictions import Predictions

SIGNIFICANCE = 0.01
"""Of all classes taken together (Bonferroni)."""


def refuse_wrong_order(predictions: Predictions, truth: Array, positive: str | None) -> None:
    """Raises TailraceError where higher scores or values significantly go with lower truths."""
    if predictions.value is not None:
        wrong = _wrong_value(predictions.value, truth)
    else:
        wrong = _wrong_class(predictions, truth, positive)
    if wrong is not None:
        raise TailraceError(
            f"{wrong}: it would decide the wrong way round. Look whether classes or outputs were mixed up (--class, "
            "--output), or the target's positive value; if it is meant so, say so with --allow-inverted, in Python "
            "allow_inverted=True"
        )


def _wrong_class(predictions: Predictions, truth: Array, positive: str | None) -> str | None:
    from scipy.stats import mannwhitneyu

    assert predictions.probabilities is not None
    judged = predictions.classes if positive is None else (positive,)
    for name in judged:
        score = predictions.probabilities[:, predictions.classes.index(name)]
        of, others = score[truth == name], score[truth != name]
        if not len(of) or not len(others):
            continue
        test = mannwhitneyu(of, others, alternative="less")
        if test.pvalue < SIGNIFICANCE / len(judged):
            auc = test.statistic / (len(of) * len(others))
            what = f"the AUC on {len(score):,} rows held out is {auc:.4f}, significantly below 0.5"
            return f"{what}: it gives {name} the lower probability in rows of {name}"
    return None


def _wrong_value(value: Array, truth: Array) -> str | None:
    from scipy.stats import spearmanr

    if len(value) < 3 or np.ptp(value) == 0 or np.ptp(truth) == 0:
        return None
    test = spearmanr(value, truth, alternative="less")
    if test.pvalue >= SIGNIFICANCE:
        return None
    return (
        f"the rank correlation of values and truth on {len(value):,} rows held out is {test.statistic:.4f}, "
        "significantly below 0: the value is lower where the truth is higher"
    )
