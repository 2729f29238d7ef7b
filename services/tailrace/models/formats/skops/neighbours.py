"""Nearest neighbours as data: by brute force, whose state is the training rows alone, with every shape checked.

A search tree is left out: its compiled code follows the indices that it holds.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from tailrace.models.errors import PackageRefused

_METRICS = frozenset({"euclidean", "l2", "manhattan", "l1", "cityblock", "cosine", "minkowski"})


def is_neighbours(part: Any) -> bool:
    return type(part).__module__.startswith("sklearn.neighbors.")


def with_brute_force(estimator: Any, parts: list[Any]) -> Any:
    """The estimator, a copy where nearest neighbours in it search by a tree: these search by brute force."""
    if all(part._fit_method == "brute" for part in parts if is_neighbours(part)):
        return estimator
    memo: dict[int, Any] = {
        id(part._tree): None for part in parts if is_neighbours(part) and part._tree is not None
    }
    copied = copy.deepcopy(estimator, memo)
    for part in parts:
        if is_neighbours(part):
            changed = memo[id(part)]
            changed._fit_method = changed.algorithm = "brute"
            changed._tree = None
    return copied


def check_neighbours(part: Any) -> None:
    """Raises PackageRefused("model", ...) where nearest neighbours do not fit together: compiled code trusts that."""
    rows: Any = getattr(part, "_fit_X", None)
    truth: Any = getattr(part, "_y", None)
    is_brute = getattr(part, "_fit_method", None) == "brute" and getattr(part, "_tree", None) is None
    if not is_brute or getattr(part, "effective_metric_", None) not in _METRICS:
        raise PackageRefused("model", "nearest neighbours search by something else than brute force")
    shape: tuple[Any, Any] = (getattr(part, "n_samples_fit_", None), getattr(part, "n_features_in_", None))
    fits = (
        getattr(rows, "ndim", None) == 2
        and rows.shape == shape
        and rows.dtype in (np.float32, np.float64)
        and isinstance(truth, np.ndarray)
        and len(truth) == rows.shape[0]
    )
    if fits and hasattr(part, "classes_"):
        known = len(part.classes_)
        fits = truth.ndim == 1 and truth.dtype.kind == "i" and bool(((truth >= 0) & (truth < known)).all())
    if not fits or not 0 < part.n_neighbors <= shape[0]:
        raise PackageRefused("model", "the rows, truths and sizes of nearest neighbours do not fit together")
