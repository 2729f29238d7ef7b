"""ONNX forms of a scikit-learn estimator, by skl2onnx, in the order in which they are worth trying.

``double``: everything in double precision. Linear models and networks come out within a few units of the last
place, LightGBM's trees take the same branches. Not for other trees, which compare in single precision: in double they
take another branch now and then. ``mixed``: preprocessing in double and the last step in single precision, as trees
do. ``single``: everything in single precision; for trees only where nothing is computed before them.
``zeros-as-missing mixed``: for XGBoost behind steps that give sparse matrices.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from tailrace.models.errors import first_line
from tailrace.models.formats.onnx.boosters import (
    OPERATORS,
    boosters,
    no_converter,
    register,
    unnamed_features,
)
from tailrace.models.formats.onnx.double_thresholds import compare_in_double
from tailrace.models.formats.original import Original, parts_of
from tailrace.models.inputs import Input


class OnnxForm(NamedTuple):
    """A model in ONNX: how it is fed, which inputs are left, which output counts, and if it is double."""

    precision: str
    data: bytes
    feed: Literal["columns", "matrix"]
    inputs: tuple[Input, ...]
    output: str
    double: bool


def onnx_forms(original: Original, why: list[str]) -> Iterator[OnnxForm]:
    """The forms that convert; why others do not is added to ``why``."""
    try:
        import skl2onnx  # noqa: F401
    except ModuleNotFoundError:
        why.append("skl2onnx is not installed: pip install 'tailrace[train]'")
        return
    for part in parts_of(original.estimator):
        if type(part).__name__.startswith("HistGradientBoosting"):
            why.append(f"there is no converter for {type(part).__name__}")
            return
    if (unknown := no_converter(original.estimator)) is not None:
        why.append(f"there is no converter for {unknown}")
        return
    libraries = boosters(original.estimator)
    try:
        register(libraries)
    except ModuleNotFoundError as missing:
        converted = " and ".join(libraries)
        why.append(f"{missing.name} is not installed, which converts {converted}: pip install it")
        return
    by_column = original.feed == "columns" and _selects_columns(original.estimator)
    if not by_column and any(i.type == "category" for i in original.inputs):
        why.append("its categories are not encoded by steps that a ColumnTransformer selects them for")
        return
    feed: Literal["columns", "matrix"] = "columns" if by_column else "matrix"
    for precision, estimator, single in _precisions(original.estimator):
        try:
            yield _convert(precision, estimator, original, feed, single)
        except Exception as error:  # the converter raises whatever comes up
            why.append(f"{precision}: {first_line(error)}")


def _precisions(estimator: Any) -> Iterator[tuple[str, Any, bool]]:
    from skl2onnx.sklapi import CastTransformer, ReplaceTransformer
    from sklearn.pipeline import Pipeline

    trees = bool(boosters(estimator)) or any(hasattr(p, "tree_") for p in parts_of(estimator))
    stepped = isinstance(estimator, Pipeline) and len(estimator.steps) > 1
    if not trees or boosters(estimator) == ["lightgbm"]:
        yield "double", estimator, False
    if stepped:
        cast = CastTransformer(dtype=np.float32)
        cast.fit(np.zeros((1, 1)))
        mixed = copy.copy(estimator)
        mixed.steps = [*estimator.steps[:-1], ("to_single", cast), estimator.steps[-1]]
        yield "mixed", mixed, False
        if "xgboost" in boosters(estimator):  # for it a cell that a sparse matrix does not hold is missing
            absent = ReplaceTransformer(from_value=0, to_value=np.nan)
            sparse = copy.copy(mixed)
            sparse.steps = [*mixed.steps[:-1], ("zeros_are_missing", absent), mixed.steps[-1]]
            yield "zeros-as-missing mixed", sparse, False
    if not (trees and stepped):
        yield "single", estimator, True


def _convert(
    precision: str, estimator: Any, original: Original, feed: Literal["columns", "matrix"], single: bool
) -> OnnxForm:
    import onnx
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
    from sklearn.impute import SimpleImputer

    number = FloatTensorType if single else DoubleTensorType
    text, matrix = StringTensorType([None, 1]), number([None, len(original.inputs)])
    types = [(i.called, text if i.type == "category" else number([None, 1])) for i in original.inputs]
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    with warnings.catch_warnings(), unnamed_features(estimator):
        warnings.simplefilter("ignore")
        model = convert_sklearn(
            estimator,
            name="model",
            initial_types=[("features", matrix)] if feed == "matrix" else types,
            options={id(last): {"zipmap": False}} if original.task != "regression" else None,
            custom_conversion_functions={SimpleImputer: _imputer},
            custom_shape_calculators={SimpleImputer: _imputer_shape},
            target_opset=OPERATORS if boosters(estimator) else None,
        )
    if precision == "double" and boosters(estimator):
        compare_in_double(model, _only_booster(estimator))
    # The converter keeps the operator sets in a set, whose order is another one in every process.
    operators = sorted(model.opset_import, key=lambda o: str(o.domain))
    del model.opset_import[:]
    model.opset_import.extend(operators)
    output = model.graph.output[0 if original.task == "regression" else -1]
    names = {i.name for i in model.graph.input}
    return OnnxForm(
        precision,
        model.SerializeToString(deterministic=True),
        feed,
        original.inputs if feed == "matrix" else tuple(i for i in original.inputs if i.called in names),
        output.name,
        output.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE,
    )


def _only_booster(estimator: Any) -> Any:
    trees = [p for p in parts_of(estimator) if hasattr(p, "booster_") or hasattr(p, "tree_")]
    if len(trees) != 1:
        raise NotImplementedError("double precision is for LightGBM's trees alone")
    return trees[0].booster_


def _imputer_shape(operator: Any) -> None:
    kind = type(operator.inputs[0].type)
    operator.outputs[0].type = kind([None, len(operator.raw_operator.statistics_)])


def _imputer(scope: Any, operator: Any, container: Any) -> None:
    """SimpleImputer as Where(IsNaN(x), statistic, x): ONNX's own Imputer exists in single precision only."""
    from onnx import TensorProto
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    imputer, given = operator.raw_operator, operator.inputs[0]
    is_number = len(operator.inputs) == 1 and isinstance(given.type, (DoubleTensorType, FloatTensorType))
    if not is_number or imputer.add_indicator or imputer.missing_values is not np.nan:
        raise NotImplementedError("SimpleImputer converts for NaN in numbers, without an indicator")
    fill = np.asarray(imputer.statistics_, dtype=np.float64)
    if np.isnan(fill).any():
        raise NotImplementedError("SimpleImputer has a column without any value")
    kind = TensorProto.DOUBLE if isinstance(given.type, DoubleTensorType) else TensorProto.FLOAT
    absent, value = scope.get_unique_variable_name("absent"), scope.get_unique_variable_name("value")
    container.add_initializer(value, kind, [1, len(fill)], fill.tolist())
    for operation, inputs, output, since in (
        ("IsNaN", [given.full_name], absent, 9),
        ("Where", [absent, value, given.full_name], operator.outputs[0].full_name, 9),
    ):
        name = scope.get_unique_operator_name(operation)
        container.add_node(operation, inputs, [output], name=name, op_version=since)


def _selects_columns(estimator: Any) -> bool:
    from sklearn.compose import ColumnTransformer

    return any(isinstance(p, ColumnTransformer) for p in parts_of(estimator))
