"""TEMPLATES: what a contract may name in ``training.template``.

Contracts, trainer and documents have a template from its entry.
"""

from __future__ import annotations

from collections.abc import Mapping

from tailrace.templates.hist_gradient_boosting import HIST_GRADIENT_BOOSTING
from tailrace.templates.logistic_regression import LOGISTIC_REGRESSION
from tailrace.templates.random_forest import RANDOM_FOREST
from tailrace.templates.river_linear import RIVER_LINEAR
from tailrace.templates.template import Template

TEMPLATES: tuple[Template, ...] = (
    LOGISTIC_REGRESSION,
    RANDOM_FOREST,
    HIST_GRADIENT_BOOSTING,
    RIVER_LINEAR,
)
"""A training run trains all of them, those that its contract does not name for comparison."""

DEFAULT = LOGISTIC_REGRESSION

TEMPLATE: Mapping[str, Template] = {template.name: template for template in TEMPLATES}
"""By name."""
