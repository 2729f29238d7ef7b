"""What LightGBM's and XGBoost's converters write, as onnxmltools 1.16 wrote it for LightGBM 4.7 and XGBoost 3.2.

Graphs of the same operators, versions, names and shapes of outputs, made by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sklearn.base import BaseEstimator
from tests.support import models

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError
from tailrace.models.class_names import class_text
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.formats.onnx.boosters import boosters, no_converter, unnamed_features
from tailrace.models.package.build import BuildChecks, build_from_onnx, build_package
from tailrace.models.package.table import target_of

NUMBERS = ["income", "debt_ratio", "age"]
WITHOUT_CATEGORY = models.CONTRACT.replace(
    "  purpose: {categories: [car, home, education, other], missing: pass}\n", ""
)
SPLIT_AT, LEAVES = 0.5, np.array([[1.0, 0.25, -0.5], [-0.75, 0.5, 2.0]])
BASE = 0.125


def contract(target: str) -> ModelContract:
    return load_contract(WITHOUT_CATEGORY.replace("TARGET", target))


def tensor(name: str, *shape: int | None) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def trees(kind: str, outputs: list[str], classes: int, **more: Any) -> Any:
    """A tree for each class, or one for two or for values: by debt_ratio at most SPLIT_AT, the first leaves or the
    second.
    """
    count = classes if classes > 2 else 1
    nodes = [(tree, node) for tree in range(count) for node in range(3)]
    leaves = [(tree, node) for tree in range(count) for node in (1, 2)]
    of, weights = ("class", "class_weights") if classes else ("target", "target_weights")
    facts: dict[str, Any] = {
        "nodes_treeids": [tree for tree, _ in nodes],
        "nodes_nodeids": [node for _, node in nodes],
        "nodes_modes": ["BRANCH_LEQ" if node == 0 else "LEAF" for _, node in nodes],
        "nodes_featureids": [1 if node == 0 else 0 for _, node in nodes],
        "nodes_values": [SPLIT_AT if node == 0 else 0.0 for _, node in nodes],
        "nodes_truenodeids": [1 if node == 0 else 0 for _, node in nodes],
        "nodes_falsenodeids": [2 if node == 0 else 0 for _, node in nodes],
        "nodes_missing_value_tracks_true": [0 for _ in nodes],
        "nodes_hitrates": [1.0 for _ in nodes],
        f"{of}_treeids": [tree for tree, _ in leaves],
        f"{of}_nodeids": [node for _, node in leaves],
        f"{of}_ids": [tree for tree, _ in leaves],
        weights: [float(LEAVES[node - 1][tree]) for tree, node in leaves],
        "base_values": [BASE] * count,
    }
    return helper.make_node(kind, ["input"], outputs, domain="ai.onnx.ml", **facts, **more)


def margins(x: Any, classes: int) -> Any:
    second = ~(x[:, 1].astype(np.float32) <= SPLIT_AT)
    values = LEAVES[second.astype(int)] + BASE
    if classes == 2:  # of the second class; that of the first is none
        return np.column_stack([np.zeros(len(x)), values[:, 0]])
    return values[:, : max(classes, 1)]


def softmax(margin: Any) -> Any:
    raised = np.exp(margin)
    return raised / raised.sum(axis=1, keepdims=True)


def model(nodes: list[Any], outputs: list[Any], **opsets: int) -> bytes:
    graph = helper.make_graph(nodes, "0123abcd", [tensor("input", None, 3)], outputs)
    versions = [helper.make_opsetid(name.replace("_", "."), v) for name, v in opsets.items()]
    made = helper.make_model(graph, opset_imports=versions, producer_name="OnnxMLTools")
    made.ir_version = 8
    return bytes(made.SerializeToString())


def xgboost(classes: int) -> bytes:
    """One node, no operators of ONNX's own, classes as numbers, their labels of unknown length."""
    if classes == 0:
        node = trees("TreeEnsembleRegressor", ["variable"], 0, n_targets=1)
        return model([node], [tensor("variable", None, 1)], ai_onnx_ml=1)
    node = trees(
        "TreeEnsembleClassifier",
        ["label", "probabilities"],
        classes,
        classlabels_int64s=list(range(classes)),
        post_transform="SOFTMAX" if classes > 2 else "LOGISTIC",
    )
    label = helper.make_tensor_value_info("label", TensorProto.INT64, [None])
    return model([node], [label, tensor("probabilities", None, classes)], ai_onnx_ml=1)


