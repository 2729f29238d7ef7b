"""The estimator that a package is made from, run the way it was fitted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from tailrace.errors import TailraceError
from tailrace.models.columns import Array, Columns, padded
from tailrace.models.formats.skops.run import EstimatorRunner
from tailrace.models.inputs import Input


class Original:
    """A fitted scikit-learn estimator.

    Attributes:
        inputs: what it reads, in the order in which it was fitted.
        method: ``predict_proba``, or ``predict`` for a regression.
        feed: ``columns`` where it was fitted on a data frame, ``matrix`` where on a matrix.
        missing_category: what stands for a missing category in a data frame: an encoder that has NaN among
            its categories was fitted on NaN.

    Raises:
        TailraceError: it does not give what the task needs, or was fitted on something else than the inputs.
    """

    def __init__(
        self,
        estimator: Any,
        inputs: tuple[Input, ...],
        task: str,
        missing_category: Literal["none", "nan"] | None = None,
    ) -> None:
        self.estimator = estimator
        self.name = type(estimator).__name__
        self.task = task
        self.method = "predict" if task == "regression" else "predict_proba"
        if not callable(getattr(estimator, self.method, None)):
            raise TailraceError(
                f"{self.name} has no {self.method}, which a {task} model needs"
                + ("; wrap it in sklearn.calibration.CalibratedClassifierCV" if task != "regression" else "")
            )
        framed = getattr(estimator, "feature_names_in_", None) is not None
        self.feed: Literal["columns", "matrix"] = "columns" if framed else "matrix"
        if not framed and any(i.type == "category" for i in inputs):
            raise TailraceError(
                "the estimator does not say which columns it was fitted on (feature_names_in_), so it was fitted on a "
                "matrix, which has no categories, or its first step is of your own: fit one of scikit-learn's on a "
                "data frame whose columns are named after the features"
            )
        self.inputs = _in_fitted_order(estimator, inputs)
        on_nan = any(isinstance(c, float) for c in _fitted_categories(estimator))
        self.missing_category: Literal["none", "nan"] = missing_category or ("nan" if on_nan else "none")
        self._runner = EstimatorRunner(estimator, self.inputs, self.method, self.feed, self.missing_category)

    def with_other_missing(self) -> Original:
        """The same, with None for a missing category where it was NaN, and NaN where it was None."""
        other: Literal["none", "nan"] = "none" if self.missing_category == "nan" else "nan"
        return Original(self.estimator, self.inputs, self.task, other)

    def run(self, columns: Columns, rows: int) -> Array:
        """Probabilities or values [rows, k] by the estimator itself."""
        lengthened, total = padded({i.name: columns[i.name] for i in self.inputs}, rows)
        return self._runner.run(lengthened, total)[:rows]


def parts_of(estimator: Any) -> Iterator[Any]:
    """The estimator and all that it is made of."""
    waiting, seen = [estimator], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, (list, tuple)):
            waiting.extend(part)
        elif isinstance(part, np.ndarray):
            waiting.extend(part.ravel() if part.dtype == np.dtype(object) else ())
        elif hasattr(part, "get_params") and not isinstance(part, type):
            yield part
            waiting.extend(vars(part).values())


def _in_fitted_order(estimator: Any, inputs: tuple[Input, ...]) -> tuple[Input, ...]:
    fitted = getattr(estimator, "feature_names_in_", None)
    if fitted is None:
        wide = getattr(estimator, "n_features_in_", len(inputs))
        if wide != len(inputs):
            raise TailraceError(f"the estimator was fitted on {wide} columns, X has {len(inputs)}")
        return inputs
    by_name = {i.called: i for i in inputs}
    absent = [str(n) for n in fitted if n not in by_name]
    if absent:
        raise TailraceError(f"the estimator was fitted on {', '.join(absent)}, which X does not have")
    return tuple(by_name[str(n)] for n in fitted)


def _fitted_categories(estimator: Any) -> Iterator[Any]:
    for part in parts_of(estimator):
        for categories in getattr(part, "categories_", None) or ():
            if getattr(categories, "dtype", None) == np.dtype(object):
                yield from categories
