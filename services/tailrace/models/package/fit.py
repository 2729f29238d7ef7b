"""Fitting what is to be published, and running it as the judge of a package."""

from __future__ import annotations

from typing import Any

import numpy as np

from tailrace.errors import TailraceError
from tailrace.models.columns import Array, Columns
from tailrace.models.errors import first_line
from tailrace.models.formats.original import Original


class EstimatorModel:
    """Runs an estimator itself where a package's model would run."""

    def __init__(self, original: Original) -> None:
        self._original = original

    def run(self, columns: Columns, rows: int) -> Array:
        """An input that the package's model has no use for cannot matter: any value stands for it."""
        fills: dict[str, Any] = {
            i.name: i.categories[0] if i.categories else 0.0 for i in self._original.inputs
        }
        unused = {
            name: np.full(rows, fill, object if isinstance(fill, str) else float)
            for name, fill in fills.items()
            if name not in columns
        }
        return self._original.run({**columns, **unused}, rows)


def is_fitted(estimator: Any) -> bool:
    """Raises TailraceError where the estimator is none of scikit-learn's kind."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    except (TypeError, AttributeError) as error:
        raise TailraceError(
            f"{type(estimator).__name__} is not a scikit-learn estimator: export it to ONNX and use "
            "`tailrace publish model.onnx`, or derive it from scikit-learn's BaseEstimator"
        ) from error
    return True


def fit(estimator: Any, x: Any, y: Any) -> Any:
    """A copy of the estimator, fitted. Raises TailraceError where it cannot be fitted."""
    from sklearn.base import clone

    try:
        return clone(estimator).fit(x, y)
    except Exception as error:  # whatever an estimator of somebody's raises
        raise TailraceError(
            f"{type(estimator).__name__} cannot be fitted on {len(y):,} of the rows ({first_line(error)}); to judge "
            "one that is fitted, pass holdout=(X, y) with rows that it has not seen"
        ) from error