def lightgbm(classes: int, labels: list[str], zipmap: bool) -> bytes:
    """The same through identities, with a ZipMap at the end unless that is asked away."""
    node = trees(
        "TreeEnsembleClassifier",
        ["label_tensor", "probability_tensor"],
        classes,
        classlabels_strings=labels,
        post_transform="SOFTMAX",
    )
    nodes = [
        node,
        helper.make_node("Identity", ["label_tensor"], ["label"]),
        helper.make_node(
            "Identity", ["probability_tensor"], ["lgbmprobabilities" if zipmap else "probabilities"]
        ),
    ]
    label = helper.make_tensor_value_info("label", TensorProto.STRING, [1])
    if not zipmap:
        return model(nodes, [label, tensor("probabilities", None, classes)], ai_onnx_ml=1, **{"": 8})
    nodes.append(
        helper.make_node(
            "ZipMap",
            ["lgbmprobabilities"],
            ["probabilities"],
            domain="ai.onnx.ml",
            classlabels_strings=labels,
        )
    )
    kind = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    maps = helper.make_value_info("probabilities", helper.make_sequence_type_proto(kind))
    return model(nodes, [label, maps], ai_onnx_ml=1, **{"": 8})


GRADES = "{name: grade, categories: [a, b, c]}"
CASES = {
    "xgboost-binary": (xgboost(2), "binary", models.TARGETS["binary"], ("false", "true")),
    "xgboost-multiclass": (xgboost(3), "multiclass", GRADES, ("a", "b", "c")),
    "xgboost-regression": (xgboost(0), "regression", models.TARGETS["regression"], ()),
    "lightgbm-multiclass": (lightgbm(3, ["a", "b", "c"], True), "multiclass", GRADES, ("a", "b", "c")),
    "lightgbm-matrix": (lightgbm(3, ["a", "b", "c"], False), "multiclass", GRADES, ("a", "b", "c")),
    "lightgbm-by-its-labels": (lightgbm(3, ["c", "a", "b"], True), "multiclass", GRADES, ("c", "a", "b")),
}


@pytest.mark.parametrize("case", CASES)
def test_what_their_converters_write_is_published(case: str) -> None:
    data, task, target, classes = CASES[case]
    onnx.checker.check_model(onnx.load_from_string(data))
    frame, truth = models.rows(task)
    frame = frame[NUMBERS].dropna(subset=["income"])
    checks = BuildChecks(allow_inverted=True)  # leaves that nobody has learned
    built = build_from_onnx(data, frame, truth[frame.index], contract(target), checks=checks)
    assert built.manifest.classes == classes
    loaded = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
    columns = {name: frame[name].to_numpy(dtype=np.float64) for name in NUMBERS}
    predictions = loaded.predictions(
        loaded.outputs(columns, len(frame))
    )  # as the model gives it, before calibration
    margin = margins(frame.to_numpy(dtype=np.float64), len(classes))
    if task == "regression":
        assert predictions.value == pytest.approx(margin[:, 0], abs=1e-6)
    else:
        assert predictions.probabilities == pytest.approx(softmax(margin), abs=1e-6)


def test_numbers_stand_for_classes_where_nothing_else_could_be_meant() -> None:
    grades = contract(GRADES)
    assert [class_text(v, grades) for v in (0, 1.0, np.int64(2), "b", 3)] == ["a", "b", "c", "b", "3"]
    for unclear in ("{name: grade, categories: [b, a, c]}", '{name: grade, categories: ["1", "2", "3"]}'):
        with pytest.raises(TailraceError, match="alphabet's order"):
            target_of([0, 1], contract(unclear))
    numbered = contract('{name: grade, categories: ["1", "2", "3"]}')
    assert target_of([1, 2.0, "3"], numbered).tolist() == ["1", "2", "3"]
    churn = contract("{name: churned, categories: [no, yes], positive: yes}")
    assert target_of([0, 1], churn).tolist() == ["no", "yes"]


class Booster:
    feature_names: Any = NUMBERS


class Boosted(BaseEstimator):
    """As XGBoost's estimators, as far as the conversion sees them."""

    def __init__(self, booster: str | None = None) -> None:
        self.booster = booster
        self.inner = Booster()

    def get_booster(self) -> Booster:
        return self.inner


Boosted.__module__ = "xgboost.sklearn"


def test_names_of_columns_are_forgotten_for_the_conversion_alone() -> None:
    estimator = Boosted()
    with unnamed_features([estimator]):
        assert estimator.inner.feature_names is None
    assert estimator.inner.feature_names is NUMBERS
    assert boosters(estimator) == ["xgboost"]


def test_what_their_converters_do_not_know_is_named() -> None:
    assert no_converter(Boosted()) is no_converter(Boosted("gbtree")) is None
    assert no_converter(Boosted("dart")) == "Boosted with booster='dart'"

    class Fitted(Boosted):
        def fit(self, x: Any, y: Any) -> Fitted:
            self.feature_names_in_ = np.array(list(x.columns), dtype=object)
            self.classes_ = np.array([False, True])
            return self

        def predict_proba(self, x: Any) -> Any:
            return np.full((len(x), 2), 0.5)

    Fitted.__module__ = "xgboost.sklearn"
    frame, truth = models.rows()
    linear = Fitted("gblinear").fit(frame[NUMBERS], truth)
    with pytest.raises(
        TailraceError, match="ONNX only, as all of xgboost, and there is no converter for Fitted"
    ):
        build_package(linear, frame[NUMBERS], truth, contract(models.TARGETS["binary"]))
