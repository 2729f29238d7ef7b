"""Split conformal prediction: how sure one may be, from rows that the model has not seen.

Whatever the model and the distribution, a row that is exchangeable with ``n`` calibration rows has a score of at
most the ``ceil((n + 1) * level)``-th smallest of theirs with a probability of at least ``level``, and of at most
``level + 1 / (n + 1)`` where no scores are equal (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random
World", 2005; Lei et al., "Distribution-Free Predictive Inference for Regression", 2018).
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from tailrace.models.columns import Array
from tailrace.models.frozen import Finite, Frozen
from tailrace.models.predictions import Predictions

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""What a package knows whatever its contract asks for, so that a contract can change its mind."""


class Quantiles(Frozen):
    """Scores that exchangeable rows exceed with a probability of at most ``1 - level``, by ascending level.

    None stands for infinity: there were too few ``rows`` to say.
    """

    rows: int
    levels: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    values: tuple[Finite | None, ...]

    @model_validator(mode="after")
    def _paired(self) -> Quantiles:
        if len(self.levels) != len(self.values) or list(self.levels) != sorted(set(self.levels)):
            raise ValueError("levels must ascend, each with a value")
        return self

    def at(self, level: float) -> float:
        """The value of the least level that is known and not below this one: never too small."""
        for known, value in zip(self.levels, self.values, strict=True):
            if known >= level:
                return math.inf if value is None else value
        return math.inf


def conformal_quantiles(scores: Array, *levels: float) -> Quantiles:
    """The quantiles of calibration scores at ``LEVELS`` and at the ``levels`` given."""
    ascending = np.sort(scores)
    wanted = tuple(sorted({*LEVELS, *(level for level in levels if 0 < level < 1)}))
    ranks = [math.ceil((len(scores) + 1) * level) for level in wanted]
    values = tuple(float(ascending[rank - 1]) if rank <= len(scores) else None for rank in ranks)
    return Quantiles(rows=len(scores), levels=wanted, values=values)


def nonconformity(predictions: Predictions, truth: Array) -> Array:
    """How badly each prediction fits its truth: one less the probability of the true class (Sadinle, Lei and
    Wasserman, "Least Ambiguous Set-Valued Classifiers", 2019), or the distance from the true value.
    """
    if predictions.value is not None:
        return np.asarray(np.abs(truth - predictions.value))
    assert predictions.probabilities is not None
    place = {name: at for at, name in enumerate(predictions.classes)}
    at = np.array([place[name] for name in truth], dtype=np.int64)
    return np.asarray(1.0 - predictions.probabilities[np.arange(len(truth)), at])
