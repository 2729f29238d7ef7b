"""METRICS: what a model can be judged by. Contracts, training, evaluator, gates and documents have it from the entry.

Values are scikit-learn's. A metric that is a mean over rows needs a loss (judged_rows.py), one of predicted classes a
function of their table (class_table.py); intervals and comparisons follow.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tailrace.statistics import class_table
from tailrace.statistics.auc_metric import AucMetric
from tailrace.statistics.class_metrics import (
    ClassMetric,
    ShareOfRows,
    mover_of_recalls,
    wilson_of_overlap,
    wilson_of_right,
)
from tailrace.statistics.judged_rows import JudgedRows, brier, log_loss, residual, square
from tailrace.statistics.mean_metrics import MeanMetric, RootMeanMetric, ShareMetric, SignedMeanMetric
from tailrace.statistics.metric import BINARY, MULTICLASS, REGRESSION, Metric
from tailrace.statistics.result import Floats

CLASSIFICATION = (BINARY, MULTICLASS)

COVERAGE = ShareMetric(
    "coverage", (), "higher", "share of truths that the set or the interval behind an answer holds"
)
VALUE = MeanMetric("value", (), "higher", "mean of what the contract's `value` says that an answer was worth")

METRICS: tuple[Metric, ...] = (
    AucMetric("auc", (BINARY,), "higher", "area under the ROC curve, ties counted half"),
    MeanMetric(
        "log_loss",
        CLASSIFICATION,
        "lower",
        "mean of the negative logarithm of the true class's probability; probabilities are cut at 2.2e-16 from 0 and 1",
        loss=log_loss,
    ),
    MeanMetric(
        "brier",
        CLASSIFICATION,
        "lower",
        "mean squared distance of the probabilities from the truth; of the score's, where there are two classes",
        loss=brier,
    ),
    ShareOfRows(
        "accuracy",
        CLASSIFICATION,
        "higher",
        "share of right classes",
        measure=class_table.accuracy,
        bounds=wilson_of_right,
        interval="Wilson",
    ),
    ClassMetric(
        "balanced_accuracy",
        CLASSIFICATION,
        "higher",
        "mean recall over the classes that occur",
        measure=class_table.balanced_accuracy,
        bounds=mover_of_recalls,
        interval="MOVER from Wilson intervals of the recalls",
    ),
    ClassMetric(
        "f1",
        CLASSIFICATION,
        "higher",
        "of the positive class; of several classes the mean over those that occur or were predicted; 0 where nothing "
        "is to divide by",
        measure=class_table.f1,
        bounds=wilson_of_overlap,
        interval="Wilson of the overlap (binary), delta method",
    ),
    RootMeanMetric(
        "rmse", (REGRESSION,), "lower", "root of the mean square of value less truth", loss=square
    ),
    MeanMetric(
        "mae",
        (REGRESSION,),
        "lower",
        "mean size of value less truth",
        loss=lambda rows: np.abs(residual(rows)),
    ),
    SignedMeanMetric("bias", (REGRESSION,), "nearer 0", "mean of value less truth", loss=residual),
    VALUE,
    COVERAGE,
)

METRIC: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}
"""By name."""

METRICS_OF: Mapping[str, tuple[str, ...]] = {
    task: tuple(metric.name for metric in METRICS if task in metric.tasks)
    for task in (BINARY, MULTICLASS, REGRESSION)
}
"""The names of those that a contract may ask for, by task."""


def row_losses(rows: JudgedRows) -> dict[str, Floats]:
    """What each row adds to the metrics of its task that are means, by name."""
    with np.errstate(over="ignore"):
        return {
            metric.name: metric.loss(rows)
            for metric in METRICS
            if isinstance(metric, MeanMetric) and metric.loss is not None and rows.task in metric.tasks
        }
