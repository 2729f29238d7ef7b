"""What a training template is, ours or a team's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class TemplateOptions(BaseModel):
    """What a contract may set in ``training.options``, each field with a default and a docstring; here nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


@dataclass(frozen=True)
class LearningTask:
    """What is to be learned of which columns.

    Attributes:
        numbers: columns of floats, NaN where missing.
        categories: values by column of texts, None where missing.
    """

    kind: Literal["binary", "multiclass", "regression"]
    numbers: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Template:
    """A training template.

    Attributes:
        name: as contracts of Tailrace's own templates have it; of a team's its entry point's name counts.
        doc: for docs/templates.md, in a line.
        estimator: from task, options and seed an unfitted scikit-learn estimator, or whatever has a ``fit(rows,
            truth)`` that gives a fitted one. Rows are a pandas frame in the order of time; only the seed is random.
        options: what a contract may set.
        scales: whether numbers are standardised, so that one far outlier squeezes all others together.
        needs_values: whether each column of numbers must have a value in a row.
    """

    name: str
    doc: str
    estimator: Callable[[LearningTask, Any, int], Any]
    options: type[TemplateOptions] = TemplateOptions
    scales: bool = False
    needs_values: bool = False

    def unfitted(self, task: LearningTask, seed: int, options: Mapping[str, Any] | None = None) -> Any:
        """What ``estimator`` gives under a contract's options.

        Raises:
            pydantic.ValidationError: the options are none of this template.
        """
        return self.estimator(task, self.options.model_validate(dict(options or {})), seed)
