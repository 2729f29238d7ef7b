"""Bounds of the trees, and of sparse matrices and neighbours, in an estimator that came from outside.

scikit-learn walks the nodes of a tree by the indices that they hold and does not check them, so that an altered array
would read memory that is not its own. Here every index is checked once, before the first prediction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.tree._tree import Tree

from tailrace.models.columns import Array
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.skops.neighbours import check_neighbours, is_neighbours


def check_trees(estimator: Any) -> None:
    """Raises PackageRefused("model", ...) where a node points outside of its tree or backwards."""
    seen: set[int] = set()
    waiting: list[tuple[Any, int | None]] = [(estimator, None)]
    while waiting:
        part, features = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Tree):
            nodes = part.__getstate__()["nodes"]
            inner = nodes["left_child"] != -1
            _check(nodes["left_child"], nodes["right_child"], nodes["feature"], inner, part.n_features)
        elif isinstance(part, TreePredictor):
            _check_predictor(part, features)
        elif isinstance(part, dict):
            waiting.extend((v, features) for v in part.values())
        elif isinstance(part, (list, tuple)):
            waiting.extend((v, features) for v in part)
        elif isinstance(part, np.ndarray):
            if part.dtype == object:
                waiting.extend((v, features) for v in part.ravel())
        elif issparse(part):
            _check_sparse(part)
        elif type(part).__module__.startswith("sklearn."):
            if is_neighbours(part):
                check_neighbours(part)
            known = getattr(part, "n_features_in_", features)
            waiting.extend((v, known) for v in getattr(part, "__dict__", {}).values())


def _check_sparse(matrix: Any) -> None:
    try:
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise PackageRefused("model", f"a sparse matrix is broken: {error}") from None


def _check_predictor(predictor: TreePredictor, features: int | None) -> None:
    nodes = predictor.nodes
    inner = nodes["is_leaf"] == 0
    _check(nodes["left"], nodes["right"], nodes["feature_idx"], inner, features)
    categorical = inner & (nodes["is_categorical"] != 0)
    for bitsets in (predictor.raw_left_cat_bitsets, predictor.binned_left_cat_bitsets):
        if (nodes["bitset_idx"][categorical] >= len(bitsets)).any():
            raise PackageRefused("model", "a node of a tree names a set of categories that is not there")


def _check(left: Array, right: Array, feature: Array, inner: Array, features: int | None) -> None:
    at = np.flatnonzero(inner)
    ahead = True
    for child in (left, right):
        to = child[at].astype(np.int64)
        ahead = ahead and bool(((to > at) & (to < len(inner))).all())
    if not len(inner) or not ahead:
        raise PackageRefused("model", "a node of a tree points outside of its tree")
    if features is None or (feature[at] < 0).any() or (feature[at].astype(np.int64) >= features).any():
        raise PackageRefused("model", "a node of a tree reads a feature that is not there")
