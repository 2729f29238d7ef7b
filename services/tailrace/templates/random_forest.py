"""A random forest (Breiman, "Random forests", Machine Learning 2001)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tailrace.templates.scaled_columns import scaled
from tailrace.templates.template import LearningTask, Template, TemplateOptions


class ForestOptions(TemplateOptions):
    trees: Annotated[int, Field(ge=1, le=1000)] = 100
    """Number of trees."""
    leaf_rows: Annotated[int, Field(ge=1)] = 5
    """Least number of rows in a leaf."""


def _estimator(task: LearningTask, options: ForestOptions, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.pipeline import make_pipeline

    forest = RandomForestRegressor if task.kind == "regression" else RandomForestClassifier
    estimator = forest(n_estimators=options.trees, random_state=seed, min_samples_leaf=options.leaf_rows)
    return make_pipeline(scaled(task), estimator)


RANDOM_FOREST = Template(
    "random-forest",
    "Imputation, scaling and encoding, then a random forest.",
    _estimator,
    ForestOptions,
    scales=True,
)
