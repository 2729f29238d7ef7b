"""Runs a scikit-learn estimator that came as a skops archive."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import skops.io
from threadpoolctl import ThreadpoolController

from tailrace.models.columns import Array, Columns, missing
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.skops.archive import check_archive
from tailrace.models.formats.skops.tree_bounds import check_trees
from tailrace.models.formats.skops.types import ALLOWED_TYPES
from tailrace.models.inputs import Input
from tailrace.models.manifest import Manifest

_MISSING: dict[str, Any] = {"empty": "", "none": None, "nan": np.nan}


class SkopsModel:
    """An estimator from a skops archive.

    Raises:
        PackageRefused: the archive is broken, or holds a type that is not on the fixed list; nothing of it has been
            constructed then.
    """

    def __init__(self, data: bytes, manifest: Manifest) -> None:
        check_archive(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # another version of scikit-learn: the golden pairs decide
                estimator = skops.io.loads(data, trusted=sorted(ALLOWED_TYPES))
        except Exception as error:
            raise PackageRefused("model", f"skops does not load the model: {error!r}"[:300]) from None
        check_trees(estimator)
        if manifest.output not in ("predict_proba", "predict"):
            raise PackageRefused("schema", f"the output of an estimator is not {manifest.output!r}")
        self._runner = EstimatorRunner(
            estimator, manifest.inputs, manifest.output, manifest.feed, manifest.missing_category
        )

    def run(self, columns: Columns, rows: int) -> Array:
        return self._runner.run(columns, rows)


class EstimatorRunner:
    """Feeds columns to an estimator in the form that it was fitted on, on one thread."""

    def __init__(
        self, estimator: Any, inputs: tuple[Input, ...], method: str, feed: str, missing_category: str
    ) -> None:
        if not callable(getattr(estimator, method, None)):
            raise PackageRefused("schema", f"the estimator has no {method}")
        self._predict = getattr(estimator, method)
        self._inputs = inputs
        self._feed = feed
        self._missing = missing_category
        self._threads = ThreadpoolController()  # of the libraries that the estimator has brought in by now

    def run(self, columns: Columns, rows: int) -> Array:
        table = estimator_table(columns, self._inputs, self._feed, self._missing)
        with self._threads.limit(limits=1):
            outputs = self._predict(table)
        return np.asarray(outputs, dtype=np.float64).reshape(rows, -1)


def estimator_table(columns: Columns, inputs: tuple[Input, ...], feed: str, missing_category: str) -> Any:
    """Columns in the form that an estimator was fitted on: a matrix, or a data frame under the names that it knows."""
    if feed != "columns":
        return np.column_stack([columns[i.name] for i in inputs])
    import pandas as pd

    table = {}
    for i in inputs:
        column = columns[i.name]
        if i.levels is not None:
            table[i.called] = pd.Categorical(column, categories=list(i.levels))
        elif i.type == "category":
            values = column.copy()
            values[missing(values)] = _MISSING[missing_category]
            table[i.called] = pd.Series(values, dtype=object)
        else:
            table[i.called] = column
    return pd.DataFrame(table, copy=False)
