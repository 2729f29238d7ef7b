"""Turns a fitted scikit-learn estimator into the bytes of a model part: ONNX where it converts faithfully,
else skops.

Conversions are tried in the order of their precision and each is compared with the estimator itself:

- ``double``: all in double precision. Linear models and networks come out within a few units of the last
place. - ``single after preprocessing``: preprocessing in double, the last step in single precision.
scikit-learn's trees
  compare in single precision themselves, so this is what they do.
- ``single``: all in single precision.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import skops.io

from tailrace.kit.errors import TailraceError
from tailrace.models.columns import Array, Columns, padded
from tailrace.models.errors import PackageRefused
from tailrace.models.load import load_model
from tailrace.models.manifest import Conversion, Input, Manifest, Tolerance
from tailrace.models.run_skops import EstimatorRunner
from tailrace.models.skops_archive import canonical, check_archive

# A conversion that is further off than this (probabilities; values: relative to their size) is not taken.
FAITHFUL = 1e-5

DOUBLE = Tolerance(absolute=1e-9, relative=1e-9)
SINGLE = Tolerance(absolute=1e-5, relative=1e-5)


@dataclass(frozen=True)
class Converted:
    """A model part and how it is to be run."""

    data: bytes
    format: Literal["onnx", "skops"]
    feed: Literal["columns", "matrix"]
    missing_category: Literal["empty", "none", "nan"]
    inputs: tuple[Input, ...]
    output: str
    tolerance: Tolerance
    conversion: Conversion


class Original:
    """The estimator itself, run on columns as it was fitted.

    Raises:
        TailraceError: it is not a fitted scikit-learn estimator that gives what the task needs.
    """

    def __init__(self, estimator: Any, inputs: tuple[Input, ...], task: str) -> None:
        self.estimator = estimator
        self.task = task
        self.method = "predict" if task == "regression" else "predict_proba"
        if not callable(getattr(estimator, self.method, None)):
            raise TailraceError(
                f"{type(estimator).__name__} has no {self.method}, which a {task} model needs"
                + ("; wrap it in sklearn.calibration.CalibratedClassifierCV" if task != "regression" else "")
            )
        self.feed: Literal["columns", "matrix"] = (
            "columns" if getattr(estimator, "feature_names_in_", None) is not None else "matrix"
        )
        if self.feed == "matrix" and any(i.type == "category" for i in inputs):
            raise TailraceError(
                "the estimator was fitted on a matrix, which has no categories: fit it on a data frame whose "
                "columns are named after the features"
            )
        self.inputs = _in_fitted_order(estimator, inputs)

    def run(self, columns: Columns, rows: int, missing_category: str = "none") -> Array:
        lengthened, total = padded({i.name: columns[i.name] for i in self.inputs}, rows)
        runner = EstimatorRunner(self.estimator, self.inputs, self.method, self.feed, missing_category)
        return runner.run(lengthened, total)[:rows]

    def missing_category(self, columns: Columns) -> Literal["none", "nan"]:
        """How missing categories looked when it was fitted: an encoder has NaN among its categories, or
        not.
        """
        found = _fitted_categories(self.estimator)
        return "nan" if any(isinstance(c, float) for c in found) else "none"


def convert(
    original: Original, columns: Columns, rows: int, as_manifest: Callable[..., Manifest]
) -> Converted:
    """The most faithful form of the estimator, compared on ``columns``.

    ``as_manifest`` makes the manifest under which a model part is run.

    Raises:
        TailraceError: neither ONNX nor skops can carry the estimator; says why.
    """
    missing = original.missing_category(columns)
    expected = original.run(columns, rows, missing)
    why: list[str] = []
    for note, data, feed, inputs in _onnx_forms(original, why):
        output, tolerance = _output_of(data, original.task)
        manifest = as_manifest("onnx", feed, "empty", inputs, output, tolerance)
        try:
            found = _run(manifest, data, columns, rows, expected.shape[1])
        except Exception as error:
            why.append(f"{note}: {_line(error)}")
            continue
        difference, agreement = _compare(found, expected, original.task)
        if difference > FAITHFUL:
            why.append(f"{note}: outputs differ from the estimator's by up to {difference:.2g}")
            continue
        conversion = Conversion(
            rows=rows,
            max_abs_difference=difference,
            class_agreement=agreement,
            note=f"ONNX, {note} precision",
        )
        return Converted(data, "onnx", feed, "empty", inputs, output, tolerance, conversion)
    return _skops(original, columns, rows, expected, missing, as_manifest, why)


def _skops(
    original: Original,
    columns: Columns,
    rows: int,
    expected: Array,
    missing: Literal["none", "nan"],
    as_manifest: Callable[..., Manifest],
    why: list[str],
) -> Converted:
    reason = why[-1] if why else "no converter"
    try:
        data = canonical(skops.io.dumps(original.estimator))
        check_archive(data)
        manifest = as_manifest("skops", original.feed, missing, original.inputs, original.method, DOUBLE)
        found = _run(manifest, data, columns, rows, expected.shape[1])
    except PackageRefused as refused:
        raise TailraceError(
            f"{type(original.estimator).__name__} can be published neither as ONNX ({reason}) nor as skops "
            f"({refused.reason}): use transformers and estimators of scikit-learn itself, or export it to "
            "ONNX yourself and `tailrace publish model.onnx`"
        ) from None
    except Exception as error:
        raise TailraceError(
            f"{type(original.estimator).__name__} can be published neither as ONNX ({reason}) nor as skops "
            f"({_line(error)})"
        ) from error
    difference, agreement = _compare(found, expected, original.task)
    if difference > 0:
        raise TailraceError(
            f"the skops archive of {type(original.estimator).__name__} gives outputs that differ from the "
            f"estimator's by up to {difference:.2g}"
        )
    conversion = Conversion(
        rows=rows,
        max_abs_difference=difference,
        class_agreement=agreement,
        note=f"skops, since it does not convert to ONNX ({reason})",
    )
    return Converted(
        data, "skops", original.feed, missing, original.inputs, original.method, DOUBLE, conversion
    )


def _run(manifest: Manifest, data: bytes, columns: Columns, rows: int, width: int) -> Array:
    lengthened, total = padded({i.name: columns[i.name] for i in manifest.inputs}, rows)
    found = load_model(manifest, data).run(lengthened, total)[:rows]
    if found.shape[1] != width:
        raise ValueError(f"{found.shape[1]} outputs a row, the estimator has {width}")
    return found


def _compare(found: Array, expected: Array, task: str) -> tuple[float, float]:
    """Largest difference (of values: relative to those above 1) and share of rows with the same class."""
    if not len(expected):
        return 0.0, 1.0
    if not np.isfinite(found).all():
        return float("inf"), 0.0
    scale = np.maximum(1.0, np.abs(expected)) if task == "regression" else 1.0
    difference = float(np.max(np.abs(found - expected) / scale))
    same = 1.0 if task == "regression" else float(np.mean(found.argmax(axis=1) == expected.argmax(axis=1)))
    return difference, same


def _onnx_forms(
    original: Original, why: list[str]
) -> Iterator[tuple[str, bytes, Literal["columns", "matrix"], tuple[Input, ...]]]:
    try:
        import skl2onnx  # noqa: F401
    except ModuleNotFoundError:
        why.append("skl2onnx is not installed: pip install 'tailrace[train]'")
        return
    by_column = original.feed == "columns" and _selects_columns(original.estimator)
    if not by_column and any(i.type == "category" for i in original.inputs):
        why.append("categories reach a step that is not told which columns they are")
        return
    feed: Literal["columns", "matrix"] = "columns" if by_column else "matrix"
    for note, estimator, single in _precisions(original.estimator):
        try:
            data = _to_onnx(estimator, original.inputs, feed, single)
        except Exception as error:
            why.append(f"{note}: {_line(error)}")
            continue
        yield note, data, feed, _used(data, original.inputs, feed)


def _precisions(estimator: Any) -> Iterator[tuple[str, Any, bool]]:
    from skl2onnx.sklapi import CastTransformer
    from sklearn.pipeline import Pipeline

    yield "double", estimator, False
    if isinstance(estimator, Pipeline) and len(estimator.steps) > 1:
        cast = CastTransformer(dtype=np.float32)
        cast.fit(np.zeros((1, 1)))
        mixed = copy.copy(estimator)
        mixed.steps = [*estimator.steps[:-1], ("to_single", cast), estimator.steps[-1]]
        yield "single after preprocessing", mixed, False
    yield "single", estimator, True


def _to_onnx(estimator: Any, inputs: tuple[Input, ...], feed: str, single: bool) -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
    from sklearn.base import is_classifier
    from sklearn.impute import SimpleImputer

    number = FloatTensorType if single else DoubleTensorType
    types = (
        [("features", number([None, len(inputs)]))]
        if feed == "matrix"
        else [(i.name, (StringTensorType if i.type == "category" else number)([None, 1])) for i in inputs]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = convert_sklearn(
            estimator,
            name="model",
            initial_types=types,
            options={id(_last(estimator)): {"zipmap": False}} if is_classifier(estimator) else None,
            custom_conversion_functions={SimpleImputer: _imputer},
            custom_shape_calculators={SimpleImputer: _imputer_shape},
        )
    # The name of a graph and its producer say nothing about what it computes.
    model.graph.name = "model"
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _imputer_shape(operator: Any) -> None:
    kind = type(operator.inputs[0].type)
    operator.outputs[0].type = kind([None, len(operator.raw_operator.statistics_)])


def _imputer(scope: Any, operator: Any, container: Any) -> None:
    """SimpleImputer as Where(IsNaN(x), statistic, x): ONNX's own Imputer exists in single precision only."""
    from onnx import TensorProto
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    imputer, given = operator.raw_operator, operator.inputs[0]
    plain = isinstance(given.type, (DoubleTensorType, FloatTensorType)) and not imputer.add_indicator
    if len(operator.inputs) != 1 or not plain or not _is_nan(imputer.missing_values):
        raise NotImplementedError("SimpleImputer converts for NaN in numbers, without an indicator")
    fill = np.asarray(imputer.statistics_, dtype=np.float64)
    if np.isnan(fill).any():
        raise NotImplementedError("SimpleImputer has a column without any value")
    kind = TensorProto.DOUBLE if isinstance(given.type, DoubleTensorType) else TensorProto.FLOAT
    is_missing, value = scope.get_unique_variable_name("missing"), scope.get_unique_variable_name("value")
    container.add_initializer(value, kind, [1, len(fill)], fill.tolist())
    container.add_node(
        "IsNaN", [given.full_name], [is_missing], name=scope.get_unique_operator_name("IsNaN"), op_version=13
    )
    container.add_node(
        "Where",
        [is_missing, value, given.full_name],
        [operator.outputs[0].full_name],
        name=scope.get_unique_operator_name("Where"),
        op_version=16,
    )


