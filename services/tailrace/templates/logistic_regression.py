"""Logistic regression; ridge regression where the target is a number."""

from __future__ import annotations

from typing import Any

from tailrace.templates.scaled_columns import scaled
from tailrace.templates.template import LearningTask, Template, TemplateOptions


def _estimator(task: LearningTask, _options: TemplateOptions, _seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    return make_pipeline(
        scaled(task), Ridge() if task.kind == "regression" else LogisticRegression(max_iter=1000)
    )


LOGISTIC_REGRESSION = Template(
    "logistic-regression",
    "Imputation, scaling and encoding, then logistic regression; ridge regression where the target is a number.",
    _estimator,
)
