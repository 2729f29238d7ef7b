"""Nearest neighbours and sparse matrices that do not fit together are refused before compiled code reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline

from tailrace.models.errors import PackageRefused
from tailrace.models.formats.original import parts_of
from tailrace.models.formats.skops.neighbours import with_brute_force
from tailrace.models.formats.skops.tree_bounds import check_trees


def neighbours(sparse: bool = True) -> Any:
    x = np.random.default_rng(0).normal(size=(40, 3))
    return KNeighborsClassifier().fit(scipy.sparse.csr_matrix(x) if sparse else x, x[:, 0] > 0)


def change(name: str, value: Any) -> Callable[[Any], None]:
    return lambda part: setattr(part, name, value)


def point_outside(part: Any) -> None:
    part._fit_X.indices[0] = 1000


ALTERED: dict[str, Callable[[Any], None]] = {
    "other metric": change("effective_metric_", "precomputed"),
    "search by tree": change("_fit_method", "kd_tree"),
    "more rows than there are": change("n_samples_fit_", 41),
    "more columns than there are": change("n_features_in_", 4),
    "fewer truths": change("_y", np.zeros(39, dtype=np.int64)),
    "a class that is none": change("_y", np.full(40, 2, dtype=np.int64)),
    "truths that are no numbers of classes": change("_y", np.zeros(40)),
    "more neighbours than rows": change("n_neighbors", 41),
    "an index outside of the matrix": point_outside,
}


@pytest.mark.parametrize("name", ALTERED)
def test_what_was_altered_is_refused(name: str) -> None:
    part = neighbours()
    check_trees(part)
    ALTERED[name](part)
    with pytest.raises(PackageRefused) as refused:
        check_trees(part)
    assert refused.value.check == "model"


def test_a_search_tree_is_left_behind_and_the_original_keeps_it() -> None:
    x = np.random.default_rng(1).normal(size=(50, 2))
    fitted = make_pipeline(KNeighborsRegressor(algorithm="kd_tree")).fit(x, x[:, 0])
    carried = with_brute_force(fitted, list(parts_of(fitted)))
    check_trees(carried)
    assert fitted[-1]._tree is not None
    assert carried.predict(x) == pytest.approx(fitted.predict(x))
    brute = make_pipeline(KNeighborsRegressor(algorithm="brute")).fit(x, x[:, 0])
    assert with_brute_force(brute, list(parts_of(brute))) is brute