def _used(data: bytes, inputs: tuple[Input, ...], feed: str) -> tuple[Input, ...]:
    """Those inputs that the graph still has: a column that is dropped is none."""
    import onnx

    if feed == "matrix":
        return inputs
    names = {i.name for i in onnx.load_from_string(data).graph.input}
    return tuple(i for i in inputs if i.name in names)


def _output_of(data: bytes, task: str) -> tuple[str, Tolerance]:
    import onnx

    outputs = list(onnx.load_from_string(data).graph.output)
    chosen = outputs[0] if task == "regression" else outputs[-1]
    double = chosen.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE
    return str(chosen.name), DOUBLE if double else SINGLE


def _last(estimator: Any) -> Any:
    return estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator


def _selects_columns(estimator: Any) -> bool:
    from sklearn.compose import ColumnTransformer

    return hasattr(estimator, "steps") and isinstance(estimator.steps[0][1], ColumnTransformer)


def _in_fitted_order(estimator: Any, inputs: tuple[Input, ...]) -> tuple[Input, ...]:
    fitted = getattr(estimator, "feature_names_in_", None)
    if fitted is None:
        wide = getattr(estimator, "n_features_in_", len(inputs))
        if wide != len(inputs):
            raise TailraceError(f"the estimator was fitted on {wide} columns, X has {len(inputs)}")
        return inputs
    by_name = {i.name: i for i in inputs}
    absent = [str(n) for n in fitted if n not in by_name]
    if absent:
        raise TailraceError(f"the estimator was fitted on {', '.join(absent)}, which X does not have")
    return tuple(by_name[str(n)] for n in fitted)


def _fitted_categories(estimator: Any) -> list[Any]:
    """All categories that encoders inside the estimator have learned."""
    found: list[Any] = []
    waiting, seen = [estimator], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        for categories in getattr(part, "categories_", None) or ():
            if getattr(categories, "dtype", None) == object:
                found.extend(categories)
        if isinstance(part, (list, tuple)):
            waiting.extend(part)
        elif hasattr(part, "get_params"):
            waiting.extend(vars(part).values())
    return found


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
