"""Columns as linear models take them."""

from __future__ import annotations

from typing import Any

from tailrace.templates.template import LearningTask


def scaled(task: LearningTask) -> Any:
    """Numbers imputed and standardised, then one column per category; unfitted."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    steps: list[tuple[str, Any, list[str]]] = []
    if task.numbers:
        filled = SimpleImputer(strategy="median", keep_empty_features=True)
        steps.append(("numbers", make_pipeline(filled, StandardScaler()), list(task.numbers)))
    if task.categories:
        known = [list(values) for values in task.categories.values()]
        encoder = OneHotEncoder(categories=known, handle_unknown="ignore")
        steps.append(("categories", encoder, list(task.categories)))
    return ColumnTransformer(steps)
