"""What a model says about a batch, whatever its format."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from tailrace.models.columns import Array


@dataclass(frozen=True)
class Predictions:
    """What a model says about a batch.

    Attributes:
        probabilities: float64 [rows, classes] in the order of ``classes``; None for a regression.
        score: float64 [rows], the probability of the positive class; None unless binary.
        value: float64 [rows]; None unless a regression.
        classes: texts of the classes.
    """

    probabilities: Array | None
    score: Array | None
    value: Array | None
    classes: tuple[str, ...]

    @functools.cached_property
    def most_probable(self) -> Array | None:
        """Number of the most probable class by row (the first of equals); None for a regression."""
        if self.probabilities is None:
            return None
        numbers = np.zeros(len(self.probabilities), dtype=np.int64)
        largest = self.probabilities[:, 0].copy()
        for number, of_class in enumerate(self.probabilities.T[1:], 1):  # with few classes faster than argmax
            more = of_class > largest
            numbers[more], largest[more] = number, of_class[more]
        return numbers

    @property
    def predicted_class(self) -> Array | None:
        """Text of the most probable class by row; None for a regression."""
        if self.most_probable is None:
            return None
        texts: Array = np.array(self.classes, dtype=np.object_)
        return texts[self.most_probable]

    def take(self, rows: Array) -> Predictions:
        """The predictions of some of the rows."""
        probabilities, score, value = (
            None if a is None else a[rows] for a in (self.probabilities, self.score, self.value)
        )
        return Predictions(probabilities, score, value, self.classes)
