"""How sure an answer is: the classes, or the interval, that hold the truth as often as the contract's coverage says.

Split conformal prediction by the quantiles that a package brings (models/guards/conformal.py). A set of one class is
certain; one of several, or of none (every class is less likely than the true ones were), is not. An interval has the
same width for every row, so that none is less certain than another.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress

import numpy as np

from tailrace.avro.columns.bytes_kernels import distinct
from tailrace.avro.columns.decoder import Ints, Mask
from tailrace.models.columns import Array
from tailrace.models.guards.conformal import Quantiles
from tailrace.models.predictions import Predictions


@dataclass(frozen=True)
class PredictionSets:
    """The sets of some rows. Many rows have the same, so that it is kept once.

    Attributes:
        sets: the different sets, each in the order of the classes.
        which: by row, the number of its set.
        uncertain: where a set is not of one class.
    """

    coverage: float
    sets: tuple[tuple[str, ...], ...]
    which: Ints
    uncertain: Mask

    def take(self, rows: Ints) -> PredictionSets:
        return PredictionSets(self.coverage, self.sets, self.which[rows], self.uncertain[rows])


@dataclass(frozen=True)
class PredictionIntervals:
    """The intervals of some rows; their ends may be infinite."""

    coverage: float
    low: Array
    high: Array

    def take(self, rows: Ints) -> PredictionIntervals:
        return PredictionIntervals(self.coverage, self.low[rows], self.high[rows])


Uncertainty = PredictionSets | PredictionIntervals


def uncertainty(outputs: Predictions, quantiles: Quantiles, coverage: float) -> Uncertainty:
    """The set of each row, or its interval where the model says a value."""
    quantile = quantiles.at(coverage)
    if outputs.value is not None:
        return PredictionIntervals(coverage, outputs.value - quantile, outputs.value + quantile)
    assert outputs.probabilities is not None
    assert outputs.most_probable is not None
    within = 1.0 - outputs.probabilities <= quantile
    classes = len(outputs.classes)
    uncertain = within @ np.ones(classes) != 1
    begins = np.arange(0, within.size, classes)
    begins[~uncertain] = -1
    which, firsts = distinct(within.view(np.uint8).ravel(), begins, begins + classes)
    others = [tuple(compress(outputs.classes, within[row])) for row in firsts.tolist()]
    # A set of one class is that of the most probable one.
    numbers = np.where(uncertain, classes + which, outputs.most_probable)
    return PredictionSets(coverage, (*((name,) for name in outputs.classes), *others), numbers, uncertain)
