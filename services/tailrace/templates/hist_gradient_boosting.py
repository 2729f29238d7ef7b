"""Gradient boosting over histograms (Ke et al., "LightGBM", NeurIPS 2017), which takes missing values as they are."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tailrace.templates.template import LearningTask, Template, TemplateOptions


class BoostingOptions(TemplateOptions):
    iterations: Annotated[int, Field(ge=1, le=1000)] = 100
    """Most trees, of several classes for each of them."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """How much of each tree counts."""


def _estimator(task: LearningTask, options: BoostingOptions, seed: int) -> Any:
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    boosting = HistGradientBoostingRegressor if task.kind == "regression" else HistGradientBoostingClassifier
    known = [list(values) for values in task.categories.values()]
    codes = OrdinalEncoder(categories=known, handle_unknown="use_encoded_value", unknown_value=np.nan)
    columns = ColumnTransformer(
        [("numbers", "passthrough", list(task.numbers)), ("categories", codes, list(task.categories))]
    )
    estimator = boosting(
        max_iter=options.iterations,
        learning_rate=options.learning_rate,
        random_state=seed,
        categorical_features=[False] * len(task.numbers) + [True] * len(task.categories),
    )
    return make_pipeline(columns, estimator)


HIST_GRADIENT_BOOSTING = Template(
    "hist-gradient-boosting",
    "Gradient boosting over histograms, which takes missing values and categories as they are.",
    _estimator,
    BoostingOptions,
    needs_values=True,
)
