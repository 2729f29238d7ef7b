"""LightGBM's and XGBoost's estimators in ONNX, by the converters of onnxmltools. All three are the user's: what is not
installed is not asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tailrace.models.formats.original import parts_of

# By library, what its converter's module and its operators are called by, and its estimators.
_LIBRARIES = {
    "lightgbm": ("LightGbm", ("LGBMClassifier", "LGBMRegressor")),
    "xgboost": ("XGBoost", ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor")),
}

# The newest operators that their converters write.
OPERATORS = {"": 15, "ai.onnx.ml": 3}


def boosters(estimator: Any) -> list[str]:
    """The libraries, of those above, whose estimators are part of this one."""
    return sorted({_library(part) for part in parts_of(estimator)} & _LIBRARIES.keys())


def no_converter(estimator: Any) -> str | None:
    """What of it the converters do not know, or None."""
    for part in parts_of(estimator):
        if _library(part) == "xgboost" and part.get_params().get("booster") in ("dart", "gblinear"):
            return f"{type(part).__name__} with booster={part.get_params()['booster']!r}"
    return None


@contextmanager
def unnamed_features(estimator: Any) -> Iterator[None]:
    """While it lasts, XGBoost's boosters have forgotten the names of a data frame's columns, which their converter
    takes for numbers.
    """
    xgboosters = [p.get_booster() for p in parts_of(estimator) if _library(p) == "xgboost"]
    names = [booster.feature_names for booster in xgboosters]
    try:
        for booster in xgboosters:
            booster.feature_names = None
        yield
    finally:
        for booster, named in zip(xgboosters, names, strict=True):
            booster.feature_names = named


def register(libraries: list[str]) -> None:
    """Has skl2onnx convert the estimators of these libraries, wherever in a pipeline they are.

    Raises:
        ModuleNotFoundError: onnxmltools is not installed.
    """
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    for library in libraries:
        prefix, names = _LIBRARIES[library]
        module = f"onnxmltools.convert.{library}.operator_converters.{prefix}"
        convert = getattr(importlib.import_module(module), f"convert_{library}")
        for name in names:
            shapes, options = calculate_linear_regressor_output_shapes, None
            if name.endswith("Classifier"):
                shapes = calculate_linear_classifier_output_shapes
                options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
            estimator = getattr(importlib.import_module(library), name)
            update_registered_converter(estimator, f"{prefix}{name}", shapes, convert, options=options)


def _library(part: Any) -> str:
    return type(part).__module__.partition(".")[0]
