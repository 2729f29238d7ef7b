"""How far a row is from those that a model was trained on.

Numbers are standardised, and a missing one stands at its mean with an indicator of its own; a category is an indicator
for each value that may come. The distance is Mahalanobis' in the correlations of the training rows, shrunk towards none
(Ledoit and Wolf, "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices", 2004), so that values are
far that are usual each by itself but never came together. What counts as far is a quantile of the distances of rows
that were held out, whatever the distribution (see models/guards/conformal.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property, partial

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from tailrace.models.columns import Array, Coded, Columns, taken
from tailrace.models.frozen import Finite
from tailrace.models.guards.conformal import Quantiles, conformal_quantiles
from tailrace.models.guards.domain_layout import ABSENT, NUMBER, encoded_values, layout_of
from tailrace.models.inputs import Input

MOST_ROWS = 20_000
MOST_CORRELATED = 64
"""With more columns than this each is taken by itself: the package would grow with their square."""
LEAST_SHRINKAGE = 0.01
MOST_DEVIATIONS = 1e6


class TrainingDomain(BaseModel):
    """Where training rows lie: by encoded column, ``centre`` and ``scale``; ``whiten`` takes standardised rows to ones
    whose length is the distance, None for the columns as they are. ``marked`` names numbers that may be missing.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    marked: tuple[str, ...]
    centre: tuple[Finite, ...]
    scale: tuple[Finite, ...]
    whiten: tuple[tuple[Finite, ...], ...] | None
    distances: Quantiles

    @model_validator(mode="after")
    def _whole(self) -> TrainingDomain:
        width = len(self.centre)
        if len(self.scale) != width:
            raise ValueError("centre and scale must be of the same columns")
        if self.whiten is not None and (
            [len(row) for row in self.whiten] != [width] * width
            or any(any(row[at + 1 :]) for at, row in enumerate(self.whiten))
        ):
            raise ValueError("whiten must be a lower triangle of the columns of centre")
        return self

    def measure(
        self, columns: Mapping[str, Coded], rows: int, inputs: tuple[Input, ...]
    ) -> tuple[Array, Array]:
        """Each row's distance, and the number of the input that is furthest off in one of its encoded columns.

        A distance has the same bits in whatever batch the row is.
        """
        layout = layout_of(inputs, self.marked)
        if len(layout) != len(self.centre):  # the kernel does not look where it reads
            raise ValueError(f"the domain has {len(self.centre)} columns, these inputs make {len(layout)}")
        return self._kernel(encoded_values(columns, rows, inputs), layout)

    @cached_property
    def _kernel(self) -> Callable[[Array, Array], tuple[Array, Array]]:
        """From values and layout to what ``measure`` says."""
        from tailrace.models.guards.domain_kernels import measure

        whiten = np.empty((0, 0)) if self.whiten is None else np.array(self.whiten)
        return partial(measure, np.array(self.centre), 1.0 / np.array(self.scale), MOST_DEVIATIONS, whiten)


def fit_domain(
    train: Columns, held: Columns, inputs: tuple[Input, ...], marked: Collection[str], *levels: float
) -> TrainingDomain:
    """The domain of training rows, judged by held rows that have no part in it."""
    from sklearn.covariance import ledoit_wolf

    names = tuple(i.name for i in inputs if i.name in marked and i.type != "category")
    layout = layout_of(inputs, names)
    count = len(next(iter(train.values())))
    chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_ROWS)).astype(np.int64))
    encoded = _encoded(encoded_values(taken(train, chosen), len(chosen), inputs), layout)
    known = ~np.isnan(encoded)
    counts = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, encoded, 0.0).sum(axis=0) / counts
    off = np.where(known, encoded - centre, 0.0)  # the mean stands for what is missing
    scale = np.maximum(np.sqrt((off**2).sum(axis=0) / counts), _least_scale(centre, len(chosen), layout))
    whiten = None
    if len(centre) <= MOST_CORRELATED:
        away = np.clip(off / scale, -MOST_DEVIATIONS, MOST_DEVIATIONS)
        covariance, shrinkage = ledoit_wolf(away, assume_centered=True)
        more = max(0.0, LEAST_SHRINKAGE - shrinkage)
        covariance = (1.0 - more) * covariance + more * np.eye(len(centre))
        whiten = np.linalg.cholesky(np.linalg.inv(covariance))
    unjudged = TrainingDomain(
        marked=names,
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        whiten=None if whiten is None else tuple(map(tuple, whiten.tolist())),
        distances=conformal_quantiles(np.empty(0)),
    )
    distances, _ = unjudged.measure(held, len(next(iter(held.values()))), inputs)
    return unjudged.model_copy(update={"distances": conformal_quantiles(distances, *levels)})


def _encoded(values: Array, layout: Array) -> Array:
    """[rows, columns]; NaN where a number is missing."""
    columns: list[Array] = []
    for number, holds in layout.tolist():
        value = values[number]
        columns.append(value if holds == NUMBER else np.isnan(value) if holds == ABSENT else value == holds)
    return np.column_stack(columns).astype(np.float64)


def _least_scale(centre: Array, rows: int, layout: Array) -> Array:
    """What never varied in training varies by as little as so many rows can tell."""
    rare = 1.0 / (rows + 2)
    least = 1e-6 * np.maximum(1.0, np.abs(centre))
    return np.where(layout[:, 1] == NUMBER, least, np.sqrt(rare * (1.0 - rare)))
