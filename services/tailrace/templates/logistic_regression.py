"""Logistic regression; ridge regression where the target is a number."""

from __future__ import annotations

from typing import Any

from tailrace.templates.scaled_columns import scaled
from tailrace.templates.template import LearningTask, Template, TemplateOptions


def _estimator(task: LearningTask, _options: TemplateOptions, _seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    linear = Ridge() if task.kind == "regression" else LogisticRegression(max_iter=1000)
    return make_pipeline(scaled(task), linear)


LOGISTIC_REGRESSION = Template(
    "logistic-regression",
    "Imputation, scaling and encoding, then logistic regression; ridge regression where the target is a number.",
    _estimator,
    scales=True,
)
