"""LightGBM's and XGBoost's own estimators, behind an imputer and an encoder and alone, answer alike when published."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.pipeline import make_pipeline
from tests.support import models
from tests.support.tools import leave_out

from tailrace.contracts.language.load import load_contract
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.formats.onnx.boosters import OPERATORS, register
from tailrace.models.formats.onnx.double_thresholds import compare_in_double
from tailrace.models.package.build import Package, build_package

NUMBERS = ["income", "debt_ratio", "age"]
ON_NUMBERS = models.CONTRACT.replace(
    "  purpose: {categories: [car, home, education, other], missing: pass}\n", ""
).replace("missing: impute", "missing: pass")
TASKS = list(models.TARGETS)


@pytest.fixture(params=["lightgbm", "xgboost"])
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "xgboost" and sys.platform != "linux":
        leave_out(request.config, "XGBoost's estimators", "the lock file has them for Linux")
    return name


def estimator(library: str, task: str) -> Any:
    if library == "lightgbm":
        import lightgbm

        kind = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
        return kind(n_estimators=15, num_leaves=7, verbose=-1, n_jobs=1, random_state=0)
    import xgboost

    kind = xgboost.XGBRegressor if task == "regression" else xgboost.XGBClassifier
    return kind(n_estimators=15, max_depth=3, n_jobs=1, random_state=0)


def truth_for(library: str, task: str, truth: Any) -> Any:
    """XGBoost takes classes as numbers alone, in the order of the alphabet."""
    return (
        np.unique(truth, return_inverse=True)[1] if library == "xgboost" and task == "multiclass" else truth
    )


def answers(built: Package, columns: dict[str, Any], count: int) -> Any:
    loaded = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
    predictions = loaded.predictions(loaded.outputs(columns, count))
    return predictions.value if predictions.probabilities is None else predictions.probabilities


def expected(fitted: Any, x: Any, task: str) -> Any:
    return fitted.predict(x) if task == "regression" else fitted.predict_proba(x)


@pytest.mark.parametrize("task", TASKS)
def test_one_behind_an_imputer_and_an_encoder(library: str, task: str) -> None:
    frame, truth = models.rows(task)
    pipeline = make_pipeline(models.preprocessing(), estimator(library, task))
    y = truth_for(library, task, truth)
    fitted = pipeline.fit(frame, y)
    built = build_package(fitted, frame, y, models.contract(task))
    assert built.manifest.format == "onnx"
    assert answers(built, models.columns_of_frame(frame), len(frame)) == pytest.approx(
        expected(fitted, frame, task), rel=1e-4, abs=1e-5
    )


@pytest.mark.parametrize("task", TASKS)
def test_one_alone_takes_missing_numbers_its_own_way(library: str, task: str) -> None:
    frame, truth = models.rows(task)
    numbers, y = frame[NUMBERS], truth_for(library, task, truth)
    fitted = estimator(library, task).fit(numbers, y)
    contract = load_contract(ON_NUMBERS.replace("TARGET", models.TARGETS[task]))
    built = build_package(fitted, numbers, y, contract)
    columns = {name: numbers[name].to_numpy(dtype=np.float64) for name in NUMBERS}
    assert answers(built, columns, len(numbers)) == pytest.approx(
        expected(fitted, numbers, task), rel=1e-4, abs=1e-5
    )


def test_lightgbm_s_trees_compare_in_double_precision() -> None:
    """Many of them behind a StandardScaler, at rows in the middle between others, where the thresholds are."""
    frame, truth = models.rows("multiclass")
    many = estimator("lightgbm", "multiclass").set_params(n_estimators=150, num_leaves=31)
    fitted = make_pipeline(models.preprocessing(), many).fit(frame, truth)
    built = build_package(fitted, frame, truth, models.contract("multiclass"))
    assert built.manifest.conversion is not None
    assert built.manifest.conversion.note == "ONNX in double precision"
    middle = frame.copy()
    for name in NUMBERS:
        known = np.sort(frame[name].dropna().unique())
        middle[name] = np.resize((known[1:] + known[:-1]) / 2, len(frame))
    assert answers(built, models.columns_of_frame(middle), len(middle)) == pytest.approx(
        fitted.predict_proba(middle), abs=1e-5
    )


def test_thresholds_of_another_booster_are_refused() -> None:
    frame, truth = models.rows()
    numbers = frame[NUMBERS].to_numpy()
    fitted, other = (
        estimator("lightgbm", "binary").fit(numbers[rows], truth[rows])
        for rows in (slice(0, 300), slice(100, 400))
    )
    register(["lightgbm"])
    inputs = [("x", DoubleTensorType([None, len(NUMBERS)]))]
    model = convert_sklearn(fitted, initial_types=inputs, target_opset=OPERATORS)
    with pytest.raises(NotImplementedError, match="is none of the booster's"):
        compare_in_double(model, other.booster_)


@pytest.mark.parametrize("others", [[], [("<=", 0)], [("==", 1)], [("<=", 1)]])
def test_a_threshold_is_the_booster_s_only_one_that_is_the_same_in_single_precision(others: Any) -> None:
    """Of the booster's tree, which branches at 0.1, further nodes: how each compares, and which feature."""
    inner: dict[str, Any] = {"leaf_value": 0.0}
    for compares, feature in others:
        inner = _branch(compares, feature, 0.1 + 1e-12, inner)
    tree = _branch("<=", 1, 0.1, inner)
    booster: Any = SimpleNamespace(dump_model=lambda: {"tree_info": [{"tree_structure": tree}]})
    modes = ["BRANCH_LEQ", "LEAF", "LEAF"]
    single = float(np.float32(0.1))
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        nodes_treeids=[0, 0, 0],
        nodes_featureids=[1, 0, 0],
        nodes_values=[single, 0.0, 0.0],
        nodes_modes=modes,
    )
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    if others == [("<=", 1)]:
        with pytest.raises(NotImplementedError, match="or two in single precision"):
            compare_in_double(model, booster)
        return
    compare_in_double(model, booster)
    [values] = [a.t for a in model.graph.node[0].attribute if a.name == "nodes_values_as_tensor"]
    assert numpy_helper.to_array(values).tolist() == [0.1, 0.0, 0.0]


def _branch(compares: str, feature: int, threshold: float, left: dict[str, Any]) -> dict[str, Any]:
    right = {"leaf_value": 1.0}
    return {
        "decision_type": compares,
        "split_feature": feature,
        "threshold": threshold,
        "left_child": left,
        "right_child": right,
    }


@pytest.mark.parametrize("parameters", [{"booster": "dart"}, {"booster": "gblinear"}])
def test_what_its_converter_does_not_know_is_refused(request: pytest.FixtureRequest, parameters: Any) -> None:
    if sys.platform != "linux":
        leave_out(request.config, "XGBoost's estimators", "the lock file has them for Linux")
    frame, truth = models.rows()
    fitted = estimator("xgboost", "binary").set_params(**parameters).fit(frame[NUMBERS], truth)
    contract = load_contract(ON_NUMBERS.replace("TARGET", models.TARGETS["binary"]))
    with pytest.raises(Exception, match="there is no converter for XGBClassifier with booster="):
        build_package(fitted, frame[NUMBERS], truth, contract)
