"""How far a row is from those that a model was trained on.

Numbers are standardised, and a missing one stands at its mean with a mark of its own; a category is a mark for each
value that may come. The distance is Mahalanobis' in the correlations of the training rows, shrunk towards none (Ledoit
and Wolf, "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices", 2004), so that values are far that
are usual each by itself but never came together. What counts as far is a quantile of the distances of rows that were
held out, whatever the distribution (see models/conformal.py).
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import repeat

import numpy as np
from pydantic import BaseModel, ConfigDict

from tailrace.models.columns import Array, Columns, padded
from tailrace.models.conformal import Finite, Quantiles, conformal_quantiles
from tailrace.models.manifest import Input

MOST_ROWS = 20_000
MOST_CORRELATED = 64
"""With more columns than this each is taken by itself: the package would grow with their square."""
LEAST_SHRINKAGE = 0.01
MOST_DEVIATIONS = 1e6


class Domain(BaseModel):
    """Where training rows lie: by encoded column, ``centre`` and ``scale``; ``whiten`` takes standardised rows to ones
    whose length is the distance, None for the columns as they are. ``marked`` names numbers that may be missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    marked: tuple[str, ...]
    centre: tuple[Finite, ...]
    scale: tuple[Finite, ...]
    whiten: tuple[tuple[Finite, ...], ...] | None
    distances: Quantiles

    def measure(self, columns: Columns, rows: int, inputs: tuple[Input, ...]) -> tuple[Array, Array]:
        """Each row's distance, and how many standard deviations it is off by encoded column."""
        lengthened, total = padded({i.name: columns[i.name] for i in inputs}, rows)  # bits as in any batch
        encoded = _encoded(lengthened, total, inputs, self.marked)
        away = _standardised(encoded, np.array(self.centre), np.array(self.scale))
        distances = _lengths(away, None if self.whiten is None else np.array(self.whiten))
        return distances[:rows], away[:rows]

    def furthest(self, away: Array, inputs: tuple[Input, ...]) -> Array:
        """By row, the number of the input that is furthest off in one of its columns."""
        starts = np.cumsum([0, *(_width(i, self.marked) for i in inputs)])[:-1]
        found: Array = np.maximum.reduceat(np.abs(away), starts, axis=1).argmax(axis=1)
        return found


def fit_domain(
    train: Columns, held: Columns, inputs: tuple[Input, ...], marked: Collection[str], *levels: float
) -> Domain:
    """The domain of training rows, judged by held rows that have no part in it."""
    from sklearn.covariance import ledoit_wolf

    names = tuple(i.name for i in inputs if i.name in marked and i.type != "category")
    count = len(next(iter(train.values())))
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_ROWS)).astype(np.int64))
    encoded = _encoded({n: c[chosen] for n, c in train.items()}, len(chosen), inputs, names)
    known = ~np.isnan(encoded)
    counts = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, encoded, 0.0).sum(axis=0) / counts
    spread = np.sqrt((np.where(known, encoded - centre, 0.0) ** 2).sum(axis=0) / counts)
    scale = np.maximum(spread, _least_scale(centre, len(chosen), inputs, names))
    whiten = None
    if len(centre) <= MOST_CORRELATED:
        away = _standardised(encoded, centre, scale)
        covariance, shrinkage = ledoit_wolf(away, assume_centered=True)
        more = max(0.0, LEAST_SHRINKAGE - shrinkage)
        covariance = (1.0 - more) * covariance + more * np.eye(len(centre))
        whiten = np.linalg.cholesky(np.linalg.inv(covariance))
    count = len(next(iter(held.values())))
    unseen = _standardised(_encoded(held, count, inputs, names), centre, scale)
    return Domain(
        marked=names,
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        whiten=None if whiten is None else tuple(map(tuple, whiten.tolist())),
        distances=conformal_quantiles(_lengths(unseen, whiten), *levels),
    )


def _width(i: Input, marked: Collection[str]) -> int:
    return len(i.categories) + 1 if i.type == "category" else 1 + (i.name in marked)


def _encoded(columns: Columns, rows: int, inputs: tuple[Input, ...], marked: Collection[str]) -> Array:
    """[rows, columns]; NaN where a number is missing."""
    found: list[Array] = []
    for i in inputs:
        column = columns[i.name]
        if i.type == "category":
            known = {value: code for code, value in enumerate((*i.categories, None))}
            codes = np.fromiter(map(known.get, column.tolist(), repeat(-1)), dtype=np.int64, count=rows)
            found += [(codes == code).astype(np.float64) for code in range(len(known))]
            continue
        gone = np.isnan(column)
        if i.name in marked:
            found += [column, gone.astype(np.float64)]
        else:
            found.append(column)
    return np.column_stack(found).reshape(rows, -1).astype(np.float64)


def _least_scale(centre: Array, rows: int, inputs: tuple[Input, ...], marked: Collection[str]) -> Array:
    """What never varied in training varies by as little as so many rows can tell."""
    least: list[float] = []
    rare = 1.0 / (rows + 2)
    for i in inputs:
        marks = _width(i, marked) - (i.type != "category")
        if i.type != "category":
            least.append(1e-6 * max(1.0, abs(float(centre[len(least)]))))
        least += [float(np.sqrt(rare * (1.0 - rare)))] * marks
    return np.array(least)


def _standardised(encoded: Array, centre: Array, scale: Array) -> Array:
    with np.errstate(over="ignore"):
        away = np.clip((encoded - centre) / scale, -MOST_DEVIATIONS, MOST_DEVIATIONS)
    found: Array = np.where(np.isnan(away), 0.0, away)  # the mean stands for what is missing
    return found


def _lengths(away: Array, whiten: Array | None) -> Array:
    white = away if whiten is None else away @ whiten
    found: Array = np.sqrt((white * white).sum(axis=1))
    return found
